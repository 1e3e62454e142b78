package dashboard_test

import (
	"context"
	"errors"
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/problem"
)

func pathOf(k policy.Key, action string) string {
	return "/dashboard/keys/" + string(k.ID) + "/" + action
}

// now is the key as it is stored; nil for one that is gone.
func (s *site) stored(k policy.Key) *policy.Key {
	s.t.Helper()
	got, err := s.store.Get(s.t.Context(), s.caller(), k.ID)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil
	}
	s.must(err)
	return &got
}

// opens reports whether the token is known.
func (s *site) opens(token string) bool {
	s.t.Helper()
	parsed, err := keystore.ParseToken("gk_", token)
	s.must(err)
	_, err = s.store.Lookup(s.t.Context(), parsed)
	if err != nil && !errors.Is(err, keystore.ErrUnknownToken) {
		s.t.Fatal(err)
	}
	return err == nil
}

// refusals are the actions of the audit trail that were refused, the newest
// first, with their codes.
func (s *site) refusals() []string {
	s.t.Helper()
	events, _, err := s.store.AuditLog(s.t.Context(), "acme", keystore.EventFilter{}, "", 100)
	s.must(err)
	var list []string
	for _, e := range events {
		if e.Outcome != keystore.Done {
			list = append(list, string(e.Action)+" "+e.Outcome)
		}
	}
	return list
}

// tokenOn is the token that a page shows.
func tokenOn(body string) string {
	for word := range strings.FieldsSeq(words(body)) {
		if strings.HasPrefix(word, "gk_") && len(word) == keystore.TokenLength {
			return word
		}
	}
	return ""
}

func TestKeyIsDisabledAndEnabled(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k := s.made("Nightly export", s.expires(30*day), from(t, "203.0.113.0/24"))
	asked := s.get(pathOf(k, "disable") + "?back=" + url.QueryEscape("state=active&page=2&q=x%26y"))
	wants(t, "question", words(asked.body), "Disable Nightly export ?", "until you enable it again", "What stops working", "Shared datacenter read", "203.0.113.0/24", k.Preview)
	wants(t, "question", html.UnescapeString(asked.body), `action="`+pathOf(k, "disable")+`"`, `name="back" value="page=2&q=x%26y&state=active"`, `href="/dashboard/keys?page=2&q=x%26y&state=active"`)
	if !s.stored(k).Active {
		t.Fatal("asking disables the key")
	}
	a := s.post(pathOf(k, "disable"), url.Values{"back": {"page=2&q=x%26y&state=active"}})
	if to := a.header.Get("Location"); a.status != http.StatusSeeOther || to != "/dashboard/keys?page=2&q=x%26y&state=active&notice=key_disabled" || s.stored(k).Active {
		t.Errorf("disabling got %d to %q", a.status, to)
	}
	wants(t, "notice", s.get("/dashboard/keys?notice=key_disabled").body, "The key is disabled.")
	for range 2 { // also what is enabled already
		a = s.post(pathOf(k, "enable"), url.Values{})
		if to := a.header.Get("Location"); a.status != http.StatusSeeOther || to != "/dashboard/keys?notice=key_enabled" || !s.stored(k).Active {
			t.Errorf("enabling got %d to %q", a.status, to)
		}
	}
	if got := s.stored(k); got.Name != k.Name || got.Expiry != k.Expiry || got.Addresses.Any() {
		t.Errorf("more has changed: %+v", got)
	}
	for _, hostile := range []string{"%zz", "//evil.example", "q=%0d%0aX-Evil:+1", "state=nonsense&notice=key_revoked&next=//evil.example"} {
		a := s.post(pathOf(k, "enable"), url.Values{"back": {hostile}})
		to := a.header.Get("Location")
		if u, err := url.Parse(to); err != nil || u.Host != "" || u.Path != "/dashboard/keys" || u.Query().Get("notice") != "key_enabled" || u.Query().Has("next") || u.Query().Has("state") || a.header.Get("X-Evil") != "" {
			t.Errorf("back to %q led to %q", hostile, to)
		}
	}
	if a := s.get(pathOf(k, "enable")); a.status != http.StatusMethodNotAllowed {
		t.Errorf("asking for what only changes got %d", a.status)
	}
}

