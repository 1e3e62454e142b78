package proxy_test

import (
	"errors"
	"io"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/problem"
)

// whitelistRule is the rule of API.md: type=get reads, type=add and type=set
// write, type=remove deletes.
func whitelistRule(parameter string) proxy.QueryRule {
	return proxy.QueryRule{Parameter: parameter, Permissions: map[string]policy.Permission{
		"get":    "datacenter_shared:read",
		"add":    "datacenter_shared:write",
		"set":    "datacenter_shared:write",
		"remove": "datacenter_shared:delete",
	}}
}

func TestQueryDecidesOnlyWhereEveryReaderSeesTheSameValue(t *testing.T) {
	const (
		missing  = "the parameter is missing"
		repeated = "the parameter is there more than once"
		spelt    = "the parameter is spelt in another way"
		unknown  = "the parameter has an unknown value"
		broken   = "it has a broken escape"
		unclear  = "its parts are not clearly separated"
	)
	rows := []struct {
		name      string
		parameter string // "" is type
		query     string
		want      policy.Permission // "" refuses
		fault     string
	}{
		{"read", "", "type=get", "datacenter_shared:read", ""},
		{"write", "", "type=add", "datacenter_shared:write", ""},
		{"write by another value", "", "type=set", "datacenter_shared:write", ""},
		{"delete", "", "type=remove", "datacenter_shared:delete", ""},
		{"others in front and behind", "", "ip=203.0.113.7&type=get&page=2", "datacenter_shared:read", ""},
		{"others with escapes", "", "a%26b=%C3%A9+%2B&type=get", "datacenter_shared:read", ""},
		{"another without a value", "", "type=get&flag", "datacenter_shared:read", ""},
		{"another without a name", "", "type=get&=remove", "datacenter_shared:read", ""},
		{"another repeated", "", "ip=1&ip=2&type=get", "datacenter_shared:read", ""},
		{"another that is an array", "", "ip[]=1&ip[a]=2&type=get", "datacenter_shared:read", ""},
		{"another with the name as its value", "", "sort=type&type=get", "datacenter_shared:read", ""},
		{"another with the pair as its value", "", "next=type=remove&type=get", "datacenter_shared:read", ""},
		{"another with the escaped pair as its value", "", "next=%26type%3Dremove&type=get", "datacenter_shared:read", ""},
		{"another that begins with the name", "", "types=remove&type=get", "datacenter_shared:read", ""},
		{"another that ends with the name", "", "mytype=remove&type=get", "datacenter_shared:read", ""},
		{"another that is an array with the name within", "", "filter[type]=remove&type=get", "datacenter_shared:read", ""},
		{"empty parts", "", "&&type=get&", "datacenter_shared:read", ""},
		{"a hundred parameters", "", strings.Repeat("a=b&", 100) + "type=get", "datacenter_shared:read", ""},

		{"nothing", "", "", "", missing},
		{"only others", "", "ip=203.0.113.7", "", missing},
		{"only the value", "", "get", "", missing},
		{"only as the value of another", "", "sort=type", "", missing},
		{"behind a question mark", "", "?type=get", "", missing},

		{"repeated with another value", "", "type=get&type=remove", "", repeated},
		{"repeated with the same value", "", "type=get&type=get", "", repeated},
		{"repeated far behind", "", "type=get&" + strings.Repeat("a=b&", 50) + "type=remove", "", repeated},
		{"repeated with an unknown value", "", "type=get&type=x", "", repeated},
		{"repeated without a value", "", "type=get&type", "", repeated},
		{"three times", "", "type=get&type=get&type=get", "", repeated},

		{"in capitals", "", "TYPE=remove&type=get", "", spelt},
		{"with one capital", "", "type=get&Type=remove", "", spelt},
		{"alone, in capitals", "", "TYPE=get", "", spelt},
		{"Kelvin sign for k", "kind", "kind=get&%E2%84%AAind=remove", "", spelt},
		{"Kelvin sign for k, as it is", "kind", "kind=get&\u212aind=remove", "", spelt},
		{"long s for s", "status", "status=get&%C5%BFtatus=remove", "", spelt},
		{"long s for s, at the end", "status", "status=get&statu%C5%BF=remove", "", spelt},
		{"dotless i for i", "action", "action=get&act%C4%B1on=remove", "", spelt},
		{"dotted capital I for i", "action", "action=get&act%C4%B0on=remove", "", spelt},

		{"as an array", "", "type=get&type[]=remove", "", spelt},
		{"as an array, alone", "", "type[]=get", "", spelt},
		{"as an array with an index", "", "type=get&type[0]=remove", "", spelt},
		{"as an array with a name", "", "type=get&type[a][b]=remove", "", spelt},
		{"as an array, escaped", "", "type=get&type%5B%5D=remove", "", spelt},
		{"as an array in capitals", "", "type=get&TYPE[]=remove", "", spelt},
		{"as an array without an end", "", "type=get&type[=remove", "", spelt},
		{"in brackets, as qs and Rack 2 read it", "", "type=get&[type]=remove", "", spelt},
		{"in escaped brackets", "", "type=get&%5Btype%5D=remove", "", spelt},
		{"before a bracket, as Rack 2 reads it", "", "type=get&type]=remove", "", spelt},
		{"in brackets with a rest", "", "type=get&[type]x=remove", "", spelt},

		{"plus in front", "", "type=get&+type=remove", "", spelt},
		{"space in front", "", "type=get& type=remove", "", spelt},
		{"escaped space in front", "", "type=get&%20type=remove", "", spelt},
		{"escaped space behind", "", "type=get&type%20=remove", "", spelt},
		{"escaped tab in front", "", "type=get&%09type=remove", "", spelt},
		{"escaped line break behind", "", "type=get&type%0D%0A=remove", "", spelt},
		{"escaped no-break space in front", "", "type=get&%C2%A0type=remove", "", spelt},
		{"NUL behind", "", "type=get&type%00=remove", "", spelt},
		{"NUL and more behind", "", "type=get&type%00x=remove", "", spelt},
		{"NUL as it is", "", "type=get&type\x00x=remove", "", spelt},
		{"space in front of an array", "", "type=get&%20type[]=remove", "", spelt},

		{"name with an escaped letter", "", "%74ype=get", "", spelt},
		{"name with an escaped letter beside it", "", "type=get&t%79pe=remove", "", spelt},
		{"name all escaped", "", "type=get&%74%79%70%65=remove", "", spelt},

		{"dot for an underscore", "sub_type", "sub_type=get&sub.type=remove", "", spelt},
		{"space for an underscore", "sub_type", "sub_type=get&sub+type=remove", "", spelt},
		{"open bracket for an underscore, as PHP reads it", "sub_type", "sub_type=get&sub[type=remove", "", spelt},
		{"underscore for a dot", "sub.type", "sub.type=get&sub_type=remove", "", spelt},
		{"space for an underscore at the end", "type_", "type_=get&type+=remove", "", spelt},
		{"dot for an underscore at the end", "type_", "type_=get&type.=remove", "", spelt},
		{"parameter with an underscore", "sub_type", "sub_type=get&subtype=x", "datacenter_shared:read", ""},

		{"value with an escaped letter", "", "type=%67et", "", unknown},
		{"value with a plus behind", "", "type=get+", "", unknown},
		{"value with an escaped space in front", "", "type=%20get", "", unknown},
		{"value with a NUL behind", "", "type=get%00", "", unknown},
		{"value in capitals", "", "type=GET", "", unknown},
		{"value with an equals sign", "", "type=get=remove", "", unknown},
		{"value with a comma", "", "type=get,remove", "", unknown},
		{"value with a question mark", "", "type=get?type=remove", "", unknown},
		{"value in quotes", "", "type=%22get%22", "", unknown},
		{"unknown value", "", "type=list", "", unknown},
		{"empty value", "", "type=", "", unknown},
		{"no equals sign", "", "type", "", unknown},
		{"unknown value before a known one", "", "type=list&type=get", "", unknown},

		{"semicolon between pairs", "", "type=get;type=remove", "", unclear},
		{"semicolon between others", "", "type=get&a=b;c=d", "", unclear},
		{"semicolon as a reference", "", "type=get&amp;type=remove", "", unclear},
		{"semicolon in front", "", ";type=remove&type=get", "", unclear},
		{"escaped semicolon", "", "type=get&a=b%3Bc", "datacenter_shared:read", ""},
		{"number sign", "", "type=get#&type=remove", "", unclear},

		{"broken escape in the name", "", "type=get&t%ype=remove", "", broken},
		{"broken escape in the value", "", "type=get%", "", broken},
		{"broken escape in another's name", "", "%zz=1&type=get", "", broken},
		{"broken escape in another's value", "", "type=get&a=%G0", "", broken},
		{"escape cut off at the end", "", "type=get&a=%4", "", broken},
		{"escape cut off by the next pair", "", "type=get&a=%2&type=remove", "", broken},
		{"escape of the IIS kind", "", "type=get&%u0074ype=remove", "", broken},

		{"more parameters than readers take", "", "type=get&" + strings.Repeat("a=b&", 20_000) + "c=d", "", ""},
		{"more parameters than readers take, in front", "", strings.Repeat("a&", 20_000) + "type=get", "", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			parameter := row.parameter
			if parameter == "" {
				parameter = "type"
			}
			rule := whitelistRule(parameter)
			got, err := rule.Needs(row.query)
			if row.want != "" {
				if err != nil || got != row.want {
					t.Fatalf("got %q, %v, want %q", got, err, row.want)
				}
				checkReaders(t, parameter, row.query, got)
				return
			}
			p, ok := errors.AsType[*problem.Problem](err)
			if !ok || p.Code != problem.AmbiguousQuery || got != "" {
				t.Fatalf("got %q, %v, want %s", got, err, problem.AmbiguousQuery)
			}
			if want := "The query parameter " + parameter + " decides what this request needs, and " + row.fault + "."; row.fault != "" && p.Detail != want {
				t.Errorf("got %q, want %q", p.Detail, want)
			}
		})
	}
}

