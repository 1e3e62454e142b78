package keystore

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// combiner lets commands that spend budgets share round trips; see coalescer.
// No command is sent again unless a server has refused to execute it.
type combiner struct {
	timeout time.Duration
	lanes   *lanes[*redis.Cmd]
}

func newCombiner(client redis.UniversalClient, m *markers, timeout time.Duration) *combiner {
	return &combiner{timeout: timeout, lanes: newLanes(laneOptions[*redis.Cmd]{
		client: client, timeout: timeout, log: zap.NewNop(), // what lookups report is enough
		whole: func(ctx context.Context, batch []*call[*redis.Cmd]) error {
			sendAll(ctx, client, batch)
			return common(batch)
		},
		node: func(master *redis.Client) func(context.Context, []*call[*redis.Cmd]) error {
			return func(ctx context.Context, batch []*call[*redis.Cmd]) error {
				sendAll(ctx, master, batch)
				for _, c := range batch {
					if c.redirected = redirects(c.err); c.redirected {
						c.err = nil
					}
				}
				return common(batch)
			}
		},
	}, m)}
}

// process has the command answered, or returns an error within the timeout or
// when ctx ends. Whether it was executed is then not known, and it may still be
// written to.
func (c *combiner) process(ctx context.Context, key string, cmd *redis.Cmd) error {
	_, err := c.lanes.do(ctx, key, cmd, now())
	return err
}

func sendAll(ctx context.Context, client sender, batch []*call[*redis.Cmd]) {
	commands := make([]*redis.Cmd, len(batch))
	for i, c := range batch {
		commands[i] = c.arg
	}
	send(ctx, client, commands)
	for i, c := range batch {
		c.err = commands[i].Err()
	}
}
