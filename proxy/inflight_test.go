package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/proxy"
)

// held is a backend that holds every request until it is let go.
type held struct{ begun, letGo chan struct{} }

func newHeld() *held { return &held{begun: make(chan struct{}), letGo: make(chan struct{})} }

func (h *held) Serve(w http.ResponseWriter, r *http.Request, a proxy.Access) error {
	h.begun <- struct{}{}
	<-h.letGo
	return accept(w, r, a)
}

func listRequest(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
	r.Header.Set("Api-Token", token)
	return r
}

// TestRequestsOfAKeyInFlightAreBounded, for as long as each of them lasts.
func TestRequestsOfAKeyInFlightAreBounded(t *testing.T) {
	t.Parallel()
	inFlight, backend := proxy.NewInFlight(2), newHeld()
	g := limitGate(t, nil, nil, func(s *setup) { s.backend, s.options.InFlight = backend, inFlight })
	var requests sync.WaitGroup
	begin := func(token string) {
		t.Helper()
		requests.Go(func() { g.gateway.ServeHTTP(httptest.NewRecorder(), listRequest(token)) })
		select {
		case <-backend.begun:
		case <-time.After(patience):
			t.Fatal("the request did not reach the backend")
		}
	}
	refused := func() {
		t.Helper()
		w, record := g.serve(t, listRequest(good))
		if h := w.Header(); record.Reason != "rate_limited" || h.Get("Retry-After") != "1" || h.Get("RateLimit") != `"in_flight";r=0;t=1` ||
			h.Get("RateLimit-Policy") != `"in_flight";q=2;qu="concurrent-requests"` {
			t.Errorf("recorded %s, with %v", record.Reason, h)
		}
	}
	begin(good)
	begin(good)
	refused()
	refused() // has not been counted in, nor out
	backend.letGo <- struct{}{}
	g.records.next(t)
	begin(good)
	refused()
	begin(tokenOf("good2")) // has a count of its own
	if n := inFlight.Keys(); n != 2 {
		t.Errorf("%d keys are remembered, want 2", n)
	}
	close(backend.letGo)
	requests.Wait()
	if n := inFlight.Keys(); n != 0 {
		t.Errorf("%d keys are remembered when all requests have ended", n)
	}
}

// TestRequestsAreNoLongerInFlightHoweverTheyEnd.
func TestRequestsAreNoLongerInFlightHoweverTheyEnd(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		reason  string
		backend func(w http.ResponseWriter, r *http.Request) error
		change  func(*setup)
	}{
		"answered":     {reason: "allowed", backend: func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return nil }},
		"failed":       {reason: "internal_error", backend: func(http.ResponseWriter, *http.Request) error { return errors.New("why") }},
		"panicked":     {reason: "internal_error", backend: func(http.ResponseWriter, *http.Request) error { panic("why") }},
		"aborted":      {reason: "response_aborted", backend: func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }},
		"rate limited": {reason: "rate_limited", change: func(s *setup) { s.options.Limits = proxy.NewLimiter(proxy.LimiterOptions{Name: "key", Rate: 1}) }},
		"client gone": {reason: "client_closed_request", backend: func(_ http.ResponseWriter, r *http.Request) error {
			return fmt.Errorf("why: %w", context.Cause(r.Context()))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inFlight := proxy.NewInFlight(1)
			g := newGate(t, func(s *setup) {
				s.options.InFlight = inFlight
				s.backend = proxy.BackendFunc(accept)
				if row.backend != nil {
					backendFunc(row.backend)(s)
				}
				if row.change != nil {
					row.change(s)
				}
			})
			for range 3 {
				ctx, cancel := context.WithCancel(t.Context())
				if name == "client gone" {
					cancel()
				}
				func() {
					defer func() { _ = recover() }() // as the server does
					g.gateway.ServeHTTP(httptest.NewRecorder(), listRequest(good).WithContext(ctx))
				}()
				cancel()
				if record := g.records.next(t); record.Reason != row.reason {
					t.Errorf("recorded %s, want %s", record.Reason, row.reason)
				}
				if n := inFlight.Keys(); n != 0 {
					t.Fatalf("%d keys are remembered", n)
				}
			}
		})
	}
}

// TestInFlightUnderContention: there are never more than there may be, and in
// the end none.
func TestInFlightUnderContention(t *testing.T) {
	t.Parallel()
	const most = 3
	inFlight := proxy.NewInFlight(most)
	var now, passed, refused atomic.Int64
	g := limitGate(t, nil, nil, func(s *setup) {
		s.options.InFlight, s.options.Records = inFlight, discardRecords{}
		s.backend = proxy.BackendFunc(func(w http.ResponseWriter, r *http.Request, a proxy.Access) error {
			if n := now.Add(1); n > most {
				t.Errorf("%d requests are under way", n)
			}
			defer now.Add(-1)
			return accept(w, r, a)
		})
	})
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 500 {
				w := httptest.NewRecorder()
				g.gateway.ServeHTTP(w, listRequest(good))
				if w.Code == http.StatusTooManyRequests {
					refused.Add(1)
				} else {
					passed.Add(1)
				}
			}
		})
	}
	clients.Wait()
	if inFlight.Keys() != 0 || passed.Load() == 0 {
		t.Errorf("%d keys are remembered; %d requests passed and %d were refused", inFlight.Keys(), passed.Load(), refused.Load())
	}
}

func TestNoInFlightLimitDoesNotLimit(t *testing.T) {
	t.Parallel()
	if f := proxy.NewInFlight(0); f != nil {
		t.Errorf("a limit of 0 is %v", f)
	}
	g := limitGate(t, nil, nil)
	if reason, _ := g.ask(t, good, someone); reason != "allowed" {
		t.Errorf("recorded %s", reason)
	}
}

// TestWebSocketIsInFlightUntilItEnds.
func TestWebSocketIsInFlightUntilItEnds(t *testing.T) {
	t.Parallel()
	inFlight := proxy.NewInFlight(1)
	l := startLive(t, echo(nil), func(s *setup) { s.options.InFlight = inFlight })
	conn := l.mustOpen()
	for range 2 {
		if _, answer, err := l.open(nil); err == nil || answer == nil || answer.StatusCode != http.StatusTooManyRequests { //nolint:bodyclose // a handshake's answer has none
			t.Fatalf("another one was answered %+v, %v", answer, err)
		}
		l.records.next(t)
	}
	if err := conn.CloseNow(); err != nil {
		t.Fatal(err)
	}
	if record := l.records.next(t); record.Status != http.StatusSwitchingProtocols || inFlight.Keys() != 0 {
		t.Errorf("recorded %d, and %d keys are remembered", record.Status, inFlight.Keys())
	}
	l.mustOpen()
}
