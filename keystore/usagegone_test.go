package keystore_test

import (
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// TestRequestsOfAKeyThatIsGoneCountForItsAccount, also those of the last minute:
// else who makes a key for each minute is counted for nothing. They count for no
// later account of that id.
func TestRequestsOfAKeyThatIsGoneCountForItsAccount(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		use := func() policy.Key {
			w.clock.Advance(time.Second)
			k, _ := n.key(person)
			n.Used(k.ID, "acme", w.clock.Now())
			n.count(k.ID, "acme", read, "allowed", w.clock.Now())
			return k
		}
		gone := use()
		if _, err := n.Revoke(t.Context(), person, gone.ID); err != nil {
			t.Fatal(err)
		}
		n.flush()
		if got := usageOf(n, person); len(got) != 1 || !strings.HasSuffix(got[0], "allowed 1") {
			t.Errorf("the account is told %q, want one request", got)
		}
		for name, value := range dump(t, keystore.ClientOf(n.Store), w.options.Prefix+"account:{acme}:us") {
			if strings.Contains(name+value, string(gone.ID)) {
				t.Errorf("%s has outlived its key", name)
			}
		}
		use()
		if err := n.DeleteAccount(t.Context(), person, "acme"); err != nil {
			t.Fatal(err)
		}
		w.clock.Advance(time.Second)
		again := n.account("acme")
		n.flush()
		if got := usageOf(n, again); got != nil {
			t.Errorf("the next account of the id is told %q", got)
		}
	})
}