func TestRevokingAsksForTheName(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		name, typed string
		revoked     bool
	}{
		{"CI pipeline", "CI pipeline", true},
		{"CI pipeline", "  CI   pipeline\t", true},
		{"CI pipeline", "ci pipeline", false},
		{"CI pipeline", "CI pipelin", false},
		{"CI pipeline", "CI pipeline 2", false},
		{"CI pipeline", "", false},
		{"two  spaces", "two spaces", true},
		{"zero\u200bwidth", "zerowidth", true},
		{"\u200b", "", false},
		{"\u200b", "\u200b", false},
		{"\u200b", "ID", true},
		{"<b>bold</b>", "<b>bold</b>", true},
		{"Ключ", "Ключ", true},
	} {
		s := start(t)
		s.signIn()
		k, token := s.madeWithToken(r.name)
		if r.typed == "ID" {
			r.typed = string(k.ID)
		}
		a := s.post(pathOf(k, "revoke"), url.Values{"name": {r.typed}, "back": {"sort=name"}})
		if gone := s.stored(k) == nil; gone != r.revoked || s.opens(token.Reveal()) == r.revoked {
			t.Errorf("%q for %q: revoked: %t", r.typed, r.name, gone)
		}
		if r.revoked {
			if to := a.header.Get("Location"); a.status != http.StatusSeeOther || to != "/dashboard/keys?sort=name&notice=key_revoked" {
				t.Errorf("%q for %q got %d to %q", r.typed, r.name, a.status, to)
			}
			continue
		}
		wants(t, "form", html.UnescapeString(a.body), `role="alert"`, `aria-invalid="true" aria-describedby="name-error"`, `id="name-error"`, `value="`+r.typed+`"`, `value="sort=name"`)
		if a.status != http.StatusUnprocessableEntity || s.refused.Load().Code != problem.ValidationFailed {
			t.Errorf("%q for %q got %d", r.typed, r.name, a.status)
		}
	}
}

func TestQuestionsSayWhatStopsWorking(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.made("CI pipeline", may("datacenter_shared:read", "datacenter_shared:write", policy.ReadKeys), s.expires(90*day), from(t, "203.0.113.7", "2001:db8::/32"),
		func(k *keystore.NewKey) { k.Subaccounts = []policy.SubaccountID{subaccountA} })
	s.notes(func(n *keystore.Store) {
		now := s.clock()
		n.Used(k.ID, "acme", now.Add(-2*time.Hour))
		for _, before := range []time.Duration{0, time.Hour, 23 * time.Hour, 26 * time.Hour} {
			n.Count(counted(k.ID, "datacenter_shared:read", "allowed", now.Add(-before)))
		}
		n.Count(counted(k.ID, "datacenter_shared:delete", "permission_denied", now.Add(-time.Hour)))
		n.Count(counted(s.made("another").ID, "datacenter_shared:read", "allowed", now))
	})
	s.signIn()
	for _, action := range []string{"disable", "regenerate", "revoke"} {
		wants(t, action, words(s.get(pathOf(k, action)).body), "What stops working", "Shared datacenter read, write", "API keys read", "EU scraping Shared datacenter",
			"203.0.113.7", "2001:db8::/32", "in 3 months", "This key was used 2 hours ago", "4 requests: 3 allowed, 1 refused", k.Preview)
	}
	s.account.Permissions = []string{"account:apikeys:*", "datacenter_shared:*"}
	_, _, err := s.store.PutAccount(t.Context(), policy.Caller{}, s.account)
	s.must(err)
	for _, action := range []string{"disable", "regenerate", "revoke"} {
		wantsNone(t, action, words(s.get(pathOf(k, action)).body), "requests:", "Last 24 hours")
	}
	s.disable(k)
	for _, action := range []string{"disable", "regenerate", "revoke"} {
		text := words(s.get(pathOf(k, action)).body)
		wants(t, action+" of a disabled key", text, "disabled")
		wantsNone(t, action+" of a disabled key", text, "What stops working", "This key was used")
	}
	expired := s.made("Expired", s.expires(time.Second))
	s.pass(time.Second)
	wants(t, "expired", words(s.get(pathOf(expired, "regenerate")).body), "This key has expired, and its new token would not work either.")
	wants(t, "expired", words(s.get(pathOf(expired, "revoke")).body), "refused already, because it has expired")
}

