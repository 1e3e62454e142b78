// Package porttest gives tests ports for the processes that they start. A
// process opens its port some time after that was chosen, and whoever opens any
// free port meanwhile must not get it: so these lie below the range from which
// the kernel takes those.
package porttest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
)

// The ports that are given. Linux itself takes 32768 to 60999, and a node of a
// Redis Cluster its own port and 10000.
const (
	first = 10_000
	count = 10_000
)

// Ports gives ports of 127.0.0.1, each of them once. It may be used concurrently.
type Ports struct{ next atomic.Uint32 }

// New begins anywhere, so that two processes are unlikely to meet.
func New() *Ports {
	p := &Ports{}
	p.next.Store(rand.Uint32N(count)) // #nosec G404 -- it is no secret
	return p
}

// Free returns a port that nobody listens on.
func (p *Ports) Free(ctx context.Context) (int, error) {
	var l net.ListenConfig
	for range count {
		port := first + int(p.next.Add(1)%count)
		listener, err := l.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		return port, listener.Close()
	}
	return 0, errors.New("no port is free")
}
