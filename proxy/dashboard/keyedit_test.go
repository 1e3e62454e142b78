package dashboard_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// editable is a key that has everything a key can have.
func (s *site) editable() policy.Key {
	s.t.Helper()
	return s.makeKey(keystore.NewKey{
		Name: "Before", Permissions: policy.NewPermissionSet("residential:read", "datacenter_shared:read"), Subaccounts: []policy.SubaccountID{subaccountB, subaccountA},
		Addresses: addresses(s.t, "203.0.113.0/24", "2001:db8::1"), Expiry: policy.ExpiresAt(s.now.Load() + 86_399),
	})
}

func editPath(k policy.Key) string { return "/dashboard/keys/" + string(k.ID) + "/edit" }

// shownForm is the form as a browser would send it back untouched.
func shownForm(t *testing.T, a answer) url.Values {
	t.Helper()
	value := func(pattern string) string {
		found := regexp.MustCompile(pattern).FindStringSubmatch(a.body)
		if found == nil {
			t.Fatalf("the page has no %s: %d %s", pattern, a.status, a.body)
		}
		return html.UnescapeString(found[1])
	}
	form := url.Values{
		"form_id": {hidden(t, a, "form_id")}, "shown": {hidden(t, a, "shown")},
		"name": {value(`name="name" value="([^"]*)"`)}, "expires_date": {value(`name="expires_date" value="([^"]*)"`)}, "expires_time": {value(`name="expires_time" value="([^"]*)"`)},
		"allowed_ips": {value(`(?s)<textarea[^>]*>\n(.*?)</textarea>`)}, "permissions": ticked(a, "permissions"), "allowed_subaccounts": ticked(a, "allowed_subaccounts"),
	}
	if strings.Contains(a.body, `name="expires" value="yes" checked`) {
		form.Set("expires", "yes")
	}
	return form
}

func (s *site) kept(id policy.KeyID) policy.Key {
	s.t.Helper()
	k, err := s.store.Get(s.t.Context(), s.caller(), id)
	s.must(err)
	return k
}

// changedFields are those that the last change of the key has in the audit trail.
func (s *site) changedFields(id policy.KeyID) []string {
	s.t.Helper()
	events, _, err := s.store.AuditLog(s.t.Context(), "acme", keystore.EventFilter{Key: id, Action: keystore.KeyUpdate}, "", 10)
	s.must(err)
	var fields []string
	if len(events) > 0 {
		for _, c := range events[0].Changes {
			fields = append(fields, c.Field)
		}
	}
	return fields
}

// TestEditKey: exactly what was changed in the form is changed.
func TestEditKey(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change func(form url.Values)
		fields []string
		want   func(k *policy.Key)
	}{
		"nothing":                      {func(url.Values) {}, nil, func(*policy.Key) {}},
		"the order and the spelling":   {func(f url.Values) { f.Set("allowed_ips", "2001:DB8::1 203.0.113.9/24"); f.Set("name", " Before ") }, nil, func(*policy.Key) {}},
		"the name":                     {func(f url.Values) { f.Set("name", "After") }, []string{"name"}, func(k *policy.Key) { k.Name = "After" }},
		"no expiry":                    {func(f url.Values) { f.Del("expires") }, []string{"expires_at"}, func(k *policy.Key) { k.Expiry = policy.NeverExpires() }},
		"another expiry":               {func(f url.Values) { f.Set("expires_date", "2040-01-01"); f.Set("expires_time", "00:00") }, []string{"expires_at"}, func(k *policy.Key) { k.Expiry = policy.ExpiresAt(2208988800) }},
		"any address":                  {func(f url.Values) { f.Set("allowed_ips", "") }, []string{"allowed_ips"}, func(k *policy.Key) { k.Addresses = policy.AnyAddress() }},
		"all subaccounts":              {func(f url.Values) { f.Del("allowed_subaccounts") }, []string{"allowed_subaccounts"}, func(k *policy.Key) { k.Subaccounts = policy.AllSubaccounts() }},
		"one subaccount":               {func(f url.Values) { f.Set("allowed_subaccounts", subaccountA) }, []string{"allowed_subaccounts"}, func(k *policy.Key) { k.Subaccounts = policy.OnlySubaccounts(subaccountA) }},
		"permissions":                  {func(f url.Values) { f["permissions"] = []string{"account:audit:read", "residential:read"} }, []string{"permissions"}, func(k *policy.Key) { k.Permissions = policy.NewPermissionSet("account:audit:read", "residential:read") }},
		"permissions in another order": {func(f url.Values) { slices.Reverse(f["permissions"]) }, nil, func(*policy.Key) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.signIn()
			k := s.editable()
			form := shownForm(t, s.get(editPath(k)))
			row.change(form)
			a := s.post(editPath(k), form)
			notice := "key_updated"
			if row.fields == nil {
				notice = "key_unchanged"
			}
			if a.status != http.StatusSeeOther || a.header.Get("Location") != "/dashboard/keys/"+string(k.ID)+"?notice="+notice {
				t.Fatalf("got %d to %q: %s", a.status, a.header.Get("Location"), a.body)
			}
			row.want(&k)
			sameKey(t, s.kept(k.ID), k)
			if got := s.changedFields(k.ID); !slices.Equal(got, row.fields) {
				t.Errorf("changed are %v, want %v", got, row.fields)
			}
		})
	}
}

