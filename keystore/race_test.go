package keystore_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// together runs f in n goroutines that begin at the same moment.
func together(n int, f func(i int)) {
	begin := make(chan struct{})
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	done.Wait()
}

// Every acknowledged update says what was before it and after it. If all are
// kept they make one chain, from the key as it was created to the key as it is
// now, and no update has changed a field that another one set.
func TestConcurrentUpdatesAreAllKept(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		nodes := []*node{n, n.second()}
		person := n.account("acme")
		first, token := n.key(person)
		var mu sync.Mutex
		next := map[string]policy.Key{} // by what was before
		var conflicts atomic.Int64
		together(50, func(i int) {
			var u keystore.Update
			switch i % 3 {
			case 0:
				u.Name = ptr(fmt.Sprintf("name %d", i))
			case 1:
				u.Expiry = ptr(w.clock.In(time.Hour + time.Duration(i)*time.Second))
			case 2:
				u.Addresses = ptr(policy.OnlyAddresses(office, home, mustPrefix(fmt.Sprintf("192.0.2.%d", i))))
			}
			for {
				after, before, err := nodes[i%len(nodes)].Update(t.Context(), person, first.ID, u)
				if errors.Is(err, keystore.ErrConflict) {
					conflicts.Add(1)
					continue // it says so, and it may be asked again
				}
				if err != nil {
					t.Errorf("update: %v", err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if _, taken := next[fingerprint(before)]; taken {
					t.Errorf("two updates began with %s: one of them is lost", fingerprint(before))
				}
				next[fingerprint(before)] = after
				return
			}
		})
		at := first
		for range 50 {
			to, ok := next[fingerprint(at)]
			if !ok {
				t.Fatalf("nothing follows %s", fingerprint(at))
			}
			if changed := differences(at, to); changed != 1 {
				t.Errorf("%d fields changed between\n%s\n%s", changed, fingerprint(at), fingerprint(to))
			}
			at = to
		}
		if diff := cmp.Diff(at, *n.works(token).Key, same); diff != "" {
			t.Errorf("the last of the chain is not what is stored (-want +got):\n%s", diff)
		}
		t.Logf("%d times another change came first ten times in a row", conflicts.Load())
	})
}

func fingerprint(k policy.Key) string {
	return fmt.Sprintf("%s|%d|%v", k.Name, k.Expiry.Unix(), k.Addresses.Strings())
}

func differences(a, b policy.Key) int {
	n := 0
	for _, changed := range []bool{a.Name != b.Name, a.Expiry != b.Expiry, !cmp.Equal(a.Addresses.Strings(), b.Addresses.Strings())} {
		if changed {
			n++
		}
	}
	return n
}

func TestUpdateRacingRevokeLeavesTheKeyDead(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		nodes := []*node{n, n.second()}
		person := n.account("acme")
		for round := range 20 {
			k, token := n.key(person)
			together(6, func(i int) {
				by := nodes[i%len(nodes)]
				if i == round%6 {
					if _, err := by.Revoke(t.Context(), person, k.ID); err != nil {
						t.Errorf("revoke: %v", err)
					}
					return
				}
				_, _, err := by.Update(t.Context(), person, k.ID, keystore.Update{Name: ptr(fmt.Sprint(i))})
				if err != nil && !errors.Is(err, keystore.ErrNotFound) {
					t.Errorf("update: %v", err)
				}
			})
			n.wantUnknown(token)
			_, err := n.Get(t.Context(), person, k.ID)
			wantErr(t, err, keystore.ErrNotFound)
		}
		if left := n.list(person, 100); len(left) != 0 {
			t.Errorf("%d keys are left", len(left))
		}
	})
}

