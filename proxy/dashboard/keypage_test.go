package dashboard_test

import (
	"crypto/rand"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

const (
	sharedRead   policy.Permission = "datacenter_shared:read"
	sharedWrite  policy.Permission = "datacenter_shared:write"
	sharedDelete policy.Permission = "datacenter_shared:delete"
	hour                           = time.Hour
	day                            = 24 * hour
)

// key makes a key of the account, by its user.
func (s *site) key(changes ...func(*keystore.NewKey)) policy.Key {
	s.t.Helper()
	k := keystore.NewKey{
		Name: "CI pipeline", Permissions: policy.NewPermissionSet(sharedRead, sharedWrite), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
	}
	for _, change := range changes {
		change(&k)
	}
	made, _, err := s.store.Create(s.t.Context(), s.person(), k)
	s.must(err)
	return made
}

// person is the user, signed in.
func (s *site) person() policy.Caller {
	s.t.Helper()
	token, ends := rand.Text(), s.clock().Add(1000*day)
	s.must(s.store.CreateSession(s.t.Context(), token, keystore.NewSession{User: s.user, ExpiresAt: ends, EndsAt: ends}))
	session, err := s.store.FindSession(s.t.Context(), token)
	s.must(err)
	return session.Caller(netip.MustParseAddr(clientIP), "request-0")
}

// use is requests of a key that began at a time.
type use struct {
	permission policy.Permission
	outcome    string
	ago        time.Duration
	requests   int
}

// used has another node count requests, and write them.
func (s *site) used(k policy.Key, uses ...use) {
	s.t.Helper()
	other := s.open()
	for _, u := range uses {
		at := s.clock().Add(-u.ago)
		for range u.requests {
			other.Count(counted(k.ID, u.permission, u.outcome, at))
		}
		if u.outcome == string(policy.Allowed) {
			other.Used(k.ID, "acme", at)
		}
	}
	s.must(other.Close())
}

// counted is a request of a key of acme, as it is counted.
func counted(key policy.KeyID, permission policy.Permission, outcome string, at time.Time) keystore.CountedRequest {
	return keystore.CountedRequest{Key: key, Account: "acme", Permission: permission, Outcome: outcome, Route: "GET /v4/things", At: at}
}

// pass lets time pass.
// pass lets time pass, for the pages and for Redis.
func (s *site) pass(d time.Duration) {
	s.now.Add(int64(d / time.Second))
	s.redis.SetTime(s.clock())
}

// at starts the site's clock some time ago, so that it can pass.
func at(ago time.Duration) func(*site) {
	return func(s *site) { s.now.Store(s.now.Load() - int64(ago/time.Second)) }
}

// text is what a reader sees of a page: without tags, in one line.
func text(body string) string {
	body = regexp.MustCompile(`(?s)<(script|style|title|desc)[^>]*>.*?</(script|style|title|desc)>`).ReplaceAllString(body, " ")
	body = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, " ")
	return strings.Join(strings.Fields(body), " ")
}

func (a answer) shows(t *testing.T, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text(a.body), w) {
			t.Errorf("the page does not show %q: %s", w, text(a.body))
		}
	}
}

func (a answer) hides(t *testing.T, unwanted ...string) {
	t.Helper()
	for _, w := range unwanted {
		if strings.Contains(text(a.body), w) {
			t.Errorf("the page shows %q: %s", w, text(a.body))
		}
	}
}

func (a answer) has(t *testing.T, markup string, want bool) {
	t.Helper()
	if strings.Contains(a.body, markup) != want {
		t.Errorf("%s in the page: %v, want %v:\n%s", markup, !want, want, a.body)
	}
}

func permissions(list ...policy.Permission) func(*keystore.NewKey) {
	return func(k *keystore.NewKey) { k.Permissions = policy.NewPermissionSet(list...) }
}

// allows changes what the account may.
func (s *site) allows(grants ...string) {
	s.t.Helper()
	s.account.Permissions = grants
	_, _, err := s.store.PutAccount(s.t.Context(), policy.Caller{}, s.account)
	s.must(err)
}

