package dashboard_test

import (
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

const (
	idleTitle    = "Permissions that were not used in the last 30 days"
	unusedTitle  = "Not used for more than 90 days"
	neverTitle   = "Never used If nothing"
	expiresTitle = "This key never expires"
)

// TestAdvice: each case is a key whose requests are counted, on a site that
// began 200 days ago.
func TestAdvice(t *testing.T) {
	t.Parallel()
	expiring := func(k *keystore.NewKey) { k.Expiry = policy.ExpiresAt(time.Now().Add(1000 * day).Unix()) }
	old := func(s *site) policy.Key {
		k := s.key(expiring)
		s.pass(200 * day)
		return k
	}
	for name, test := range map[string]struct {
		key    func(s *site) policy.Key
		uses   []use
		grants []string
		shown  []string
		hidden []string
	}{
		"all is well": {key: old, uses: []use{{sharedRead, "allowed", day, 1}, {sharedWrite, "allowed", day, 1}}, hidden: []string{"Worth a look"}},
		"a permission is idle": {
			key: old, uses: []use{{sharedRead, "allowed", day, 1}, {sharedWrite, "allowed", 40 * day, 1}},
			shown: []string{idleTitle + " Shared datacenter: write A key should", "Edit permissions"}, hidden: []string{unusedTitle},
		},
		"used 29 days ago": {key: old, uses: []use{{sharedRead, "allowed", day, 1}, {sharedWrite, "allowed", 29 * day, 1}}, hidden: []string{idleTitle}},
		"a refusal is no use": {
			key: old, uses: []use{{sharedRead, "allowed", day, 1}, {sharedWrite, "rate_limited", day, 1}}, shown: []string{"Shared datacenter: write A key should"},
		},
		"a failure is": {key: old, uses: []use{{sharedRead, "allowed", day, 1}, {sharedWrite, "upstream_timeout", day, 1}}, hidden: []string{idleTitle}},
		"without account:usage:read nobody is told": {
			key: old, uses: []use{{sharedRead, "allowed", day, 1}}, grants: []string{"datacenter_shared:*", "account:apikeys:*"}, hidden: []string{idleTitle},
		},
		"what the account has not is not spoken of": {
			key: old, uses: []use{{sharedRead, "allowed", day, 1}}, grants: []string{"datacenter_shared:read", "account:apikeys:*", "account:usage:read"}, hidden: []string{idleTitle},
		},
		"a young key is not accused": {
			key:  func(s *site) policy.Key { s.pass(171 * day); k := s.key(expiring); s.pass(29 * day); return k },
			uses: []use{{sharedRead, "allowed", day, 1}}, hidden: []string{idleTitle, unusedTitle, "Never used"},
		},
		"nor one that was not used yet": {
			key: func(s *site) policy.Key { s.pass(111 * day); k := s.key(expiring); s.pass(89 * day); return k }, hidden: []string{unusedTitle, "Never used If"},
		},
		"nor one that was regenerated": {
			key: func(s *site) policy.Key {
				k := s.key(expiring)
				s.pass(190 * day)
				next, _, err := s.store.Regenerate(t.Context(), s.person(), k.ID, 0)
				s.must(err)
				s.pass(10 * day)
				return next
			},
			uses: []use{{sharedRead, "allowed", day, 1}}, hidden: []string{idleTitle, unusedTitle, "Never used"},
		},
		"nor one for a permission that it got lately": {
			key: func(s *site) policy.Key {
				k := s.key(expiring)
				s.pass(180 * day)
				more := policy.NewPermissionSet(sharedRead, sharedWrite, sharedDelete)
				s.update(k, keystore.Update{Permissions: &more})
				s.pass(20 * day)
				return k
			},
			uses: []use{{sharedRead, "allowed", day, 1}}, shown: []string{idleTitle + " Shared datacenter: write A key"}, hidden: []string{"Shared datacenter: delete A"},
		},
		"nor one that was enabled lately": {
			key: func(s *site) policy.Key {
				k := s.key(expiring)
				on, off := true, false
				s.update(k, keystore.Update{Active: &off})
				s.pass(180 * day)
				s.update(k, keystore.Update{Active: &on})
				s.pass(20 * day)
				return k
			},
			uses: []use{{sharedRead, "allowed", day, 1}}, hidden: []string{idleTitle},
		},
		"never used": {key: old, shown: []string{neverTitle, "Revoke this key"}, hidden: []string{idleTitle}},
		"used 91 days ago": {
			key: old, uses: []use{{sharedRead, "allowed", 91 * day, 1}}, shown: []string{unusedTitle}, hidden: []string{idleTitle},
		},
		"used 89 days ago": {
			key: old, uses: []use{{sharedRead, "allowed", 89 * day, 1}}, shown: []string{idleTitle}, hidden: []string{unusedTitle},
		},
		"disabled and not used": {
			key: func(s *site) policy.Key {
				k := s.key()
				off := false
				s.update(k, keystore.Update{Active: &off})
				s.pass(200 * day)
				return k
			},
			shown: []string{"It is disabled as well."}, hidden: []string{idleTitle, expiresTitle},
		},
		"never expires": {
			key:  func(s *site) policy.Key { s.pass(200 * day); return s.key() },
			uses: []use{{sharedRead, "allowed", 0, 1}}, shown: []string{expiresTitle, "is reached. Set an expiry"}, hidden: []string{idleTitle},
		},
		"whoever may change nothing is offered nothing": {
			key: func(s *site) policy.Key { s.pass(200 * day); return s.key() }, grants: []string{"datacenter_shared:*", "account:apikeys:read"},
			shown: []string{expiresTitle}, hidden: []string{"is reached. Set an expiry"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, at(200*day))
			k := test.key(s)
			s.used(k, test.uses...)
			if test.grants != nil {
				s.allows(test.grants...)
			}
			s.signIn()
			a := s.get("/dashboard/keys/" + string(k.ID))
			a.shows(t, test.shown...)
			a.hides(t, test.hidden...)
		})
	}
}

func (s *site) update(k policy.Key, u keystore.Update) {
	s.t.Helper()
	_, _, err := s.store.Update(s.t.Context(), s.person(), k.ID, u)
	s.must(err)
}

// TestUncountedUseIsNoReproach: a key that was used while nobody counted.
func TestUncountedUseIsNoReproach(t *testing.T) {
	t.Parallel()
	s := start(t, at(200*day))
	k := s.key()
	s.pass(200 * day)
	other := s.open()
	other.Used(k.ID, "acme", s.clock().Add(-day))
	s.must(other.Close())
	s.signIn()
	a := s.get("/dashboard/keys/" + string(k.ID))
	a.shows(t, "Last used 1 day ago")
	a.hides(t, idleTitle, unusedTitle)
}

func keyNamed(name string) keystore.Update { return keystore.Update{Name: &name} }