// Spellings are generated, not listed: whatever stands before, behind or in
// place of a character of the name, the rule refuses it or no reader takes it
// for the parameter.
func TestNoSpellingOfTheNameIsOverlooked(t *testing.T) {
	marks := []string{"", "[", "]", ".", " ", "_", "-", "a", "0", "\x00", "\t", "\n", "\u00a0"}
	letters := []string{"[", "]", ".", " ", "_", "\x00", "\u212a", "\u017f", "\u0131", "\u0130"}
	for _, parameter := range deciders() {
		names := []string{strings.ToUpper(parameter), strings.ToLower(parameter), strings.ToUpper(parameter[:1]) + parameter[1:]}
		for _, first := range marks {
			for _, second := range marks {
				names = append(names, first+second+parameter, first+parameter+second, parameter+first+second)
			}
		}
		for i := range parameter {
			for _, letter := range letters {
				names = append(names, parameter[:i]+letter+parameter[i+1:], parameter[:i]+letter+parameter[i:])
			}
		}
		rule := whitelistRule(parameter)
		for _, name := range names {
			for _, query := range []string{
				parameter + "=get&" + url.QueryEscape(name) + "=remove",
				url.QueryEscape(name) + "=remove&" + parameter + "=get",
				parameter + "=get&" + name + "=remove",
				name + "=get",
			} {
				if needs, err := rule.Needs(query); err == nil {
					checkReaders(t, parameter, query, needs)
				}
			}
		}
	}
}

