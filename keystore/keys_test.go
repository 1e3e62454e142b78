package keystore_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"gatehouse/keystore"
	"gatehouse/policy"
)

func TestKeyIsFoundUntilItIsRevoked(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		made, token := n.key(person, func(k *keystore.NewKey) {
			k.Name, k.Subaccounts, k.Addresses, k.Expiry = "CI pipeline ✓", []policy.SubaccountID{subB, subA}, policy.OnlyAddresses(office, home), w.clock.In(time.Hour)
		})
		want := policy.Key{
			ID: made.ID, Account: "acme", Name: "CI pipeline ✓", Permissions: newKey().Permissions,
			Subaccounts: policy.OnlySubaccounts(subB, subA), Addresses: policy.OnlyAddresses(office, home),
			Expiry: w.clock.In(time.Hour), Active: true, CreatedAt: w.clock.Now(),
			Preview: token.Reveal()[:7] + "…" + token.Reveal()[60:],
		}
		if diff := cmp.Diff(want, made, same); diff != "" {
			t.Errorf("created (-want +got):\n%s", diff)
		}
		if id, err := uuid.Parse(string(made.ID)); err != nil || id.Version() != 4 {
			t.Errorf("id %q is no UUID v4: %v", made.ID, err)
		}
		found := n.works(token)
		if diff := cmp.Diff(want, *found.Key, same); diff != "" {
			t.Errorf("looked up (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(*person.Account, *found.Account, same); diff != "" {
			t.Errorf("its account (-want +got):\n%s", diff)
		}
		if found.Source != keystore.FromStore {
			t.Errorf("source: got %q, want %q", found.Source, keystore.FromStore)
		}
		got, err := n.Get(t.Context(), person, made.ID)
		if diff := cmp.Diff(want, got, same); diff != "" || err != nil {
			t.Errorf("get: %v (-want +got):\n%s", err, diff)
		}
		if diff := cmp.Diff([]policy.Key{want}, n.list(person, 10), same); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}

		at, err := n.Revoke(t.Context(), person, made.ID)
		if err != nil || !at.Equal(w.clock.Now()) {
			t.Errorf("revoke: got %v, %v, want %v", at, err, w.clock.Now())
		}
		n.wantUnknown(token)
		_, err = n.Get(t.Context(), person, made.ID)
		wantErr(t, err, keystore.ErrNotFound)
		_, err = n.Revoke(t.Context(), person, made.ID)
		wantErr(t, err, keystore.ErrNotFound)
		if rest := n.list(person, 10); len(rest) != 0 {
			t.Errorf("list after revoke: %v", rest)
		}
	})
}

func TestTokenThatWasNeverMintedIsUnknown(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		n.account("acme")
		stranger, err := keystore.Mint("gk_", strings.NewReader(strings.Repeat("never minted ", 10)))
		if err != nil {
			t.Fatal(err)
		}
		n.wantUnknown(stranger)
	})
}

// TestUpdateUnless: it is asked about the key as it is then, and its error
// keeps the key from being changed.
func TestUpdateUnless(t *testing.T) {
	name := "renamed"
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		made, _ := n.key(person, func(*keystore.NewKey) {})
		refused := errors.New("refused")
		var asked policy.Key
		_, _, err := n.Update(t.Context(), person, made.ID, keystore.Update{Name: &name, Unless: func(before policy.Key) error {
			asked = before
			return refused
		}})
		kept, getErr := n.Get(t.Context(), person, made.ID)
		if !errors.Is(err, refused) || getErr != nil || kept.Name != made.Name || asked.Name != made.Name {
			t.Errorf("it was asked about %q, and the key is %q: %v, %v", asked.Name, kept.Name, err, getErr)
		}
		after, _, err := n.Update(t.Context(), person, made.ID, keystore.Update{Name: &name, Unless: func(policy.Key) error { return nil }})
		if err != nil || after.Name != name {
			t.Errorf("without an objection it is %q: %v", after.Name, err)
		}
	})
}