func TestRegeneratingShowsTheTokenOnce(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		name  string
		form  url.Values
		grace time.Duration
	}{
		{"none", url.Values{"grace": {"0"}}, 0},
		{"1 hour", url.Values{"grace": {"3600"}}, time.Hour},
		{"1 day", url.Values{"grace": {"86400"}, "grace_amount": {"nonsense"}}, day},
		{"7 days", url.Values{"grace": {"604800"}}, 7 * day},
		{"other, minutes", url.Values{"grace": {"other"}, "grace_amount": {"90"}, "grace_unit": {"60"}}, 90 * time.Minute},
		{"other, hours", url.Values{"grace": {"other"}, "grace_amount": {"12"}, "grace_unit": {"3600"}}, 12 * time.Hour},
		{"other, the longest", url.Values{"grace": {"other"}, "grace_amount": {"604800"}, "grace_unit": {"1"}}, 7 * day},
		{"other, none", url.Values{"grace": {"other"}, "grace_amount": {"0"}, "grace_unit": {"86400"}}, 0},
	} {
		s := start(t)
		s.signIn()
		k, old := s.madeWithToken("CI pipeline", from(t, "203.0.113.7"))
		r.form.Set("name", "CI pipeline")
		a := s.post(pathOf(k, "regenerate"), r.form)
		token := tokenOn(a.body)
		if a.status != http.StatusOK || a.header.Get("Cache-Control") != "no-store" || token == "" || token == old.Reveal() || !s.opens(token) {
			t.Errorf("%s: got %d with the token %q", r.name, a.status, token)
		}
		was := s.stored(k)
		if r.grace == 0 {
			if was != nil || s.opens(old.Reveal()) {
				t.Errorf("%s: the old key is there", r.name)
			}
		} else if was == nil || !was.Replaced() || was.Expiry.Unix() != s.now.Load()+int64(r.grace/time.Second) || !s.opens(old.Reveal()) {
			t.Errorf("%s: the old key is %+v", r.name, was)
		}
		again := s.post(pathOf(k, "regenerate"), r.form) // as a reload does
		if again.status != http.StatusNotFound && again.status != http.StatusConflict || tokenOn(again.body) != "" || !s.opens(token) {
			t.Errorf("%s: sent again got %d", r.name, again.status)
		}
		for _, path := range []string{"/dashboard/keys", pathOf(k, "regenerate")} {
			if strings.Contains(s.get(path).body, token) {
				t.Errorf("%s: %s has the token", r.name, path)
			}
		}
	}
}

