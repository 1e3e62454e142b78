package dashboard_test

import (
	"encoding/json"
	"html"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

const newKeyPath = "/dashboard/keys/new"

// hidden is the value of a hidden field of the page.
func hidden(t *testing.T, a answer, name string) string {
	t.Helper()
	found := regexp.MustCompile(`<input type="hidden" name="` + name + `" value="([^"]*)"`).FindStringSubmatch(a.body)
	if found == nil {
		t.Fatalf("the page has no hidden field %s: %d %s", name, a.status, a.body)
	}
	return html.UnescapeString(found[1])
}

// ticked are the values of the boxes of that name that are ticked.
func ticked(a answer, name string) []string {
	var values []string
	for _, m := range regexp.MustCompile(`<input type="checkbox" name="`+name+`" value="([^"]*)"[^>]* checked`).FindAllStringSubmatch(a.body, -1) {
		values = append(values, html.UnescapeString(m[1]))
	}
	return values
}

func offered(a answer, name string) []string {
	var values []string
	for _, m := range regexp.MustCompile(`<input type="checkbox" name="`+name+`" value="([^"]*)"`).FindAllStringSubmatch(a.body, -1) {
		values = append(values, html.UnescapeString(m[1]))
	}
	return values
}

// newForm is a form as the page gives it out, filled in as little as is needed.
func (s *site) newForm(changes url.Values) url.Values {
	s.t.Helper()
	form := url.Values{
		"form_id": {hidden(s.t, s.get(newKeyPath), "form_id")}, "name": {"CI pipeline"}, "permissions": {"datacenter_shared:read"},
		"allowed_ips": {""}, "expires_date": {""}, "expires_time": {""},
	}
	maps.Copy(form, changes)
	return form
}

// makeKey makes a key as an operator would.
func (s *site) makeKey(k keystore.NewKey) policy.Key {
	s.t.Helper()
	made, _, err := s.store.Create(s.t.Context(), s.caller(), k)
	s.must(err)
	return made
}

func (s *site) keys() []policy.Key {
	s.t.Helper()
	list, _, err := s.store.List(s.t.Context(), s.caller(), "", 100)
	s.must(err)
	return list
}

var tokenShown = regexp.MustCompile(`gk_[0-9A-Za-z]{61}`)

// TestCreateKey: what the form says is what the key is.
func TestCreateKey(t *testing.T) {
	t.Parallel()
	in2040 := time.Date(2040, 2, 29, 23, 59, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		form url.Values
		want policy.Key
	}{
		"the least": {nil, policy.Key{
			Name: "CI pipeline", Permissions: policy.NewPermissionSet("datacenter_shared:read"),
			Subaccounts: policy.AllSubaccounts(), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
		}},
		"everything": {url.Values{
			"name": {"  Nightly <b>&amp; report  "}, "permissions": {"datacenter_shared:read", "residential:write", "account:apikeys:read"},
			"allowed_subaccounts": {subaccountB}, "allowed_ips": {"203.0.113.9/24, 2001:db8::1\r\n::ffff:198.51.100.1 203.0.113.0/24"},
			"expires": {"yes"}, "expires_date": {"2040-02-29"}, "expires_time": {"23:59"},
		}, policy.Key{
			Name: "Nightly <b>&amp; report", Permissions: policy.NewPermissionSet("datacenter_shared:read", "residential:write", "account:apikeys:read"),
			Subaccounts: policy.OnlySubaccounts(subaccountB), Addresses: addresses(t, "203.0.113.0/24", "2001:db8::1", "198.51.100.1"), Expiry: policy.ExpiresAt(in2040.Unix()),
		}},
		"a date without the toggle": {url.Values{"expires_date": {"2040-02-29"}, "expires_time": {"23:59"}}, policy.Key{
			Name: "CI pipeline", Permissions: policy.NewPermissionSet("datacenter_shared:read"),
			Subaccounts: policy.AllSubaccounts(), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
		}},
		"to the second": {url.Values{"expires": {"yes"}, "expires_date": {"2040-02-29"}, "expires_time": {"23:59:07"}}, policy.Key{
			Name: "CI pipeline", Permissions: policy.NewPermissionSet("datacenter_shared:read"),
			Subaccounts: policy.AllSubaccounts(), Addresses: policy.AnyAddress(), Expiry: policy.ExpiresAt(in2040.Unix() + 7),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.signIn()
			a := s.post(newKeyPath, s.newForm(row.form))
			if a.status != http.StatusOK {
				t.Fatalf("got %d: %s", a.status, a.body)
			}
			if a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("the page with the token may be kept: %q", a.header.Get("Cache-Control"))
			}
			list := s.keys()
			if len(list) != 1 {
				t.Fatalf("there are %d keys", len(list))
			}
			sameKey(t, list[0], row.want)
			token, err := keystore.ParseToken("gk_", tokenShown.FindString(a.body))
			s.must(err)
			entry, err := s.store.Lookup(t.Context(), token)
			s.must(err)
			if entry.Key.ID != list[0].ID {
				t.Errorf("the token is of another key")
			}
		})
	}
}

