package keystore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxWaiting bounds the calls that wait for one server: at 100,000 lookups a
	// second it is a tenth of a second of them.
	maxWaiting = 10_000
	// maxBatch bounds the calls of one round trip, so that no single command
	// keeps Redis from its other clients.
	maxBatch = 500
)

var (
	errOverloaded = errors.New("too many requests are waiting for the store already")
	errLate       = fmt.Errorf("waiting for the store: %w", context.DeadlineExceeded)
	errBrokenOff  = errors.New("the shared round trip to the store broke off")
)

// coalescer lets calls to one server that wait at the same time share a round
// trip. The first to come is sent at once and leads; those that come while it
// waits for its answer form the next batch, and one of them leads that. Nobody
// waits for a timer, a lone call waits for nobody, and there is no goroutine.
//
// A call ends by its deadline or with its context, whatever becomes of the
// round trip that it shares. A batch runs under the deadline of its leader,
// which is the last one to expire.
type coalescer[T any] struct {
	// ask does one round trip. It sets the answer or the error of every call of
	// the batch, and returns the error that they have in common: one that is no
	// reply of the server when the server did not answer, a reply when it
	// answered nothing else.
	ask func(ctx context.Context, batch []*call[T]) error
	// retries: a round trip that was not answered may be tried once more.
	retries bool
	health  *availability
	// follow gets the calls that the server redirected; nil where none does.
	follow *coalescer[T]

	// last is nil when nobody has the turn, busy when somebody does and nobody
	// waits, and otherwise the waiting calls, the last to come first.
	last atomic.Pointer[call[T]]
	busy *call[T]
	// backlog are the waiting calls that did not fit into the batch that is under
	// way, the first to come first, and batch is that of the next leader. Only
	// the one that has the turn touches them.
	backlog []*call[T]
	batch   []*call[T]
	waiting atomic.Int64 // in the queue and in the backlog
	calls   sync.Pool
}

func newCoalescer[T any](h *availability, retries bool, ask func(context.Context, []*call[T]) error) *coalescer[T] {
	return &coalescer[T]{ask: ask, retries: retries, health: h, busy: &call[T]{}}
}

// call is one of the calls that share round trips.
type call[T any] struct {
	arg        T // the request, and then its answer
	err        error
	redirected bool // another server has the answer

	deadline time.Time
	next     *call[T]
	state    atomic.Int32
	// done gets one message: true to lead c.batch, false for the answer.
	done  chan bool
	timer *time.Timer
	alone [1]*call[T]
}

// A call is waiting until its leader has answered it (or made it the next
// leader), or until its caller has left it.
const (
	callWaiting int32 = iota
	callTaken
	callLeft
)

// do returns the argument as it was answered, or an error, by the deadline.
func (c *coalescer[T]) do(ctx context.Context, arg T, deadline time.Time) (T, error) {
	if err := c.health.admit(deadline); err != nil {
		return arg, err
	}
	self := c.newCall(arg, deadline)
	if leads, err := c.enter(self); err != nil {
		return arg, err
	} else if leads {
		c.turn(ctx, self, self.alone[:])
	} else if leads, err = self.wait(ctx); err != nil {
		return arg, err // somebody may still be writing to self
	} else if leads {
		c.turn(ctx, self, c.batch)
	}
	answer, err, redirected := self.arg, self.err, self.redirected
	c.release(self)
	if redirected {
		return c.follow.do(ctx, arg, deadline)
	}
	return answer, err
}

func (c *coalescer[T]) newCall(arg T, deadline time.Time) *call[T] {
	self, _ := c.calls.Get().(*call[T])
	if self == nil {
		self = &call[T]{done: make(chan bool, 1)}
	}
	self.arg, self.deadline, self.alone[0] = arg, deadline, self
	return self
}

// release is for calls that nobody else holds any more.
func (c *coalescer[T]) release(self *call[T]) {
	var none T
	self.arg, self.err, self.redirected, self.next = none, nil, false, nil
	self.state.Store(callWaiting)
	c.calls.Put(self)
}

// enter puts self into the queue; it leads when nobody has the turn.
func (c *coalescer[T]) enter(self *call[T]) (leads bool, err error) {
	if c.last.CompareAndSwap(nil, c.busy) {
		return true, nil
	}
	if c.waiting.Add(1) > maxWaiting {
		c.waiting.Add(-1)
		return false, errOverloaded
	}
	for {
		last := c.last.Load()
		if last == nil {
			if c.last.CompareAndSwap(nil, c.busy) {
				c.waiting.Add(-1)
				return true, nil
			}
			continue
		}
		self.next = nil
		if last != c.busy {
			self.next = last
		}
		if c.last.CompareAndSwap(last, self) {
			return false, nil
		}
	}
}

