package contract_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	subA = "aaaaaaaa-0000-4000-8000-000000000001"
	subB = "bbbbbbbb-0000-4000-8000-000000000002"
	subC = "cccccccc-0000-4000-8000-000000000003" // of no account
)

// catalogue has one product beside key management.
func catalogue(t testing.TB) policy.Catalogue {
	t.Helper()
	c, err := policy.NewCatalogue("datacenter_shared:read", "datacenter_shared:write", "serp_api:read")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func account() *policy.Account {
	return &policy.Account{ID: "acme", Status: policy.Active, Subaccounts: policy.OnlySubaccounts(subA, subB)}
}

// post is a request with a JSON body.
func post(body io.Reader) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", body)
	r.Header.Set("Content-Type", "application/json")
	return r
}

func readKey(r *http.Request) (contract.NewKey, error) {
	var k contract.NewKey
	err := contract.ReadBody(httptest.NewRecorder(), r, contract.KeyBodyLimit, &k)
	return k, err
}

func readAccount(r *http.Request) (contract.NewAccount, error) {
	var a contract.NewAccount
	err := contract.ReadBody(httptest.NewRecorder(), r, contract.AccountBodyLimit, &a)
	return a, err
}

// refusal is the code of a problem and the fields that it names.
type refusal struct {
	Code   problem.Code
	Fields []string
}

func refused(code problem.Code, fields ...string) refusal { return refusal{code, fields} }