func addresses(t *testing.T, list ...string) policy.AddressSet {
	t.Helper()
	var prefixes []netip.Prefix
	for _, s := range list {
		p, err := policy.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		prefixes = append(prefixes, p)
	}
	return policy.OnlyAddresses(prefixes...)
}

func sameKey(t *testing.T, got, want policy.Key) {
	t.Helper()
	if got.Name != want.Name || !got.Active {
		t.Errorf("it is %q, active %v, want %q", got.Name, got.Active, want.Name)
	}
	if !slices.Equal(got.Permissions, want.Permissions) {
		t.Errorf("permissions %v, want %v", got.Permissions, want.Permissions)
	}
	if got.Subaccounts.All() != want.Subaccounts.All() || !slices.Equal(got.Subaccounts.IDs(), want.Subaccounts.IDs()) {
		t.Errorf("subaccounts %v, want %v", got.Subaccounts, want.Subaccounts)
	}
	if got.Addresses.Any() != want.Addresses.Any() || !slices.Equal(got.Addresses.Strings(), want.Addresses.Strings()) {
		t.Errorf("addresses %v, want %v", got.Addresses.Strings(), want.Addresses.Strings())
	}
	if got.Expiry != want.Expiry {
		t.Errorf("expiry %v, want %v", got.Expiry, want.Expiry)
	}
}

// TestFaultsOfTheForm: each error is at its field and in the summary, nothing
// is created, and nothing that was typed is lost.
func TestFaultsOfTheForm(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	whole := url.Values{
		"name": {`<script>alert(1)</script>"`}, "permissions": {"datacenter_shared:read", "residential:write"}, "allowed_subaccounts": {subaccountB},
		"allowed_ips": {"203.0.113.7 2001:db8::/32"}, "expires": {"yes"}, "expires_date": {"2040-02-29"}, "expires_time": {"12:34"},
	}
	for name, row := range map[string]struct {
		field, value, anchor, text string
	}{
		"no name":             {"name", "  ", "name", "A name is required."},
		"a long name":         {"name", strings.Repeat("x", 101), "name", "at most 100 characters"},
		"a control character": {"name", "a\x07b", "name", "control characters"},
		"no permission":       {"permissions", "", "permissions", "is not a permission."},
		"unknown permission":  {"permissions", "serp_api:read", "permissions", "&#34;serp_api:read&#34; is not a permission."},
		"a bad address":       {"allowed_ips", "203.0.113.7 <img src=x>", "allowed_ips", "&#34;&lt;img&#34; is not an IPv4 or IPv6 address or CIDR range."},
		"101 addresses":       {"allowed_ips", strings.Repeat("203.0.113.7 ", 101), "allowed_ips", "at most 100 addresses"},
		"leading zeros":       {"allowed_ips", "203.0.113.07", "allowed_ips", "is not an IPv4"},
		"no subaccount":       {"allowed_subaccounts", "aaaaaaaa-0000-4000-8000-000000000000", "allowed_subaccounts", "is not a subaccount of this account."},
		"the past":            {"expires_date", "2020-01-01", "expires_date", "The expiry must be in the future."},
		"no date":             {"expires_date", "", "expires_date", "Choose a date and a time"},
		"no time":             {"expires_time", "", "expires_date", "Choose a date and a time"},
		"the year 10000":      {"expires_date", "10000-01-01", "expires_date", "Choose a date and a time"},
	} {
		t.Run(name, func(t *testing.T) {
			form := s.newForm(whole)
			form.Set(row.field, row.value)
			a := s.post(newKeyPath, form)
			if a.status != http.StatusUnprocessableEntity {
				t.Fatalf("got %d", a.status)
			}
			if n := strings.Count(a.body, row.text); n != 2 {
				t.Errorf("%q is said %d times, want in the summary and at the field: %s", row.text, n, a.body)
			}
			if !strings.Contains(a.body, `<a href="#`+row.anchor+`">`) || !strings.Contains(a.body, `id="`+row.anchor+`"`) {
				t.Errorf("the summary leads not to #%s", row.anchor)
			}
			if got := hidden(t, a, "form_id"); got != form.Get("form_id") {
				t.Errorf("the form has another id, and was not used up")
			}
			kept(t, a, form)
			if strings.Contains(a.body, "<script>alert") || strings.Contains(a.body, "<img src=x") {
				t.Error("what was typed is markup in the page")
			}
			if p := s.refused.Load(); p == nil || p.Code != problem.ValidationFailed {
				t.Errorf("the record says %v", p)
			}
		})
	}
	if n := len(s.keys()); n != 0 {
		t.Errorf("there are %d keys", n)
	}
	events, _, err := s.store.AuditLog(t.Context(), "acme", keystore.EventFilter{Action: keystore.KeyCreate}, "", 100)
	s.must(err)
	if len(events) != 13 || events[0].Outcome != "validation_failed" {
		t.Errorf("the audit trail has %d refusals", len(events))
	}
}

