package keystore

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed beat.lua
var beatSource string

// beatTimeout bounds a beat.
const beatTimeout = time.Second

// master is one of the servers that take changes, by a slot that it has.
type master struct {
	name string
	slot int
}

// beat sends beats until ctx ends.
func (s *Store) beat(ctx context.Context) {
	tick := time.NewTicker(beatPause)
	defer tick.Stop()
	var sent sync.WaitGroup
	defer sent.Wait()
	script := redis.NewScript(beatSource)
	for {
		if s.identity.Load() != nil {
			masters, err := s.masters(ctx)
			if err != nil {
				s.report("", err)
			}
			for _, m := range masters {
				if message, number, ok := s.hearing.beat(m.name, s.elapsed()); ok {
					sent.Go(func() { s.hearing.answered(m.name, number, s.sendBeat(ctx, script, m, message)) })
				}
			}
			if s.hearing.deaf(s.elapsed()) {
				s.resubscribe()
			}
			if s.hearing.gap(s.elapsed()) {
				s.o.Log.Warn("messages of another node were lost: cached keys are read again")
				s.unverify()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// masters returns the servers that take changes now. One that is not in a
// Cluster has no name.
func (s *Store) masters(ctx context.Context) ([]master, error) {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return []master{{}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	slots, err := cluster.ClusterSlots(ctx).Result() //nolint:staticcheck // CLUSTER SHARDS names masters that have failed, too
	if err != nil {
		return nil, fmt.Errorf("read the slots of the Cluster: %w", err)
	}
	names := map[string]bool{}
	var masters []master
	for _, part := range slots {
		if len(part.Nodes) == 0 || names[part.Nodes[0].Addr] {
			continue
		}
		names[part.Nodes[0].Addr] = true
		masters = append(masters, master{name: part.Nodes[0].Addr, slot: part.Start})
	}
	s.hearing.only(names)
	s.health.only(names)
	return masters, nil
}

// sendBeat reports whether the master took the beat, and takes in what it says
// of the store.
func (s *Store) sendBeat(ctx context.Context, script *redis.Script, m master, message string) bool {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	known := s.markers.known(m.slot)
	marker := s.markers.name(m.slot)
	reply, err := script.Run(ctx, s.client, []string{marker, s.names.beat(marker, s.hearing.node)}, s.names.changed(), message).Slice()
	if err != nil || len(reply) != 2 {
		s.report(m.name, cmp.Or(err, errShortReply))
		return false
	}
	value := value{found: true, slot: m.slot, known: known}
	value.marker, _ = reply[0].(string)
	written, _ := reply[1].(string)
	if err := s.trustMarker(value); err != nil {
		s.report(m.name, err)
		return true
	}
	s.wasWritten(m.name, written)
	return true
}

// report tells the store's health why a master cannot be used.
func (s *Store) report(master string, err error) {
	s.health.reported(master, report{state: StateOf(err), cause: err})
}

// wasWritten tells the store's health what came of a beat's write, "OK" or the
// error of the server.
func (s *Store) wasWritten(master, result string) {
	now := report{state: StateOK}
	switch {
	case s.rollback.found():
		now.state, now.cause = StateOlder, ErrOlder
	case !s.compact():
		now.state = StateLegacy
	}
	if result != "OK" {
		now.write = errors.New(result)
	}
	s.health.reported(master, now)
	if before := s.writable.Swap(&now.write); now.write == nil && (before == nil || *before != nil) {
		s.rollback.poke()
	}
}

// unverify has everything read again that is cached or under way: a change may
// have been missed.
func (s *Store) unverify() {
	s.keys.unverify()
	s.accounts.unverify()
	s.changed(Change{})
}
