package redistest

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// connection is one that a Link passes on. What follows link is guarded by its
// mutex.
type connection struct {
	client    net.Conn
	link      *Link
	server    net.Conn // nil until it is connected
	class     Class
	swallowed bool // bytes were lost
	closed    bool
}

// reset closes both sides, without a word more.
func (c *connection) reset() {
	c.closed = true
	for _, side := range []net.Conn{c.client, c.server} {
		if tcp, ok := side.(*net.TCPConn); ok && tcp != nil {
			_ = tcp.SetLinger(0) // it may be closed already
			_ = tcp.Close()
		}
	}
}

// chunk is bytes under way, and when they arrive.
type chunk struct {
	content []byte
	due     time.Time // zero: now
}

// pass copies in one direction until either side is closed, and then closes
// both.
func (c *connection) pass(from, to net.Conn, fromClient bool) {
	underWay := make(chan chunk, 256)
	var writing sync.WaitGroup
	writing.Go(func() {
		for next := range underWay {
			if !c.wait(next.due) {
				continue
			}
			if _, err := to.Write(next.content); err != nil {
				_ = from.Close() // ends the reading
			}
		}
		_ = to.Close()
	})
	buffer := make([]byte, 64<<10)
	known := !fromClient
	for {
		n, err := from.Read(buffer)
		if err != nil {
			break
		}
		var as treatment
		as, known = c.treatment(buffer[:n], known)
		if as.mode == Refuse {
			break
		}
		if as.mode == HalfOpen {
			continue
		}
		next := chunk{content: bytes.Clone(buffer[:n])}
		if as.delay > 0 {
			next.due = time.Now().Add(as.delay)
		}
		underWay <- next
	}
	close(underWay)
	writing.Wait()
}

// treatment finds out what becomes of these bytes, and what the connection is
// for, unless that is known.
func (c *connection) treatment(content []byte, known bool) (treatment, bool) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if !known {
		if class := c.link.sniff(content); class != "" {
			c.class, known = class, true
		}
	}
	as := c.link.of(c.class)
	c.swallowed = c.swallowed || as.mode == HalfOpen
	return as, known
}

// wait waits until then, and reports false when the Link was closed first.
func (c *connection) wait(then time.Time) bool {
	if then.IsZero() {
		return true
	}
	timer := time.NewTimer(time.Until(then))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.link.ctx.Done():
		return false
	}
}

// sniffer says from what a client sent what its connection is for, or "" when
// that cannot be said yet.
type sniffer func(content []byte) Class

// sniffRedis knows by their commands who talks to a Redis.
func sniffRedis(content []byte) Class {
	lower := bytes.ToLower(content)
	switch {
	case bytes.Contains(lower, []byte("\r\nsentinel-")): // the name that a Sentinel gives its connections
		return FromSentinels
	case bytes.Contains(lower, []byte("\r\nreplconf\r\n")), bytes.Contains(lower, []byte("\r\npsync\r\n")):
		return FromReplicas
	case bytes.Contains(lower, []byte("\r\nsubscribe\r\n")):
		return Subscriptions
	}
	return ""
}

// sniffBus reads the sender in the header of a message of the bus (clusterMsg
// in Redis' cluster.h).
func sniffBus(content []byte) Class {
	const begins, ends = 40, 80
	if len(content) < ends || !bytes.HasPrefix(content, []byte("RCmb")) {
		return ""
	}
	return Class(content[begins:ends])
}