// kept checks that the page has everything that was sent.
func kept(t *testing.T, a answer, form url.Values) {
	t.Helper()
	body := html.UnescapeString(a.body)
	for _, name := range []string{"name", "expires_date", "expires_time"} {
		if value := `name="` + name + `" value="` + form.Get(name) + `"`; !strings.Contains(body, value) && form.Get(name) != "a\x07b" {
			t.Errorf("the page has not kept %s", value)
		}
	}
	for _, address := range strings.Fields(form.Get("allowed_ips")) {
		if !strings.Contains(body, "\n"+address+"\n") {
			t.Errorf("the page has not kept the address %s", address)
		}
	}
	for _, name := range []string{"permissions", "allowed_subaccounts"} {
		want := slices.DeleteFunc(slices.Clone(form[name]), func(v string) bool { return !slices.Contains(offered(a, name), v) })
		if got := ticked(a, name); !slices.Equal(got, want) {
			t.Errorf("ticked of %s are %v, want %v", name, got, want)
		}
	}
	if form.Has("expires") != strings.Contains(body, `name="expires" value="yes" checked`) {
		t.Error("the page has not kept the toggle")
	}
}

// TestFormIsUsedUp: neither a reload of the token's page nor a second click
// makes a second key, and the token is not shown again.
func TestFormIsUsedUp(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	form := s.newForm(nil)
	if a := s.post(newKeyPath, form); a.status != http.StatusOK {
		t.Fatalf("got %d: %s", a.status, a.body)
	}
	again := s.post(newKeyPath, form)
	if again.status != http.StatusConflict || !strings.Contains(again.body, "Already sent") || !strings.Contains(again.body, `href="/dashboard/keys"`) {
		t.Errorf("the second time got %d: %s", again.status, again.body)
	}
	if tokenShown.MatchString(again.body) {
		t.Error("the token is shown again")
	}
	if n := len(s.keys()); n != 1 {
		t.Errorf("there are %d keys", n)
	}
	if a := s.post(newKeyPath, s.newForm(nil)); a.status != http.StatusOK {
		t.Errorf("another form got %d", a.status)
	}
}

// TestFailedCreateGetsANewForm: a form whose key could not be made can be sent again.
func TestFailedCreateGetsANewForm(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) { s.maxKeys = 1 })
	s.signIn()
	s.post(newKeyPath, s.newForm(nil))
	form := s.newForm(url.Values{"name": {"One more"}})
	a := s.post(newKeyPath, form)
	if a.status != http.StatusConflict || !strings.Contains(a.body, "as many keys as it may have") {
		t.Fatalf("got %d: %s", a.status, a.body)
	}
	kept(t, a, form)
	id := hidden(t, a, "form_id")
	if id == form.Get("form_id") {
		t.Fatal("the form keeps its id, which is used up")
	}
	_, err := s.store.Revoke(t.Context(), s.caller(), s.keys()[0].ID)
	s.must(err)
	form.Set("form_id", id)
	if a := s.post(newKeyPath, form); a.status != http.StatusOK || !tokenShown.MatchString(a.body) {
		t.Errorf("with its new id got %d: %s", a.status, a.body)
	}
}

