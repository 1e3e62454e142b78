package keystore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// axis is one way for a key to hold more than the weak caller of these tests,
// which may read and manage keys in A and B, from the office, for an hour.
type axis struct {
	name   string
	more   func(w *world, k *keystore.NewKey)
	update func(w *world, u *keystore.Update) // what an update would have to say to get there
	excess func(*policy.Excess) bool
}

var axes = []axis{
	{
		"a permission",
		func(_ *world, k *keystore.NewKey) { k.Permissions = policy.NewPermissionSet(read, write) },
		func(_ *world, u *keystore.Update) { u.Permissions = ptr(policy.NewPermissionSet(read, write)) },
		func(e *policy.Excess) bool { return cmp.Equal(e.Permissions, policy.PermissionSet{write}) },
	},
	{
		"a subaccount",
		func(_ *world, k *keystore.NewKey) { k.Subaccounts = []policy.SubaccountID{subA, subC} },
		func(_ *world, u *keystore.Update) { u.Subaccounts = &[]policy.SubaccountID{subA, subC} },
		func(e *policy.Excess) bool { return cmp.Equal(e.Subaccounts, []policy.SubaccountID{subC}) },
	},
	{
		"every address",
		func(_ *world, k *keystore.NewKey) { k.Addresses = policy.AnyAddress() },
		func(_ *world, u *keystore.Update) { u.Addresses = ptr(policy.AnyAddress()) },
		func(e *policy.Excess) bool { return e.AnyAddress },
	},
	{
		"an address",
		func(_ *world, k *keystore.NewKey) { k.Addresses = policy.OnlyAddresses(office, home) },
		func(_ *world, u *keystore.Update) { u.Addresses = ptr(policy.OnlyAddresses(office, home)) },
		func(e *policy.Excess) bool { return len(e.Addresses) == 1 && e.Addresses[0] == home },
	},
	{
		"a second of life",
		func(w *world, k *keystore.NewKey) { k.Expiry = w.clock.In(time.Hour + time.Second) },
		func(w *world, u *keystore.Update) { u.Expiry = ptr(w.clock.In(time.Hour + time.Second)) },
		func(e *policy.Excess) bool { return e.Expiry },
	},
	{
		"endless life",
		func(_ *world, k *keystore.NewKey) { k.Expiry = policy.NeverExpires() },
		func(_ *world, u *keystore.Update) { u.Expiry = ptr(policy.NeverExpires()) },
		func(e *policy.Excess) bool { return e.Expiry },
	},
}

func ptr[T any](v T) *T { return &v }

func hardened(o *keystore.Options) {
	o.Delegation = policy.Delegation{InheritAddresses: true, CapExpiry: true}
}

// weak is exactly what the weak caller holds, less its key management.
func weak(w *world) func(*keystore.NewKey) {
	return func(k *keystore.NewKey) {
		k.Permissions, k.Subaccounts = policy.NewPermissionSet(read), []policy.SubaccountID{subA, subB}
		k.Addresses, k.Expiry = policy.OnlyAddresses(office), w.clock.In(time.Hour)
	}
}

func (n *node) weakCaller(person policy.Caller) policy.Caller {
	n.t.Helper()
	_, token := n.key(person, weak(n.w), func(k *keystore.NewKey) {
		k.Permissions = policy.NewPermissionSet(read, policy.CreateKeys, policy.UpdateKeys, policy.DeleteKeys, policy.RegenerateKeys)
	})
	return n.caller(token)
}

func wantExcess(t *testing.T, what string, err error, want func(*policy.Excess) bool) {
	t.Helper()
	var excess *policy.Excess
	if !errors.As(err, &excess) {
		t.Errorf("%s: got %v, want a *policy.Excess", what, err)
	} else if !want(excess) {
		t.Errorf("%s: got %+v", what, excess)
	}
}

func TestWeakKeyCannotGiveMoreThanItHolds(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(hardened)
		person := n.account("acme")
		by := n.weakCaller(person)
		if _, _, err := n.Create(t.Context(), by, newKey(weak(w))); err != nil {
			t.Fatalf("what it holds itself: %v", err)
		}
		before := n.list(person, 100)
		for _, a := range axes {
			_, _, err := n.Create(t.Context(), by, newKey(weak(w), func(k *keystore.NewKey) { a.more(w, k) }))
			wantExcess(t, "create with "+a.name, err, a.excess)
			if _, _, err := n.Create(t.Context(), person, newKey(weak(w), func(k *keystore.NewKey) { a.more(w, k) })); err != nil {
				t.Errorf("a person, with %s: %v", a.name, err)
			}
		}
		if got := len(n.list(person, 100)); got != len(before)+len(axes) {
			t.Errorf("%d keys, want %d", got, len(before)+len(axes))
		}
	})
}

