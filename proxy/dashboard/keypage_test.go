package dashboard_test

import (
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
	by := s.caller()
	by.Person = policy.Actor{Kind: policy.ActorSession, ID: string(s.user.ID)}
	by.Client, by.RequestID = netip.MustParseAddr(clientIP), "request-0"
	return by
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
			other.Count(k.ID, "acme", u.permission, u.outcome, at)
		}
		if u.outcome == string(policy.Allowed) {
			other.Used(k.ID, "acme", at)
		}
	}
	s.must(other.Close())
}

// pass lets time pass.
func (s *site) pass(d time.Duration) { s.now.Add(int64(d / time.Second)) }

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
