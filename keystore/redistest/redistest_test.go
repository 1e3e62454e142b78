package redistest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore/redistest"
)

const patience = 60 * time.Second

// client is one that goes through what clients are told, and that finds the
// master by itself.
func client(t *testing.T, topology *redistest.Topology, change func(o *redis.UniversalOptions)) redis.UniversalClient {
	t.Helper()
	o := &redis.UniversalOptions{Addrs: topology.Addrs(), Protocol: 2, DisableIdentity: true, ReadTimeout: time.Second, DialTimeout: time.Second}
	if topology.Kind == redistest.Sentinel {
		o.MasterName = redistest.MasterName
	}
	if change != nil {
		change(o)
	}
	c := redis.NewUniversalClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// eventually tries again until there is no error.
func eventually(t *testing.T, what string, try func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTopologies(t *testing.T) {
	for _, kind := range []redistest.Kind{redistest.Standalone, redistest.Sentinel, redistest.Cluster} {
		for _, links := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/links=%t", kind, links), func(t *testing.T) {
				t.Parallel()
				topology := redistest.Start(t, kind, redistest.Options{Links: links})
				c := client(t, topology, nil)
				eventually(t, "a write", func(ctx context.Context) error { return c.Set(ctx, "a", "b", 0).Err() })
				if !links {
					return
				}
				// Every client's connection is one of a Link.
				through := 0
				for _, n := range topology.Nodes {
					through += n.Link.Connections(redistest.Clients)
				}
				if through == 0 {
					t.Error("the client went past the Links")
				}
			})
		}
	}
}

// A master that is cut off from everybody is replaced, and comes back as a
// replica.
func TestPartition(t *testing.T) {
	for _, row := range []struct {
		kind redistest.Kind
		mode redistest.Mode
	}{{redistest.Sentinel, redistest.Refuse}, {redistest.Cluster, redistest.HalfOpen}} {
		t.Run(string(row.kind), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			topology := redistest.Start(t, row.kind, redistest.Options{Links: true})
			before, err := topology.MasterOf(ctx, 0)
			must(t, err)
			must(t, topology.Partition(ctx, before, row.mode))
			after, err := topology.WaitOtherMaster(ctx, 0, before)
			must(t, err)
			if row.kind == redistest.Cluster { // the old master takes no writes in its minority
				eventually(t, "the old master gives up", func(ctx context.Context) error {
					err := before.Client.Set(ctx, "b", "x", 0).Err() // of slot 3300, which is its own
					if err == nil || !strings.Contains(err.Error(), "CLUSTERDOWN") {
						return fmt.Errorf("got %w", err)
					}
					return nil
				})
			}
			topology.Heal()
			must(t, topology.WaitHealthy(ctx))
			if now, err := topology.MasterOf(ctx, 0); err != nil || now != after {
				t.Errorf("the master is another again: %v", err)
			}
		})
	}
}

func TestFailover(t *testing.T) {
	for _, kind := range []redistest.Kind{redistest.Sentinel, redistest.Cluster} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			topology := redistest.Start(t, kind, redistest.Options{Links: true})
			before, err := topology.MasterOf(ctx, 0)
			must(t, err)
			after, err := topology.Failover(ctx, 0)
			must(t, err)
			must(t, topology.WaitHealthy(ctx))
			after.Kill()
			_, err = topology.WaitOtherMaster(ctx, 0, after)
			must(t, err)
			must(t, after.Start(ctx))
			must(t, topology.WaitHealthy(ctx))
			shard, err := topology.Shard(ctx, 0)
			must(t, err)
			if shard[0] == after || !before.Runs() {
				t.Error("the killed master did not come back as a replica")
			}
		})
	}
}

func TestLink(t *testing.T) {
	topology := redistest.Start(t, redistest.Standalone, redistest.Options{Links: true})
	link := topology.Nodes[0].Link
	once := func(o *redis.UniversalOptions) { o.MaxRetries, o.ReadTimeout = -1, 300*time.Millisecond }
	c := client(t, topology, once)
	ctx := t.Context()
	must(t, c.Set(ctx, "a", "b", 0).Err())

	for name, mode := range map[string]redistest.Mode{"refuse": redistest.Refuse, "half-open": redistest.HalfOpen} {
		link.Set(mode)
		if err := c.Get(ctx, "a").Err(); err == nil {
			t.Errorf("%s: answered", name)
		}
		link.Set(redistest.Pass)
		eventually(t, name+": it passes again", func(ctx context.Context) error { return c.Get(ctx, "a").Err() })
	}

	link.Delay(100 * time.Millisecond)
	begun := time.Now()
	must(t, c.Get(ctx, "a").Err())
	if took := time.Since(begun); took < 200*time.Millisecond {
		t.Errorf("with 100 ms each way it took %s", took)
	}
	link.Set(redistest.Pass)

	// Subscriptions alone.
	subscription := c.Subscribe(ctx, "news")
	defer func() { _ = subscription.Close() }()
	_, err := subscription.Receive(ctx)
	must(t, err)
	hears := func(ctx context.Context) error {
		must(t, c.Publish(ctx, "news", "x").Err())
		message, err := subscription.ReceiveTimeout(ctx, 200*time.Millisecond)
		if m, ok := message.(*redis.Message); err == nil && ok && m.Payload == "x" {
			return nil
		}
		return fmt.Errorf("got %v, %w", message, err)
	}
	must(t, hears(ctx))
	link.Set(redistest.HalfOpen, redistest.Subscriptions)
	if hears(ctx) == nil {
		t.Error("a half-open subscription hears")
	}
	must(t, c.Get(ctx, "a").Err())
	link.Set(redistest.Refuse, redistest.Subscriptions)
	if hears(ctx) == nil {
		t.Error("a refused subscription hears")
	}
	must(t, c.Get(ctx, "a").Err())
	link.Set(redistest.Pass)
	eventually(t, "the subscription hears again", hears)
	link.Cut(redistest.Subscriptions)
	eventually(t, "the subscription is made again", hears)
}