func TestOnlyOneOfManyRegenerationsWins(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		nodes := []*node{n, n.second()}
		person := n.account("acme")
		k, token := n.key(person)
		for range 10 {
			var mu sync.Mutex
			var winners []keystore.Token
			var next policy.Key
			together(8, func(i int) {
				made, winner, err := nodes[i%len(nodes)].Regenerate(t.Context(), person, k.ID, 0)
				switch {
				case err == nil:
					mu.Lock()
					defer mu.Unlock()
					winners, next = append(winners, winner), made
				case !errors.Is(err, keystore.ErrConflict) && !errors.Is(err, keystore.ErrNotFound):
					t.Errorf("regenerate: %v", err)
				}
			})
			if len(winners) != 1 {
				t.Fatalf("%d regenerations of one key succeeded", len(winners))
			}
			n.wantUnknown(token)
			if keys := n.list(person, 100); len(keys) != 1 || keys[0].ID != next.ID {
				t.Fatalf("listed: %v, want only %s", keys, next.ID)
			}
			k, token = next, winners[0]
			if found := n.works(token).Key; found.ID != k.ID {
				t.Fatalf("the winner's token opens %s, want %s", found.ID, k.ID)
			}
		}
		if records := n.records(); len(records) != 1 {
			t.Errorf("%d key records are left in the store, want 1", len(records))
		}
	})
}

func TestRegenerateRacingRevokeLeavesOneOrNone(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		nodes := []*node{n, n.second()}
		person := n.account("acme")
		for range 20 {
			k, token := n.key(person)
			var next keystore.Token
			var regenerated, revoked error
			together(2, func(i int) {
				if i == 0 {
					_, next, regenerated = nodes[0].Regenerate(t.Context(), person, k.ID, 0)
				} else {
					_, revoked = nodes[1].Revoke(t.Context(), person, k.ID)
				}
			})
			n.wantUnknown(token)
			switch {
			case regenerated == nil && errors.Is(revoked, keystore.ErrNotFound):
				n.works(next)
			case revoked == nil && (errors.Is(regenerated, keystore.ErrNotFound) || errors.Is(regenerated, keystore.ErrConflict)):
			default:
				t.Fatalf("regenerate: %v; revoke: %v", regenerated, revoked)
			}
			want := 0
			if regenerated == nil {
				want = 1
			}
			keys := n.list(person, 100)
			if len(keys) != want || len(n.records()) != want {
				t.Fatalf("listed: %v, records: %v, want %d", keys, n.records(), want)
			}
			for _, left := range keys {
				if _, err := n.Revoke(t.Context(), person, left.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// A change of the account between the reading and the writing of a key's
// change, again and again, stops nothing and loses nothing.
func TestKeyChangesWhileTheAccountChanges(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		other := n.second()
		person := n.account("acme")
		stop := make(chan struct{})
		var changer sync.WaitGroup
		changer.Go(func() {
			pause := time.NewTicker(20 * time.Millisecond)
			defer pause.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if w.kind == "miniredis" || w.kind == "embedded" {
					<-pause.C // in one process, one that hardly pauses lets nobody else come first
				}
				_, _, err := other.PutAccount(t.Context(), policy.Caller{}, keystore.Account{ID: "acme", Name: fmt.Sprint(i), Status: policy.Active, Permissions: []string{"*"}})
				if err != nil {
					t.Errorf("put account: %v", err)
				}
			}
		})
		for range 20 {
			k, token, err := insist(func() (policy.Key, keystore.Token, error) { return n.Create(t.Context(), person, newKey()) })
			if err != nil {
				t.Errorf("create: %v", err)
				break
			}
			next, nextToken, err := insist(func() (policy.Key, keystore.Token, error) { return n.Regenerate(t.Context(), person, k.ID, 0) })
			if err != nil {
				t.Errorf("regenerate: %v", err)
				break
			}
			n.wantUnknown(token)
			n.works(nextToken)
			_, _, err = insist(func() (policy.Key, keystore.Token, error) {
				_, err := n.Revoke(t.Context(), person, next.ID)
				return policy.Key{}, keystore.Token{}, err
			})
			if err != nil {
				t.Errorf("revoke: %v", err)
			}
			n.wantUnknown(nextToken)
		}
		close(stop)
		changer.Wait()
		if left := n.list(person, 100); len(left) != 0 {
			t.Errorf("%d keys are left", len(left))
		}
	})
}

// insist repeats what gave up because other changes kept coming first.
func insist(try func() (policy.Key, keystore.Token, error)) (policy.Key, keystore.Token, error) {
	for {
		if k, token, err := try(); !errors.Is(err, keystore.ErrConflict) {
			return k, token, err
		}
	}
}