// wait returns an error when the caller left before an answer came; it then
// must not touch the call again.
func (w *call[T]) wait(ctx context.Context) (leads bool, err error) {
	if left := time.Until(w.deadline); w.timer == nil {
		w.timer = time.NewTimer(left)
	} else {
		w.timer.Reset(left)
	}
	defer w.timer.Stop()
	select {
	case leads = <-w.done:
		return leads, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-w.timer.C:
		err = errLate
	}
	if w.state.CompareAndSwap(callWaiting, callLeft) {
		return false, err
	}
	return <-w.done, nil // it was taken at this very moment
}

// take ends the waiting of a call that has not been left, with a message.
func (w *call[T]) take(leads bool) bool {
	if !w.state.CompareAndSwap(callWaiting, callTaken) {
		return false
	}
	w.done <- leads
	return true
}

// turn has the batch answered, of which self is one, and hands the turn over,
// also when the round trip panics: nobody may wait for a leader that is gone.
func (c *coalescer[T]) turn(ctx context.Context, self *call[T], batch []*call[T]) {
	var refusal error
	complete := false
	defer func() {
		for i, other := range batch {
			batch[i] = nil
			if other == self {
				continue
			}
			if !complete {
				other.err = errBrokenOff
			}
			other.take(false)
		}
		c.handOver(refusal)
	}()
	// A client that goes away fails nobody else.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), self.deadline)
	defer cancel()
	err := c.ask(ctx, batch)
	refusal = c.health.note(err)
	if c.retries && unanswered(err) && ctx.Err() == nil {
		// As on a connection that died while it was idle.
		refusal = c.health.note(c.ask(ctx, batch))
	}
	complete = true
}

// handOver ends a turn: what has queued up meanwhile becomes the next batch.
// While the server is taken to be down, it is refused instead.
func (c *coalescer[T]) handOver(refusal error) {
	for {
		if len(c.backlog) == 0 && c.last.CompareAndSwap(c.busy, nil) {
			return
		}
		c.collect()
		if refusal != nil {
			for _, w := range c.backlog {
				w.err = refusal
				w.take(false)
			}
			c.waiting.Add(int64(-len(c.backlog)))
			clear(c.backlog)
			c.backlog = c.backlog[:0]
			continue
		}
		if c.appointNext() {
			return
		}
	}
}

// collect moves what waits in the queue to the end of the backlog.
func (c *coalescer[T]) collect() {
	w := c.last.Swap(c.busy)
	first := len(c.backlog)
	for ; w != nil && w != c.busy; w = w.next {
		c.backlog = append(c.backlog, w)
	}
	for i, j := first, len(c.backlog)-1; i < j; i, j = i+1, j-1 {
		c.backlog[i], c.backlog[j] = c.backlog[j], c.backlog[i]
	}
}

// appointNext makes a batch of those who came first, and the last of them who
// still waits its leader; false when all have left.
func (c *coalescer[T]) appointNext() bool {
	taken := 0
	c.batch = c.batch[:0]
	for _, w := range c.backlog {
		if len(c.batch) == maxBatch {
			break
		}
		taken++
		if w.state.Load() == callWaiting {
			c.batch = append(c.batch, w)
		}
	}
	rest := copy(c.backlog, c.backlog[taken:])
	clear(c.backlog[rest:])
	c.backlog = c.backlog[:rest]
	c.waiting.Add(int64(-taken))
	for n := len(c.batch); n > 0; n-- {
		c.batch = c.batch[:n]
		if c.batch[n-1].take(true) {
			return true
		}
	}
	return false
}

// sender is a client, of a whole store or of one master.
type sender interface {
	Process(ctx context.Context, cmd redis.Cmder) error
	Pipeline() redis.Pipeliner
}

// send sends the commands in one pipeline, a single one without. Each has its
// own error.
func send[C redis.Cmder](ctx context.Context, client sender, commands []C) {
	if len(commands) == 1 {
		_ = client.Process(ctx, commands[0])
		return
	}
	pipe := client.Pipeline()
	for _, cmd := range commands {
		_ = pipe.Process(ctx, cmd) // queues it
	}
	_, _ = pipe.Exec(ctx)
}

// common returns the error that a batch has in common: the first that is no
// reply, or else the first where no call was answered with anything else.
func common[T any](batch []*call[T]) error {
	var first error
	good := false
	for _, c := range batch {
		if unanswered(c.err) {
			return c.err
		}
		if c.err == nil {
			good = true
		} else if first == nil {
			first = c.err
		}
	}
	if good {
		return nil
	}
	return first
}
