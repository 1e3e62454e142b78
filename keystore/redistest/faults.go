package redistest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MasterOf returns the server that takes changes of a key of that slot. Only a
// Cluster has more than one of them.
func (t *Topology) MasterOf(ctx context.Context, slot int) (*Node, error) {
	switch t.Kind {
	case Standalone:
		return t.Nodes[0], nil
	case Sentinel:
		return t.sentinelMaster(ctx)
	case Cluster:
		return t.clusterMaster(ctx, slot)
	}
	return nil, fmt.Errorf("there is no topology %q", t.Kind)
}

// Shard returns the master of the slot and all its replicas, the master first.
func (t *Topology) Shard(ctx context.Context, slot int) ([]*Node, error) {
	master, err := t.MasterOf(ctx, slot)
	if err != nil {
		return nil, err
	}
	shard := []*Node{master}
	switch t.Kind {
	case Standalone:
	case Sentinel:
		for _, n := range t.Nodes {
			if n != master {
				shard = append(shard, n)
			}
		}
	case Cluster:
		replica, err := t.clusterReplica(ctx, master)
		if err != nil {
			return nil, err
		}
		shard = append(shard, replica)
	}
	return shard, nil
}

// Failover has a replica take over from the master of the slot, as an operator
// plans it, and waits until it has. It returns the new master.
func (t *Topology) Failover(ctx context.Context, slot int) (*Node, error) {
	before, err := t.MasterOf(ctx, slot)
	if err != nil {
		return nil, err
	}
	switch t.Kind {
	case Standalone:
		return nil, errors.New("a single server has nobody to take over")
	case Sentinel:
		err = until(ctx, 100*time.Millisecond, func() error { // not while another is under way
			return t.Sentinels[0].Client.Do(ctx, "sentinel", "failover", MasterName).Err()
		})
	case Cluster:
		var replica *Node
		if replica, err = t.clusterReplica(ctx, before); err == nil {
			err = replica.Client.ClusterFailover(ctx).Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return t.WaitOtherMaster(ctx, slot, before)
}

// WaitOtherMaster waits until another server is the master of the slot.
func (t *Topology) WaitOtherMaster(ctx context.Context, slot int, before *Node) (*Node, error) {
	var now *Node
	err := until(ctx, 20*time.Millisecond, func() error {
		var err error
		if now, err = t.MasterOf(ctx, slot); err == nil && now == before {
			err = errors.New("the master is still the same")
		}
		return err
	})
	return now, err
}

// FillMemory makes the server refuse what needs memory (OOM), with what it has
// still there.
func (s *Server) FillMemory(ctx context.Context) error {
	return s.Client.ConfigSet(ctx, "maxmemory", "1").Err()
}

// FreeMemory ends FillMemory.
func (s *Server) FreeMemory(ctx context.Context) error {
	return s.Client.ConfigSet(ctx, "maxmemory", "0").Err()
}

// ClientKillAll closes all connections of clients, those of subscriptions too.
func (s *Server) ClientKillAll(ctx context.Context) error {
	return errors.Join(
		s.Client.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Err(),
		s.Client.ClientKillByFilter(ctx, "TYPE", "pubsub").Err(),
	)
}

// RotatePassword gives a user another password on every server that has data.
// Connections that are open stay; see ClientKillAll.
func (t *Topology) RotatePassword(ctx context.Context, user, password string) error {
	var all []error
	for _, n := range t.Nodes {
		all = append(all, n.Client.Do(ctx, "acl", "setuser", user, "resetpass", ">"+password).Err())
	}
	return errors.Join(all...)
}

// Partition cuts a server off from everybody, its own side of a Cluster's bus
// included, by what the mode says. It needs Options.Links; Heal ends it.
func (t *Topology) Partition(ctx context.Context, n *Node, mode Mode) error {
	if n.Link == nil {
		return errors.New("the server has no Link")
	}
	n.Link.Set(mode)
	if n.bus == nil {
		return nil
	}
	id, err := n.Client.Do(ctx, "cluster", "myid").Text()
	if err != nil {
		return err
	}
	n.bus.Set(mode)
	for _, other := range t.Nodes {
		if other != n {
			other.bus.Set(mode, Class(id))
		}
	}
	return nil
}

// Heal lets everybody reach everybody again.
func (t *Topology) Heal() {
	for _, n := range t.Nodes {
		for _, l := range []*Link{n.Link, n.bus} {
			if l != nil {
				l.Set(Pass)
			}
		}
	}
}

// Split cuts a server off from the other servers, while clients reach it. It
// needs Options.Links; Heal ends it.
func (t *Topology) Split(ctx context.Context, n *Node) error {
	if err := t.Partition(ctx, n, HalfOpen); err != nil {
		return err
	}
	n.Link.Set(Pass)
	n.Link.Set(HalfOpen, FromSentinels, FromReplicas)
	return nil
}

// Slot is the slot of a key of a Cluster.
func Slot(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16 // CRC-16/XMODEM
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % slots
}
