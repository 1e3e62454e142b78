package keystore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// redisOfItsOwn is a world on a redis-server of its own, which keeps what it holds
// when it is told to SAVE, and nothing else.
func redisOfItsOwn(t *testing.T, args ...string) (*world, *redisServer, *redis.Client) {
	t.Helper()
	needRedis(t)
	server, err := startRedis(t.TempDir(), append([]string{"--appendonly", "no"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.kill)
	w := newWorld(t, "own")
	w.options.Redis = &keystore.Redis{Addrs: []string{server.addr}}
	client := redis.NewClient(&redis.Options{Addr: server.addr, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	return w, server, client
}

// refuses fails when the token opens anything.
func (n *node) refuses(token keystore.Token) error {
	entry, err := n.Lookup(n.t.Context(), token)
	if err == nil && entry.Key.Active {
		n.t.Errorf("key %s works", entry.Key.ID)
	}
	return err
}

// A store that comes back older opens nothing that was closed, on the node that
// closed it and on others, loses nothing that a node acknowledged, and takes
// changes only once it is accepted.
func TestStoreThatComesBackOlder(t *testing.T) {
	t.Parallel()
	for _, mode := range []keystore.Mode{keystore.Strict, keystore.Cached} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			w, server, admin := redisOfItsOwn(t)
			a := w.node(func(o *keystore.Options) { o.Mode = mode })
			b := w.node(func(o *keystore.Options) { o.Mode = mode })
			ctx := t.Context()
			person, rival := a.account("acme"), a.account("rival")
			revoked, revokedToken := a.key(person)
			disabled, disabledToken := a.key(person)
			_, keptToken := a.key(person)
			_, rivalToken := a.key(rival)
			eventually(t, "both are subscribed", func() bool { return a.Hears() && b.Hears() })
			if err := admin.Save(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			off := false
			if _, _, err := a.Update(ctx, person, disabled.ID, keystore.Update{Active: &off}); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Revoke(ctx, person, revoked.ID); err != nil {
				t.Fatal(err)
			}
			a.account("rival", func(x *keystore.Account) { x.Status = policy.Suspended })
			_, madeToken := a.key(person)
			b.works(madeToken)
			eventually(t, "the other node knows", func() bool { return b.changes.Load() >= 4 })
			server.kill()
			if err := server.start(); err != nil {
				t.Fatal(err)
			}
			for _, n := range []*node{a, b} {
				for range 20 {
					_ = n.refuses(revokedToken)
					_ = n.refuses(disabledToken)
					if _, err := n.Lookup(ctx, madeToken); errors.Is(err, keystore.ErrUnknownToken) {
						t.Error("a key that was made is unknown")
					}
					if entry, err := n.Lookup(ctx, rivalToken); err == nil && entry.Account.Status == policy.Active {
						t.Error("a suspended account is active")
					}
				}
			}
			eventually(t, "the changes are made again", func() bool {
				_, err := a.Lookup(ctx, madeToken)
				return err == nil
			})
			a.wantUnknown(revokedToken)
			b.works(keptToken)
			// The other node may have missed that they were made again: 503, until the
			// store is accepted.
			if entry, err := b.Lookup(ctx, disabledToken); err == nil && entry.Key.Active {
				t.Error("the disabled key is active")
			}
			// It takes what ends a right, and nothing that gives one.
			if _, _, err := a.Create(ctx, person, newKey()); !errors.Is(err, keystore.ErrOlder) || !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("create: %v, want ErrOlder", err)
			}
			again, _ := a.Find(ctx, "acme", disabled.ID)
			if again.Key == nil {
				t.Fatal("the disabled key is not listed")
			}
			if _, err := a.Revoke(ctx, person, disabled.ID); err != nil {
				t.Errorf("revoke: %v", err)
			}
			if err := keystore.Accept(ctx, w.options); err != nil {
				t.Fatal(err)
			}
			for _, n := range []*node{a, b} {
				eventually(t, "changes are taken again", func() bool {
					_, _, err := n.Create(ctx, person, newKey())
					return err == nil
				})
				n.wantUnknown(revokedToken)
				n.wantUnknown(disabledToken)
				n.works(madeToken)
			}
		})
	}
}

// A key that was revoked stays so though the store forgets that, and counts
// other changes before the node sees it again.
func TestRevocationIsRepeatedWhenItsKeyIsThereAgain(t *testing.T) {
	t.Parallel()
	w, _, admin := redisOfItsOwn(t)
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	name := n.recordName(token)
	record := admin.Get(t.Context(), name).Val()
	if _, err := n.Revoke(t.Context(), person, k.ID); err != nil {
		t.Fatal(err)
	}
	admin.Set(t.Context(), name, record, 0)
	eventually(t, "it is subscribed", n.Hears)
	admin.ClientKillByFilter(t.Context(), "TYPE", "pubsub") // a new connection, as after a failover
	eventually(t, "it is revoked again", func() bool { return admin.Exists(t.Context(), name).Val() == 0 })
}

// A master that took over without a change may have counted others since, so
// that its marker says nothing: the change is missing from the audit trail.
func TestChangeThatOthersHaveCountedOver(t *testing.T) {
	t.Parallel()
	w, _, admin := redisOfItsOwn(t)
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	name, trail := n.recordName(token), w.options.Prefix+"account:{acme}:audit"
	record := admin.Get(t.Context(), name).Val()
	off := false
	n.update(person, k.ID, keystore.Update{Active: &off})
	last := admin.XRevRangeN(t.Context(), trail, "+", "-", 1).Val()
	if len(last) != 1 {
		t.Fatalf("the trail is %v", last)
	}
	admin.Set(t.Context(), name, record, 0)
	admin.XDel(t.Context(), trail, last[0].ID)
	eventually(t, "it is subscribed", n.Hears)
	admin.ClientKillByFilter(t.Context(), "TYPE", "pubsub") // a new connection, as after a failover
	eventually(t, "it is disabled again", func() bool {
		entry, err := n.Lookup(t.Context(), token)
		return err == nil && !entry.Key.Active
	})
	if _, _, err := n.Create(t.Context(), person, newKey()); !errors.Is(err, keystore.ErrOlder) {
		t.Errorf("create: %v, want ErrOlder", err)
	}
	// The other changes of this node are there, and none is missed for long.
	n.must(nil, nil, keystore.Accept(t.Context(), w.options))
	eventually(t, "changes are taken again", func() bool {
		_, _, err := n.Create(t.Context(), person, newKey())
		return err == nil
	})
	admin.ClientKillByFilter(t.Context(), "TYPE", "pubsub")
	eventually(t, "it is subscribed again", n.Hears)
	if err := n.Ready(t.Context()); err != nil {
		t.Errorf("nothing is missing, and it says %v", err)
	}
}

// Entries that a trail keeps no longer are not missing.
func TestTrimmedTrailIsNoLoss(t *testing.T) {
	t.Parallel()
	w, _, admin := redisOfItsOwn(t)
	w.options.Audit = keystore.AuditKeep{Events: 2, Age: time.Hour}
	n := w.node()
	person := n.account("acme")
	for range 5 {
		n.key(person)
	}
	eventually(t, "it is subscribed", n.Hears)
	admin.ClientKillByFilter(t.Context(), "TYPE", "pubsub")
	eventually(t, "the subscription has ended", func() bool { return !n.Hears() })
	eventually(t, "it has subscribed again", n.Hears)
	for range 5 {
		n.key(person)
	}
	if err := n.Ready(t.Context()); err != nil {
		t.Errorf("nothing is missing, and it says %v", err)
	}
}

// While memory is full, what takes a right away is done, and nothing else.
func TestFullMemory(t *testing.T) {
	t.Parallel()
	for _, stepwise := range []bool{false, true} {
		t.Run(fmt.Sprintf("stepwise %v", stepwise), func(t *testing.T) {
			t.Parallel()
			w, _, admin := redisOfItsOwn(t)
			ctx := t.Context()
			n := w.node()
			if stepwise {
				keystore.UseClusterCommitter(n.Store)
			}
			person, doomed := n.account("acme"), n.account("doomed")
			revoked, revokedToken := n.key(person)
			disabled, disabledToken := n.key(person)
			_, doomedToken := n.key(doomed)
			_, accountToken := n.key(person)
			if err := admin.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { admin.ConfigSet(ctx, "maxmemory", "0") })
			if _, _, err := n.Create(ctx, person, newKey()); !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("create: %v", err)
			}
			if _, err := n.Revoke(ctx, person, revoked.ID); err != nil {
				t.Errorf("revoke: %v", err)
			}
			n.wantUnknown(revokedToken)
			off := false
			if _, _, err := n.Update(ctx, person, disabled.ID, keystore.Update{Active: &off}); err != nil {
				t.Errorf("disable: %v", err)
			}
			if n.works(disabledToken).Key.Active {
				t.Error("the disabled key is active")
			}
			if err := n.DeleteAccount(ctx, policy.Caller{}, "doomed"); err != nil {
				t.Errorf("delete account: %v", err)
			}
			n.wantUnknown(doomedToken)
			n.account("acme", func(a *keystore.Account) { a.Status = policy.Suspended })
			if n.works(accountToken).Account.Status != policy.Suspended {
				t.Error("the suspended account is active")
			}
			events, _, err := n.AuditLog(ctx, "acme", keystore.EventFilter{}, "", 3)
			if err != nil || len(events) != 3 || events[0].Action != keystore.AccountPut || events[1].Action != keystore.KeyUpdate || events[2].Action != keystore.KeyRevoke {
				t.Errorf("the trail has %+v, %v", events, err)
			}
			eventually(t, "it is noticed that writes fail", func() bool { return keystore.WriteError(n.Store) != nil })
			admin.ConfigSet(ctx, "maxmemory", "0")
			eventually(t, "it is noticed that writes work", func() bool { return keystore.WriteError(n.Store) == nil })
		})
	}
}

