package keystore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// ownCluster is a Cluster of three masters, each with a replica or not, that a
// test may stop and kill.
type ownCluster struct {
	t       *testing.T
	servers []*redisServer // the masters, and then their replicas in the same order
	clients []*redis.Client
}

// nodeTimeout is after how much silence the nodes of an ownCluster take one to
// have failed.
const nodeTimeout = 1500 * time.Millisecond

func newOwnCluster(t *testing.T, replicas bool) *ownCluster {
	t.Helper()
	needRedis(t)
	const masters, slots = 3, 16384
	c := &ownCluster{t: t}
	count := masters
	if replicas {
		count *= 2
	}
	for range count {
		bus, err := ports.Free(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s, err := startRedis(t.TempDir(), "--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus),
			"--cluster-node-timeout", strconv.Itoa(int(nodeTimeout.Milliseconds())), "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
		if err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(&redis.Options{Addr: s.addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1})
		t.Cleanup(func() { s.signal(syscall.SIGCONT); s.kill(); _ = client.Close() })
		c.servers, c.clients = append(c.servers, s), append(c.clients, client)
		if i := len(c.servers) - 1; i < masters {
			c.do(i, "cluster", "addslotsrange", i*slots/masters, (i+1)*slots/masters-1)
		}
		if len(c.servers) > 1 {
			host, port, _ := net.SplitHostPort(s.addr)
			c.do(0, "cluster", "meet", host, port, bus)
		}
	}
	c.eventually("the nodes know each other", func() bool {
		for i := range c.clients {
			if !strings.Contains(c.do(i, "cluster", "info"), fmt.Sprintf("cluster_known_nodes:%d\r", count)) {
				return false
			}
		}
		return true
	})
	for i := masters; i < count; i++ {
		master := c.do(i-masters, "cluster", "myid")
		c.eventually("it takes the replica", func() bool { return c.clients[i].Do(t.Context(), "cluster", "replicate", master).Err() == nil })
	}
	c.eventually("the Cluster is whole", func() bool {
		for i := range c.clients {
			if !strings.Contains(c.do(i, "cluster", "info"), "cluster_state:ok") {
				return false
			}
			if i >= masters && !strings.Contains(c.do(i, "info", "replication"), "master_link_status:up") {
				return false
			}
			// Until every node knows every replica, none can be elected.
			if replicas && strings.Count(c.do(i, "cluster", "nodes"), "slave") != masters {
				return false
			}
		}
		return true
	})
	return c
}

func (c *ownCluster) do(node int, args ...any) string {
	c.t.Helper()
	got, err := c.clients[node].Do(context.WithoutCancel(c.t.Context()), args...).Text()
	if err != nil {
		c.t.Fatalf("%v: %v", args, err)
	}
	return got
}

// eventually is patient: an election takes its time, also on a busy machine.
func (c *ownCluster) eventually(what string, condition func() bool) {
	c.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !condition(); {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("not in time: %s", what)
		}
	}
}

// store opens a store on the Cluster.
func (c *ownCluster) store(changes ...func(*keystore.Options)) *node {
	c.t.Helper()
	w := newWorld(c.t, "own cluster")
	w.options.Redis = &keystore.Redis{}
	for _, s := range c.servers {
		w.options.Redis.Addrs = append(w.options.Redis.Addrs, s.addr)
	}
	n := w.node(changes...)
	c.eventually("it is ready", func() bool { return n.Ready(c.t.Context()) == nil })
	return n
}

// tokens makes keys until each master has at least so many, and returns them by
// the number of their master.
func (c *ownCluster) tokens(n *node, person policy.Caller, each int) [3][]keystore.Token {
	c.t.Helper()
	var all [3][]keystore.Token
	for len(all[0]) < each || len(all[1]) < each || len(all[2]) < each {
		_, token := n.key(person)
		i := c.masterOf(n.recordName(token))
		all[i] = append(all[i], token)
	}
	return all
}

func (c *ownCluster) masterOf(key string) int {
	slot, err := c.clients[0].ClusterKeySlot(c.t.Context(), key).Result()
	if err != nil {
		c.t.Fatal(err)
	}
	return min(2, int(slot)*3/16384) //nolint:mnd // three masters
}

// A master that is killed and stays dead: its keys are unavailable until its
// replica was elected, and are normal within 5 s of that, whoever asks.
func TestKilledMasterIsReplaced(t *testing.T) {
	t.Parallel()
	c := newOwnCluster(t, true)
	n := c.store(func(o *keystore.Options) { o.Timeout = patience; o.Log = zap.NewNop() })
	person := n.account("acme")
	tokens := c.tokens(n, person, 5)
	// What the replicas have not received yet would be lost.
	c.eventually("the replicas have everything", func() bool {
		for i := range 3 {
			if c.offset(i, "master_repl_offset") > c.offset(i+3, "slave_repl_offset") {
				return false
			}
		}
		return true
	})
	const victim = 1
	c.servers[victim].kill()

	stop := make(chan struct{})
	var wrong atomic.Int64
	var clients sync.WaitGroup
	for range 4 { // they keep the store busy, as customers do
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				for _, of := range tokens {
					if _, err := n.Lookup(context.WithoutCancel(t.Context()), of[i%len(of)]); errors.Is(err, keystore.ErrUnknownToken) {
						wrong.Add(1)
					}
				}
			}
		})
	}
	c.eventually("the replica is elected", func() bool { return strings.Contains(c.do(victim+3, "info", "replication"), "role:master") })
	elected := time.Now()
	c.eventually("everything is normal", func() bool {
		for _, of := range tokens {
			for _, token := range of {
				if _, err := n.Lookup(t.Context(), token); err != nil {
					return false
				}
			}
		}
		return true
	})
	took := time.Since(elected)
	c.eventually("changes can be made", func() bool {
		_, _, err := n.Create(t.Context(), person, newKey())
		return err == nil
	})
	t.Logf("normal again %v after the election, changes after %v", took, time.Since(elected))
	if took > 5*time.Second {
		t.Errorf("it took %v from the election to be normal", took)
	}
	close(stop)
	clients.Wait()
	if wrong.Load() > 0 {
		t.Errorf("%d keys were unknown", wrong.Load())
	}
}