// TestHalfAForm: a list of addresses that did not arrive does not open the key.
func TestHalfAForm(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	for _, missing := range []string{"name", "allowed_ips", "expires_date", "expires_time", "form_id"} {
		form := s.newForm(nil)
		form.Del(missing)
		if a := s.post(newKeyPath, form); a.status != http.StatusBadRequest {
			t.Errorf("without %s got %d", missing, a.status)
		}
		form = s.newForm(nil)
		form[missing] = append(form[missing], "203.0.113.7")
		if a := s.post(newKeyPath, form); a.status != http.StatusBadRequest {
			t.Errorf("with %s twice got %d", missing, a.status)
		}
	}
	for _, id := range []string{"", "short", strings.Repeat("x", 65)} {
		if a := s.post(newKeyPath, s.newForm(url.Values{"form_id": {id}})); a.status != http.StatusBadRequest {
			t.Errorf("with the id %q got %d", id, a.status)
		}
	}
	if n := len(s.keys()); n != 0 {
		t.Errorf("there are %d keys", n)
	}
}

// TestButtonsWithoutScript: they come back with the form, filled in further,
// and make no key.
func TestButtonsWithoutScript(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) {
		s.account.Permissions = []string{"datacenter_shared:*", "residential:read", "account:apikeys:*"}
	})
	s.signIn()
	typed := url.Values{"name": {"Half typed"}, "permissions": {"account:apikeys:read", "datacenter_shared:write"}, "allowed_ips": {"203.0.113.0/29 nonsense"}}
	for do, want := range map[string]url.Values{
		"all-read":    {"permissions": {"account:apikeys:read", "datacenter_shared:read", "datacenter_shared:write", "residential:read"}},
		"all-write":   {"permissions": {"account:apikeys:read", "datacenter_shared:write"}},
		"all-delete":  {"permissions": {"account:apikeys:read", "datacenter_shared:write", "datacenter_shared:delete"}},
		"clear":       {"permissions": nil},
		"add-address": {"allowed_ips": {"203.0.113.0/29 nonsense " + clientIP}},
		"expire-7":    {"expires": {"yes"}, "expires_date": {s.clock().Add(time.Minute).AddDate(0, 0, 7).Format(time.DateOnly)}},
		"expire-365":  {"expires": {"yes"}, "expires_date": {s.clock().Add(time.Minute).AddDate(1, 0, 0).Format(time.DateOnly)}},
		"check":       {},
		"nonsense":    {},
	} {
		form := s.newForm(typed)
		form.Set("do", do)
		a := s.post(newKeyPath, form)
		if a.status != http.StatusOK {
			t.Errorf("%s got %d", do, a.status)
		}
		maps.Copy(form, want)
		if form.Has("expires") {
			form["expires_time"] = []string{s.clock().Truncate(time.Minute).Add(time.Minute).Format("15:04")}
		}
		t.Run(do, func(t *testing.T) { kept(t, a, form) })
		if hidden(t, a, "form_id") != form.Get("form_id") {
			t.Errorf("%s: the form has another id", do)
		}
		if do == "check" && !strings.Contains(a.body, "&#34;nonsense&#34; is not an IPv4") {
			t.Errorf("%s says not which address is wrong", do)
		}
	}
	if n := len(s.keys()); n != 0 {
		t.Errorf("there are %d keys", n)
	}
}

// TestOnlyWhatMayBeGranted is offered, and what is asked for all the same is refused.
func TestOnlyWhatMayBeGranted(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) {
		s.account.Permissions = []string{"datacenter_shared:read", "account:apikeys:create", "account:apikeys:read"}
		s.account.Subaccounts = s.account.Subaccounts[:1]
	})
	s.signIn()
	a := s.get(newKeyPath)
	if got, want := offered(a, "permissions"), []string{"account:apikeys:create", "account:apikeys:read", "datacenter_shared:read"}; !slices.Equal(got, want) {
		t.Errorf("offered are %v, want %v", got, want)
	}
	if got := offered(a, "allowed_subaccounts"); !slices.Equal(got, []string{subaccountA}) {
		t.Errorf("offered are the subaccounts %v", got)
	}
	if strings.Contains(a.body, "Write All") || !strings.Contains(a.body, "Read All") {
		t.Error("there is a button for what may not be given, or none for what may")
	}
	form := s.newForm(url.Values{"permissions": {"residential:read"}})
	a = s.post(newKeyPath, form)
	if a.status != http.StatusForbidden || strings.Count(a.body, "you lack: residential:read") != 2 || !strings.Contains(a.body, `<a href="#permissions">`) {
		t.Errorf("more than may be given got %d: %s", a.status, a.body)
	}
	if hidden(t, a, "form_id") == form.Get("form_id") {
		t.Error("the form keeps its id, which is used up")
	}
	if n := len(s.keys()); n != 0 {
		t.Errorf("there are %d keys", n)
	}
}

