package keystore_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"gatehouse/keystore"
)

// An outage of a redis-server of its own: what a stopped or killed process
// does cannot be had from a fake.

const (
	patience = 300 * time.Millisecond // the timeout of these lookups
	slack    = 500 * time.Millisecond // for a busy machine under the race detector
)

// ownRedis is a world on a redis-server that the test may stop and kill. What
// it was told is still there when it is started again.
func ownRedis(t *testing.T) (*world, *redisServer) {
	t.Helper()
	needRedis(t)
	server, err := startRedis(t.TempDir(), "--appendonly", "yes", "--appendfsync", "always")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.kill)
	w := newWorld(t, "own")
	w.options.Redis = &keystore.Redis{Addrs: []string{server.addr}}
	w.options.Timeout = patience
	return w, server
}

// A Redis that hangs costs every lookup one timeout and no more, however many
// there are: those that queue behind a failed one do not wait for another.
func TestHangingRedisIsUnavailableInTime(t *testing.T) {
	w, server := ownRedis(t)
	n := w.node()
	_, token := n.key(n.account("acme"))
	n.works(token)

	server.signal(syscall.SIGSTOP)
	took := make([]time.Duration, 200)
	together(len(took), func(i int) {
		begun := time.Now()
		_, err := n.Lookup(t.Context(), token)
		took[i] = time.Since(begun)
		if !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrUnknownToken) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	})
	for i, d := range took {
		if d > patience+slack {
			t.Errorf("lookup %d of %d took %v, want at most about %v", i, len(took), d, patience)
		}
	}
	// So do those that come one after another, while it goes on hanging.
	for range 3 {
		begun := time.Now()
		n.wantUnavailable(token)
		if d := time.Since(begun); d > patience+slack {
			t.Errorf("took %v, want at most about %v", d, patience)
		}
	}
	if err := n.Ready(t.Context()); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("ready: %v", err)
	}

	server.signal(syscall.SIGCONT)
	begun := time.Now()
	eventually(t, "normal again", func() bool { _, err := n.Lookup(t.Context(), token); return err == nil })
	if d := time.Since(begun); d > time.Second {
		t.Errorf("it took %v to be normal again", d)
	}
	for range 20 {
		n.works(token)
	}
}

// A change on a Redis that hangs ends too, and says that it cannot say.
func TestChangeOnHangingRedisEnds(t *testing.T) {
	w, server := ownRedis(t)
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	server.signal(syscall.SIGSTOP)
	begun := time.Now()
	_, err := n.Revoke(t.Context(), person, k.ID)
	wantErr(t, err, keystore.ErrUnavailable)
	if d := time.Since(begun); d > 4*time.Second {
		t.Errorf("revoke took %v", d)
	}
	server.signal(syscall.SIGCONT)
	eventually(t, "normal again", func() bool { return n.Ready(t.Context()) == nil })
	if _, err := n.Lookup(t.Context(), token); err != nil && !errors.Is(err, keystore.ErrUnknownToken) {
		t.Errorf("the key is neither there nor revoked: %v", err)
	}
}

func TestKilledRedisIsUnavailableUntilItIsBack(t *testing.T) {
	w, server := ownRedis(t)
	n := w.node()
	person := n.account("acme")
	_, token := n.key(person)
	gone, goneToken := n.key(person)
	if _, err := n.Revoke(t.Context(), person, gone.ID); err != nil {
		t.Fatal(err)
	}
	server.kill()
	for range 50 { // as many as make the client give up dialling for a while
		n.wantUnavailable(token)
	}
	together(200, func(int) { n.wantUnavailableConcurrently(token) })

	if err := server.start(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	eventually(t, "normal again", func() bool {
		_, err := n.Lookup(t.Context(), token)
		if errors.Is(err, keystore.ErrUnknownToken) {
			t.Fatalf("while it starts: %v", err)
		}
		return err == nil
	})
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("it took %v to be normal again", d)
	}
	n.wantUnknown(goneToken)
	eventually(t, "changes are heard of again", func() bool { return n.Hears() })
}

func (n *node) wantUnavailableConcurrently(token keystore.Token) {
	if _, err := n.Lookup(n.t.Context(), token); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrUnknownToken) {
		n.t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// A Redis that comes back without its data is not the truth.
func TestRedisThatComesBackEmptyIsUnavailable(t *testing.T) {
	w, server := ownRedis(t)
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	client := keystore.ClientOf(n.Store)
	if err := client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	n.wantUnavailable(token)
	everythingIsUnavailable(t, n, person, k.ID)
	server.kill()
	if err := server.start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it answers again", func() bool { return client.Ping(t.Context()).Err() == nil })
	n.wantUnavailable(token)
	everythingIsUnavailable(t, n, person, k.ID)
}

// One node of a Cluster that hangs takes its own keys with it, in time.
func TestHangingClusterNode(t *testing.T) {
	theCluster(t)
	w := newWorld(t, "cluster")
	w.options.Timeout = patience
	n := w.node()
	person := n.account("acme")
	var tokens []keystore.Token
	for range 12 {
		_, token := n.key(person)
		tokens = append(tokens, token)
	}
	eventually(t, "it is subscribed", func() bool { return n.Hears() })
	for _, token := range tokens {
		n.works(token)
	}
	node := clusterNode(t, n.recordName(tokens[0]), n)
	node.signal(syscall.SIGSTOP)
	defer func() {
		node.signal(syscall.SIGCONT)
		for _, token := range tokens {
			eventually(t, "normal again", func() bool { _, err := n.Lookup(t.Context(), token); return err == nil })
		}
	}()
	for _, token := range tokens {
		begun := time.Now()
		_, err := n.Lookup(t.Context(), token)
		if err != nil && (!errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrUnknownToken)) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(begun); d > patience+slack {
			t.Errorf("took %v, want at most about %v", d, patience)
		}
	}
}

// clusterNode is the process that holds the key.
func clusterNode(t *testing.T, key string, n *node) *redisServer {
	t.Helper()
	client, err := clusterClient(n).MasterForKey(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	servers.Lock()
	defer servers.Unlock()
	for _, s := range servers.all {
		if s.addr == client.Options().Addr {
			return s
		}
	}
	t.Fatalf("no server is called %s", client.Options().Addr)
	return nil
}

// A process that is held up while it writes to its embedded store, for as long as
// it may be, goes on as if nothing had been.
func TestHeldUpEmbeddedStoreGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, "embedded")
		w.options.Timeout = patience
		n := w.node()
		person := n.account("acme")
		_, token := n.key(person)
		keystore.HoldWrites(n.Store, func() { <-time.After(time.Minute) })
		begun := time.Now()
		_, next := n.key(person)
		if time.Since(begun) < time.Minute {
			t.Error("it was not held up")
		}
		n.works(token)
		n.works(next)
		n.key(person)
	})
}
