package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// newcomerPatience is how long a connection that was made before draining
	// began may take to make its first request.
	newcomerPatience = 2 * time.Second
	newcomerLook     = 5 * time.Millisecond
)

// newcomers are the connections that have not made a request yet.
type newcomers struct {
	waiting atomic.Int64
	all     sync.Map // net.Conn to *newcomer; those that have made one too
}

type newcomer struct{ known atomic.Bool }

// newcomerKey is the context key of a request's connection.
type newcomerKey struct{}

// watch has the server's connections watched.
func (n *newcomers) watch(s *http.Server) *http.Server {
	handler, connContext := s.Handler, s.ConnContext
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		one := new(newcomer)
		n.waiting.Add(1)
		n.all.Store(c, one)
		return connContext(context.WithValue(ctx, newcomerKey{}, one), c)
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if state != http.StateClosed && state != http.StateHijacked {
			return
		}
		if one, ok := n.all.LoadAndDelete(c); ok {
			n.meet(one.(*newcomer))
		}
	}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if one, ok := r.Context().Value(newcomerKey{}).(*newcomer); ok {
			n.meet(one)
		}
		handler.ServeHTTP(w, r)
	})
	return s
}

func (n *newcomers) meet(one *newcomer) {
	if !one.known.Load() && one.known.CompareAndSwap(false, true) {
		n.waiting.Add(-1)
	}
}

// welcomeLast stops accepting, and waits for the first requests of connections
// that were made until then: http.Server would close them unanswered.
func (n *node) welcomeLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, newcomerPatience)
	defer cancel()
	if err := n.guarded.Drain(ctx); err != nil {
		n.log.Warn("the listener could not be closed", zap.Error(err))
	}
	tick := time.NewTicker(newcomerLook)
	defer tick.Stop()
	for n.newcomers.waiting.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
