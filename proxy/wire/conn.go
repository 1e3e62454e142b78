// Package wire stands between the sockets of clients and net/http, which hides
// from handlers how a request was framed. It judges the bytes of every HTTP/1
// request by the letter of RFC 9112 before net/http sees any of them, does the
// TLS handshake, and bounds how many connections there are. It knows no route,
// key or backend, and answers nothing itself: of a request that is refused the
// handler learns by Refusal.
package wire

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/proxy/problem"
)

// substitute is what net/http gets in the place of a request that is refused,
// so that the answers before it still come in their order. No client can send
// this target. A body is announced that never comes: net/http then waits for
// the client to have its answer before it closes.
const substitute = substituteMethod + " * HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\nContent-Length: 1099511627776\r\n\r\n"

const substituteMethod = "REFUSED"

// buffer is what is held of a connection while a head is incomplete.
type buffer [4 << 10]byte

// Conn is a connection whose HTTP/1 requests are judged before they are read.
// One goroutine at a time may read.
type Conn struct {
	net.Conn
	guard *guard

	// What Read keeps. Most heads come whole, and are judged where net/http
	// wants them: then there is no buffer.
	buffer  []byte
	lent    *buffer // where the buffer began
	cleared int     // so many bytes of the buffer were judged and may be passed on
	starved bool    // what is behind them needs more bytes to be judged
	parser  parser
	instead string // what is left of the substitute
	broken  error  // nothing is passed on any more
	first   bool   // no request was passed on yet
	raw     atomic.Bool

	refusal   atomic.Pointer[problem.Problem] // of a head
	bodyFault atomic.Pointer[problem.Problem]

	mu        sync.Mutex
	deadline  time.Time // as net/http set it
	headUntil time.Time // when a head that has begun must be there; zero for none
}

// wallClock is for the deadlines of sockets, which know no other clock.
func wallClock() time.Time {
	return time.Now() //nolint:forbidigo // see above
}

func newConn(c net.Conn, g *guard) *Conn {
	return &Conn{Conn: c, guard: g, parser: newParser(g.limits), first: true}
}

// Read returns bytes that were judged, and nothing else. The head of a request
// is passed on when all of it is good, and its body as it comes. It stops at
// the end of each request. In the place of a bad head it returns a request that
// Refusal knows; a bad body ends with an error that BodyFault knows.
func (c *Conn) Read(p []byte) (int, error) {
	for len(p) > 0 {
		switch {
		case c.instead != "":
			n := copy(p, c.instead)
			c.instead = c.instead[n:]
			return n, nil
		case c.cleared > 0:
			return c.passOn(p), nil
		case c.broken != nil:
			return 0, c.broken
		case c.raw.Load():
			return c.readRaw(p)
		case len(c.buffer) > 0 && !c.starved:
			n, fault := c.judge(c.buffer)
			if fault != nil {
				c.refuse(fault)
				continue
			}
			c.cleared, c.starved = n, n == 0
		case len(c.buffer) > 0:
			if err := c.readMore(); err != nil {
				return 0, err
			}
		default:
			if n, err := c.readInto(p); n > 0 || err != nil {
				return n, err
			}
		}
	}
	return 0, nil
}

// readInto reads where the caller wants the bytes, and judges them there. It
// returns 0 and nil where that was not enough, or was refused.
func (c *Conn) readInto(p []byte) (int, error) {
	if left := c.parser.left(); left > 0 && left < int64(len(p)) {
		p = p[:left]
	}
	n, err := c.Conn.Read(p)
	if n == 0 {
		return 0, err
	}
	good, fault := c.judge(p[:n])
	if fault != nil {
		c.refuse(fault)
		return 0, nil
	}
	if good < n {
		c.lent = c.guard.lend()
		c.buffer = append(c.lent[:0], p[good:n]...)
		c.starved = good == 0
		c.headBegins()
	}
	return good, nil
}

// readMore reads behind what is in the buffer.
func (c *Conn) readMore() error {
	if len(c.buffer) == cap(c.buffer) {
		c.buffer = append(c.buffer, 0)[:len(c.buffer)]
	}
	n, err := c.Conn.Read(c.buffer[len(c.buffer):cap(c.buffer)])
	if n > 0 {
		c.buffer, c.starved = c.buffer[:len(c.buffer)+n], false
		return nil
	}
	return err
}

func (c *Conn) readRaw(p []byte) (int, error) {
	if c.cleared = len(c.buffer); c.cleared > 0 {
		return c.passOn(p), nil
	}
	return c.Conn.Read(p)
}

func (c *Conn) passOn(p []byte) int {
	n := copy(p, c.buffer[:c.cleared])
	c.buffer, c.cleared = c.buffer[n:], c.cleared-n
	if len(c.buffer) == 0 {
		c.guard.takeBack(c.lent)
		c.buffer, c.lent = nil, nil
	} else if c.cleared == 0 {
		c.headBegins()
	}
	return n
}

// judge returns how many of the bytes may be passed on.
func (c *Conn) judge(b []byte) (int, *problem.Problem) {
	if c.first && c.guard.h2c {
		switch isPreface(b) {
		case prefaceWhole:
			c.raw.Store(true)
			return len(b), nil
		case prefaceBegins:
			return 0, nil
		case prefaceNot:
		}
	}
	n, fault := c.parser.advance(b)
	if n > 0 {
		c.first = false
		c.headEnds()
	}
	return n, fault
}

// refuse drops what is there. A request that net/http has not begun to read is
// replaced; one whose body is bad breaks off.
func (c *Conn) refuse(fault *problem.Problem) {
	if c.parser.atHead() {
		c.refusal.Store(fault)
		c.instead = substitute
	} else {
		c.bodyFault.Store(fault)
	}
	c.buffer, c.lent, c.cleared, c.broken = nil, nil, 0, fault
	c.headEnds()
}

// CloseWrite closes the one direction, as net/http does before it closes a
// connection whose client may still be sending.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// SetReadDeadline sets the deadline, which an incomplete head may shorten.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.Conn.SetReadDeadline(c.soonest())
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

// soonest: net/http sees nothing of a head before it is whole, and would give
// it the time of an idle connection. Where there is no deadline a request is
// being served, and must not be disturbed.
func (c *Conn) soonest() time.Time {
	if !c.headUntil.IsZero() && c.headUntil.Before(c.deadline) {
		return c.headUntil
	}
	return c.deadline
}

func (c *Conn) headBegins() {
	if !c.parser.atHead() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.headUntil.IsZero() {
		c.headUntil = wallClock().Add(c.guard.headTimeout)
		_ = c.Conn.SetReadDeadline(c.soonest()) // a closed connection ends the next read
	}
}

func (c *Conn) headEnds() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.headUntil.IsZero() {
		c.headUntil = time.Time{}
		_ = c.Conn.SetReadDeadline(c.soonest()) // as above
	}
}

// secureConn is a Conn over TLS. It has ConnectionState, so that net/http sets
// Request.TLS.
type secureConn struct {
	*Conn
	state tls.ConnectionState
}

// ConnectionState is that of the finished handshake.
func (c *secureConn) ConnectionState() tls.ConnectionState { return c.state }
