package keystore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

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

// A change of the account between any two steps on a Cluster costs no key: the
// old token works, or the new one does, and every other key as before.
func TestGraceOnAClusterLosesNoKey(t *testing.T) {
	for _, kind := range []string{"miniredis", "cluster"} {
		for at := 1; ; at++ {
			w := newWorld(t, kind)
			n, victim := w.node(), w.node()
			if kind == "miniredis" {
				keystore.UseClusterCommitter(victim.Store)
			}
			person := n.account("acme")
			old, oldToken := n.key(person)
			scripts := 0
			meanwhile := func() { n.account("acme", func(a *keystore.Account) { a.Name = "renamed meanwhile" }) }
			victim.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
				if isCommit(cmd) {
					if scripts++; scripts == at {
						meanwhile()
					}
				}
				return next()
			})
			_, nextToken, err := victim.Regenerate(t.Context(), person, old.ID, time.Hour)
			if err != nil && !errors.Is(err, keystore.ErrConflict) {
				t.Errorf("%s, step %d: %v", kind, at, err)
			}
			if n.works(oldToken); err == nil {
				n.works(nextToken)
			}
			n.everyKeyIsListed(person)
			if scripts < at { // it was over by then
				if at < 8 {
					t.Errorf("%s: done in %d steps: nothing was tested", kind, at)
				}
				break
			}
		}
	}
}

// An old token must not take the place of the new one: who holds it changes
// nothing, and uses products as before.
func TestReplacedKeyChangesNothing(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		old, oldToken := n.key(person)
		other, _ := n.key(person)
		by := n.caller(oldToken) // before it is replaced
		next, nextToken := n.replace(person, old.ID, time.Hour)
		for _, by := range []policy.Caller{by, n.caller(oldToken)} {
			for _, id := range []policy.KeyID{next.ID, other.ID} {
				_, _, err := n.Regenerate(t.Context(), by, id, 0)
				wantErr(t, err, keystore.ErrCallerReplaced)
				_, _, err = n.Update(t.Context(), by, id, keystore.Update{Active: ptr(false)})
				wantErr(t, err, keystore.ErrCallerReplaced)
				_, err = n.Revoke(t.Context(), by, id)
				wantErr(t, err, keystore.ErrCallerReplaced)
			}
			_, _, err := n.Create(t.Context(), by, newKey())
			wantErr(t, err, keystore.ErrCallerReplaced)
		}
		n.works(nextToken)
		n.works(oldToken)
	})
}

// A key keeps its place in a listing when it is replaced.
func TestReplacedKeyKeepsItsPlace(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		w.clock.Advance(300 * time.Millisecond)
		n.key(person)
		w.clock.Advance(300 * time.Millisecond)
		newest, _ := n.key(person)
		page, cursor, err := n.List(t.Context(), person, "", 1)
		if err != nil || len(page) != 1 || page[0].ID != newest.ID {
			t.Fatalf("got %v, %v", page, err)
		}
		w.clock.Advance(300 * time.Millisecond)
		n.replace(person, newest.ID, time.Hour)
		if rest, _, err := n.List(t.Context(), person, cursor, 10); err != nil || len(rest) != 1 || rest[0].ID == newest.ID {
			t.Errorf("listed again: %v, %v", rest, err)
		}
	})
}
