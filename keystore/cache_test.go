package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

func cached(o *keystore.Options) { o.Mode = keystore.Cached }

// asked counts the reads of a node.
func (n *node) asked() *atomic.Int64 {
	var count atomic.Int64
	n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
		if cmd.Name() == "mget" {
			count.Add(1)
		}
		return next()
	})
	return &count
}

// hears waits until the node is told of changes.
func (n *node) hears() *node {
	n.t.Helper()
	eventually(n.t, "the node is subscribed", func() bool { return n.Hears() })
	return n
}

// hearing does something elsewhere, and returns when the node has heard of that
// many changes.
func (n *node) hearing(changes uint64, do func()) {
	n.t.Helper()
	n.hears()
	before := n.changes.Load()
	do()
	eventually(n.t, "the changes are heard of", func() bool { return n.changes.Load() >= before+changes })
}

// keyFrom makes an account and a key, and lets the node hear of both before it
// looks at them. Of its own changes a node hears twice.
func (n *node) keyFrom(there *node) (person policy.Caller, k policy.Key, token keystore.Token) {
	n.t.Helper()
	changes := uint64(2)
	if n == there {
		changes = 4
	}
	n.hearing(changes, func() {
		person = there.account("acme")
		k, token = there.key(person)
	})
	n.works(token)
	return person, k, token
}

func (n *node) wantSource(token keystore.Token, want keystore.Source) {
	n.t.Helper()
	if got := n.works(token).Source; got != want {
		n.t.Errorf("answered from %q, want %q", got, want)
	}
}

func TestStrictLookupReadsTheKeyEveryTime(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	_, _, token := n.keyFrom(n)
	asked := n.asked()
	for range 5 {
		n.wantSource(token, keystore.FromStore)
	}
	if asked.Load() != 5 { // the account comes from the cache
		t.Errorf("%d reads for 5 lookups", asked.Load())
	}
}

func TestCachedLookupReadsNothingWithinItsTime(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node(cached, func(o *keystore.Options) { o.CacheTTL = 3 * time.Second })
	_, _, token := n.keyFrom(n)
	asked := n.asked()
	w.clock.Advance(3*time.Second - 1)
	for range 5 {
		n.wantSource(token, keystore.FromCache)
	}
	if asked.Load() != 0 {
		t.Errorf("%d reads", asked.Load())
	}
	w.clock.Advance(1)
	n.wantSource(token, keystore.FromStore)
	n.wantSource(token, keystore.FromCache)
	if asked.Load() != 1 {
		t.Errorf("%d reads, want 1", asked.Load())
	}
}

// That there is no such key is never remembered: it may be made in a moment.
func TestUnknownIsNotCached(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node(cached).hears()
	_, token := n.key(n.account("acme"))
	name := n.recordName(token)
	record, err := m.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	m.Del(name)
	n.wantUnknown(token)
	_ = m.Set(name, record)
	n.works(token)
	m.SetError("LOADING")
	fresh := w.open(cached)
	defer func() { _ = fresh.Close() }()
	fresh.wantUnavailable(token)
	m.SetError("")
	eventually(t, "unavailable is not remembered", func() bool { _, err := fresh.Lookup(t.Context(), token); return err == nil })
}

// Time stands still here, so that what is seen was heard of.
func TestCacheIsEmptiedByTheChangesOfOtherNodes(t *testing.T) {
	w, _ := miniWorld(t)
	for _, mode := range []keystore.Mode{keystore.Cached, keystore.Strict} {
		here := w.node(func(o *keystore.Options) { o.Mode = mode }).hears()
		there := w.node()
		person := there.account("acme")
		k, token := there.key(person)
		gone, goneToken := there.key(person)
		here.works(token)
		here.works(goneToken)

		there.update(person, k.ID, keystore.Update{Name: ptr("renamed")})
		eventually(t, "an update is seen", func() bool { return here.works(token).Key.Name == "renamed" })
		if _, err := there.Revoke(t.Context(), person, gone.ID); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a revocation is seen", func() bool {
			_, err := here.Lookup(t.Context(), goneToken)
			return errors.Is(err, keystore.ErrUnknownToken)
		})
		there.account("acme", func(a *keystore.Account) { a.Status = policy.Suspended })
		eventually(t, "a suspension is seen", func() bool { return here.works(token).Account.Status == policy.Suspended })
		there.delete("acme")
		eventually(t, "a deletion is seen", func() bool {
			_, err := here.Lookup(t.Context(), token)
			return errors.Is(err, keystore.ErrUnknownToken)
		})
	}
}

