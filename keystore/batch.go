package keystore

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

const (
	// manyAtOnce bounds the reads of many keys that are under way at the same
	// time, and manyPortion the keys that each asks for in one round trip: what
	// customers list must leave connections for lookups.
	manyAtOnce  = 4
	manyPortion = 200
)

// reader reads single values. Reads that wait for the same server share a round
// trip; see coalescer. Behind every value it reads the marker of its slot, so
// that "no such value" can be told from "the server has lost its data".
//
// On one Redis a round trip is one MGET. On a Cluster it is a pipeline to one
// master, with an MGET of each key and its marker.
type reader struct {
	client  redis.UniversalClient
	markers *markers
	timeout time.Duration
	lanes   *lanes[read]
	// marker is the only marker where there is one for all keys.
	marker any
	places chan struct{} // a place for each read of many keys
}

// read asks for a key and its marker, and is answered in value.
type read struct {
	key, marker string
	value       value
}

// value is what a read found: the value of the key, if there is one, and that
// of the marker of its slot at the same moment or later ("" where there is
// none). Known is the highest position of the slot that this node knew of
// before the read was sent.
type value struct {
	raw    string
	found  bool
	marker string
	slot   int
	known  uint64
}

// newReader returns a reader that has the client for itself. A read ends within
// the timeout.
func newReader(client redis.UniversalClient, m *markers, timeout time.Duration, log *zap.Logger) *reader {
	r := &reader{client: client, markers: m, timeout: timeout, marker: m.name(0), places: make(chan struct{}, manyAtOnce)}
	o := laneOptions[read]{client: client, timeout: timeout, log: log, retries: true, whole: r.askOne, node: r.askMaster}
	if _, cluster := client.(*redis.ClusterClient); cluster {
		o.whole = r.askCluster
	}
	r.lanes = newLanes(o, m)
	return r
}

// get returns what is stored under key. It answers within the timeout, or when
// ctx ends; an error says nothing about the key, and why to OutageReason. A
// read that is under way does not end with ctx, because others may share it.
func (r *reader) get(ctx context.Context, key string) (value, error) {
	if err := ctx.Err(); err != nil {
		return value{}, err
	}
	answer, err := r.lanes.do(ctx, key, r.read(key), now())
	if err != nil {
		return value{}, err
	}
	return answer.value, nil
}

func (r *reader) read(key string) read {
	marker, slot := r.markers.of(key)
	return read{key: key, marker: marker, value: value{slot: slot, known: r.markers.known(slot)}}
}

// many returns what is stored under each of the keys, in their order. It shares
// no round trips, takes at most one timeout for each 200 keys and master, and
// fails at once while a server that it needs is down.
func (r *reader) many(ctx context.Context, keys []string) ([]value, error) {
	values := make([]value, 0, len(keys))
	for part := range slices.Chunk(keys, manyPortion) {
		calls := make([]*call[read], len(part))
		for i, key := range part {
			calls[i] = &call[read]{arg: r.read(key)}
		}
		if err := r.readPortion(ctx, calls); err != nil {
			return nil, err
		}
		for _, c := range calls {
			values = append(values, c.arg.value)
		}
	}
	return values, nil
}

func (r *reader) readPortion(ctx context.Context, calls []*call[read]) error {
	select {
	case r.places <- struct{}{}:
		defer func() { <-r.places }()
	case <-ctx.Done():
		return ctx.Err()
	}
	byLane := map[*coalescer[read]][]*call[read]{}
	for _, c := range calls {
		lane := r.lanes.of(ctx, c.arg.key)
		byLane[lane] = append(byLane[lane], c)
	}
	for lane, part := range byLane {
		if err := r.readDirectly(ctx, lane, part); err != nil {
			return err
		}
	}
	return nil
}

// readDirectly reads past the queue, which is for lookups.
func (r *reader) readDirectly(ctx context.Context, lane *coalescer[read], calls []*call[read]) error {
	if down := lane.health.down.Load(); down != nil {
		return down.err
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	if err := lane.ask(ctx, calls); unanswered(err) && ctx.Err() == nil {
		_ = lane.ask(ctx, calls) // each call has its own error
	}
	var redirected []*call[read]
	for _, c := range calls {
		if c.redirected {
			c.redirected = false
			redirected = append(redirected, c)
		}
	}
	if len(redirected) > 0 {
		_ = r.askCluster(ctx, redirected)
	}
	for _, c := range calls {
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

// askOne reads the batch from a server that has everything.
func (r *reader) askOne(ctx context.Context, batch []*call[read]) error {
	args := make([]any, 0, len(batch)+2)
	args = append(args, "mget")
	for _, c := range batch {
		args = append(args, c.arg.key)
	}
	cmd := redis.NewSliceCmd(ctx, append(args, r.marker)...)
	err := r.client.Process(ctx, cmd)
	values := cmd.Val()
	if err == nil && len(values) != len(batch)+1 {
		err = errShortReply
	}
	if err != nil {
		for _, c := range batch {
			c.err = err
		}
		return err
	}
	marker, _ := values[len(batch)].(string)
	for i, c := range batch {
		c.err = nil
		c.arg.value.raw, c.arg.value.found = values[i].(string)
		c.arg.value.marker = marker
	}
	return nil
}

// askMaster returns how a batch is read from one master of a Cluster. What it
// redirects is marked.
func (r *reader) askMaster(client *redis.Client) func(context.Context, []*call[read]) error {
	return func(ctx context.Context, batch []*call[read]) error {
		commands := make([]*redis.SliceCmd, len(batch))
		for i, c := range batch {
			commands[i] = redis.NewSliceCmd(ctx, "mget", c.arg.key, c.arg.marker)
		}
		send(ctx, client, commands)
		for i, c := range batch {
			settleRead(c, commands[i])
		}
		return common(batch)
	}
}

// settleRead takes the answer of a master, of a key and its marker.
func settleRead(c *call[read], cmd *redis.SliceCmd) {
	c.err, c.redirected = cmd.Err(), false
	values := cmd.Val()
	switch {
	case redirects(c.err):
		c.err, c.redirected = nil, true
	case c.err == nil && len(values) != 2:
		c.err = errShortReply
	case c.err == nil:
		c.arg.value.raw, c.arg.value.found = values[0].(string)
		c.arg.value.marker, _ = values[1].(string)
	}
}

// askCluster reads the batch by way of the Cluster client, which follows
// redirections. The markers are read when the keys have been: a marker may
// vouch only for what was read before it.
func (r *reader) askCluster(ctx context.Context, batch []*call[read]) error {
	values := r.getEach(ctx, batch, func(c *call[read]) string { return c.arg.key })
	vouchers := r.getEach(ctx, batch, func(c *call[read]) string { return c.arg.marker })
	for i, c := range batch {
		v := &c.arg.value
		v.raw, v.marker = values[i].Val(), vouchers[i].Val()
		v.found = values[i].Err() == nil
		if c.err = notNil(values[i].Err()); c.err == nil {
			c.err = notNil(vouchers[i].Err())
		}
	}
	return common(batch)
}

func (r *reader) getEach(ctx context.Context, batch []*call[read], name func(*call[read]) string) []*redis.StringCmd {
	commands := make([]*redis.StringCmd, len(batch))
	for i, c := range batch {
		commands[i] = redis.NewStringCmd(ctx, "get", name(c))
	}
	send(ctx, r.client, commands)
	return commands
}