func TestUpdateChangesWhatItNamesAndNothingElse(t *testing.T) {
	name, addresses, permissions, inactive := "renamed", policy.OnlyAddresses(office), policy.NewPermissionSet(read), false
	only, all := []policy.SubaccountID{subA}, []policy.SubaccountID{}
	later, never := policy.ExpiresAt(4_000_000_000), policy.NeverExpires()
	rows := []struct {
		name   string
		update keystore.Update
		want   func(*policy.Key)
	}{
		{"nothing", keystore.Update{}, func(*policy.Key) {}},
		{"name", keystore.Update{Name: &name}, func(k *policy.Key) { k.Name = name }},
		{"permissions", keystore.Update{Permissions: &permissions}, func(k *policy.Key) { k.Permissions = permissions }},
		{"subaccounts", keystore.Update{Subaccounts: &only}, func(k *policy.Key) { k.Subaccounts = policy.OnlySubaccounts(subA) }},
		{"no subaccounts are all", keystore.Update{Subaccounts: &all}, func(k *policy.Key) { k.Subaccounts = policy.AllSubaccounts() }},
		{"addresses", keystore.Update{Addresses: &addresses}, func(k *policy.Key) { k.Addresses = addresses }},
		{"expiry", keystore.Update{Expiry: &later}, func(k *policy.Key) { k.Expiry = later }},
		{"no expiry", keystore.Update{Expiry: &never}, func(k *policy.Key) { k.Expiry = never }},
		{"active", keystore.Update{Active: &inactive}, func(k *policy.Key) { k.Active = false }},
	}
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		for _, row := range rows {
			made, token := n.key(person, func(k *keystore.NewKey) {
				k.Subaccounts, k.Addresses, k.Expiry = []policy.SubaccountID{subA, subB}, policy.OnlyAddresses(home), policy.ExpiresAt(3_900_000_000)
			})
			want := made
			row.want(&want)
			after, before, err := n.Update(t.Context(), person, made.ID, row.update)
			if err != nil {
				t.Fatalf("%s: %v", row.name, err)
			}
			if diff := cmp.Diff([]policy.Key{made, want, want}, []policy.Key{before, after, *n.works(token).Key}, same); diff != "" {
				t.Errorf("%s: before, after, looked up (-want +got):\n%s", row.name, diff)
			}
		}
	})
}

func TestRegenerateReplacesIDAndTokenAndKeepsTheRest(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		old, oldToken := n.key(person, func(k *keystore.NewKey) {
			k.Subaccounts, k.Addresses, k.Expiry = []policy.SubaccountID{subC}, policy.OnlyAddresses(office), w.clock.In(time.Hour)
		})
		off := false
		if _, _, err := n.Update(t.Context(), person, old.ID, keystore.Update{Active: &off}); err != nil {
			t.Fatal(err)
		}
		w.clock.Advance(time.Minute)
		next, token, err := n.Regenerate(t.Context(), person, old.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		if next.ID == old.ID || token.Reveal() == oldToken.Reveal() || next.Preview == old.Preview {
			t.Errorf("regenerated key has the old id, token or preview: %+v", next)
		}
		want := old
		want.ID, want.Preview, want.CreatedAt, want.Active = next.ID, keystore.PreviewOf(token, "gk_"), w.clock.Now(), false
		if diff := cmp.Diff([]policy.Key{want, want}, []policy.Key{next, *n.works(token).Key}, same); diff != "" {
			t.Errorf("returned, looked up (-want +got):\n%s", diff)
		}
		n.wantUnknown(oldToken)
		_, err = n.Get(t.Context(), person, old.ID)
		wantErr(t, err, keystore.ErrNotFound)
		_, _, err = n.Regenerate(t.Context(), person, old.ID, 0)
		wantErr(t, err, keystore.ErrNotFound)
		if keys := n.list(person, 10); len(keys) != 1 || keys[0].ID != next.ID {
			t.Errorf("list: %v", keys)
		}
	})
}