func TestRegeneratingIsRefused(t *testing.T) {
	t.Parallel()
	name := func(form url.Values) url.Values {
		form.Set("name", "CI pipeline")
		return form
	}
	for _, r := range []struct {
		name string
		form url.Values
		says string
	}{
		{"no grace", name(url.Values{}), "Choose a grace period."},
		{"no number", name(url.Values{"grace": {"other"}, "grace_amount": {"soon"}, "grace_unit": {"60"}}), "as a whole number."},
		{"half a number", name(url.Values{"grace": {"other"}, "grace_amount": {"1.5"}, "grace_unit": {"60"}}), "as a whole number."},
		{"no amount", name(url.Values{"grace": {"other"}, "grace_unit": {"60"}}), "as a whole number."},
		{"no unit", name(url.Values{"grace": {"other"}, "grace_amount": {"1"}}), "as a whole number."},
		{"another unit", name(url.Values{"grace": {"other"}, "grace_amount": {"1"}, "grace_unit": {"2"}}), "as a whole number."},
		{"a second too long", name(url.Values{"grace": {"other"}, "grace_amount": {"604801"}, "grace_unit": {"1"}}), "from 0 to 604800 seconds."},
		{"8 days", name(url.Values{"grace": {"other"}, "grace_amount": {"8"}, "grace_unit": {"86400"}}), "from 0 to 604800 seconds."},
		{"far too long", name(url.Values{"grace": {"other"}, "grace_amount": {"99999999999999999999"}, "grace_unit": {"86400"}}), "from 0 to 604800 seconds."},
		{"negative", name(url.Values{"grace": {"-1"}}), "from 0 to 604800 seconds."},
		{"another choice", name(url.Values{"grace": {"604801"}}), "from 0 to 604800 seconds."},
		{"another name", url.Values{"grace": {"86400"}, "name": {"CI"}}, "This is not the name of the key."},
		{"both", url.Values{"grace": {"other"}, "grace_amount": {"7x"}, "grace_unit": {"86400"}, "name": {"CI"}}, "as a whole number."},
	} {
		s := start(t)
		s.signIn()
		k, token := s.madeWithToken("CI pipeline")
		a := s.post(pathOf(k, "regenerate"), r.form)
		body := html.UnescapeString(a.body)
		wants(t, r.name, body, `role="alert"`, r.says, `value="`+r.form.Get("name")+`"`)
		if r.form.Get("grace") == "other" {
			wants(t, r.name, body, `value="other" required checked`, `aria-describedby="grace-error"`)
		}
		if r.form.Get("grace") == "86400" {
			wants(t, r.name, body, `value="86400" required checked`)
		}
		if a.status != http.StatusUnprocessableEntity || tokenOn(a.body) != "" || !s.opens(token.Reveal()) || s.stored(k).Replaced() {
			t.Errorf("%s: got %d", r.name, a.status)
		}
	}
}

// TestReplacedKeyCanOnlyBeRevoked until its grace ends.
func TestReplacedKeyCanOnlyBeRevoked(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k, token := s.madeWithToken("CI pipeline")
	_, _, err := s.store.Regenerate(t.Context(), s.caller(), k.ID, day)
	s.must(err)
	form := url.Values{"name": {"CI pipeline"}, "grace": {"0"}}
	for _, a := range []answer{
		s.get(pathOf(k, "disable")), s.post(pathOf(k, "disable"), form), s.post(pathOf(k, "enable"), form), s.get(pathOf(k, "regenerate")), s.post(pathOf(k, "regenerate"), form),
	} {
		if a.status != http.StatusConflict || !strings.Contains(a.body, "was replaced by another one") || tokenOn(a.body) != "" {
			t.Errorf("got %d: %s", a.status, words(a.body))
		}
	}
	wants(t, "question", words(s.get(pathOf(k, "revoke")).body), "This key was replaced by another one, which stays as it is.")
	if a := s.post(pathOf(k, "revoke"), form); a.status != http.StatusSeeOther || s.opens(token.Reveal()) {
		t.Errorf("revoking got %d", a.status)
	}
}

// change is a form or a question of this file, and what it needs.
type change struct {
	method, action string
	needs          policy.Permission
	audited        keystore.Action // where it is refused
}

func changes() []change {
	return []change{
		{"GET", "disable", policy.UpdateKeys, ""},
		{"POST", "disable", policy.UpdateKeys, keystore.KeyUpdate},
		{"POST", "enable", policy.UpdateKeys, keystore.KeyUpdate},
		{"GET", "regenerate", policy.RegenerateKeys, ""},
		{"POST", "regenerate", policy.RegenerateKeys, keystore.KeyRegenerate},
		{"GET", "revoke", policy.DeleteKeys, ""},
		{"POST", "revoke", policy.DeleteKeys, keystore.KeyRevoke},
	}
}

func (s *site) try(c change, path string, header ...string) answer {
	s.t.Helper()
	if c.method == "GET" {
		return s.do("GET", path, nil, header...)
	}
	return s.do("POST", path, url.Values{"name": {"CI pipeline"}, "grace": {"0"}}, header...)
}

