package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

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
	go keystore.RenewLease(ctx, n.Store, name, "first", time.Millisecond, lost)
	n.w.clock.Advance(time.Hour)
	for client.TTL(t.Context(), name).Val() <= time.Hour {
		if ctx.Err() != nil {
			t.Fatal(context.Cause(ctx))
		}
	}
	if ttl := client.TTL(t.Context(), name).Val(); ttl > time.Hour+2*time.Minute {
		t.Errorf("it lasts %s", ttl)
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
