package stage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// Redis is a redis-server.
type Redis struct {
	*process
	t       testing.TB
	folder  string
	Address string
}

// StartRedis starts one, which ends with the test.
func StartRedis(t testing.TB) *Redis {
	t.Helper()
	Need(t, "redis-server")
	r := &Redis{t: t, folder: t.TempDir()}
	r.process, r.Address = runOnPort(t, r.start, r.ping)
	return r
}

func (r *Redis) start(address string) *process {
	_, port, _ := strings.Cut(address, ":")
	return run(r.t, "redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", r.folder, "--save", "", "--appendonly", "yes")
}

// ping asks in Redis's own protocol.
func (r *Redis) ping(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // it has said what it had to
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := fmt.Fprint(c, "PING\r\n"); err != nil {
		return err
	}
	said, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(said, "+PONG") {
		err = errors.New(said)
	}
	return err
}