func TestServerFaults(t *testing.T) {
	node := redistest.Start(t, redistest.Standalone, redistest.Options{Users: []string{"user guest on >one ~* &* +@all"}})
	s, ctx := node.Nodes[0], t.Context()
	c := client(t, node, func(o *redis.UniversalOptions) { o.Username, o.Password, o.MaxRetries = "guest", "one", -1 })
	must(t, c.Set(ctx, "a", "old", 0).Err())
	older := t.TempDir()
	must(t, s.Copy(older))
	must(t, c.Set(ctx, "a", "new", 0).Err())

	must(t, s.FillMemory(ctx))
	if err := c.Set(ctx, "b", "x", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "OOM") {
		t.Errorf("full memory: %v", err)
	}
	must(t, s.FreeMemory(ctx))
	must(t, c.Set(ctx, "b", "x", 0).Err())

	value := func(want string) {
		t.Helper()
		eventually(t, "the value", func(ctx context.Context) error {
			got, err := c.Get(ctx, "a").Result()
			if err != nil && !errors.Is(err, redis.Nil) || got != want {
				return fmt.Errorf("got %q, %w, want %q", got, err, want)
			}
			return nil
		})
	}
	s.Kill()
	must(t, s.Start(ctx))
	value("new")
	must(t, s.RestartWith(ctx, older))
	value("old")
	must(t, s.RestartEmpty(ctx))
	value("")

	must(t, node.RotatePassword(ctx, "guest", "two"))
	must(t, c.Set(ctx, "a", "b", 0).Err()) // the connection is still open
	must(t, s.ClientKillAll(ctx))
	eventually(t, "the old password is wrong", func(ctx context.Context) error {
		if err := c.Get(ctx, "a").Err(); err == nil || !strings.HasPrefix(err.Error(), "WRONGPASS") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})

	must(t, s.Stop())
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := s.Client.Ping(short).Err(); err == nil {
		t.Error("a stopped server answers")
	}
	must(t, s.Cont())
	eventually(t, "it goes on", func(ctx context.Context) error { return s.Client.Ping(ctx).Err() })
}

// A server whose port another process has for a moment starts all the same, and
// the other is not taken for it.
func TestStartWaitsForItsPort(t *testing.T) {
	s := redistest.Start(t, redistest.Standalone, redistest.Options{}).Nodes[0]
	s.Kill()
	other, err := net.Listen("tcp", s.Server.Addr())
	must(t, err)
	time.AfterFunc(300*time.Millisecond, func() { _ = other.Close() })
	must(t, s.Start(t.Context()))
	eventually(t, "it answers", func(ctx context.Context) error { return s.Client.Ping(ctx).Err() })
}

func TestFullDisk(t *testing.T) {
	node := redistest.Start(t, redistest.Standalone, redistest.Options{Fsync: redistest.EverySecond, Disk: 4 << 20})
	s, c, ctx := node.Nodes[0], client(t, node, nil), t.Context()
	must(t, c.Set(ctx, "a", "b", 0).Err())
	must(t, redistest.FillDisk(s.Folder))
	large := strings.Repeat("x", 64<<10) // more than its last page has room for
	eventually(t, "writes fail", func(ctx context.Context) error {
		if err := c.Set(ctx, "a", large, 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "MISCONF") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	must(t, c.Get(ctx, "a").Err())
	must(t, redistest.FreeDisk(s.Folder))
	eventually(t, "writes work again", func(ctx context.Context) error { return c.Set(ctx, "a", "b", 0).Err() })
}

func TestTLS(t *testing.T) {
	node := redistest.Start(t, redistest.Standalone, redistest.Options{TLS: true})
	pem, err := os.ReadFile(node.CAFile)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := client(t, node, func(o *redis.UniversalOptions) {
		o.TLSConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	})
	must(t, c.Set(t.Context(), "a", "b", 0).Err())
	plain := client(t, node, func(o *redis.UniversalOptions) { o.MaxRetries = -1 })
	if err := plain.Ping(t.Context()).Err(); err == nil {
		t.Error("it answers without TLS")
	}
}