func TestKeyInUseCannotChangeItself(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		k, token := n.key(person)
		own := n.caller(token)
		name := "renamed"
		_, _, err := n.Update(t.Context(), own, k.ID, keystore.Update{Name: &name})
		wantErr(t, err, keystore.ErrKeyInUse)
		_, err = n.Revoke(t.Context(), own, k.ID)
		wantErr(t, err, keystore.ErrKeyInUse)
		_, _, err = n.Regenerate(t.Context(), own, k.ID, 0)
		wantErr(t, err, keystore.ErrKeyInUse)
		if diff := cmp.Diff(k, *n.works(token).Key, same); diff != "" {
			t.Errorf("it has changed (-want +got):\n%s", diff)
		}
	})
}

func TestKeyOfAnotherAccountIsNotFound(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme, rival := n.account("acme"), n.account("rival")
		k, token := n.key(acme)
		_, rivalToken := n.key(rival)
		for name, by := range map[string]policy.Caller{"person": rival, "key": n.caller(rivalToken), "nobody": {}} {
			_, err := n.Get(t.Context(), by, k.ID)
			wantErr(t, err, keystore.ErrNotFound)
			_, _, err = n.Update(t.Context(), by, k.ID, keystore.Update{Name: &name})
			wantErr(t, err, keystore.ErrNotFound)
			_, err = n.Revoke(t.Context(), by, k.ID)
			wantErr(t, err, keystore.ErrNotFound)
			_, _, err = n.Regenerate(t.Context(), by, k.ID, 0)
			wantErr(t, err, keystore.ErrNotFound)
			if slices.ContainsFunc(n.list(by, 10), func(listed policy.Key) bool { return listed.Account != "rival" }) {
				t.Errorf("the list of %s has another account's key", name)
			}
		}
		if diff := cmp.Diff(k, *n.works(token).Key, same); diff != "" {
			t.Errorf("it has changed (-want +got):\n%s", diff)
		}
	})
}

func TestLimitedCreatorHandsOnItsSubaccountsOnly(t *testing.T) {
	rows := []struct {
		name           string
		creator, named []policy.SubaccountID
		lost           []policy.SubaccountID // by the account, after the creator was made
		want           policy.SubaccountSet  // nothing: refused
	}{
		{"unlimited creator", nil, nil, nil, policy.AllSubaccounts()},
		{"unlimited creator, named", nil, []policy.SubaccountID{subC}, nil, policy.OnlySubaccounts(subC)},
		{"limited creator", []policy.SubaccountID{subA, subB}, nil, nil, policy.OnlySubaccounts(subA, subB)},
		{"limited creator, named", []policy.SubaccountID{subA, subB}, []policy.SubaccountID{subB}, nil, policy.OnlySubaccounts(subB)},
		{"limited creator, another named", []policy.SubaccountID{subA}, []policy.SubaccountID{subB}, nil, policy.SubaccountSet{}},
		{"limited creator, the account lost one", []policy.SubaccountID{subA, subB}, nil, []policy.SubaccountID{subA}, policy.OnlySubaccounts(subB)},
		{"limited creator, the account lost all of its", []policy.SubaccountID{subA, subB}, nil, []policy.SubaccountID{subA, subB}, policy.SubaccountSet{}},
		{"limited creator, the account lost the named one", []policy.SubaccountID{subA, subB}, []policy.SubaccountID{subA}, []policy.SubaccountID{subA}, policy.SubaccountSet{}},
		{"unlimited creator, the account lost the named one", nil, []policy.SubaccountID{subA}, []policy.SubaccountID{subA}, policy.SubaccountSet{}},
	}
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		for _, row := range rows {
			person := n.account("acme")
			_, token := n.key(person, func(k *keystore.NewKey) { k.Subaccounts = row.creator })
			by := n.caller(token)
			n.account("acme", func(a *keystore.Account) {
				a.Subaccounts = slices.DeleteFunc(a.Subaccounts, func(s policy.Subaccount) bool { return slices.Contains(row.lost, s.ID) })
			})
			made, _, err := n.Create(t.Context(), by, newKey(func(k *keystore.NewKey) { k.Subaccounts = row.named }))
			var excess *policy.Excess
			if refused := errors.As(err, &excess); refused != (!row.want.All() && len(row.want.IDs()) == 0) {
				t.Errorf("%s: got %v", row.name, err)
			}
			if diff := cmp.Diff(row.want, made.Subaccounts, same); diff != "" {
				t.Errorf("%s (-want +got):\n%s", row.name, diff)
			}
		}
	})
}