// TestKeysOfOthersAreLikeKeysThatAreNot: gone, never made, or of another account.
func TestKeysOfOthersAreLikeKeysThatAreNot(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	rival := s.account
	rival.ID, rival.Subaccounts = "rival", nil
	_, _, err := s.store.PutAccount(t.Context(), policy.Caller{}, rival)
	s.must(err)
	rules, err := s.store.Rules(t.Context(), "rival")
	s.must(err)
	others, token, err := s.store.Create(t.Context(), policy.Caller{Account: rules}, keystore.NewKey{
		Name: "CI pipeline", Permissions: policy.NewPermissionSet("datacenter_shared:read"), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
	})
	s.must(err)
	gone := s.made("CI pipeline")
	_, err = s.store.Revoke(t.Context(), s.caller(), gone.ID)
	s.must(err)
	for _, c := range changes() {
		never := s.try(c, pathOf(policy.Key{ID: "00000000-0000-4000-8000-000000000000"}, c.action))
		if never.status != http.StatusNotFound || !strings.Contains(never.body, "may have been revoked or regenerated") {
			t.Errorf("%s %s got %d", c.method, c.action, never.status)
		}
		for _, id := range []policy.KeyID{gone.ID, others.ID, "x", "new", policy.KeyID(strings.Repeat("a", 3000)), "..%2f..%2fsecret", "%00"} {
			if a := s.try(c, pathOf(policy.Key{ID: id}, c.action)); a.status != never.status || a.body != never.body {
				t.Errorf("%s %s of %q got %d", c.method, c.action, id, a.status)
			}
		}
	}
	if !s.opens(token.Reveal()) {
		t.Error("the key of another account was changed")
	}
	if body := s.get("/dashboard/keys").body; strings.Contains(body, string(others.ID)) {
		t.Error("the key of another account is listed")
	}
}

// TestChangesNeedTheirPermission, and that to read keys, which they show.
func TestChangesNeedTheirPermission(t *testing.T) {
	t.Parallel()
	for _, c := range changes() {
		for _, missing := range []policy.Permission{c.needs, policy.ReadKeys} {
			s := start(t)
			s.signIn()
			k, token := s.madeWithToken("CI pipeline")
			s.account.Permissions = nil
			for _, p := range []policy.Permission{"datacenter_shared:read", policy.CreateKeys, policy.ReadKeys, policy.UpdateKeys, policy.DeleteKeys, policy.RegenerateKeys} {
				if p != missing {
					s.account.Permissions = append(s.account.Permissions, string(p))
				}
			}
			_, _, err := s.store.PutAccount(t.Context(), policy.Caller{}, s.account)
			s.must(err)
			a := s.try(c, pathOf(k, c.action))
			if a.status != http.StatusForbidden || !strings.Contains(a.body, string(missing)) || strings.Contains(a.body, "CI pipeline") {
				t.Errorf("%s %s without %s got %d", c.method, c.action, missing, a.status)
			}
			if got := s.stored(k); got == nil || !got.Active || !s.opens(token.Reveal()) {
				t.Errorf("%s %s without %s changed the key", c.method, c.action, missing)
			}
			want := ""
			if c.audited != "" {
				want = string(c.audited) + " permission_denied"
			}
			if got := strings.Join(s.refusals(), "; "); got != want {
				t.Errorf("%s %s without %s: the audit trail has %q, want %q", c.method, c.action, missing, got, want)
			}
		}
	}
}

func TestAnotherSiteChangesNoKey(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	k, token := s.madeWithToken("CI pipeline")
	for _, c := range changes() {
		if c.method == "GET" {
			continue
		}
		if a := s.try(c, pathOf(k, c.action), "Sec-Fetch-Site", "cross-site"); a.status != http.StatusForbidden {
			t.Errorf("%s got %d", c.action, a.status)
		}
		if a := s.try(c, pathOf(k, c.action), "Content-Type", "text/plain"); a.status != http.StatusUnsupportedMediaType {
			t.Errorf("%s as text got %d", c.action, a.status)
		}
	}
	if got := s.stored(k); got == nil || !got.Active || !s.opens(token.Reveal()) {
		t.Errorf("the key is %+v", got)
	}
}