func TestKeyPageTellsAllAboutAKey(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.key(permissions(sharedRead, sharedWrite, "residential:read", "account:apikeys:read", "account:apikeys:create", "account:audit:read"), func(k *keystore.NewKey) {
		k.Subaccounts = []policy.SubaccountID{subaccountB}
		k.Addresses = policy.OnlyAddresses(netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::1/128"))
		k.Expiry = policy.ExpiresAt(s.now.Load() + int64(12*day/time.Second) + 60)
	})
	s.signIn()
	a := s.get("/dashboard/keys/" + string(k.ID))
	if a.status != http.StatusOK {
		t.Fatalf("got %d: %s", a.status, a.body)
	}
	a.shows(t, "CI pipeline", "Active", k.Preview, string(k.ID),
		"May read and write Shared datacenter", "May read Residential", "May create and read this account’s API keys", "May read this account’s audit log",
		"US research Residential", "203.0.113.0/24", "2001:db8::1", "Expires in 12 days "+time.Unix(k.Expiry.Unix(), 0).UTC().Format("2 January 2006, 15:04 UTC"), "Last used Never",
		"Ada ada@example.com created the key CI pipeline", "No requests in the last 24 hours.")
	a.hides(t, "EU scraping", "Any address", "never expires")
	open := s.key()
	a = s.get("/dashboard/keys/" + string(open.ID))
	a.shows(t, "All of the account, now and later", "Any address", "Never expires", "This key never expires")

	s.allows("datacenter_shared:read", "account:apikeys:*")
	a = s.get("/dashboard/keys/" + string(k.ID))
	a.shows(t, "May read Shared datacenter", "your account does not have now, and so it cannot use it: datacenter_shared:write , residential:read")
	a.hides(t, "May read and write Shared", "May read Residential")
}

func TestKeyPageIsForWhoMaySeeTheKey(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.key()
	path := "/dashboard/keys/" + string(k.ID)
	if a := s.get(path); a.status != http.StatusSeeOther || !strings.HasPrefix(a.header.Get("Location"), "/dashboard/sign-in") {
		t.Errorf("without a session got %d to %q", a.status, a.header.Get("Location"))
	}
	_, _, err := s.store.PutAccount(t.Context(), policy.Caller{}, keystore.Account{ID: "other", Name: "Other", Status: policy.Active, Permissions: []string{"*"}})
	s.must(err)
	rules, err := s.store.Rules(t.Context(), "other")
	s.must(err)
	foreign, _, err := s.store.Create(t.Context(), policy.Caller{Account: rules}, keystore.NewKey{
		Name: "Foreign", Permissions: policy.NewPermissionSet(sharedRead), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
	})
	s.must(err)
	s.signIn()
	never := s.get("/dashboard/keys/00000000-0000-4000-8000-000000000000")
	for name, id := range map[string]string{"another account's": string(foreign.ID), "no id": "nonsense", "upper case": strings.ToUpper(string(k.ID)), "none": "00000000-0000-4000-8000-000000000000"} {
		if a := s.get("/dashboard/keys/" + id); a.status != http.StatusNotFound || a.body != never.body {
			t.Errorf("%s got %d: %s", name, a.status, text(a.body))
		}
	}
	s.allows("datacenter_shared:read", "account:audit:read", "account:usage:read")
	if a := s.get(path); a.status != http.StatusForbidden {
		t.Errorf("without account:apikeys:read got %d", a.status)
	}
}

func TestKeyPageOffersWhatTheSessionMay(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.key()
	path := "/dashboard/keys/" + string(k.ID)
	edit, disable, regenerate, revoke := `href="`+path+`/edit"`, `href="`+path+`/disable"`, `href="`+path+`/regenerate"`, `href="`+path+`/revoke"`
	s.signIn()
	for name, test := range map[string]struct {
		grants []string
		shown  []string
	}{
		"all":        {[]string{"*"}, []string{edit, disable, regenerate, revoke, "<svg class=\"bars\"", "created the key"}},
		"update":     {[]string{"account:apikeys:read", "account:apikeys:update"}, []string{edit, disable}},
		"regenerate": {[]string{"account:apikeys:read", "account:apikeys:regenerate"}, []string{regenerate}},
		"revoke":     {[]string{"account:apikeys:read", "account:apikeys:delete"}, []string{revoke}},
		"usage":      {[]string{"account:apikeys:read", "account:usage:read"}, []string{"<svg class=\"bars\""}},
		"audit":      {[]string{"account:apikeys:read", "account:audit:read"}, []string{"created the key"}},
	} {
		s.allows(test.grants...)
		s.used(k, use{sharedRead, "allowed", 0, 1})
		a := s.get(path)
		for _, markup := range []string{edit, disable, regenerate, revoke, "<svg class=\"bars\"", "created the key"} {
			if want := strings.Contains(strings.Join(test.shown, " "), markup); strings.Contains(a.body, markup) != want {
				t.Errorf("%s: %s is in the page: %v, want %v", name, markup, !want, want)
			}
		}
		may := strings.Join(test.shown, " ")
		a.has(t, "account:usage:read</code>, which is needed", !strings.Contains(may, "svg"))
		a.has(t, "account:audit:read</code>, which is needed", !strings.Contains(may, "created"))
	}
}

func TestKeyPageShowsTheStateOfAKey(t *testing.T) {
	t.Parallel()
	s := start(t, at(day))
	disabled := s.key()
	off := false
	_, _, err := s.store.Update(t.Context(), s.person(), disabled.ID, keystore.Update{Active: &off})
	s.must(err)
	expired := s.key(func(k *keystore.NewKey) { k.Expiry = policy.ExpiresAt(s.now.Load() + 60) })
	replaced := s.key()
	next, _, err := s.store.Regenerate(t.Context(), s.person(), replaced.ID, 48*time.Hour)
	s.must(err)
	s.pass(day)
	s.signIn()
	a := s.get("/dashboard/keys/" + string(disabled.ID))
	a.shows(t, "This key is disabled", "Enable")
	a.has(t, `method="post" action="/dashboard/keys/`+string(disabled.ID)+`/enable"`, true)
	a.has(t, string(disabled.ID)+"/disable", false)
	a = s.get("/dashboard/keys/" + string(expired.ID))
	a.shows(t, "This key has expired", "Expired")
	a.hides(t, "Worth a look")
	a = s.get("/dashboard/keys/" + string(replaced.ID))
	a.shows(t, "Another key has taken the place of this one", "CI pipeline", "took its place")
	for _, gone := range []string{"/edit", "/disable", "/regenerate"} {
		a.has(t, string(replaced.ID)+gone+`"`, false)
	}
	a.has(t, string(replaced.ID)+"/revoke", true)
	s.get("/dashboard/keys/"+string(next.ID)).shows(t, "regenerated the key")
}

// hostile is what nobody should call a key; it may stand in no page as it is.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(2)>{{.}}`

func TestKeyPageEscapesNames(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) { s.account.Subaccounts[0].Label = hostile })
	k := s.key(func(k *keystore.NewKey) { k.Name, k.Subaccounts = hostile, []policy.SubaccountID{subaccountA} })
	s.signIn()
	for _, path := range []string{"/dashboard/keys/" + string(k.ID), "/dashboard/audit", "/dashboard/audit?key=" + string(k.ID), "/dashboard/audit?key=%22%3E%3Cscript%3E&from=%22%3E%3Cscript%3E&action=%22%3E%3Cscript%3E"} {
		a := s.get(path)
		if strings.Contains(a.body, "<script>") || strings.Contains(a.body, "<img src=x") {
			t.Errorf("%s is not escaped: %s", path, a.body)
		}
		if !strings.Contains(a.body, "&lt;script&gt;") {
			t.Errorf("%s does not show it: %s", path, a.body)
		}
		if regexp.MustCompile(`\sstyle=|<style`).MatchString(a.body) {
			t.Errorf("%s has a style of its own, which the policy refuses", path)
		}
	}
}