// An acknowledged change has the replicas that were asked for.
func TestChangeThatReachesNoReplicaIsUncertain(t *testing.T) {
	t.Parallel()
	w, master, admin := redisOfItsOwn(t)
	n := w.node(func(o *keystore.Options) {
		o.Durability = keystore.Durability{Replicas: 1, Timeout: 2 * time.Second}
	})
	ctx := t.Context()
	if _, _, err := n.PutAccount(ctx, policy.Caller{}, keystore.Account{ID: "acme", Permissions: []string{"*"}}); !errors.Is(err, keystore.ErrUncertain) || !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("without a replica: %v, want ErrUncertain", err)
	}
	replica, err := startRedis(t.TempDir(), "--appendonly", "no", "--replicaof", "127.0.0.1 "+portOf(master.addr), "--repl-diskless-sync-delay", "0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replica.kill)
	eventually(t, "the replica follows", func() bool { return admin.Wait(ctx, 1, time.Second).Val() == 1 })
	person := n.account("acme")
	k, token := n.key(person)
	n.works(token)
	replica.kill()
	if _, err := n.Revoke(ctx, person, k.ID); !errors.Is(err, keystore.ErrUncertain) {
		t.Errorf("revoke without the replica: %v, want ErrUncertain", err)
	}
	n.wantUnknown(token)
}
