package keystore_test

import (
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

func TestLastUseOfKeysIsShown(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		used, _ := n.key(person)
		idle, _ := n.key(person)
		gone, _ := n.key(person)
		at := w.clock.Now().Add(-time.Minute)
		for _, id := range []policy.KeyID{used.ID, gone.ID} {
			n.Used(id, "acme", at.Add(-time.Second))
			n.Used(id, "acme", at)
		}
		if _, err := n.Revoke(t.Context(), person, gone.ID); err != nil {
			t.Fatal(err)
		}
		if err := n.FlushUsage(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, k := range n.list(person, 10) {
			if want := map[policy.KeyID]bool{used.ID: true}[k.ID]; want != k.LastUsedAt.Equal(at) || (!want && !k.LastUsedAt.IsZero()) {
				t.Errorf("key %s was last used at %v", k.ID, k.LastUsedAt)
			}
		}
		if k, err := n.Get(t.Context(), person, used.ID); err != nil || !k.LastUsedAt.Equal(at) {
			t.Errorf("got %v, %v", k.LastUsedAt, err)
		}
		if k, err := n.Get(t.Context(), person, idle.ID); err != nil || !k.LastUsedAt.IsZero() {
			t.Errorf("got %v, %v", k.LastUsedAt, err)
		}
		for name, value := range dump(t, keystore.ClientOf(n.Store), w.options.Prefix+"account:{acme}:used") {
			if len(value) > len(used.ID)+20 {
				t.Errorf("%s still knows a revoked key: %s", name, value)
			}
		}
	})
}
