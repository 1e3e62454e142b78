package keystore_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

func stale(d time.Duration) func(*keystore.Options) {
	return func(o *keystore.Options) { o.StaleIfUnavailable = d }
}

// While Redis does not answer, and where the operator allows it, keys go on
// working for so long after they were last read.
func TestStaleAnswersEndWithTheirTime(t *testing.T) {
	for _, mode := range []keystore.Mode{keystore.Strict, keystore.Cached} {
		w, m := miniWorld(t)
		n := w.node(stale(time.Minute), func(o *keystore.Options) { o.Mode = mode })
		var token, unseen keystore.Token
		n.hearing(6, func() {
			person := n.account("acme")
			_, token = n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(10 * time.Second) })
			_, unseen = n.key(person)
		})
		n.works(token)
		w.clock.Advance(30 * time.Second)
		n.wantSource(token, keystore.FromStore) // read anew, for another minute

		m.SetError("LOADING")
		n.wantUnavailable(unseen)
		w.clock.Advance(time.Minute - 1)
		e := n.works(token)
		if e.Source != keystore.FromStale {
			t.Errorf("answered from %q", e.Source)
		}
		if got := policy.Decide(policy.Request{At: w.clock.Now(), Client: inside, Needs: read}, e.Key, e.Account).Reason; got != policy.KeyExpired {
			t.Errorf("a stale key outlives its expiry: %q", got)
		}
		w.clock.Advance(1)
		n.wantUnavailable(token)
		m.SetError("")
		eventually(t, "normal again", func() bool { _, err := n.Lookup(t.Context(), token); return err == nil })
	}
}

func TestStaleIsOffUnlessAskedFor(t *testing.T) {
	for _, mode := range []keystore.Mode{keystore.Strict, keystore.Cached} {
		w, m := miniWorld(t)
		n := w.node(func(o *keystore.Options) { o.Mode = mode; o.CacheTTL = time.Second })
		_, _, token := n.keyFrom(n)
		w.clock.Advance(time.Second)
		m.SetError("LOADING")
		n.wantUnavailable(token)
	}
}

// What this process knows to be dead does not come back while Redis is away.
func TestStaleAnswersNeverRevokedKeys(t *testing.T) {
	rows := map[string]func(t *testing.T, here, there *node, person policy.Caller, id policy.KeyID, token keystore.Token){
		"revoked here": func(t *testing.T, here, _ *node, person policy.Caller, id policy.KeyID, _ keystore.Token) {
			_, err := here.Revoke(t.Context(), person, id)
			here.must(nil, nil, err)
		},
		"regenerated here": func(t *testing.T, here, _ *node, person policy.Caller, id policy.KeyID, _ keystore.Token) {
			here.must(here.Regenerate(t.Context(), person, id, 0))
		},
		"revoked elsewhere, and heard of": func(t *testing.T, here, there *node, person policy.Caller, id policy.KeyID, _ keystore.Token) {
			here.hearing(1, func() {
				_, err := there.Revoke(t.Context(), person, id)
				there.must(nil, nil, err)
			})
		},
		"seen to be unknown": func(t *testing.T, here, there *node, _ policy.Caller, _ policy.KeyID, token keystore.Token) {
			keystore.ClientOf(there.Store).Del(t.Context(), there.recordName(token)) // nobody is told
			here.wantUnknown(token)
		},
		"its account deleted": func(_ *testing.T, here, _ *node, person policy.Caller, _ policy.KeyID, _ keystore.Token) {
			here.delete(person.Account.ID)
		},
	}
	for name, kill := range rows {
		t.Run(name, func(t *testing.T) {
			w, m := miniWorld(t)
			here, there := w.node(stale(time.Hour)), w.node()
			person, k, token := here.keyFrom(there)
			kill(t, here, there, person, k.ID, token)
			m.SetError("LOADING")
			here.wantUnavailable(token)
		})
	}
}

// Nor when the lookup was already waiting for Redis when it was revoked.
func TestStaleAnswerIsNotGivenOnceTheRevocationIsHeardOf(t *testing.T) {
	w, _ := miniWorld(t)
	here, there := w.node(stale(time.Hour)), w.node()
	person, k, token := here.keyFrom(there)
	waiting, fail := make(chan struct{}, 2), make(chan struct{})
	here.hook(func(ctx context.Context, _ redis.Cmder, next func() error) error {
		if ctx.Value(traceKey{}) == nil {
			return next()
		}
		waiting <- struct{}{}
		<-fail
		return io.EOF
	})
	result := make(chan error, 1)
	go func() {
		_, err := here.Lookup(context.WithValue(t.Context(), traceKey{}, true), token)
		result <- err
	}()
	<-waiting
	here.hearing(1, func() {
		if _, err := there.Revoke(t.Context(), person, k.ID); err != nil {
			t.Fatal(err)
		}
	})
	close(fail)
	if err := <-result; !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// A lookup that ends with a stale answer takes no longer than one that ends
// without: one timeout, also when the account has to be remembered as well.
func TestStaleAnswerTakesOneTimeout(t *testing.T) {
	for _, known := range []time.Duration{0, 10 * time.Second} { // since the account was read
		inBubble(t, func(t *testing.T) {
			w := newWorld(t, "embedded")
			w.options.Timeout = patience
			n := w.node(stale(time.Minute))
			_, token := n.key(n.account("acme"))
			synctest.Wait()
			n.works(token)
			n.hook(func(ctx context.Context, cmd redis.Cmder, next func() error) error {
				if cmd.Name() != "mget" {
					return next()
				}
				<-ctx.Done()
				return ctx.Err()
			})
			w.clock.Advance(known)
			begun := time.Now()
			n.wantSource(token, keystore.FromStale)
			if waited := time.Since(begun); waited > patience {
				t.Errorf("account read %v ago: waited %v, want at most %v", known, waited, patience)
			}
		})
	}
}
