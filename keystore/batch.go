package keystore

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// reader reads single values, and lets reads that wait at the same time share
// a round trip. The first to come reads at once and leads; those that come
// while it waits for its answer form the next batch, and one of them leads
// that. Nobody waits for a timer, and a lone read waits for nobody.
//
// Every batch also reads the marker of the store, so that "no such value" can
// be told from "the store has lost everything".
type reader struct {
	client  redis.UniversalClient
	cluster bool
	markers *markers
	timeout time.Duration
	// queue is nil when nobody reads, busy when somebody does and nobody
	// waits, and otherwise the waiting reads, the last to come first.
	queue atomic.Pointer[read]
	busy  *read
}

func newReader(client redis.UniversalClient, m *markers, timeout time.Duration) *reader {
	_, cluster := client.(*redis.ClusterClient)
	return &reader{client: client, cluster: cluster, markers: m, timeout: timeout, busy: &read{}}
}

// value is what a read found: the value of the key, if there is one, and that
// of the marker at the same moment ("" where there is none).
type value struct {
	raw    string
	found  bool
	marker string
	// slot is that of the marker, and known the highest position in it that this
	// node knew of before it asked.
	slot  int
	known uint64
}

type read struct {
	key  string
	next *read
	// done gets one message: the outcome, or the batch that this read is to
	// lead, its own key included.
	done chan outcome
}

type outcome struct {
	value value
	err   error
	lead  *read
}

// get returns what is stored under key. It answers within the timeout; an
// error says nothing about the key. The read itself does not end with ctx,
// because others may share it; only its waiting does not outlast the timeout.
func (r *reader) get(ctx context.Context, key string) (value, error) {
	if err := ctx.Err(); err != nil {
		return value{}, err
	}
	if r.queue.CompareAndSwap(nil, r.busy) {
		var own [1]outcome
		r.read(ctx, []string{key}, own[:])
		r.handOver(own[0].err)
		return own[0].value, own[0].err
	}
	self := &read{key: key, done: make(chan outcome, 1)}
	if r.enqueue(self) {
		// Whoever was reading has finished in between.
		return r.lead(ctx, self)
	}
	answer := <-self.done
	if answer.lead != nil {
		return r.lead(ctx, answer.lead)
	}
	return answer.value, answer.err
}

// enqueue puts self into the queue; it returns true when nobody was reading
// any more, so that self must lead.
func (r *reader) enqueue(self *read) (leads bool) {
	for {
		last := r.queue.Load()
		self.next = nil
		if last == nil {
			if r.queue.CompareAndSwap(nil, r.busy) {
				return true
			}
			continue
		}
		if last != r.busy {
			self.next = last
		}
		if r.queue.CompareAndSwap(last, self) {
			return false
		}
	}
}

// lead reads the batch, of which the first read is the caller's own.
func (r *reader) lead(ctx context.Context, batch *read) (value, error) {
	var keys []string
	for w := batch; w != nil; w = w.next {
		keys = append(keys, w.key)
	}
	outcomes := make([]outcome, len(keys))
	r.read(ctx, keys, outcomes)
	// Nobody else touches the batch until it is answered, and a read that was
	// answered may be gone: its successor is taken first.
	own, rest := outcomes[0], batch.next
	for i := 1; rest != nil; i++ {
		next := rest.next
		rest.done <- outcomes[i]
		rest = next
	}
	r.handOver(own.err)
	return own.value, own.err
}

// handOver ends a turn: what has queued up meanwhile becomes the next batch,
// led by one of its own. When the store did not answer, those who have waited
// for that are refused with it, so that nobody waits for longer than one
// timeout.
func (r *reader) handOver(failure error) {
	for {
		waiting := r.queue.Load()
		if waiting == r.busy {
			if r.queue.CompareAndSwap(r.busy, nil) {
				return
			}
			continue
		}
		waiting = r.queue.Swap(r.busy)
		if failure == nil {
			waiting.done <- outcome{lead: waiting}
			return
		}
		for waiting != nil {
			next := waiting.next
			waiting.done <- outcome{err: failure}
			waiting = next
		}
	}
}

// many returns what is stored under each of the keys, in their order.
func (r *reader) many(ctx context.Context, keys []string) ([]value, error) {
	const portion = 200
	values := make([]value, 0, len(keys))
	outcomes := make([]outcome, min(portion, len(keys)))
	for part := range slices.Chunk(keys, portion) {
		r.read(ctx, part, outcomes[:len(part)])
		for _, o := range outcomes[:len(part)] {
			if o.err != nil {
				return nil, o.err
			}
			values = append(values, o.value)
		}
	}
	return values, nil
}

// read asks the store for the keys, once more if the first try failed before
// the timeout, as on a connection that died while it was idle.
func (r *reader) read(ctx context.Context, keys []string, outcomes []outcome) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	defer cancel()
	ask := r.readOneNode
	if r.cluster {
		ask = r.readCluster
	}
	err := ask(ctx, keys, outcomes)
	if err != nil && ctx.Err() == nil {
		err = ask(ctx, keys, outcomes)
	}
	if err != nil {
		for i := range outcomes {
			outcomes[i] = outcome{err: err}
		}
	}
}

func (r *reader) readOneNode(ctx context.Context, keys []string, outcomes []outcome) error {
	args := make([]any, 0, len(keys)+2)
	args = append(args, "mget")
	for _, k := range keys {
		args = append(args, k)
	}
	marker, slot := r.markers.of("")
	args = append(args, marker)
	known := r.markers.known(slot)
	cmd := redis.NewSliceCmd(ctx, args...)
	if err := r.client.Process(ctx, cmd); err != nil {
		return err
	}
	values := cmd.Val()
	if len(values) != len(keys)+1 {
		return errShortReply
	}
	at, _ := values[len(keys)].(string)
	for i := range keys {
		raw, found := values[i].(string)
		outcomes[i] = outcome{value: value{raw: raw, found: found, marker: at, slot: slot, known: known}}
	}
	return nil
}

// readCluster sends one pipeline to each node that has some of the keys. A
// node that does not answer fails only the keys that it holds.
func (r *reader) readCluster(ctx context.Context, keys []string, outcomes []outcome) error {
	pipe := r.client.Pipeline()
	commands := make([]*redis.StringCmd, len(keys))
	markers := make([]*redis.StringCmd, len(keys))
	for i, k := range keys {
		marker, slot := r.markers.of(k)
		outcomes[i] = outcome{value: value{slot: slot, known: r.markers.known(slot)}}
		commands[i], markers[i] = pipe.Get(ctx, k), pipe.Get(ctx, marker)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, command := range commands {
		o := &outcomes[i]
		o.err = cmp.Or(notNil(command.Err()), notNil(markers[i].Err()))
		o.value.raw, o.value.marker = command.Val(), markers[i].Val()
		o.value.found = o.err == nil && command.Err() == nil
	}
	return nil
}