// late is a store in which somebody else is a moment faster.
type late struct {
	dashboard.Store
	err error
}

func (l *late) Update(context.Context, policy.Caller, policy.KeyID, keystore.Update) (after, before policy.Key, err error) {
	return policy.Key{}, policy.Key{}, l.err
}

func (l *late) Revoke(context.Context, policy.Caller, policy.KeyID) (time.Time, error) {
	return time.Time{}, l.err
}

func (l *late) Regenerate(context.Context, policy.Caller, policy.KeyID, time.Duration) (policy.Key, keystore.Token, error) {
	return policy.Key{}, keystore.Token{}, l.err
}

func TestWhoeverIsFasterIsSaidClearly(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		err    error
		status int
		says   string
	}{
		{keystore.ErrNotFound, http.StatusNotFound, "may have been revoked or regenerated a moment ago"},
		{keystore.ErrReplaced, http.StatusConflict, "was replaced by another one"},
		{keystore.ErrConflict, http.StatusConflict, "Another change to the same object came first."},
		{keystore.ErrUnavailable, http.StatusServiceUnavailable, "did not answer in time"},
		{errors.Join(keystore.ErrUnavailable, keystore.ErrUncertain), http.StatusServiceUnavailable, "did not answer in time"},
		{errors.Join(keystore.ErrUnavailable, keystore.ErrReadOnly), http.StatusServiceUnavailable, "accepts no changes at the moment"},
		{errors.New("secret of the inside"), http.StatusInternalServerError, "could not complete"},
	} {
		s := start(t, func(s *site) {
			s.wrap = func(store dashboard.Store) dashboard.Store { return &late{store, r.err} }
		})
		s.signIn()
		k := s.made("CI pipeline")
		for _, c := range changes() {
			if c.method == "GET" {
				continue
			}
			a := s.try(c, pathOf(k, c.action))
			wants(t, c.action, words(a.body), r.says)
			wantsNone(t, c.action, a.body, "secret of the inside")
			if a.status != r.status || !strings.HasPrefix(s.refusals()[0], string(c.audited)) {
				t.Errorf("%s after %v got %d, audited as %q", c.action, r.err, a.status, s.refusals())
			}
		}
	}
}

// TestGraceNeedsRoom for both keys, and the form says so.
func TestGraceNeedsRoom(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) {
		s.wrap = func(store dashboard.Store) dashboard.Store { return &late{store, keystore.ErrKeyLimit} }
	})
	s.signIn()
	k := s.made("CI pipeline")
	a := s.post(pathOf(k, "regenerate"), url.Values{"name": {"CI pipeline"}, "grace": {"86400"}})
	wants(t, "form", html.UnescapeString(a.body), `role="alert"`, "as many keys as it may have", `value="86400" required checked`, `value="CI pipeline"`)
	if got := s.refusals(); a.status != http.StatusUnprocessableEntity || len(got) != 1 || got[0] != "key.regenerate key_limit_reached" {
		t.Errorf("got %d, audited as %q", a.status, got)
	}
}

// countless is a store that cannot count.
type countless struct{ dashboard.Store }

func (countless) Usage(context.Context, policy.Caller, keystore.UsageFilter) ([]keystore.Usage, error) {
	return nil, keystore.ErrUnavailable
}

// TestUnknownUseIsNotShownAsNone: who reads that a key is not used revokes it.
func TestUnknownUseIsNotShownAsNone(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) {
		s.wrap = func(store dashboard.Store) dashboard.Store { return countless{store} }
	})
	s.signIn()
	if a := s.get(pathOf(s.made("CI pipeline"), "revoke")); a.status != http.StatusServiceUnavailable {
		t.Errorf("got %d: %s", a.status, words(a.body))
	}
}