// After a change was acknowledged, the node that made it answers with nothing
// older, whether it has heard of it or not.
func TestOwnChangesAreSeenAtOnce(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node(cached).hears()
	person := n.account("acme")
	for i := range 50 {
		k, token := n.key(person)
		n.works(token)
		n.update(person, k.ID, keystore.Update{Name: ptr(fmt.Sprint(i))})
		if got := n.works(token).Key.Name; got != fmt.Sprint(i) {
			t.Fatalf("name: got %q, want %d", got, i)
		}
		if _, err := n.Revoke(t.Context(), person, k.ID); err != nil {
			t.Fatal(err)
		}
		n.wantUnknown(token)
	}
}

// A node that does not hear of changes answers nothing from its cache.
func TestCacheIsBypassedWithoutSubscription(t *testing.T) {
	w, _ := miniWorld(t)
	r := newRelay(t, w.options.Redis.Addrs[0])
	here, there := w.node(cached, r.use), w.node()
	person, k, token := here.keyFrom(there)
	here.wantSource(token, keystore.FromCache)

	r.cutSubscriptions()
	eventually(t, "it is noticed", func() bool { return !here.Hears() })
	for i := range 3 {
		there.update(person, k.ID, keystore.Update{Name: ptr(fmt.Sprint(i))})
		there.account("acme", func(a *keystore.Account) { a.Name, a.Permissions = fmt.Sprint(i), []string{"*", fmt.Sprint(i)} })
		e := here.works(token)
		if e.Source != keystore.FromStore || e.Key.Name != fmt.Sprint(i) {
			t.Errorf("from %q, name %q, want %d", e.Source, e.Key.Name, i)
		}
	}
	there.account("acme", func(a *keystore.Account) { a.Status = policy.Suspended })
	if got := here.works(token).Account.Status; got != policy.Suspended {
		t.Errorf("the account is %q", got)
	}
	// What was missed meanwhile is not found in the cache when it is back.
	there.update(person, k.ID, keystore.Update{Name: ptr("missed")})
	there.account("acme", func(a *keystore.Account) { a.Permissions = nil })
	r.allowSubscriptions()
	here.hears()
	if e := here.works(token); e.Key.Name != "missed" || len(e.Account.Permissions) != 0 {
		t.Errorf("from %q, name %q, account %+v", e.Source, e.Key.Name, e.Account)
	}
	if _, err := there.Revoke(t.Context(), person, k.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "changes are heard of again", func() bool {
		_, err := here.Lookup(t.Context(), token)
		return errors.Is(err, keystore.ErrUnknownToken)
	})
}

// A subscription that is silent, as behind a firewall that drops it, is given
// up within seconds; until then the times to live bound what is answered.
func TestSilentSubscriptionIsGivenUp(t *testing.T) {
	w, _ := miniWorld(t)
	r := newRelay(t, w.options.Redis.Addrs[0])
	here, there := w.node(cached, r.use, func(o *keystore.Options) { o.CacheTTL = 2 * time.Second }), w.node()
	person, k, token := here.keyFrom(there)
	here.wantSource(token, keystore.FromCache)

	r.holdSubscriptions()
	there.update(person, k.ID, keystore.Update{Name: ptr("renamed")})
	there.account("acme", func(a *keystore.Account) { a.Status = policy.Suspended })
	w.clock.Advance(2 * time.Second)
	if got := here.works(token).Key.Name; got != "renamed" {
		t.Errorf("after its time to live the key is still %q", got)
	}
	w.clock.Advance(keystore.AccountTTL - 2*time.Second)
	if got := here.works(token).Account.Status; got != policy.Suspended {
		t.Errorf("after its time to live the account is still %q", got)
	}
	eventually(t, "it is given up", func() bool { return !here.Hears() })
	here.wantSource(token, keystore.FromStore)
	here.wantSource(token, keystore.FromStore)
}

