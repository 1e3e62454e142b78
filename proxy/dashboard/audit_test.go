package dashboard_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// history is an account to which all kinds of things have happened, an hour
// apart, and its keys.
type history struct {
	*site
	key, replaced, next, gone policy.Key
}

func startHistory(t *testing.T) *history {
	t.Helper()
	s := start(t, at(8*hour))
	h := &history{site: s}
	by := s.person()
	h.key = s.key(permissions(sharedRead, "account:apikeys:create", "account:apikeys:update"), func(k *keystore.NewKey) { k.Name = "CI" })
	s.pass(hour)
	name, wanted, ips := "CI 2", policy.NewPermissionSet(sharedRead, sharedWrite, "account:apikeys:update"), policy.OnlyAddresses(netip.MustParsePrefix("203.0.113.0/24"))
	expiry := policy.ExpiresAt(1893456000) // 2030
	s.update(h.key, keystore.Update{Name: &name, Permissions: &wanted, Addresses: &ips, Expiry: &expiry})
	s.pass(hour)
	off := false
	s.update(h.key, keystore.Update{Active: &off})
	s.pass(hour)
	s.store.Refused(t.Context(), by, keystore.KeyRevoke, h.key.ID, "permission_denied")
	s.pass(hour)
	h.replaced = s.key(func(k *keystore.NewKey) { k.Name = "Importer" })
	var err error
	h.next, _, err = s.store.Regenerate(t.Context(), by, h.replaced.ID, 0)
	s.must(err)
	s.pass(hour)
	h.gone = s.key(func(k *keystore.NewKey) { k.Name = "Short-lived" })
	_, err = s.store.Revoke(t.Context(), by, h.gone.ID)
	s.must(err)
	s.pass(hour)
	manager := s.key(permissions(sharedRead, "account:apikeys:update"), func(k *keystore.NewKey) { k.Name = "Manager" })
	s.store.Refused(t.Context(), policy.Caller{Account: by.Account, Key: &manager, RequestID: "request-9"}, keystore.KeyUpdate, h.key.ID, "exceeds_your_access")
	s.pass(hour)
	guest, err := s.store.CreateUser(t.Context(), policy.Caller{Account: by.Account, Person: policy.Actor{Kind: policy.ActorCLI}}, keystore.NewUser{Email: "guest@example.com", PasswordHash: "x"})
	s.must(err)
	s.must(s.store.DeleteUser(t.Context(), by, guest.ID))
	s.pass(hour)
	return h
}

// sentences are what the page says of its events.
func (a answer) sentences() []string {
	var list []string
	for _, found := range regexp.MustCompile(`(?s)<div class="event-what">\s*<p>(.*?)</p>`).FindAllStringSubmatch(a.body, -1) {
		list = append(list, text(found[1]))
	}
	return list
}

func TestAuditSaysWhoDidWhat(t *testing.T) {
	t.Parallel()
	h := startHistory(t)
	h.signIn()
	a := h.get("/dashboard/audit")
	want := []string{
		"Ada ada@example.com signed in",
		"Ada ada@example.com removed the user guest@example.com",
		"An operator command line added the user guest@example.com",
		"Manager PREVIEW tried to change the key CI 2 PREVIEW",
		"Ada ada@example.com created the key Manager PREVIEW",
		"Ada ada@example.com revoked the key Short-lived",
		"Ada ada@example.com created the key Short-lived",
		"Ada ada@example.com regenerated the key Importer PREVIEW ; Importer PREVIEW took its place",
		"Ada ada@example.com created the key Importer PREVIEW",
		"Ada ada@example.com tried to revoke the key CI 2 PREVIEW",
		"Ada ada@example.com disabled the key CI 2 PREVIEW",
		"Ada ada@example.com changed the key CI 2 PREVIEW",
		"Ada ada@example.com created the key CI 2 PREVIEW",
		"An operator added the user Ada ada@example.com",
		"An operator created the account",
	}
	preview := regexp.MustCompile(`gk_\S+`)
	var got []string
	for _, sentence := range a.sentences() {
		got = append(got, preview.ReplaceAllString(sentence, "PREVIEW"))
	}
	// What is done and what is refused in one millisecond has no order.
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	a.shows(t, "Refused exceeds_your_access", "Request request-9", "203.0.113.7", "no address",
		"Name CI became → CI 2", "Permissions added Shared datacenter: write removed API keys: create", "IP Restrictions any address became → 203.0.113.0/24",
		"Expiration never became → 1 January 2030, 00:00 UTC", "State active became → disabled",
		h.clock().Add(-7*hour).Format("2 Jan 2006, 15:04:05 UTC"))
	link := func(k policy.Key) string { return `<a href="/dashboard/keys/` + string(k.ID) + `"` }
	a.has(t, link(h.key), true)
	a.has(t, link(h.next), true)
	a.has(t, link(h.gone), false)
	a.has(t, link(h.replaced), false)

	// Whoever may not see keys learns no more of them than the events say.
	h.allows("account:audit:read")
	a = h.get("/dashboard/audit")
	a.has(t, `<a href="/dashboard/keys/`+string(h.key.ID), false)
	a.shows(t, "created the key a key", "revoked the key Short-lived")
}

