package keystore_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// What is published and does not arrive is noticed without anybody's help, and
// the subscription is begun anew: nothing is answered from a cache that is older
// than the last beat that came back.
func TestDeafSubscriptionIsNoticedAndReplaced(t *testing.T) {
	t.Parallel()
	w, server, _ := redisOfItsOwn(t)
	r := newRelay(t, server.addr)
	here, there := w.node(cached, r.use, func(o *keystore.Options) { o.CacheTTL = time.Hour }), w.node()
	person, k, token := here.keyFrom(there)
	here.wantSource(token, keystore.FromCache)
	r.holdSubscriptions() // half-open: it takes everything and passes nothing on
	there.update(person, k.ID, keystore.Update{Name: ptr("renamed")})
	eventually(t, "the change is seen", func() bool { return here.works(token).Key.Name == "renamed" })
	eventually(t, "it is noticed", func() bool { return !here.Hears() })
	r.allowSubscriptions()
	eventually(t, "it is subscribed again", here.Hears)
}

// A lost message is noticed by what its sender counts.
func TestLostMessageIsNoticed(t *testing.T) {
	t.Parallel()
	w, _, admin := redisOfItsOwn(t)
	here, there := w.node(cached, func(o *keystore.Options) { o.CacheTTL = time.Hour }), w.node()
	person, k, token := here.keyFrom(there)
	eventually(t, "the other's beats arrive", func() bool { return keystore.Senders(here.Store) > 0 })
	here.wantSource(token, keystore.FromCache)
	// A script that publishes elsewhere stands for a message that is lost.
	there.hook(func(ctx context.Context, cmd redis.Cmder, next func() error) error {
		args := cmd.Args()
		if name := cmd.Name(); name == "evalsha" || name == "eval" {
			for i, arg := range args {
				if s, ok := arg.(string); ok && s == "publish" {
					args[i+1] = w.options.Prefix + "nowhere"
				}
			}
		}
		return next()
	})
	there.update(person, k.ID, keystore.Update{Name: ptr("renamed")})
	if name := admin.Get(t.Context(), there.recordName(token)).Val(); !strings.Contains(name, "renamed") {
		t.Fatal("the update was not made")
	}
	eventually(t, "the change is seen", func() bool { return here.works(token).Key.Name == "renamed" })
}

// A client that hangs up at any point of a change leaves it whole or not made,
// on the node that it asked and on others, and no key that was revoked works.
func TestCallerWhoHangsUp(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind)
			n, other := w.node(), w.node()
			person := n.account("acme")
			var countdown atomic.Int64
			var hangUp atomic.Pointer[context.CancelFunc]
			n.hook(func(ctx context.Context, cmd redis.Cmder, next func() error) error {
				ours := strings.HasPrefix(cmd.Name(), "eval") && len(cmd.Args()) > 7 // no beat
				if ours && countdown.Add(-1) == 0 {
					(*hangUp.Load())()
				}
				return next()
			})
			for at := 1; at <= 8; at++ {
				countdown.Store(0)
				k, token := n.key(person)
				eventually(t, "both are subscribed", func() bool { return n.Hears() && other.Hears() })
				other.works(token)
				before := other.changes.Load()
				ctx, cancel := context.WithCancel(t.Context())
				hangUp.Store(&cancel)
				countdown.Store(int64(at))
				_, err := n.Revoke(ctx, person, k.ID)
				cancel()
				if err != nil {
					n.works(token)
					continue
				}
				n.wantUnknown(token)
				other.wantUnknown(token)
				eventually(t, "the other node is told", func() bool { return other.changes.Load() > before })
				if got := n.list(person, 100); len(got) > at {
					t.Errorf("hung up at command %d: a revoked key is listed", at)
				}
			}
		})
	}
}

// An update that changes nothing is published all the same: it may be the
// repetition of one whose message was lost.
func TestUpdateOfNothingIsPublished(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "redis")
	n, other := w.node(), w.node()
	person := n.account("acme")
	k, _ := n.key(person)
	eventually(t, "the other is subscribed", other.Hears)
	before := other.changes.Load()
	n.update(person, k.ID, keystore.Update{Name: ptr("key")})
	eventually(t, "the other node is told", func() bool { return other.changes.Load() > before })
}

