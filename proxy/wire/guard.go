package wire

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"gatehouse/proxy/problem"
)

// guard is what the connections of a listener share.
type guard struct {
	limits      Limits
	headTimeout time.Duration
	h2c         bool
	buffers     sync.Pool
}

func (g *guard) lend() *buffer {
	if b, ok := g.buffers.Get().(*buffer); ok {
		return b
	}
	return new(buffer)
}

func (g *guard) takeBack(b *buffer) {
	if b != nil {
		g.buffers.Put(b)
	}
}

// connKey is the context key of a request's connection.
type connKey struct{}

// Context is an http.Server's ConnContext: by it Refusal finds the connection
// of a request.
func Context(ctx context.Context, c net.Conn) context.Context {
	switch conn := c.(type) {
	case *Conn:
		return context.WithValue(ctx, connKey{}, conn)
	case *secureConn:
		return context.WithValue(ctx, connKey{}, conn.Conn)
	}
	return ctx
}

// Refusal returns why what the client sent is no request, where r stands in for
// that; nil for every request of a client. It must be asked before anything
// else.
func Refusal(r *http.Request) *problem.Problem {
	c, ok := r.Context().Value(connKey{}).(*Conn)
	if !ok || r.Method != substituteMethod || r.RequestURI != "*" {
		return nil
	}
	return c.refusal.Load()
}

// BodyFault returns what is malformed about the body of the request; nil as
// long as nothing is. net/http does not always pass on the error it got.
func BodyFault(r *http.Request) *problem.Problem {
	if c, ok := r.Context().Value(connKey{}).(*Conn); ok {
		return c.bodyFault.Load()
	}
	return nil
}

// Judge returns what a Listener would refuse a request with that has this head,
// which ends with an empty line; nil for nothing.
func Judge(head []byte, l Limits) *problem.Problem {
	p := newParser(l)
	_, fault := p.advance(head)
	return fault
}

// Tunnel ends the judging on a connection that was taken from net/http after an
// upgrade, and that nobody reads at the moment. It returns an error where the
// client has already sent what is no request, although nothing else was due.
// Other connections are left alone.
func Tunnel(c net.Conn) error {
	var guarded *Conn
	switch conn := c.(type) {
	case *Conn:
		guarded = conn
	case *secureConn:
		guarded = conn.Conn
	default:
		return nil
	}
	if guarded.broken != nil {
		return guarded.broken
	}
	guarded.raw.Store(true)
	return nil
}
