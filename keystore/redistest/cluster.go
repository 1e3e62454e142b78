package redistest

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	masters = 3
	slots   = 16384
	// clusterNodeTimeout is after what time without an answer the others take a
	// master for dead.
	clusterNodeTimeout = 1500 * time.Millisecond
)

// cluster starts three masters and a replica of each. Where there are Links,
// clients, replicas and the bus all go through them.
func (s *starter) cluster() *Topology {
	s.tb.Helper()
	topology := &Topology{Kind: Cluster}
	buses := make([]string, 2*masters)
	for i := range 2 * masters {
		port, bus := s.port(), s.port()
		node := &Node{}
		settings := append(
			s.options.durable(), portSetting("port", port), "cluster-enabled yes", portSetting("cluster-port", bus),
			"cluster-node-timeout "+strconv.FormatInt(clusterNodeTimeout.Milliseconds(), 10),
			"cluster-replica-validity-factor 0", "cluster-announce-ip 127.0.0.1", "cluster-allow-replica-migration no",
		)
		buses[i] = strconv.Itoa(bus)
		if s.options.Links {
			node.Link, node.bus = s.link(port, sniffRedis), s.link(bus, sniffBus)
			buses[i] = portOf(node.bus.Addr())
			settings = append(settings, "cluster-announce-port "+portOf(node.Link.Addr()), "cluster-announce-bus-port "+buses[i])
		}
		node.Server = s.server(port, nil, settings)
		topology.Nodes = append(topology.Nodes, node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	first := topology.Nodes[0]
	for i, n := range topology.Nodes {
		if i < masters {
			if err := n.Client.ClusterAddSlotsRange(ctx, i*slots/masters, (i+1)*slots/masters-1).Err(); err != nil {
				s.tb.Fatal(err)
			}
		}
		if err := n.Client.Do(ctx, "cluster", "set-config-epoch", i+1).Err(); err != nil {
			s.tb.Fatal(err)
		}
		if i == 0 {
			continue
		}
		if err := first.Client.Do(ctx, "cluster", "meet", "127.0.0.1", portOf(n.Addr()), buses[i]).Err(); err != nil {
			s.tb.Fatal(err)
		}
	}
	for i, replica := range topology.Nodes[masters:] {
		master, err := topology.Nodes[i].Client.Do(ctx, "cluster", "myid").Text()
		if err != nil {
			s.tb.Fatal(err)
		}
		if err := until(ctx, 20*time.Millisecond, func() error { // it must know the master first
			return replica.Client.Do(ctx, "cluster", "replicate", master).Err()
		}); err != nil {
			s.tb.Fatal(err)
		}
	}
	return topology
}

// clusterIsWhole is nil when every server sees all slots covered and all others
// well, and every replica is connected to its master.
func (t *Topology) clusterIsWhole(ctx context.Context) error {
	found := 0
	for _, n := range t.Nodes {
		info, err := n.Client.ClusterInfo(ctx).Result()
		if err != nil {
			return err
		}
		for _, want := range []string{"cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:6", "cluster_size:3"} {
			if !strings.Contains(info, want) {
				return fmt.Errorf("the server on %s lacks %s:\n%s", n.Server.Addr(), want, info)
			}
		}
		view, err := n.Client.ClusterNodes(ctx).Result()
		if err != nil {
			return err
		}
		if strings.Contains(view, "fail") || strings.Contains(view, "handshake") || strings.Contains(view, "disconnected") {
			return fmt.Errorf("the server on %s sees others unwell:\n%s", n.Server.Addr(), view)
		}
		master := strings.Contains(view, "myself,master")
		if master {
			found++
		}
		if err := n.hasRole(ctx, master); err != nil {
			return err
		}
	}
	if found != masters {
		return fmt.Errorf("there are %d masters", found)
	}
	return nil
}

// clusterMaster returns the master of a slot that most of the servers which
// answer name: one that is cut off goes on naming itself.
func (t *Topology) clusterMaster(ctx context.Context, slot int) (*Node, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // one may be stopped
	defer cancel()
	said := make([]string, len(t.Nodes))
	var all sync.WaitGroup
	for i, n := range t.Nodes {
		if n.Runs() {
			all.Go(func() { said[i] = n.masterOf(ctx, slot) })
		}
	}
	all.Wait()
	votes, most := map[string]int{}, ""
	for _, addr := range said {
		if addr == "" {
			continue
		}
		if votes[addr]++; votes[addr] > votes[most] {
			most = addr
		}
	}
	if most == "" {
		return nil, fmt.Errorf("nobody knows a master of slot %d", slot)
	}
	return t.node(most)
}

// masterOf returns the address of the master of a slot as this server sees it,
// or "".
func (s *Server) masterOf(ctx context.Context, slot int) string {
	ranges, err := s.Client.Do(ctx, "cluster", "slots").Slice()
	if err != nil {
		return ""
	}
	for _, one := range ranges { // first slot, last slot, master, replicas
		fields, ok := one.([]any)
		if !ok || len(fields) < 3 {
			continue
		}
		first, _ := fields[0].(int64)
		last, _ := fields[1].(int64)
		master, _ := fields[2].([]any)
		if int64(slot) < first || int64(slot) > last || len(master) < 2 {
			continue
		}
		return net.JoinHostPort(fmt.Sprint(master[0]), fmt.Sprint(master[1]))
	}
	return ""
}

// clusterReplica returns a replica of the master.
func (t *Topology) clusterReplica(ctx context.Context, master *Node) (*Node, error) {
	id, err := master.Client.Do(ctx, "cluster", "myid").Text()
	if err != nil {
		return nil, err
	}
	for _, n := range t.Nodes {
		if n == master || !n.Runs() {
			continue
		}
		view, err := n.Client.ClusterNodes(ctx).Result()
		if err != nil {
			continue
		}
		for line := range strings.Lines(view) {
			if strings.Contains(line, "myself,slave") && strings.Contains(line, id) {
				return n, nil
			}
		}
	}
	return nil, fmt.Errorf("the master on %s has no replica", master.Server.Addr())
}