func (c *ownCluster) offset(node int, field string) int {
	_, rest, _ := strings.Cut(c.do(node, "info", "replication"), field+":")
	text, _, _ := strings.Cut(rest, "\r")
	n, err := strconv.Atoi(text)
	if err != nil {
		c.t.Fatalf("%s of node %d: %v", field, node, err)
	}
	return n
}

// One lost master fails its own keys and nothing else, however many ask for
// them, strangers with invented tokens among them. Keys of the other masters
// are not even delayed by the timeouts.
func TestLostMasterFailsItsOwnKeysAlone(t *testing.T) {
	for name, lose := range map[string]func(*redisServer){
		"killed":  (*redisServer).kill,
		"stopped": func(s *redisServer) { s.signal(syscall.SIGSTOP) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newOwnCluster(t, false)
			for i := range 3 {
				c.do(i, "config", "set", "cluster-require-full-coverage", "no")
			}
			const timeout = 2 * time.Second // long enough for what is healthy on a busy machine
			n := c.store(func(o *keystore.Options) { o.Timeout = timeout })
			person := n.account("acme")
			const victim = 2
			for c.masterOf(n.w.options.Prefix+"account:{"+string(person.Account.ID)+"}") == victim {
				person = n.account(policy.AccountID(fmt.Sprint("other", time.Now().UnixNano())))
			}
			tokens := c.tokens(n, person, 10)
			for _, of := range tokens {
				for _, token := range of {
					n.works(token)
				}
			}
			lose(c.servers[victim])

			stop := make(chan struct{})
			var lost, strangers sync.WaitGroup
			var failed atomic.Int64
			again := func(all *sync.WaitGroup, do func(i int)) {
				all.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						case <-time.After(time.Millisecond):
							do(i)
						}
					}
				})
			}
			for range 4 {
				again(&lost, func(i int) {
					if _, err := n.Lookup(context.WithoutCancel(t.Context()), tokens[victim][i%10]); err != nil {
						failed.Add(1)
					}
				})
				again(&strangers, func(int) {
					token, err := keystore.Mint("gk_", rand.Reader)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := n.Lookup(context.WithoutCancel(t.Context()), token); err == nil {
						t.Error("an invented token works")
					}
				})
			}
			var slowest time.Duration
			for i := 0; i < 600 && !t.Failed(); i++ {
				begun := time.Now()
				if _, err := n.Lookup(t.Context(), tokens[i%2][i%10]); err != nil {
					t.Errorf("lookup %d of a healthy master: %v", i, err)
				}
				slowest = max(slowest, time.Since(begun))
			}
			close(stop)
			lost.Wait()
			strangers.Wait()
			if failed.Load() == 0 {
				t.Error("no key of the lost master failed: nothing was tested")
			}
			t.Logf("the slowest of 600 took %v, %d lookups of the lost master failed", slowest, failed.Load())
			if slowest > timeout {
				t.Errorf("the slowest lookup of a healthy master took %v", slowest)
			}
		})
	}
}

// Slots that move, and a master that hands over to its replica, are followed: no
// lookup fails, and every marker comes with its key.
func TestMovingSlotsAreFollowed(t *testing.T) {
	t.Parallel()
	c := newOwnCluster(t, false)
	n := c.store()
	person := n.account("acme")
	_, token := n.key(person)
	key := n.recordName(token)
	from := c.masterOf(key)
	to := (from + 1) % 3
	slot := c.clients[0].ClusterKeySlot(t.Context(), key).Val()
	fromID, toID := c.do(from, "cluster", "myid"), c.do(to, "cluster", "myid")
	c.do(to, "cluster", "setslot", slot, "importing", fromID)
	c.do(from, "cluster", "setslot", slot, "migrating", toID)
	r := keystore.ReaderOf(n.Store)
	n.works(token)
	host, port, _ := net.SplitHostPort(c.servers[to].addr)
	for _, name := range []string{r.MarkerName(key), key} { // half of it has moved, and then all
		c.do(from, "migrate", host, port, name, 0, 5000)
		together(50, func(int) {
			if _, err := n.Lookup(t.Context(), token); err != nil {
				t.Errorf("%s has moved: %v", name, err)
			}
		})
		if marker, _, _, err := r.Marker(t.Context(), key); marker == "" || err != nil {
			t.Errorf("%s has moved: marker %q, %v", name, marker, err)
		}
		if got, err := r.Many(t.Context(), []string{key, key + "?"}); err != nil || got[0] == "" || got[1] != "" {
			t.Errorf("%s has moved: many: %q, %v", name, got, err)
		}
	}
	for _, i := range []int{to, from, 3 - from - to} {
		c.do(i, "cluster", "setslot", slot, "node", toID)
	}
	together(50, func(int) {
		if _, err := n.Lookup(t.Context(), token); err != nil {
			t.Errorf("the slot has moved: %v", err)
		}
	})
	n.wantUnknown(func() keystore.Token { k, tk := n.key(person); _, _ = n.Revoke(t.Context(), person, k.ID); return tk }())
	if got := r.Lanes(); got != 3 {
		t.Errorf("there are %d queues for 3 masters", got)
	}
}