func TestAuditIsForWhoMaySeeIt(t *testing.T) {
	t.Parallel()
	s := start(t)
	paths := []string{"/dashboard/audit", "/dashboard/audit/events.csv", "/dashboard/audit/events.json"}
	for _, path := range paths {
		if a := s.get(path); a.status != http.StatusSeeOther {
			t.Errorf("%s without a session got %d", path, a.status)
		}
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
	for _, path := range paths {
		for _, query := range []string{"", "?key=" + string(foreign.ID)} {
			if a := s.get(path + query); a.status != http.StatusOK || strings.Contains(a.body, "Foreign") || strings.Contains(a.body, foreign.Preview) {
				t.Errorf("%s%s got %d: %s", path, query, a.status, a.body)
			}
		}
	}
	s.allows("datacenter_shared:read", "account:apikeys:read", "account:usage:read")
	for _, path := range paths {
		if a := s.get(path); a.status != http.StatusForbidden || strings.Contains(a.body, "signed in") {
			t.Errorf("%s without account:audit:read got %d", path, a.status)
		}
	}
}

func TestAuditIsFiltered(t *testing.T) {
	t.Parallel()
	h := startHistory(t)
	h.signIn()
	moment := func(ago time.Duration) string { return h.clock().Add(-ago).Format("2006-01-02T15:04:05") }
	for name, test := range map[string]struct {
		query url.Values
		want  int
	}{
		"all":                        {nil, 15},
		"a key by id":                {url.Values{"key": {string(h.key.ID)}}, 5},
		"by name":                    {url.Values{"key": {" CI 2 "}}, 5},
		"by preview":                 {url.Values{"key": {h.key.Preview}}, 5},
		"one that is gone":           {url.Values{"key": {string(h.gone.ID)}}, 2},
		"one made in a regeneration": {url.Values{"key": {string(h.next.ID)}}, 1},
		"an action":                  {url.Values{"action": {"key.update"}}, 3},
		"what users did":             {url.Values{"action": {"user.sign_in"}}, 1},
		"refused":                    {url.Values{"outcome": {"refused"}}, 2},
		"done":                       {url.Values{"outcome": {"done"}}, 13},
		"from":                       {url.Values{"from": {moment(2 * hour)}}, 5},
		"until":                      {url.Values{"until": {moment(7 * hour)}}, 3},
		"between":                    {url.Values{"from": {moment(7 * hour)}, "until": {moment(6 * hour)}}, 1},
		"by day":                     {url.Values{"from": {"2020-01-01"}, "until": {"2020-01-02"}}, 0},
		"together":                   {url.Values{"key": {"CI 2"}, "action": {"key.update"}, "outcome": {"done"}}, 2},
		"fields that are left empty": {url.Values{"key": {""}, "action": {""}, "outcome": {""}, "from": {""}, "until": {""}}, 15},
		"what pages know nothing of": {url.Values{"nonsense": {"x"}}, 15},
	} {
		a := h.get("/dashboard/audit?" + test.query.Encode())
		if got := a.sentences(); a.status != http.StatusOK || len(got) != test.want {
			t.Errorf("%s: got %d and %d events, want %d: %q", name, a.status, len(got), test.want, got)
		}
		export := h.get("/dashboard/audit/events.csv?" + test.query.Encode())
		if got := len(rowsOf(t, export)) - 1; got != test.want {
			t.Errorf("%s: %d events are exported, want %d", name, got, test.want)
		}
		if test.want > 0 {
			a.has(t, `href="/dashboard/audit/events.csv`, true)
		}
	}
	h.get("/dashboard/audit?key="+string(h.key.ID)).shows(t, "Events of CI 2", "Clear")
	h.get("/dashboard/audit?from=2020-01-01&until=2020-01-02").shows(t, "There are no events of this kind.")
}

func TestAuditRefusesAFilterThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	h := startHistory(t)
	h.site.key(func(k *keystore.NewKey) { k.Name = "CI 2" })
	h.signIn()
	for name, test := range map[string]struct{ field, value, fault string }{
		"no such key":    {"key", "nobody", "There is no key of this name."},
		"two such keys":  {"key", "CI 2", "Several keys are called so."},
		"no such action": {"action", "key.steal", "There is no such action."},
		"outcome":        {"outcome", "maybe", "There is no such outcome."},
		"from":           {"from", "yesterday", "This is no date and time"},
		"until":          {"until", "2026-13-01T00:00", "This is no date and time"},
		"backwards":      {"until", "2020-01-01T00:00", "The end must be later"},
	} {
		q := url.Values{"from": {"2021-01-01T00:00"}}
		q.Set(test.field, test.value)
		a := h.get("/dashboard/audit?" + q.Encode())
		if a.status != http.StatusUnprocessableEntity || len(a.sentences()) > 0 {
			t.Errorf("%s got %d and %d events", name, a.status, len(a.sentences()))
		}
		a.shows(t, test.fault)
		a.has(t, `aria-describedby="error-`+test.field+`"`, true)
		a.has(t, `id="error-`+test.field+`"`, true)
		if test.field != "action" && test.field != "outcome" {
			a.has(t, `value="`+test.value+`"`, true) // nothing typed is lost
		}
		for _, format := range []string{"csv", "json"} {
			if a := h.get("/dashboard/audit/events." + format + "?" + q.Encode()); a.status != http.StatusUnprocessableEntity {
				t.Errorf("%s as %s got %d", name, format, a.status)
			}
		}
	}
	if a := h.get("/dashboard/audit?cursor=nonsense"); a.status != http.StatusUnprocessableEntity {
		t.Errorf("a cursor that is none got %d", a.status)
	}
}

func TestAuditIsPaged(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.key()
	for n := range 70 {
		s.update(k, keyNamed(strings.Repeat("x", n+1)))
	}
	s.signIn()
	var all []string
	pages := 0
	for path := "/dashboard/audit?action=key.update"; path != ""; pages++ {
		a := s.get(path)
		all = append(all, text(a.body)[strings.Index(text(a.body), "Events"):])
		if n := len(a.sentences()); n > 30 || n == 0 || pages > 3 {
			t.Fatalf("page %d has %d events", pages, n)
		}
		if size := len(a.body); size > 100_000 {
			t.Errorf("page %d is %d bytes", pages, size)
		}
		path = ""
		if next := regexp.MustCompile(`href="([^"]+)">Older<`).FindStringSubmatch(a.body); next != nil {
			path = strings.ReplaceAll(next[1], "&amp;", "&")
		}
		a.has(t, `>Newest</a>`, pages > 0)
	}
	for n := range 70 {
		if shown := strings.Count(strings.Join(all, " "), "→ "+strings.Repeat("x", n+1)+" "); shown != 1 {
			t.Errorf("change %d is on the pages %d times", n, shown)
		}
	}
	if pages != 3 {
		t.Errorf("%d pages", pages)
	}
}
