package proxy_test

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
)

// countingKeys counts the lookups of each second, and knows no key once they
// are revoked.
type countingKeys struct {
	revoked atomic.Bool
	older   atomic.Bool // the store is

	mu     sync.Mutex
	begun  time.Time
	tokens map[keystore.Token]int
	ticks  map[int]int // lookups by quarter of a second
}

func (k *countingKeys) Lookup(_ context.Context, t keystore.Token) (keystore.Entry, error) {
	k.mu.Lock()
	k.tokens[t]++
	k.ticks[int(time.Since(k.begun)/(250*time.Millisecond))]++
	k.mu.Unlock()
	if k.revoked.Load() {
		return keystore.Entry{}, keystore.ErrUnknownToken
	}
	if k.older.Load() {
		return keystore.Entry{}, errors.Join(keystore.ErrUnavailable, keystore.ErrOlder)
	}
	return entry(), nil
}

// liveBubble is a Live that watches over so many requests, each with a key of
// its own, in a synctest bubble.
type liveBubble struct {
	keys       *countingKeys
	subscribed atomic.Bool
	ended      atomic.Int64
}

func inLiveBubble(t *testing.T, requests int, test func(t *testing.T, b *liveBubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &liveBubble{keys: &countingKeys{begun: time.Now(), tokens: map[keystore.Token]int{}, ticks: map[int]int{}}}
		b.subscribed.Store(true)
		live, err := proxy.NewLive(proxy.LiveOptions{Keys: b.keys, Subscribed: b.subscribed.Load, Now: time.Now, Metrics: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		asked := policy.Request{Client: netip.MustParseAddr("203.0.113.9"), Subaccount: subA, Needs: readPermission}
		for i := range requests {
			token, err := keystore.ParseToken("gk_", tokenOf("k"+strconv.Itoa(i)+"x"))
			if err != nil {
				t.Fatal(err)
			}
			defer live.Watch(token, entry(), asked, func() { b.ended.Add(1) })()
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			live.Run(ctx)
		}()
		test(t, b)
		stop()
		<-done
	})
}

// TestLostMessageEndsLiveRequestsAllTheSame: nothing tells of the revocation.
func TestLostMessageEndsLiveRequestsAllTheSame(t *testing.T) {
	t.Parallel()
	const requests = 300
	inLiveBubble(t, requests, func(t *testing.T, b *liveBubble) {
		<-time.After(time.Minute)
		if ended := b.ended.Load(); ended > 0 {
			t.Fatalf("%d requests ended before their keys were revoked", ended)
		}
		b.keys.revoked.Store(true)
		<-time.After(6 * time.Second)
		synctest.Wait()
		if ended := b.ended.Load(); ended != requests {
			t.Errorf("%d of %d requests ended within 6 s", ended, requests)
		}
	})
}

// A store that answers, and is older than what is known of a key, is no outage
// that passes by itself.
func TestOlderStoreEndsLiveRequests(t *testing.T) {
	t.Parallel()
	inLiveBubble(t, 3, func(t *testing.T, b *liveBubble) {
		b.keys.older.Store(true)
		<-time.After(6 * time.Second)
		synctest.Wait()
		if n := b.ended.Load(); n != 3 {
			t.Errorf("%d of 3 were ended", n)
		}
	})
}

// TestLiveRequestsAreLookedUpEveryFiveSeconds, spread over that time.
func TestLiveRequestsAreLookedUpEveryFiveSeconds(t *testing.T) {
	t.Parallel()
	const requests, turns = 2000, 12
	inLiveBubble(t, requests, func(t *testing.T, b *liveBubble) {
		<-time.After(turns * 5 * time.Second)
		synctest.Wait()
		b.keys.mu.Lock()
		defer b.keys.mu.Unlock()
		for _, n := range b.keys.tokens {
			if n < turns || n > turns+2 { // and once when it began
				t.Fatalf("a key was looked up %d times in %d s", n, turns*5)
			}
		}
		for quarter, n := range b.keys.ticks {
			if quarter > 0 && n > 2*requests/20 {
				t.Errorf("%d lookups in one quarter of a second, want about %d", n, requests/20)
			}
		}
	})
}

// TestUnsubscribedNodeLooksUpLiveRequestsTwiceASecond, beginning at once.
func TestUnsubscribedNodeLooksUpLiveRequestsTwiceASecond(t *testing.T) {
	t.Parallel()
	const requests = 50
	inLiveBubble(t, requests, func(t *testing.T, b *liveBubble) {
		<-time.After(10 * time.Second)
		b.keys.revoked.Store(true)
		b.subscribed.Store(false)
		<-time.After(500 * time.Millisecond)
		synctest.Wait()
		if ended := b.ended.Load(); ended != requests {
			t.Errorf("%d of %d requests ended within half a second", ended, requests)
		}
	})
}
