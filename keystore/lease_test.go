package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
)

// leaseEnds is what Redis does a minute after a process has gone.
func (n *node) leaseEnds() {
	n.t.Helper()
	if err := keystore.ClientOf(n.Store).Del(n.t.Context(), n.w.options.Prefix+"importing").Err(); err != nil {
		n.t.Fatal(err)
	}
}

// TestOneImportAtATime: another one, on whatever node, changes nothing, and can
// say what it would do.
func TestOneImportAtATime(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"miniredis", "redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			from := newWorld(t, "embedded").node()
			from.fill()
			export := from.export()
			to := newWorld(t, kind)
			first, second := to.node(), to.node()
			first.bringIn(export, keystore.ImportOptions{})
			first.account("acme", func(a *keystore.Account) { a.Name = "Changed here" })
			met := false
			first.bringIn(export, keystore.ImportOptions{Noted: func(keystore.ImportNote) {
				met = true
				if _, err := second.Import(t.Context(), bytes.NewReader(export), keystore.ImportOptions{}); !errors.Is(err, keystore.ErrLeased) {
					t.Errorf("a second import got %v", err)
				}
				second.bringIn(export, keystore.ImportOptions{DryRun: true})
			}})
			if !met {
				t.Fatal("nothing was met in the first import")
			}
			second.bringIn(export, keystore.ImportOptions{})
		})
	}
}

// TestLeaseIsRenewedUntilItIsLost: it lasts a minute beyond the process, and who
// has lost it is told.
func TestLeaseIsRenewedUntilItIsLost(t *testing.T) {
	t.Parallel()
	n := newWorld(t, "redis").node()
	client, name := keystore.ClientOf(n.Store), n.w.options.Prefix+"importing"
	if err := keystore.SetLease(t.Context(), n.Store, name, "", "first"); err != nil {
		t.Fatal(err)
	}
	if err := keystore.SetLease(t.Context(), n.Store, name, "", "second"); err == nil {
		t.Fatal("two hold it")
	}
	ctx, lost := context.WithCancelCause(t.Context())
	if err := client.Expire(t.Context(), name, 20*time.Second).Err(); err != nil {
		t.Fatal(err)
	}
	go keystore.RenewLease(ctx, n.Store, name, "first", time.Millisecond, lost)
	for client.TTL(t.Context(), name).Val() <= 20*time.Second {
		if ctx.Err() != nil {
			t.Fatal(context.Cause(ctx))
		}
	}
	if err := client.Set(t.Context(), name, "second", 0).Err(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-t.Context().Done():
	}
	if holder := client.Get(t.Context(), name).Val(); holder != "second" || !errors.Is(context.Cause(ctx), keystore.ErrMoved) {
		t.Errorf("%q holds it, and the first was told %v", holder, context.Cause(ctx))
	}
}

// TestLeaseLastsByTheClockOfRedis: that of the machine may be wrong.
func TestLeaseLastsByTheClockOfRedis(t *testing.T) {
	t.Parallel()
	for _, wrong := range []time.Duration{-time.Hour, time.Hour} {
		n := newWorld(t, "redis").node()
		n.w.clock.Advance(wrong)
		name := n.w.options.Prefix + "importing"
		if err := keystore.SetLease(t.Context(), n.Store, name, "", "first"); err != nil {
			t.Fatal(err)
		}
		if ttl := keystore.ClientOf(n.Store).TTL(t.Context(), name).Val(); ttl < 50*time.Second || ttl > time.Minute {
			t.Errorf("by a clock that is wrong by %s it lasts %s", wrong, ttl)
		}
	}
}

// TestImportWithoutItsLeaseWritesNothing: of a process that was stopped for a
// minute, and does not know yet that another one is at it.
func TestImportWithoutItsLeaseWritesNothing(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"miniredis", "redis"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			from := newWorld(t, "embedded").node()
			from.fill()
			n := newWorld(t, kind).node()
			client, name := keystore.ClientOf(n.Store), n.w.options.Prefix+"importing"
			stopped := false
			n.hook(func(ctx context.Context, cmd redis.Cmder, next func() error) error {
				if cmd.Name() == "evalsha" && !stopped && client.Exists(ctx, name).Val() > 0 {
					stopped = true
					client.Set(ctx, name, "second", 0)
				}
				return next()
			})
			done, err := n.Import(t.Context(), bytes.NewReader(from.export()), keystore.ImportOptions{})
			if err == nil || !stopped || len(done) != 0 {
				t.Errorf("got %v, after %v", err, done)
			}
			if accounts, _, err := n.ListAccounts(t.Context(), "", 10); len(accounts) != 0 || err != nil {
				t.Errorf("it has written %v, %v", accounts, err)
			}
			if holder := client.Get(t.Context(), name).Val(); holder != "second" {
				t.Errorf("%q holds the lease of the second", holder)
			}
		})
	}
}
