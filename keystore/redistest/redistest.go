// Package redistest starts Redis for tests: real redis-server processes on
// loopback ports, alone, watched by Sentinels or as a Cluster, and does to them
// what happens to servers: they are killed, stopped, emptied, put back to an
// older state, failed over, cut off by a proxy, and run out of memory or disk.
//
// Everything ends with the test, and with the test process, also when that is
// killed.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore/porttest"
)

// Kind is how the servers belong together.
type Kind string

// The kinds of a Topology.
const (
	Standalone Kind = "standalone" // one server
	Sentinel   Kind = "sentinel"   // a master, two replicas and three Sentinels
	Cluster    Kind = "cluster"    // three masters, each with a replica
)

// Fsync is when a server brings its append-only file to the disk.
type Fsync string

// The values of Fsync. The zero value is Always.
const (
	Always      Fsync = "always"
	EverySecond Fsync = "everysec"
	Off         Fsync = "off" // no append-only file, and snapshots alone
)

// MasterName is what the Sentinels call their master.
const MasterName = "main"

// Options say how the servers are started.
type Options struct {
	Fsync Fsync
	// Links puts a Link in front of every server, by which the others and all
	// clients know it.
	Links bool
	// Users are lines of an ACL file, beside the default user's, which always
	// may do everything without a password.
	Users []string
	// TLS: the servers take only TLS, with a certificate by Topology.CAFile.
	// Not together with Links, nor with another Kind than Standalone.
	TLS bool
	// Disk is the size of a file system of its own for each server, in bytes; 0
	// for none. It needs the right to mount; see CanMount.
	Disk int64
	// Args are more of a server's settings, as redis.conf has them.
	Args []string
}

// Topology is servers that keep one store together.
type Topology struct {
	Kind      Kind
	Nodes     []*Node // those that have the data
	Sentinels []*Node
	CAFile    string // where there is TLS
}

// Node is one server, and the Link in front of it.
type Node struct {
	*Server
	Link *Link // nil without Options.Links
	bus  *Link // in front of the bus of a Cluster's node
}

// Addr is what clients connect to, as HOST:PORT: the Link, if there is one.
func (n *Node) Addr() string {
	if n.Link != nil {
		return n.Link.Addr()
	}
	return n.Server.Addr()
}

// patience is how long a server, or servers together, may take to become usable.
const patience = 60 * time.Second

// Start starts servers and waits until they work together. It fails the test
// when they do not, and skips it, aloud, where there is no redis-server and
// GATEHOUSE_TEST_REQUIRE is not set.
func Start(tb testing.TB, kind Kind, o Options) *Topology {
	tb.Helper()
	Need(tb)
	s := &starter{tb: tb, ports: ports(), options: o}
	var topology *Topology
	switch kind {
	case Standalone:
		topology = s.standalone()
	case Sentinel:
		topology = s.sentinel()
	case Cluster:
		topology = s.cluster()
	default:
		tb.Fatalf("there is no topology %q", kind)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := topology.WaitHealthy(ctx); err != nil {
		tb.Fatal(err)
	}
	return topology
}

// ports gives each port once in this process.
var ports = sync.OnceValue(porttest.New) //nolint:gochecknoglobals // it changes nothing but itself

// Need skips the test, aloud, where there is no redis-server, and fails it
// where GATEHOUSE_TEST_REQUIRE is set.
func Need(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err == nil {
		return
	}
	if os.Getenv("GATEHOUSE_TEST_REQUIRE") != "" {
		tb.Fatal("GATEHOUSE_TEST_REQUIRE is set and there is no redis-server")
	}
	tb.Skip("SKIPPED: there is no redis-server on this machine")
}

// Addrs are what a client is told to connect to, each as HOST:PORT: the
// Sentinels, or all servers.
func (t *Topology) Addrs() []string {
	nodes := t.Nodes
	if t.Kind == Sentinel {
		nodes = t.Sentinels
	}
	addrs := make([]string, len(nodes))
	for i, n := range nodes {
		addrs[i] = n.Addr()
	}
	return addrs
}

// WaitHealthy waits until every server is up and in its place: replicas follow
// their master, Sentinels agree, slots are covered.
func (t *Topology) WaitHealthy(ctx context.Context) error {
	return until(ctx, 50*time.Millisecond, func() error {
		var all []error
		for _, n := range append(append([]*Node{}, t.Nodes...), t.Sentinels...) {
			if !n.Runs() {
				return fmt.Errorf("the server on %s does not run", n.Server.Addr())
			}
			if err := n.Client.Ping(ctx).Err(); err != nil {
				return fmt.Errorf("the server on %s: %w", n.Server.Addr(), err)
			}
		}
		switch t.Kind {
		case Standalone:
		case Sentinel:
			all = append(all, t.sentinelsAgree(ctx))
		case Cluster:
			all = append(all, t.clusterIsWhole(ctx))
		}
		return errors.Join(all...)
	})
}

// until tries again until there is no error, and returns the last one when the
// context ends.
func until(ctx context.Context, every time.Duration, try func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

func plainClient(o redis.Options) *redis.Client {
	o.Protocol, o.DisableIdentity, o.MaxRetries, o.DialerRetries = 2, true, -1, 1
	return redis.NewClient(&o)
}