func TestKeyLimit(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(func(o *keystore.Options) { o.MaxKeys = 3 })
		person, rival := n.account("acme"), n.account("rival")
		var keys []policy.Key
		for range 3 {
			k, _ := n.key(person)
			keys = append(keys, k)
		}
		_, _, err := n.Create(t.Context(), person, newKey())
		wantErr(t, err, keystore.ErrKeyLimit)
		n.key(rival) // each account has a limit of its own

		next, _, err := n.Regenerate(t.Context(), person, keys[0].ID, 0)
		if err != nil {
			t.Fatalf("regenerate at the limit: %v", err)
		}
		if _, err := n.Revoke(t.Context(), person, next.ID); err != nil {
			t.Fatal(err)
		}
		n.key(person)
		_, _, err = n.Create(t.Context(), person, newKey())
		wantErr(t, err, keystore.ErrKeyLimit)
		if got := len(n.list(person, 10)); got != 3 {
			t.Errorf("%d keys, want 3", got)
		}
	})
}

func TestKeyLimitHoldsWhenManyAreCreatedAtOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(func(o *keystore.Options) { o.MaxKeys = 5 })
		person := n.account("acme")
		var mu sync.Mutex
		var made []keystore.Token
		together(20, func(int) {
			_, token, err := n.Create(t.Context(), person, newKey())
			switch {
			case err == nil:
				mu.Lock()
				made = append(made, token)
				mu.Unlock()
			case !errors.Is(err, keystore.ErrKeyLimit):
				t.Errorf("create: %v", err)
			}
		})
		if listed := len(n.list(person, 10)); len(made) != 5 || listed != 5 {
			t.Errorf("%d made, %d listed, want 5", len(made), listed)
		}
		for _, token := range made {
			n.works(token)
		}
	})
}

// A key that ended longer ago than its retention is dropped by Redis the
// moment it is stored: that stands for 30 days of waiting.
func TestDroppedKeysDoNotCountAgainstTheLimit(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(func(o *keystore.Options) { o.MaxKeys = 3 })
		person := n.account("acme")
		var dropped []keystore.Token
		for range 2 {
			_, token := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(-keystore.Retention - time.Minute) })
			dropped = append(dropped, token)
		}
		kept, token := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(-keystore.Retention + 3*time.Hour) })
		n.wantUnknown(dropped[0])
		if keys := n.list(person, 10); len(keys) != 1 || keys[0].ID != kept.ID {
			t.Errorf("list: %v", keys)
		}
		n.key(person)
		n.key(person)
		_, _, err := n.Create(t.Context(), person, newKey())
		wantErr(t, err, keystore.ErrKeyLimit) // the expired one that is still listed counts
		n.works(token)
	})
}

// An address of a key that no longer suits its caller is the caller's affair,
// not the store's: the store keeps what it was given.
func TestSetsKeepTheirOrder(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		addresses := policy.OnlyAddresses(netip.MustParsePrefix("2001:db8::/32"), home, office)
		k, token := n.key(person, func(k *keystore.NewKey) {
			k.Permissions, k.Addresses, k.Subaccounts = policy.NewPermissionSet(write, read), addresses, []policy.SubaccountID{subC, subA}
		})
		found := n.works(token).Key
		if diff := cmp.Diff([]any{k.Permissions, addresses.Strings(), k.Subaccounts.IDs()}, []any{found.Permissions, found.Addresses.Strings(), found.Subaccounts.IDs()}, same); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