// A shard of a Cluster that lost its data is an outage for what it held,
// wherever the store's identity and the accounts are, and nothing is read into
// what is missing.
func TestEmptiedShard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "cluster")
	n := w.node()
	person := n.account("acme")
	var tokens []keystore.Token
	for range 60 {
		_, token := n.key(person)
		tokens = append(tokens, token)
	}
	cluster := clusterClient(n)
	keep, err := cluster.MasterForKey(t.Context(), w.options.Prefix+"account:{acme}")
	if err != nil {
		t.Fatal(err)
	}
	home, err := cluster.MasterForKey(t.Context(), w.options.Prefix+"store")
	if err != nil {
		t.Fatal(err)
	}
	emptied := false
	eachMaster(t, cluster, func(ctx context.Context, c *redis.Client) error {
		addr := c.Options().Addr
		if emptied || addr == keep.Options().Addr || addr == home.Options().Addr {
			return nil
		}
		emptied = true
		names := c.Scan(ctx, 0, w.options.Prefix+"*", 1000).Iterator()
		for names.Next(ctx) {
			if err := c.Del(ctx, names.Val()).Err(); err != nil {
				return err
			}
		}
		return names.Err()
	})
	if !emptied {
		t.Fatal("there is no such shard")
	}
	working, unavailable := 0, 0
	for _, token := range tokens {
		switch _, err := n.Lookup(t.Context(), token); {
		case err == nil:
			working++
		case errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrUnknownToken):
			unavailable++
		default:
			t.Errorf("a key of the emptied shard: %v", err)
		}
	}
	if working == 0 || unavailable == 0 {
		t.Errorf("%d keys work and %d are unavailable", working, unavailable)
	}
	if _, err := n.Export(t.Context(), discard{}); err == nil {
		t.Error("it was exported all the same")
	}
	if _, _, err := n.Create(t.Context(), policy.Caller{Account: person.Account, Client: inside}, newKey()); err != nil && !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("create: %v", err)
	}
	// A gateway that starts now does not take it for the truth either.
	late := w.node(func(o *keystore.Options) { o.Create = false })
	for _, token := range tokens {
		if _, err := late.Lookup(t.Context(), token); errors.Is(err, keystore.ErrUnknownToken) {
			t.Fatal("a key of the emptied shard is unknown to a gateway that starts")
		}
	}
	if err := keystore.Init(t.Context(), w.options); !errors.Is(err, keystore.ErrStoreExists) {
		t.Errorf("init: %v, want ErrStoreExists", err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// A gateway that starts while the store is empty answers nothing from it, and
// works once the store is back.
func TestGatewayThatStartsOnAnEmptyStore(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"redis", "cluster", "miniredis"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind)
			w.options.Create = false
			n := w.node()
			token, err := keystore.Mint("gk_", strings.NewReader(strings.Repeat("0123456789abcdef", 100)))
			if err != nil {
				t.Fatal(err)
			}
			n.wantUnavailable(token)
			if err := n.Ready(t.Context()); err == nil {
				t.Error("it is ready without a store")
			}
			if _, _, err := n.PutAccount(t.Context(), policy.Caller{}, keystore.Account{ID: "acme"}); !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("put account: %v", err)
			}
			if len(dump(t, keystore.ClientOf(n.Store), w.options.Prefix)) != 0 {
				t.Error("something was written")
			}
			if err := keystore.Init(t.Context(), w.options); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is ready", func() bool { return n.Ready(t.Context()) == nil })
			n.wantUnknown(token)
			n.account("acme")
			if err := keystore.Init(t.Context(), w.options); !errors.Is(err, keystore.ErrStoreExists) {
				t.Errorf("init again: %v, want ErrStoreExists", err)
			}
			status, err := keystore.Status(t.Context(), w.options)
			if err != nil || status.Identity == "" || !status.Compact || status.Missing != 0 || status.Generation != 1 || status.Changes == 0 {
				t.Errorf("status: %+v, %v", status, err)
			}
		})
	}
}

// A store of an older gateway gets its markers from the first newer one, once.
func TestStoreOfAnOlderGateway(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind)
			first := w.node()
			_, token := first.key(first.account("acme"))
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			// What an older gateway would have left.
			raw := w.node(func(o *keystore.Options) { o.Prefix = "raw:" + o.Prefix })
			client := keystore.ClientOf(raw.Store)
			for name := range dumpAll(t, client, w.options.Prefix) {
				if isBookkeeping(name, w.options.Prefix) {
					client.Del(t.Context(), name)
				}
			}
			w.options.Create = false
			n := w.node()
			n.works(token)
			n.account("other")
			status, err := keystore.Status(t.Context(), w.options)
			if err != nil || status.Compact || status.Missing != 0 || status.Changes == 0 {
				t.Errorf("status: %+v, %v", status, err)
			}
			if err := keystore.Upgrade(t.Context(), w.options, func(int) {}); err != nil {
				t.Fatal(err)
			}
			if status, err = keystore.Status(t.Context(), w.options); err != nil || !status.Compact {
				t.Errorf("status after the upgrade: %+v, %v", status, err)
			}
			n.works(token)
		})
	}
}
