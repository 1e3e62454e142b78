package keystore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// combiner lets commands that wait at the same time share a round trip, as
// reader does for reads: the first to come is sent at once, those that come
// while it is under way are sent together by one of them. Nobody waits for a
// timer. No command is sent twice.
type combiner struct {
	client  redis.UniversalClient
	timeout time.Duration

	mu      sync.Mutex
	busy    bool // somebody sends
	waiting []*call
}

// call is a command that waits. Its channel gets one message: nil when the
// command has its answer, or the batch that this one is to send, its own
// command included.
type call struct {
	cmd  *redis.Cmd
	done chan []*call
}

// process has the command answered, within two timeouts. It goes on when ctx
// ends, because others may share the round trip.
func (c *combiner) process(ctx context.Context, cmd *redis.Cmd) {
	self := &call{cmd: cmd, done: make(chan []*call, 1)}
	batch := []*call{self}
	c.mu.Lock()
	queues := c.busy
	if queues {
		c.waiting = append(c.waiting, self)
	}
	c.busy = true
	c.mu.Unlock()
	if queues {
		if batch = <-self.done; batch == nil {
			return
		}
	}
	failure := c.send(ctx, batch)
	for _, other := range batch {
		if other != self {
			other.done <- nil
		}
	}
	c.handOver(failure)
}

// handOver lets those who have queued up meanwhile send. When the store did not
// answer, they are refused with it, so that nobody waits for longer and longer.
func (c *combiner) handOver(failure error) {
	c.mu.Lock()
	next := c.waiting
	c.waiting = nil
	c.busy = len(next) > 0 && failure == nil
	c.mu.Unlock()
	if len(next) > 0 && failure == nil {
		next[0].done <- next
		return
	}
	for _, w := range next {
		w.cmd.SetErr(failure)
		w.done <- nil
	}
}

// send returns an error when the store did not answer; what it answered to
// each command is in the command.
func (c *combiner) send(ctx context.Context, batch []*call) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	defer cancel()
	var err error
	if len(batch) == 1 {
		err = c.client.Process(ctx, batch[0].cmd)
	} else {
		pipe := c.client.Pipeline()
		for _, w := range batch {
			_ = pipe.Process(ctx, w.cmd) // queues it
		}
		_, err = pipe.Exec(ctx)
	}
	var reply redis.Error
	if errors.As(err, &reply) {
		return nil
	}
	return err
}