// deciders are deciding parameters with every kind of character of a name.
func deciders() []string {
	return []string{"type", "sub_type", "action", "kinds", "type_", "sub.type", "x-type"}
}

func TestZeroQueryRuleDecidesNothing(t *testing.T) {
	rules := map[string]proxy.QueryRule{
		"zero":                       {},
		"no values":                  {Parameter: "type"},
		"value without a permission": {Parameter: "type", Permissions: map[string]policy.Permission{"get": ""}},
		"one value of two":           {Parameter: "type", Permissions: map[string]policy.Permission{"get": "", "add": routeWrites}},
	}
	for name, rule := range rules {
		for _, query := range []string{"", "=", "&", "=get", "get", "type", "type=", "type=get", "type=get&type=add", "type=add&type=get"} {
			if got, err := rule.Needs(query); got != "" || err == nil {
				t.Errorf("%s, %q: got %q, %v, want a refusal", name, query, got, err)
			}
		}
	}
}

func TestBodyCannotDecideWhatTheQueryDecides(t *testing.T) {
	rows := []struct {
		name    string
		types   []string
		body    string
		refused bool
	}{
		{"no body", nil, "", false},
		{"no body, of no type", []string{""}, "", false},
		{"JSON", []string{"application/json"}, `["203.0.113.7"]`, true},
		{"plain text", []string{"text/plain"}, "203.0.113.7", true},
		{"form", []string{"application/x-www-form-urlencoded"}, "type=remove", true},
		{"form without a body", []string{"application/x-www-form-urlencoded"}, "", false},
		{"form with a character set", []string{"application/x-www-form-urlencoded; charset=utf-8"}, "type=remove", true},
		{"form in capitals", []string{"Application/X-WWW-Form-Urlencoded"}, "type=remove", true},
		{"form as the second of two", []string{"application/json", "application/x-www-form-urlencoded"}, "type=remove", true},
		{"form in one list", []string{"application/json, application/x-www-form-urlencoded"}, "type=remove", true},
		{"multipart form", []string{"multipart/form-data; boundary=x"}, "--x--", true},
		{"multipart form in capitals", []string{"Multipart/Form-Data; boundary=x"}, "--x--", true},
		{"other multipart", []string{"multipart/mixed; boundary=x"}, "--x--", true},
		{"body of no type, which Rack reads as a form", nil, "type=remove", true},
		{"body of an empty type", []string{""}, "type=remove", true},
	}
	routes := compiledRoutes(t, nil, proxy.RouteSpec{Match: "POST /whitelist", ByQuery: whitelistRule("type"), Backend: neverServed()})
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var body io.Reader
			if row.body != "" {
				body = strings.NewReader(row.body)
			}
			r := httptest.NewRequest("POST", "/whitelist?type=get", body)
			for _, contentType := range row.types {
				r.Header.Add("Content-Type", contentType)
			}
			route, err := routes.Match(r, "/whitelist")
			if err != nil {
				t.Fatal(err)
			}
			got, err := route.Needs(r, r.URL.RawQuery)
			if !row.refused {
				if err != nil || got != "datacenter_shared:read" {
					t.Errorf("got %q, %v, want datacenter_shared:read", got, err)
				}
				return
			}
			p, ok := errors.AsType[*problem.Problem](err)
			if !ok || p.Code != problem.AmbiguousQuery || got != "" {
				t.Errorf("got %q, %v, want %s", got, err, problem.AmbiguousQuery)
			}
		})
	}
}