// A read that began before a change, and whose answer comes after the change
// was heard of, is never remembered.
func TestReadFromBeforeAChangeIsNeverRemembered(t *testing.T) {
	type change struct {
		name string
		of   string // what the held read is of
		do   func(n *node, person policy.Caller, id policy.KeyID)
		seen func(keystore.Entry, error) bool
	}
	changes := []change{
		{"revoked", "key:", func(n *node, person policy.Caller, id policy.KeyID) {
			_, err := n.Revoke(n.t.Context(), person, id)
			n.must(nil, nil, err)
		}, func(_ keystore.Entry, err error) bool { return unknown(err) }},
		{"updated", "key:", func(n *node, person policy.Caller, id policy.KeyID) {
			n.update(person, id, keystore.Update{Name: ptr("renamed")})
		}, func(e keystore.Entry, err error) bool { return err == nil && e.Key.Name == "renamed" }},
		{"account suspended", "account:", func(n *node, person policy.Caller, _ policy.KeyID) {
			n.account(person.Account.ID, func(a *keystore.Account) { a.Status = policy.Suspended })
		}, func(e keystore.Entry, err error) bool { return err == nil && e.Account.Status == policy.Suspended }},
		{
			"account deleted", "account:", func(n *node, person policy.Caller, _ policy.KeyID) { n.delete(person.Account.ID) },
			func(_ keystore.Entry, err error) bool { return unknown(err) },
		},
	}
	for _, c := range changes {
		for _, warm := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, warm %v", c.name, warm), func(t *testing.T) {
				w, _ := miniWorld(t)
				here, there := w.node(cached), w.node()
				var person policy.Caller
				var k policy.Key
				var token keystore.Token
				if warm {
					person, k, token = here.keyFrom(there)
					w.clock.Advance(time.Minute) // too old to be used, and still known
				} else {
					here.hearing(2, func() {
						person = there.account("acme")
						k, token = there.key(person)
					})
				}
				read, release := make(chan struct{}), make(chan struct{})
				here.hook(func(ctx context.Context, cmd redis.Cmder, next func() error) error {
					err := next()
					if ctx.Value(traceKey{}) != nil && cmd.Name() == "mget" && strings.Contains(fmt.Sprint(cmd.Args()...), c.of) {
						close(read)
						<-release
					}
					return err
				})
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = here.Lookup(context.WithValue(t.Context(), traceKey{}, true), token)
				}()
				<-read
				here.hearing(1, func() { c.do(there, person, k.ID) })
				close(release)
				<-done
				if e, err := here.Lookup(t.Context(), token); !c.seen(e, err) {
					t.Errorf("afterwards: got %+v, %v", e, err)
				}
			})
		}
	}
}

// The caches hold as much as they were told to, and no more.
func TestCacheIsBounded(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node(cached, stale(time.Hour), func(o *keystore.Options) { o.CacheEntries = 10 })
	var tokens []keystore.Token
	n.hearing(2*201, func() { tokens = n.many(n.account("acme"), 200) })
	for _, token := range tokens {
		n.works(token)
	}
	m.SetError("LOADING")
	kept := 0
	for _, token := range tokens {
		if _, err := n.Lookup(t.Context(), token); err == nil {
			kept++
		}
	}
	if kept == 0 || kept > 20 {
		t.Errorf("%d keys are remembered, want about 10", kept)
	}
}
