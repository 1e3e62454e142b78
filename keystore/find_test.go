package keystore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// TestFindIsALookupWithoutTheToken: it finds what a lookup of the token would,
// with the account and without, and nothing else.
func TestFindIsALookupWithoutTheToken(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		for i := range 3 {
			n.account(policy.AccountID(fmt.Sprintf("other%d", i)))
		}
		by := n.account("acme")
		k, token := n.key(by)
		want := n.works(token)
		before := dump(t, keystore.ClientOf(n.Store), w.options.Prefix)
		for _, account := range []policy.AccountID{"acme", ""} {
			got, err := n.Find(t.Context(), account, k.ID)
			if err != nil {
				t.Fatalf("in %q: %v", account, err)
			}
			if diff := cmp.Diff(want, got, same); diff != "" {
				t.Errorf("in %q (-lookup +find):\n%s", account, diff)
			}
		}
		_, err := n.Find(t.Context(), "other1", k.ID)
		wantErr(t, err, keystore.ErrNotFound)
		for _, account := range []policy.AccountID{"acme", "nobody", ""} {
			_, err := n.Find(t.Context(), account, "11111111-0000-4000-8000-000000000009")
			wantErr(t, err, keystore.ErrNotFound)
		}
		if diff := cmp.Diff(before, dump(t, keystore.ClientOf(n.Store), w.options.Prefix)); diff != "" {
			t.Errorf("finding has changed the store:\n%s", diff)
		}
		next, _, err := n.Regenerate(t.Context(), by, k.ID, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		w.clock.Advance(2 * time.Hour) // the grace is over
		_, err = n.Find(t.Context(), "", k.ID)
		wantErr(t, err, keystore.ErrNotFound)
		if _, err := n.Find(t.Context(), "", next.ID); err != nil {
			t.Error(err)
		}
	})
}

// TestNothingIsFoundInAnEmptiedStore: that is no answer about any key.
func TestNothingIsFoundInAnEmptiedStore(t *testing.T) {
	t.Parallel()
	w, m := miniWorld(t)
	n := w.node()
	k, _ := n.key(n.account("acme"))
	m.FlushAll()
	for _, account := range []policy.AccountID{"acme", ""} {
		_, err := n.Find(t.Context(), account, k.ID)
		wantErr(t, err, keystore.ErrUnavailable)
	}
}