func (r refusal) check(t *testing.T, err error) {
	t.Helper()
	var p *problem.Problem
	if r.Code == "" && err == nil {
		return
	}
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want %v", err, r)
	}
	got := refusal{Code: p.Code}
	for _, f := range p.Fields {
		got.Fields = append(got.Fields, f.Field)
		if f.Detail == "" || !strings.HasSuffix(f.Detail, ".") {
			t.Errorf("%s: the detail %q is no sentence", f.Field, f.Detail)
		}
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

const minimal = `{"name":"CI","permissions":["datacenter_shared:read"]}`

func TestReadBodyOverlooksNothing(t *testing.T) {
	t.Parallel()
	with := func(more string) string { return strings.TrimSuffix(minimal, "}") + "," + more + "}" }
	invalid := func(fields ...string) refusal { return refused(problem.ValidationFailed, fields...) }
	malformed := refused(problem.InvalidRequest)
	for _, row := range []struct {
		name, body string
		want       refusal
	}{
		{"as documented", minimal, refusal{}},
		{"white space around", " \r\n\t" + minimal + "\n ", refusal{}},
		{"an escaped name", `{"\u006eame":"CI"}`, refusal{}},
		{"an emoji in surrogates", `{"name":"\ud83d\ude00"}`, refusal{}},

		{"an unknown field", with(`"allowed_ip":["1.2.3.4"]`), invalid("allowed_ip")},
		{"a field of another request", with(`"is_active":true`), invalid("is_active")},
		{"another letter case", with(`"Allowed_IPs":["1.2.3.4"]`), invalid("Allowed_IPs")},
		{"a letter that folds to s", with(`"allowed_ipſ":["1.2.3.4"]`), invalid("allowed_ipſ")},
		{"a dash for an underscore", with(`"allowed-ips":[]`), invalid("allowed-ips")},
		{"a space in a name", with(`"allowed_ips ":[]`), invalid("allowed_ips ")},
		{"an empty name", with(`"":1`), invalid("body")},
		{"a number for a name", with(`"0":1`), invalid("0")},

		{"a field twice", with(`"name":"other"`), malformed},
		{"a field twice, once escaped", with(`"n\u0061me":"other"`), malformed},
		{"a restriction twice", with(`"allowed_ips":["1.2.3.4"],"allowed_ips":[]`), malformed},
		{"an unknown field twice", with(`"x":1,"x":1`), invalid("x")},
		{"a field of a field twice", `{"name":{"a":1,"a":2}}`, refusal{Code: "either"}},

		{"another object behind", minimal + minimal, malformed},
		{"a word behind", minimal + "x", malformed},
		{"a NUL behind", minimal + "\x00", malformed},
		{"a comment", "{/**/}", malformed},
		{"a comma too many", `{"name":"CI",}`, malformed},
		{"single quotes", `{'name':'CI'}`, malformed},
		{"no quotes", `{name:"CI"}`, malformed},
		{"cut off", `{"name":"CI"`, malformed},
		{"nothing", "", malformed},
		{"white space", " ", malformed},
		{"a byte order mark", "\ufeff" + minimal, malformed},
		{"UTF-16", "\xff\xfe{\x00}\x00", malformed},
		{"invalid UTF-8 in a value", "{\"name\":\"\xff\"}", malformed},
		{"invalid UTF-8 in a name", "{\"\xff\":1}", malformed},
		{"an overlong slash", "{\"name\":\"\xc0\xaf\"}", malformed},
		{"a raw surrogate", "{\"name\":\"\xed\xa0\x80\"}", malformed},
		{"a lone high surrogate", `{"name":"\ud83d"}`, malformed},
		{"a lone low surrogate", `{"name":"\ude00"}`, malformed},
		{"surrogates the wrong way round", `{"name":"\ude00\ud83d"}`, malformed},
		{"a control character in a string", "{\"name\":\"a\nb\"}", malformed},
		{"an escape that is none", `{"name":"\x41"}`, malformed},
		{"infinity", `{"expires_at":Infinity}`, malformed},
		{"a number with leading zeros", `{"expires_at":01790000000}`, malformed},
		{"a hexadecimal number", `{"expires_at":0x10}`, malformed},
		{"deep", strings.Repeat("[", 30_000), invalid("body")},
		{"deep in a field", `{"permissions":` + strings.Repeat("[", 30_000), malformed},
		{"deep in an unknown field", `{"x":` + strings.Repeat(`{"x":`, 10_000), invalid("x")},

		{"a list", "[" + minimal + "]", invalid("body")},
		{"a string", `"CI"`, invalid("body")},
		{"a number", "1", invalid("body")},
		{"true", "true", invalid("body")},
		{"a name that is a number", `{"name":1}`, invalid("name")},
		{"a name that is an object", `{"name":{}}`, invalid("name")},
		{"permissions that are a string", `{"permissions":"datacenter_shared:read"}`, invalid("permissions")},
		{"permissions that are null", `{"permissions":null}`, invalid("permissions")},
		{"a permission that is a number", `{"permissions":["datacenter_shared:read",1]}`, invalid("permissions[1]")},
		{"a permission that is a list", `{"permissions":[["datacenter_shared:read"]]}`, invalid("permissions[0]")},
		{"subaccounts that are null", with(`"allowed_subaccounts":null`), invalid("allowed_subaccounts")},
		{"subaccounts that are an object", with(`"allowed_subaccounts":{}`), invalid("allowed_subaccounts")},
		{"addresses that are null", with(`"allowed_ips":null`), invalid("allowed_ips")},
		{"addresses that are one string", with(`"allowed_ips":"1.2.3.4"`), invalid("allowed_ips")},
		{"addresses that are false", with(`"allowed_ips":false`), invalid("allowed_ips")},
		{"an expiry that is a string", with(`"expires_at":"1790000000"`), invalid("expires_at")},
		{"an expiry that is fractional", with(`"expires_at":1790000000.5`), invalid("expires_at")},
		{"an expiry with a fraction of nothing", with(`"expires_at":1790000000.0`), invalid("expires_at")},
		{"an expiry with an exponent", with(`"expires_at":1e12`), invalid("expires_at")},
		{"an expiry that is huge", with(`"expires_at":1e400`), invalid("expires_at")},
		{"an expiry above 64 bits", with(`"expires_at":9223372036854775808`), invalid("expires_at")},
		{"an expiry of many digits", with(`"expires_at":` + strings.Repeat("9", 10_000)), invalid("expires_at")},
		{"an expiry that is true", with(`"expires_at":true`), invalid("expires_at")},
		{"an expiry that is null", with(`"expires_at":null`), refusal{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := readKey(post(strings.NewReader(row.body)))
			if row.want.Code == "either" {
				if err == nil || problem.From(err).Code.Status()/100 != 4 {
					t.Errorf("got %v, want a refusal", err)
				}
				return
			}
			row.want.check(t, err)
		})
	}
}

func TestReadBodyOfAnAccountNamesTheFieldInside(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		body string
		want refusal
	}{
		{`{"subaccounts":[{"id":"x","lable":"y"}]}`, refused(problem.ValidationFailed, "subaccounts[0].lable")},
		{`{"subaccounts":[{},{"id":1}]}`, refused(problem.ValidationFailed, "subaccounts[1].id")},
		{`{"subaccounts":[{"id":"x","id":"y"}]}`, refused(problem.InvalidRequest)},
		{`{"subaccounts":{"id":"x"}}`, refused(problem.ValidationFailed, "subaccounts")},
		{`{"subaccounts":["x"]}`, refused(problem.ValidationFailed, "subaccounts[0]")},
		{`{"Status":"active"}`, refused(problem.ValidationFailed, "Status")},
		{`{"status":true}`, refused(problem.ValidationFailed, "status")},
		{`{"id":"other"}`, refused(problem.ValidationFailed, "id")},
		{`{"permissions":{"*":true}}`, refused(problem.ValidationFailed, "permissions")},
	} {
		_, err := readAccount(post(strings.NewReader(row.body)))
		t.Run(row.body, func(t *testing.T) { row.want.check(t, err) })
	}
}