// FuzzQueryRule: what is let through, every reader understands in the one way
// in which it was decided.
func FuzzQueryRule(f *testing.F) {
	for i, query := range []string{
		"$=get", "ip=203.0.113.7&$=add&page=2", "&&$=remove&", "$=get&$=remove", "$=get&.$=remove", "$=get&$.=remove",
		"action=set&Action=get", "$=get&$[]=remove", "$=get&+$=remove", "$=get&$%00=x", "$=get;$=remove", "sub_type=get&sub.type=remove",
		"%74ype=get", "next=$=remove&$=get", "$=get&a=%zz", "sub_type=get&subtype=x", "$=get&%5b$=remove", "$[a]=get&$=remove",
	} {
		f.Add(query, uint8(i))
	}
	f.Fuzz(func(t *testing.T, query string, choice uint8) {
		parameter := deciders()[int(choice)%len(deciders())]
		query = strings.ReplaceAll(query, "$", parameter) // so that it need not be guessed
		needs, err := whitelistRule(parameter).Needs(query)
		if err != nil {
			p, ok := errors.AsType[*problem.Problem](err)
			if !ok || p.Code != problem.AmbiguousQuery || needs != "" {
				t.Fatalf("%q: got %q, %v, want %s", query, needs, err, problem.AmbiguousQuery)
			}
			return
		}
		checkReaders(t, parameter, query, needs)
	})
}

