package keystore_test

import (
	"errors"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// replace regenerates the key with a grace.
func (n *node) replace(by policy.Caller, id policy.KeyID, grace time.Duration) (policy.Key, keystore.Token) {
	n.t.Helper()
	next, token, err := n.Regenerate(n.t.Context(), by, id, grace)
	if err != nil {
		n.t.Fatal(err)
	}
	return next, token
}

func TestReplacedKeyWorksUntilItsGraceEnds(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		old, oldToken := n.key(person)
		n.works(oldToken)
		next, nextToken := n.replace(person, old.ID, time.Hour)
		ends := w.clock.Now().Add(time.Hour)

		e := n.works(oldToken)
		if !e.Key.ReplacedAt.Equal(w.clock.Now()) || e.Key.Expiry.Unix() != ends.Unix() || e.Key.ID != old.ID {
			t.Errorf("the old key is %+v", e.Key)
		}
		if e := n.works(nextToken); e.Key.Replaced() || !e.Key.Expiry.Never() || e.Key.ID != next.ID {
			t.Errorf("the new key is %+v", e.Key)
		}
		if keys := n.list(person, 10); len(keys) != 2 {
			t.Errorf("%d keys are listed, want both", len(keys))
		}
		// It can be revoked, and nothing else.
		_, _, err := n.Update(t.Context(), person, old.ID, keystore.Update{Expiry: ptr(policy.NeverExpires())})
		wantErr(t, err, keystore.ErrReplaced)
		for _, grace := range []time.Duration{0, time.Hour} {
			_, _, err = n.Regenerate(t.Context(), person, old.ID, grace)
			wantErr(t, err, keystore.ErrReplaced)
		}

		w.clock.Advance(time.Hour - time.Second)
		n.works(oldToken)
		w.clock.Advance(time.Second)
		n.wantUnknown(oldToken)
		n.works(nextToken)
		if keys := n.list(person, 10); len(keys) != 1 || keys[0].ID != next.ID {
			t.Errorf("listed: %v", keys)
		}
		_, err = n.Get(t.Context(), person, old.ID)
		wantErr(t, err, keystore.ErrNotFound)
		_, err = n.Revoke(t.Context(), person, old.ID)
		wantErr(t, err, keystore.ErrNotFound)
	})
}

func TestGraceNeverOutlastsTheKey(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		old, token := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(time.Minute) })
		next, _ := n.replace(person, old.ID, time.Hour)
		if e := n.works(token); e.Key.Expiry != w.clock.In(time.Minute) || next.Expiry != w.clock.In(time.Minute) {
			t.Errorf("the old key expires at %v, the new one at %v", e.Key.Expiry, next.Expiry)
		}
	})
}

func TestReplacedKeyCanBeRevoked(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		old, token := n.key(person)
		n.replace(person, old.ID, time.Hour)
		if _, err := n.Revoke(t.Context(), person, old.ID); err != nil {
			t.Fatal(err)
		}
		n.wantUnknown(token)
	})
}

// A replaced key counts as a key until its grace ends, and no longer.
func TestGraceNeedsRoom(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(func(o *keystore.Options) { o.MaxKeys = 2 })
		person := n.account("acme")
		old, _ := n.key(person)
		next, _ := n.replace(person, old.ID, time.Minute)
		_, _, err := n.Regenerate(t.Context(), person, next.ID, time.Minute)
		wantErr(t, err, keystore.ErrKeyLimit)
		_, _, err = n.Create(t.Context(), person, newKey())
		wantErr(t, err, keystore.ErrKeyLimit)
		next, _ = n.replace(person, next.ID, 0) // one for one needs no room
		w.clock.Advance(time.Minute)
		n.replace(person, next.ID, time.Minute)
	})
}

// Of two that regenerate the same key at once one wins; the other is told.
func TestGraceIsGivenOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		other := n.second()
		person := n.account("acme")
		old, _ := n.key(person)
		errs := make(chan error, 2)
		for _, at := range []*node{n, other} {
			go func() {
				_, _, err := at.Regenerate(t.Context(), person, old.ID, time.Hour)
				errs <- err
			}()
		}
		first, second := <-errs, <-errs
		if first != nil {
			first, second = second, first
		}
		lost := errors.Is(second, keystore.ErrConflict) || errors.Is(second, keystore.ErrReplaced)
		if first != nil || !lost {
			t.Errorf("got %v and %v, want one winner and one conflict", first, second)
		}
		if keys := n.list(person, 10); len(keys) != 2 {
			t.Errorf("%d keys, want the old and the new one", len(keys))
		}
	})
}
