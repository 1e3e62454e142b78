package keystore

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// LogClient says where the Redis client of all Stores of the process writes
// what happens to its connections: to the log, at level debug, because every
// error that matters is returned too, and an outage makes a line for each
// connection that is tried. Without it the client writes to the standard error,
// and whoever waits for a connection waits for that as well.
func LogClient(log *zap.Logger) { redis.SetLogger(clientLog{log}) }

// clientLog is the log as the client is to see it.
type clientLog struct{ log *zap.Logger }

// Printf is called for each line.
func (c clientLog) Printf(_ context.Context, format string, args ...any) {
	if entry := c.log.Check(zap.DebugLevel, "redis client"); entry != nil {
		entry.Write(zap.String("said", fmt.Sprintf(format, args...)))
	}
}