// checkReaders holds an accepted query against the readers that backends are
// made of: each must see the parameter once, with a value of that permission.
func checkReaders(t *testing.T, parameter, query string, needs policy.Permission) {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil || len(values[parameter]) != 1 {
		t.Fatalf("%q: net/url reads %q, %v for %s", query, values[parameter], err, parameter)
	}
	decided := values[parameter]
	if got := whitelistRule(parameter).Permissions[decided[0]]; got != needs {
		t.Fatalf("%q: got %q, but the value %q stands for %q", query, needs, decided[0], got)
	}
	same := map[string]func(name string) string{
		"exact":          func(name string) string { return name },
		"trimmed":        strings.TrimSpace,
		"in lower case":  strings.ToLower,
		"in upper case":  func(name string) string { return strings.ToLower(strings.ToUpper(name)) },
		"cut at NUL":     func(name string) string { before, _, _ := strings.Cut(name, "\x00"); return before },
		"PHP":            phpName,
		"qs":             qsName,
		"Rack 2":         rackName,
		"PHP in capital": func(name string) string { return strings.ToLower(phpName(name)) },
	}
	for reader, nameOf := range same {
		for _, separators := range []string{"&", "&;"} {
			var got []string
			for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
				name, value, _ := strings.Cut(strings.ReplaceAll(pair, "+", " "), "=")
				if nameOf(decodeLeniently(name)) == nameOf(parameter) {
					got = append(got, decodeLeniently(value))
				}
			}
			if !slices.Equal(got, decided) {
				t.Fatalf("%q: the reader %q with separators %q sees %q, want %q", query, reader, separators, got, decided)
			}
		}
	}
}

// phpName is the key under which PHP's $_GET holds a parameter: spaces in
// front go, NUL ends it, "." and " " become "_", and so does a "[" that is
// never closed; else "[" begins an array.
func phpName(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	name = strings.TrimLeft(name, " ")
	base, index, isArray := strings.Cut(name, "[")
	base = strings.NewReplacer(".", "_", " ", "_").Replace(base)
	if isArray && !strings.Contains(index, "]") && base != "" {
		return base + "_" + index
	}
	return base
}

// qsName is the first key that qs of Node makes of a parameter: what stands
// before the first pair of brackets, or else what stands in it.
func qsName(name string) string {
	open := 0
	for {
		i := strings.IndexByte(name[open:], '[')
		if i < 0 {
			return name
		}
		open += i
		end := strings.IndexAny(name[open+1:], "[]")
		if end >= 0 && name[open+1+end] == ']' {
			if open > 0 {
				return name[:open]
			}
			return name[1 : 1+end]
		}
		open++
	}
}

// rackName is the first key that Rack 2 makes of a parameter.
func rackName(name string) string {
	tokens := strings.FieldsFunc(name, func(r rune) bool { return r == '[' || r == ']' })
	if len(tokens) == 0 {
		return ""
	}
	return tokens[0]
}

func TestReadersOfThisTestReadAsTheirModelsDo(t *testing.T) {
	rows := []struct{ name, php, qs, rack string }{
		{"type", "type", "type", "type"},
		{"type[]", "type", "type", "type"},
		{"type[a][b]", "type", "type", "type"},
		{" type", "type", " type", " type"},
		{"type ", "type_", "type ", "type "},
		{"ty.pe", "ty_pe", "ty.pe", "ty.pe"},
		{"ty[pe", "ty_pe", "ty[pe", "ty"},
		{"[type]", "", "type", "type"},
		{"[[type]", "", "[", "type"},
		{"type]", "type]", "type]", "type"},
		{"type\x00x", "type", "type\x00x", "type\x00x"},
		{"[]", "", "", ""},
	}
	for _, row := range rows {
		got := []string{phpName(row.name), qsName(row.name), rackName(row.name)}
		if want := []string{row.php, row.qs, row.rack}; !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", row.name, got, want)
		}
	}
}
