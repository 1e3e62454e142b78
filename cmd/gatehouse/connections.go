package main

import (
	"context"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// newcomerPatience is how long a connection that was accepted before draining
	// may take to make its first request.
	newcomerPatience = 2 * time.Second
	// quietPatience is how long after its last answer an HTTP/1 connection is still
	// waited for, so that its next answer can say that it was the last one.
	quietPatience = 2 * time.Second
	drainLook     = 5 * time.Millisecond
)

// connections are those of the server. When http.Server shuts down, it closes
// one that is new or idle without a word, and a request may be on the way.
type connections struct {
	parting atomic.Bool  // each answer says that it is its connection's last one
	fresh   atomic.Int64 // have not made a request yet
	all     sync.Map     // net.Conn to *connection
}

type connection struct {
	protocol atomic.Int32 // major version of its first request; 0 before that, or closed
	awaited  atomic.Int64 // until when a request may come that no answer has forbidden, in Unix nanoseconds
}

// closed is in the place of the protocol of a connection that never made a
// request, and never will.
const closed = -1

// connectionKey is the context key of a request's connection.
type connectionKey struct{}

// watch has the server's connections watched.
func (s *connections) watch(server *http.Server) *http.Server {
	handler, connContext := server.Handler, server.ConnContext
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		one := new(connection)
		s.fresh.Add(1)
		s.all.Store(c, one)
		if ctx = context.WithValue(ctx, connectionKey{}, one); connContext == nil {
			return ctx
		}
		return connContext(ctx, c)
	}
	server.ConnState = s.changed
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if one, ok := r.Context().Value(connectionKey{}).(*connection); ok {
			s.asked(one, w, r)
		}
		handler.ServeHTTP(w, r)
	})
	return server
}

// asked is for a request that will be answered. The order counts: at no time
// may the connection look as if it was done with.
func (s *connections) asked(one *connection, w http.ResponseWriter, r *http.Request) {
	one.awaited.Store(math.MaxInt64)
	s.meet(one, int32(r.ProtoMajor)) //nolint:gosec // 1 or 2
	if one.protocol.Load() == closed {
		panic(http.ErrAbortHandler) // its first request came a moment too late
	}
	if !s.parting.Load() {
		return
	}
	one.awaited.Store(0)
	if r.Header["Upgrade"] == nil {
		w.Header()["Connection"] = []string{"close"} // net/http makes a GOAWAY of it for HTTP/2
	}
}

// changed is the server's ConnState.
func (s *connections) changed(c net.Conn, state http.ConnState) {
	known, ok := s.all.Load(c)
	if !ok {
		return
	}
	one := known.(*connection)
	switch state {
	case http.StateNew, http.StateActive: // asked comes later: net/http may yet drop the request
	case http.StateIdle:
		one.awaited.Store(time.Now().Add(quietPatience).UnixNano())
	case http.StateHijacked, http.StateClosed:
		s.all.Delete(c)
		s.meet(one, closed)
	}
}

// meet reports whether the connection was fresh, which it is no more.
func (s *connections) meet(one *connection, protocol int32) bool {
	was := one.protocol.Load() == 0 && one.protocol.CompareAndSwap(0, protocol)
	if was {
		s.fresh.Add(-1)
	}
	return was
}

// closeSilent closes the connections that have not said anything yet.
// http.Server would wait for them, for up to ten seconds, as for requests. Those
// of HTTP/2 that have begun are left to it: it tells their clients.
func (s *connections) closeSilent() {
	s.all.Range(func(c, known any) bool {
		if one := known.(*connection); one.awaited.Load() == 0 && s.meet(one, closed) {
			_ = c.(net.Conn).Close() // nothing was promised to it
		}
		return true
	})
}

// anyFresh reports whether a connection has not made a request yet.
func (s *connections) anyFresh() bool { return s.fresh.Load() > 0 }

// anyAwaited reports whether a client of HTTP/1 may be about to ask again.
// Those of HTTP/2 are told in time: Shutdown begins with GOAWAY.
func (s *connections) anyAwaited() bool {
	found, now := false, time.Now().UnixNano()
	s.all.Range(func(_, known any) bool {
		one := known.(*connection)
		found = one.protocol.Load() == 1 && one.awaited.Load() > now
		return !found
	})
	return found
}

// part tells clients to go. Those that go on asking learn it from their next
// answer; meanwhile new connections are accepted as ever. Then it stops
// accepting, waits for the first request of each connection that there is, and
// closes those that make none.
func (n *node) part(ctx context.Context) {
	n.connections.parting.Store(true)
	n.operators.parting.Store(true)
	waitWhile(ctx, quietPatience, n.connections.anyAwaited)
	ctx, cancel := context.WithTimeout(ctx, newcomerPatience)
	defer cancel()
	if err := n.guarded.Drain(ctx); err != nil {
		n.log.Warn("the listener could not be closed", zap.Error(err))
	}
	waitWhile(ctx, newcomerPatience, n.connections.anyFresh)
	n.connections.closeSilent()
}

// waitWhile returns when it is so no more, or after the time, or when ctx ends.
func waitWhile(ctx context.Context, most time.Duration, so func() bool) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for so() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
