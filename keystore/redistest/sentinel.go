package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// The Sentinels take a master for dead after a second without an answer.
const (
	sentinelDownAfter = time.Second
	sentinelTimeout   = 3 * time.Second // of a failover
	replicas          = 2
	sentinels         = 3
	quorum            = 2
)

// sentinel starts a master, its replicas and the Sentinels. Where there are
// Links, the servers announce these, and the Sentinels hand them out.
func (s *starter) sentinel() *Topology {
	s.tb.Helper()
	topology := &Topology{Kind: Sentinel}
	for i := range 1 + replicas {
		port := s.port()
		node := &Node{}
		settings := append(s.options.durable(), portSetting("port", port), "replica-announce-ip 127.0.0.1", "replica-serve-stale-data no")
		if s.options.Links {
			node.Link = s.link(port, sniffRedis)
			settings = append(settings, "replica-announce-port "+portOf(node.Link.Addr()))
		}
		if i > 0 {
			settings = append(settings, "replicaof 127.0.0.1 "+portOf(topology.Nodes[0].Addr()))
		}
		node.Server = s.server(port, nil, settings)
		topology.Nodes = append(topology.Nodes, node)
	}
	for range sentinels {
		port := s.port()
		topology.Sentinels = append(topology.Sentinels, &Node{Server: s.server(port, nil, []string{
			portSetting("port", port),
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %s %d", MasterName, portOf(topology.Nodes[0].Addr()), quorum),
			fmt.Sprintf("sentinel down-after-milliseconds %s %d", MasterName, sentinelDownAfter.Milliseconds()),
			fmt.Sprintf("sentinel failover-timeout %s %d", MasterName, sentinelTimeout.Milliseconds()),
			fmt.Sprintf("sentinel parallel-syncs %s %d", MasterName, replicas),
		}, "--sentinel")})
	}
	return topology
}

func portOf(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return port
}

// sentinelMaster returns the master that the majority of the Sentinels names.
func (t *Topology) sentinelMaster(ctx context.Context) (*Node, error) {
	votes := map[string]int{}
	var failed error
	for _, sentinel := range t.Sentinels {
		addr, err := sentinel.Client.Do(ctx, "sentinel", "get-master-addr-by-name", MasterName).StringSlice()
		if err != nil || len(addr) != 2 {
			failed = errors.Join(failed, fmt.Errorf("a Sentinel says %q: %w", addr, err))
			continue
		}
		votes[net.JoinHostPort(addr[0], addr[1])]++
	}
	for addr, n := range votes {
		if n > len(t.Sentinels)/2 {
			return t.node(addr)
		}
	}
	return nil, fmt.Errorf("the Sentinels do not agree on a master: %v, %w", votes, failed)
}

// node returns the server that is known by that address.
func (t *Topology) node(addr string) (*Node, error) {
	for _, n := range t.Nodes {
		if n.Addr() == addr || n.Server.Addr() == addr {
			return n, nil
		}
	}
	return nil, fmt.Errorf("no server has the address %s", addr)
}

// sentinelsAgree is nil when all of them know the others and the replicas, of
// which each is connected and has what its master has.
func (t *Topology) sentinelsAgree(ctx context.Context) error {
	master, err := t.sentinelMaster(ctx)
	if err != nil {
		return err
	}
	for _, sentinel := range t.Sentinels {
		fields, err := sentinel.Client.Do(ctx, "sentinel", "master", MasterName).StringSlice()
		if err != nil {
			return err
		}
		about := pairs(fields)
		if about["flags"] != "master" || about["num-slaves"] != strconv.Itoa(replicas) || about["num-other-sentinels"] != strconv.Itoa(sentinels-1) {
			return fmt.Errorf("a Sentinel sees %s, %s replicas, %s others", about["flags"], about["num-slaves"], about["num-other-sentinels"])
		}
	}
	for _, n := range t.Nodes {
		if err := n.hasRole(ctx, n == master); err != nil {
			return err
		}
	}
	return nil
}

// hasRole is nil when a server is a master, or a replica that is connected to
// its own.
func (s *Server) hasRole(ctx context.Context, master bool) error {
	said, err := s.Client.Info(ctx, "replication").Result()
	if err != nil {
		return err
	}
	if master && strings.Contains(said, "role:master") || !master && strings.Contains(said, "master_link_status:up") {
		return nil
	}
	return fmt.Errorf("the server on %s is not in its place yet: %s", s.Addr(), said)
}

func pairs(fields []string) map[string]string {
	all := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		all[fields[i]] = fields[i+1]
	}
	return all
}