// TestEditRefused: the same rules as for a new key, and nothing is lost.
func TestEditRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k := s.editable()
	for name, row := range map[string]struct{ field, value, text string }{
		"no name":        {"name", "", "A name is required."},
		"no permission":  {"permissions", "", "At least one permission is required."},
		"a bad address":  {"allowed_ips", "nonsense", "is not an IPv4"},
		"the past":       {"expires_date", "2020-01-01", "The expiry must be in the future."},
		"no date at all": {"expires_date", "", "Choose a date and a time"},
	} {
		form := shownForm(t, s.get(editPath(k)))
		form.Set(row.field, row.value)
		if row.value == "" && row.field == "permissions" {
			form.Del(row.field)
		}
		a := s.post(editPath(k), form)
		if a.status != http.StatusUnprocessableEntity || strings.Count(a.body, row.text) != 2 {
			t.Errorf("%s got %d: %s", name, a.status, a.body)
		}
		kept(t, a, form)
		if hidden(t, a, "shown") != form.Get("shown") {
			t.Errorf("%s: the form has forgotten what it showed first", name)
		}
	}
	sameKey(t, s.kept(k.ID), k)
}

// TestEditLeavesDisabledKeysDisabled: the form has no such field.
func TestEditLeavesDisabledKeysDisabled(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k := s.editable()
	off := false
	_, _, err := s.store.Update(t.Context(), s.caller(), k.ID, keystore.Update{Active: &off})
	s.must(err)
	form := shownForm(t, s.get(editPath(k)))
	form.Set("name", "After")
	form.Set("is_active", "true")
	s.post(editPath(k), form)
	if got := s.kept(k.ID); got.Name != "After" || got.Active {
		t.Errorf("it is %q, active %v", got.Name, got.Active)
	}
}

// TestExpiredKeyCanBeRenamed: its expiry is in the past, and was not touched.
func TestExpiredKeyCanBeRenamed(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k := s.makeKey(keystore.NewKey{Name: "Before", Permissions: policy.NewPermissionSet("residential:read"), Addresses: policy.AnyAddress(), Expiry: policy.ExpiresAt(s.now.Load() + 5)})
	s.pass(time.Minute)
	form := shownForm(t, s.get(editPath(k)))
	form.Set("name", "After")
	if a := s.post(editPath(k), form); a.status != http.StatusSeeOther {
		t.Errorf("got %d: %s", a.status, a.body)
	}
	if got := s.kept(k.ID); got.Name != "After" || got.Expiry != k.Expiry {
		t.Errorf("it is %q until %v", got.Name, got.Expiry)
	}
}

// TestEditOfAKeyThatWasChangedMeanwhile says so, and overwrites nothing.
func TestEditOfAKeyThatWasChangedMeanwhile(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k := s.editable()
	form := shownForm(t, s.get(editPath(k)))
	theirName, theirs := "Theirs", policy.NewPermissionSet("datacenter_shared:write")
	theirAddresses := addresses(t, "198.51.100.1")
	_, _, err := s.store.Update(t.Context(), s.caller(), k.ID, keystore.Update{Name: &theirName, Permissions: &theirs, Addresses: &theirAddresses})
	s.must(err)
	form.Set("name", "Ours")
	form.Set("allowed_ips", "198.51.100.1")
	form.Set("allowed_subaccounts", subaccountA)
	a := s.post(editPath(k), form)
	if a.status != http.StatusConflict || !strings.Contains(a.body, "nothing was saved") {
		t.Fatalf("got %d: %s", a.status, a.body)
	}
	if got := s.kept(k.ID); got.Name != "Theirs" || len(got.Subaccounts.IDs()) != 2 {
		t.Errorf("it was changed to %q", got.Name)
	}
	// What both changed is named, with theirs; what only they changed is shown;
	// what both changed to the same is no question.
	if strings.Count(a.body, "This was changed meanwhile, to: Theirs.") != 2 || strings.Count(a.body, "This was changed meanwhile") != 2 {
		t.Errorf("the page says not which field is in question: %s", a.body)
	}
	again := shownForm(t, a)
	if again.Get("name") != "Ours" || !slices.Equal(again["permissions"], []string{"datacenter_shared:write"}) || !slices.Equal(again["allowed_subaccounts"], []string{subaccountA}) {
		t.Errorf("the form has %v", again)
	}
	if a := s.post(editPath(k), again); a.status != http.StatusSeeOther {
		t.Fatalf("the second time got %d", a.status)
	}
	k.Name, k.Permissions, k.Addresses, k.Subaccounts = "Ours", theirs, theirAddresses, policy.OnlySubaccounts(subaccountA)
	sameKey(t, s.kept(k.ID), k)
	if got := s.changedFields(k.ID); !slices.Equal(got, []string{"name", "allowed_subaccounts"}) {
		t.Errorf("changed are %v", got)
	}
}