func TestWeakKeyCannotTouchAStrongerOne(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(hardened)
		person := n.account("acme")
		by := n.weakCaller(person)
		stronger := axes
		stronger = append(stronger[:len(stronger):len(stronger)], axis{
			name:   "every subaccount",
			more:   func(_ *world, k *keystore.NewKey) { k.Subaccounts = nil },
			excess: func(e *policy.Excess) bool { return e.AllSubaccounts },
		})
		for _, a := range stronger {
			strong, token := n.key(person, weak(w), func(k *keystore.NewKey) { a.more(w, k) })
			updates := map[string]keystore.Update{
				"rename": {Name: ptr("mine")}, "disable": {Active: ptr(false)}, "nothing": {},
				"weaken": {Permissions: ptr(policy.NewPermissionSet(read)), Subaccounts: &[]policy.SubaccountID{subA}, Addresses: ptr(policy.OnlyAddresses(office)), Expiry: ptr(w.clock.In(time.Minute))},
			}
			for what, u := range updates {
				_, _, err := n.Update(t.Context(), by, strong.ID, u)
				wantExcess(t, what+" one with "+a.name, err, a.excess)
			}
			_, _, err := n.Regenerate(t.Context(), by, strong.ID, 0)
			wantExcess(t, "regenerate one with "+a.name, err, a.excess)
			if diff := cmp.Diff(strong, *n.works(token).Key, same); diff != "" {
				t.Errorf("one with %s has changed (-want +got):\n%s", a.name, diff)
			}
			if _, err := n.Revoke(t.Context(), by, strong.ID); err != nil {
				t.Errorf("revoking needs no more than its permission: %v", err)
			}
		}
	})
}

func TestWeakKeyCannotStrengthenAnother(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(hardened)
		person := n.account("acme")
		by := n.weakCaller(person)
		equal, token := n.key(person, weak(w))
		for _, a := range axes {
			var u keystore.Update
			a.update(w, &u)
			_, _, err := n.Update(t.Context(), by, equal.ID, u)
			wantExcess(t, "add "+a.name, err, a.excess)
		}
		if diff := cmp.Diff(equal, *n.works(token).Key, same); diff != "" {
			t.Errorf("it has changed (-want +got):\n%s", diff)
		}
		// Its neighbours: all that the caller has itself.
		after, _, err := n.Update(t.Context(), by, equal.ID, keystore.Update{
			Name: ptr("renamed"), Permissions: ptr(by.Key.Permissions), Subaccounts: &[]policy.SubaccountID{},
			Addresses: ptr(by.Key.Addresses), Expiry: ptr(by.Key.Expiry),
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(policy.OnlySubaccounts(subA, subB), after.Subaccounts, same); diff != "" {
			t.Errorf("no subaccounts are those of the caller (-want +got):\n%s", diff)
		}
		if _, _, err := n.Regenerate(t.Context(), by, equal.ID, 0); err != nil {
			t.Errorf("regenerate an equal one: %v", err)
		}
	})
}

// Without the two hardenings, addresses and lifetime are not bounded; the
// documented API says so.
func TestAddressesAndLifetimeAreBoundedOnlyWhereAsked(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		by := n.weakCaller(person)
		for _, a := range axes {
			var u keystore.Update
			a.update(w, &u)
			bounded := u.Permissions != nil || u.Subaccounts != nil
			_, _, err := n.Create(t.Context(), by, newKey(weak(w), func(k *keystore.NewKey) { a.more(w, k) }))
			if (err != nil) != bounded {
				t.Errorf("create with %s: got %v", a.name, err)
			}
		}
	})
}

// What the account has lost, nobody can hand on; what a target still lists of
// it, it may keep, but a key that never had it must not get its hands on it.
func TestWhatTheAccountHasLostCannotBeHandedOn(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		_, token := n.key(person)
		writer, _ := n.key(person, func(k *keystore.NewKey) { k.Permissions = policy.NewPermissionSet(write) })
		reader, _ := n.key(person, func(k *keystore.NewKey) { k.Permissions = policy.NewPermissionSet(read) })
		by := n.caller(token) // holds write, as its lookup said
		person = n.account("acme", func(a *keystore.Account) { a.Permissions = []string{"proxies:read", "account:apikeys:*"} })

		lost := func(e *policy.Excess) bool { return cmp.Equal(e.Permissions, policy.PermissionSet{write}) }
		for who, by := range map[string]policy.Caller{"key": by, "person": person} {
			_, _, err := n.Create(t.Context(), by, newKey(func(k *keystore.NewKey) { k.Permissions = policy.NewPermissionSet(read, write) }))
			wantExcess(t, who+" creates", err, lost)
			_, _, err = n.Update(t.Context(), by, reader.ID, keystore.Update{Permissions: ptr(policy.NewPermissionSet(read, write))})
			wantExcess(t, who+" updates", err, lost)
			if _, _, err := n.Update(t.Context(), by, writer.ID, keystore.Update{Name: ptr("renamed")}); err != nil {
				t.Errorf("%s renames a key that keeps what it has: %v", who, err)
			}
		}
		narrow, narrowToken := n.key(person, func(k *keystore.NewKey) {
			k.Permissions = policy.NewPermissionSet(read, policy.UpdateKeys, policy.RegenerateKeys)
		})
		_ = narrow
		_, _, err := n.Regenerate(t.Context(), n.caller(narrowToken), writer.ID, 0)
		wantExcess(t, "a reader regenerates a writer while nobody may write", err, lost)
	})
}