func TestBodyHasALimit(t *testing.T) {
	t.Parallel()
	fill := func(size int) string { return minimal + strings.Repeat(" ", size-len(minimal)) }
	for _, row := range []struct {
		name string
		size int
		want refusal
	}{
		{"64 KiB", contract.KeyBodyLimit, refusal{}},
		{"one byte more", contract.KeyBodyLimit + 1, refused(problem.BodyTooLarge)},
		{"much more", 10 * contract.KeyBodyLimit, refused(problem.BodyTooLarge)},
	} {
		r := post(strings.NewReader(fill(row.size)))
		r.ContentLength = -1 // it is what comes that counts
		_, err := readKey(r)
		t.Run(row.name, func(t *testing.T) { row.want.check(t, err) })
	}
}

func TestBodyThatBreaksOffIsABadRequest(t *testing.T) {
	t.Parallel()
	cause := errors.New("reset by peer")
	_, err := readKey(post(io.MultiReader(strings.NewReader(minimal), iotest.ErrReader(cause))))
	refused(problem.InvalidRequest).check(t, err)
	if !errors.Is(err, cause) {
		t.Errorf("the cause of %v is lost to the log", err)
	}
}

func TestOnlyJSONIsABody(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		types []string
		ok    bool
	}{
		{[]string{"application/json"}, true},
		{[]string{"application/json; charset=utf-8"}, true},
		{[]string{"Application/JSON;charset=\"UTF-8\""}, true},
		{[]string{"application/json; version=1"}, true},
		{nil, false},
		{[]string{""}, false},
		{[]string{"text/plain"}, false},
		{[]string{"application/x-www-form-urlencoded"}, false},
		{[]string{"multipart/form-data; boundary=x"}, false},
		{[]string{"application/jsonp"}, false},
		{[]string{"application/problem+json"}, false},
		{[]string{"application/json; charset=utf-16"}, false},
		{[]string{"application/json; charset=utf-8; charset=utf-16"}, false},
		{[]string{"application/json;charset"}, false},
		{[]string{"application/json, text/plain"}, false},
		{[]string{"application/json", "application/json"}, false},
		{[]string{"application/json", "text/plain"}, false},
		{[]string{"json"}, false},
		{[]string{"*/*"}, false},
	} {
		r := post(strings.NewReader(minimal))
		r.Header["Content-Type"] = row.types
		_, err := readKey(r)
		want := refused(problem.UnsupportedMediaType)
		if row.ok {
			want = refusal{}
		}
		t.Run(strings.Join(row.types, "+"), func(t *testing.T) { want.check(t, err) })
	}
}

// TestClientTextIsCut: an answer repeats at most 100 characters of what was sent.
func TestClientTextIsCut(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"a field":      `{"` + strings.Repeat("ä", 5000) + `":1}`,
		"a deep field": `{"permissions":[` + strings.Repeat(`"x",`, 5000) + `1]}`,
	} {
		_, err := readKey(post(strings.NewReader(body)))
		for _, f := range problem.From(err).Fields {
			if n := len([]rune(f.Field)); n > 101 {
				t.Errorf("%s: the field is shown with %d characters", name, n)
			}
		}
	}
	long := strings.Repeat("ä", 5000)
	_, err := contract.NewKey{
		Name: "x", Permissions: []string{long}, AllowedSubaccounts: []string{long}, AllowedIPs: []string{long},
	}.Parse(account(), catalogue(t), now)
	p := problem.From(err)
	if len(p.Fields) != 3 {
		t.Errorf("got %v, want three faults", p.Fields)
	}
	for _, f := range p.Fields {
		if n := strings.Count(f.Detail, "ä"); n != 100 || !strings.Contains(f.Detail, "…") {
			t.Errorf("%s: %d characters were repeated, want 100 and an ellipsis", f.Field, n)
		}
	}
}