// TestEditWithoutWhatWasShown overwrites nothing either.
func TestEditWithoutWhatWasShown(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k := s.editable()
	for _, shown := range []string{"", "x", "a.b.c.d.e"} {
		form := shownForm(t, s.get(editPath(k)))
		form.Set("shown", shown)
		form.Set("name", "After")
		if a := s.post(editPath(k), form); a.status != http.StatusConflict {
			t.Errorf("%q got %d", shown, a.status)
		}
	}
	sameKey(t, s.kept(k.ID), k)
}

// TestKeyOfWhatTheAccountHasLost: it is said, stays where it is left alone, and
// can be taken away.
func TestKeyOfWhatTheAccountHasLost(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k := s.editable()
	s.account.Permissions, s.account.Subaccounts = []string{"datacenter_shared:*", "account:apikeys:*"}, s.account.Subaccounts[:1]
	_, _, err := s.store.PutAccount(t.Context(), policy.Caller{}, s.account)
	s.must(err)
	a := s.get(editPath(k))
	if !strings.Contains(a.body, "This key holds what your account does not have any more") || !strings.Contains(a.body, "<code>residential:read</code>") {
		t.Error("nothing says that a permission was lost")
	}
	if !strings.Contains(a.body, "subaccounts that your account does not have any more") {
		t.Error("nothing says that a subaccount was lost")
	}
	form := shownForm(t, a)
	form["permissions"] = append(form["permissions"], "datacenter_shared:write")
	if a := s.post(editPath(k), form); a.status != http.StatusSeeOther {
		t.Fatalf("with another permission got %d: %s", a.status, a.body)
	}
	if got := s.kept(k.ID); !got.Permissions.Has("residential:read") || !got.Permissions.Has("datacenter_shared:write") || len(got.Subaccounts.IDs()) != 2 {
		t.Errorf("it holds %v on %v", got.Permissions, got.Subaccounts.IDs())
	}
	form = shownForm(t, s.get(editPath(k)))
	form["permissions"] = []string{"datacenter_shared:write"}
	form["allowed_subaccounts"] = []string{subaccountA}
	if a := s.post(editPath(k), form); a.status != http.StatusSeeOther {
		t.Fatalf("without the lost ones got %d: %s", a.status, a.body)
	}
	form = shownForm(t, s.get(editPath(k)))
	if slices.Contains(form["permissions"], "residential:read") {
		t.Fatal("the lost permission is still there")
	}
	form["permissions"] = append(form["permissions"], "residential:read")
	if a := s.post(editPath(k), form); a.status != http.StatusForbidden || !strings.Contains(a.body, "you lack: residential:read") {
		t.Errorf("giving it back got %d", a.status)
	}
}

// TestEditOfNoKey: what is not there, and what another account has, is the same.
func TestEditOfNoKey(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k := s.editable()
	form := shownForm(t, s.get(editPath(k)))
	other := s.otherKey()
	for _, id := range []string{"00000000-0000-4000-8000-000000000000", "new", "..%2f", string(other.ID), strings.ToUpper(string(k.ID))} {
		path := "/dashboard/keys/" + id + "/edit"
		if a, b := s.get(path), s.post(path, form); a.status != http.StatusNotFound || b.status != http.StatusNotFound {
			t.Errorf("%s got %d and %d", id, a.status, b.status)
		}
	}
	_, err := s.store.Revoke(t.Context(), s.caller(), k.ID)
	s.must(err)
	if a := s.post(editPath(k), form); a.status != http.StatusNotFound {
		t.Errorf("a key that was revoked meanwhile got %d", a.status)
	}
}

// otherKey is a key of another account.
func (s *site) otherKey() policy.Key {
	s.t.Helper()
	account := s.account
	account.ID = "other"
	_, _, err := s.store.PutAccount(s.t.Context(), policy.Caller{}, account)
	s.must(err)
	rules, err := s.store.Rules(s.t.Context(), "other")
	s.must(err)
	k, _, err := s.store.Create(s.t.Context(), policy.Caller{Account: rules}, keystore.NewKey{Name: "Theirs", Permissions: policy.NewPermissionSet("residential:read"), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires()})
	s.must(err)
	return k
}

// TestReplacedKeyIsNotEdited: it works until its grace ends, as it is.
func TestReplacedKeyIsNotEdited(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k := s.editable()
	_, _, err := s.store.Regenerate(t.Context(), s.caller(), k.ID, time.Hour)
	s.must(err)
	if a := s.get(editPath(k)); a.status != http.StatusConflict || !strings.Contains(a.body, "was replaced by another one") {
		t.Errorf("got %d", a.status)
	}
}