// TestFormsNeedTheirPermission: of the account, at each request.
func TestFormsNeedTheirPermission(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) { s.account.Permissions = []string{"datacenter_shared:*", "account:apikeys:read"} })
	s.signIn()
	key := s.makeKey(keystore.NewKey{Name: "k", Permissions: policy.NewPermissionSet("datacenter_shared:read"), Expiry: policy.NeverExpires(), Addresses: policy.AnyAddress()})
	edit := "/dashboard/keys/" + string(key.ID) + "/edit"
	form := url.Values{"form_id": {strings.Repeat("x", 26)}, "name": {"n"}, "allowed_ips": {""}, "expires_date": {""}, "expires_time": {""}, "permissions": {"datacenter_shared:read"}}
	for _, a := range []answer{s.get(newKeyPath), s.post(newKeyPath, form), s.get(edit), s.post(edit, form)} {
		if a.status != http.StatusForbidden {
			t.Errorf("got %d", a.status)
		}
	}
	if list := s.keys(); len(list) != 1 || list[0].Name != "k" {
		t.Errorf("the keys are %v", list)
	}
}

// TestCheckAddresses: the server's rule, for whoever is signed in.
func TestCheckAddresses(t *testing.T) {
	t.Parallel()
	s := start(t)
	const path = "/dashboard/keys/check-addresses"
	if a := s.post(path, url.Values{"addresses": {"203.0.113.7"}}); a.status != http.StatusSeeOther {
		t.Errorf("without a session got %d", a.status)
	}
	s.signIn()
	type entry struct{ Given, Address, Error string }
	for given, want := range map[string]struct {
		entries []entry
		locked  bool
		fault   string
	}{
		"":                                    {nil, false, ""},
		"203.0.113.9/24":                      {[]entry{{"203.0.113.9/24", "203.0.113.0/24", ""}}, false, ""},
		"198.51.100.1,\n::ffff:198.51.100.2;": {[]entry{{"198.51.100.1", "198.51.100.1", ""}, {"::ffff:198.51.100.2", "198.51.100.2", ""}}, true, ""},
		"nonsense":                            {[]entry{{"nonsense", "", `"nonsense" is not an IPv4 or IPv6 address or CIDR range.`}}, false, ""},
		"fe80::1%eth0 " + clientIP:            {[]entry{{"fe80::1%eth0", "", `"fe80::1%eth0" is not an IPv4 or IPv6 address or CIDR range.`}, {clientIP, clientIP, ""}}, false, ""},
		strings.Repeat("203.0.113.7 ", 101):   {nil, false, "There must be at most 100 addresses."},
	} {
		a := s.post(path, url.Values{"addresses": {given}})
		var got struct {
			Addresses []entry
			Error     string
			Client    string
			LockedOut bool `json:"locked_out"`
		}
		s.must(json.Unmarshal([]byte(a.body), &got))
		if !slices.Equal(got.Addresses, want.entries) || got.LockedOut != want.locked || got.Error != want.fault || got.Client != clientIP {
			t.Errorf("%q got %+v", given, got)
		}
		if a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%q got the headers %v", given, a.header)
		}
	}
}

// TestLockedOut: the form warns of addresses that are not one's own.
func TestLockedOut(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	for given, locked := range map[string]bool{"": false, "198.51.100.0/24": true, "203.0.113.0/24": false, "nonsense": false} {
		a := s.post(newKeyPath, s.newForm(url.Values{"do": {"check"}, "allowed_ips": {given}}))
		if shown := strings.Contains(a.body, `data-locked-out>`); shown != locked {
			t.Errorf("%q: the warning is shown: %v, want %v", given, shown, locked)
		}
	}
}

// TestManySubaccounts can be searched, and each is shown with its product.
func TestManySubaccounts(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) {
		for i := range 9 {
			id := policy.SubaccountID("5b0d9c6e-3f0a-4a57-9d0e-1c2f6a7b8d0" + string(rune('0'+i)))
			s.account.Subaccounts = append(s.account.Subaccounts, policy.Subaccount{ID: id, Label: `<i onclick="x">`, Product: "residential"})
		}
	})
	s.signIn()
	a := s.get(newKeyPath)
	if len(offered(a, "allowed_subaccounts")) != 11 || !strings.Contains(a.body, `id="subaccount-search"`) {
		t.Error("eleven subaccounts cannot be searched")
	}
	if strings.Contains(a.body, "<i onclick") || !strings.Contains(a.body, `hue-1"><span class="dot" aria-hidden="true"></span>Residential`) {
		t.Error("a subaccount is not shown as it is")
	}
	if !strings.Contains(a.body, "this key may use all subaccounts") {
		t.Error("nothing says what none means")
	}
}
