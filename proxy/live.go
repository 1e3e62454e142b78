package proxy

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

const (
	// liveTick is how often live requests are judged by what is known of their
	// keys: an expiry is noticed that late.
	liveTick = 250 * time.Millisecond
	// liveRound is how often all of them are looked up while changes are not
	// heard of. With the tick, an end comes within a second either way.
	liveRound = 500 * time.Millisecond
	// livePatience is for how long a request goes on whose key cannot be
	// looked up.
	livePatience = 10 * time.Second
	// liveLookups is how many lookups are under way at a time, which the store
	// combines.
	liveLookups = 64
)

// liveKind is what a live request is, as the metric gatehouse_live_requests
// names it.
type liveKind string

const (
	liveWebSocket liveKind = "websocket"
	liveEvents    liveKind = "event_stream"
	liveGRPC      liveKind = "grpc"
)

// LiveOptions is what a Live is made of.
type LiveOptions struct {
	Keys KeyFinder
	// Hears reports whether Changed is called for all changes at the moment.
	Hears func() bool
	Now   func() time.Time
	// Metrics is where gatehouse_live_requests is declared.
	Metrics prometheus.Registerer
}

// Live knows the requests that last: WebSockets, event streams and gRPC calls.
// Each of them ends within a second of the moment from which its key would not
// let it begin. It may be used concurrently.
type Live struct {
	o     LiveOptions
	wake  chan struct{}
	gauge *prometheus.GaugeVec

	mu       sync.Mutex
	requests map[*liveRequest]struct{}
	draining bool
	none     chan struct{} // closed while there is no request
}

// liveRequest is one of them.
type liveRequest struct {
	kind    liveKind
	token   keystore.Token
	asked   policy.Request
	account policy.AccountID
	// ending is why the request must end; nil for none. goingAway: because the
	// gateway stops.
	ending    atomic.Pointer[problem.Problem]
	goingAway atomic.Bool
	// cut makes reading from the backend fail.
	cut func()
	// answer is the body of a gRPC call's answer; nil before it has begun.
	answer atomic.Pointer[io.ReadCloser]

	// doubtful: the key may have changed since it was looked up.
	doubtful atomic.Bool
	known    keystore.Entry // what was found last; of the judging goroutine
	// unknownSince is when looking it up failed first; zero for a success.
	unknownSince time.Time
}

// NewLive makes a Live, which judges nothing until Run is called.
func NewLive(o LiveOptions) (*Live, error) {
	if o.Keys == nil || o.Hears == nil || o.Now == nil || o.Metrics == nil {
		return nil, errors.New("new live: an option is missing")
	}
	l := &Live{
		o: o, wake: make(chan struct{}, 1), requests: map[*liveRequest]struct{}{}, none: make(chan struct{}),
		gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gatehouse_live_requests",
			Help: "Requests under way that last: WebSockets, event streams and gRPC calls, by kind.",
		}, []string{"kind"}),
	}
	close(l.none)
	for _, kind := range []liveKind{liveWebSocket, liveEvents, liveGRPC} {
		l.gauge.WithLabelValues(string(kind)).Set(0)
	}
	return l, o.Metrics.Register(l.gauge)
}

// Changed has the requests judged again that the change concerns. It waits for
// nothing.
func (l *Live) Changed(c keystore.Change) {
	l.mu.Lock()
	found := false
	for r := range l.requests {
		if c.Concerns(r.token, r.account) {
			r.doubtful.Store(true)
			found = true
		}
	}
	l.mu.Unlock()
	if found {
		l.poke()
	}
}

func (l *Live) poke() {
	select {
	case l.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// Run judges the requests until ctx ends.
func (l *Live) Run(ctx context.Context) {
	tick := time.NewTicker(liveTick)
	defer tick.Stop()
	round := time.NewTicker(liveRound)
	defer round.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-l.wake:
		case <-round.C:
			if !l.o.Hears() {
				l.doubtAll()
			}
			continue
		}
		l.judgeAll(ctx)
	}
}

func (l *Live) doubtAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.requests {
		r.doubtful.Store(true)
	}
}

func (l *Live) judgeAll(ctx context.Context) {
	l.mu.Lock()
	all := make([]*liveRequest, 0, len(l.requests))
	for r := range l.requests {
		all = append(all, r)
	}
	l.mu.Unlock()
	slots := make(chan struct{}, liveLookups)
	var lookups sync.WaitGroup
	for _, r := range all {
		if r.ending.Load() != nil {
			continue
		}
		if !r.doubtful.Swap(false) {
			r.decide(l.o.Now())
			continue
		}
		slots <- struct{}{}
		lookups.Go(func() {
			defer func() { <-slots }()
			l.judge(ctx, r)
		})
	}
	lookups.Wait()
}

// judge looks the key up again.
func (l *Live) judge(ctx context.Context, r *liveRequest) {
	entry, err := l.o.Keys.Lookup(ctx, r.token)
	now := l.o.Now()
	switch {
	case err == nil && entry.Key != nil && entry.Account != nil:
		r.known, r.unknownSince = entry, time.Time{}
		r.decide(now)
	case errors.Is(err, keystore.ErrUnknownToken):
		r.end(problem.New(problem.InvalidToken, "This token is not valid any more."))
	case ctx.Err() != nil:
	default:
		r.doubtful.Store(true)
		if r.unknownSince.IsZero() {
			r.unknownSince = now
		}
		if now.Sub(r.unknownSince) >= livePatience {
			r.end(problem.StoreUnavailable(err))
		}
	}
}

// decide judges by what was found last.
func (r *liveRequest) decide(now time.Time) {
	if r.known.Key == nil {
		return // nothing was found yet, and the request is in doubt
	}
	asked := r.asked
	asked.At = now
	if decision := policy.Decide(asked, r.known.Key, r.known.Account); !decision.Allowed() {
		r.end(problem.Refused(decision))
	}
}

func (r *liveRequest) end(p *problem.Problem) {
	if r.ending.CompareAndSwap(nil, p) {
		r.cut()
	}
}

// add begins to watch over a request that was let through, and looks its key
// up again at once: it may have changed since. The request must be removed.
func (l *Live) add(r *liveRequest) {
	r.doubtful.Store(true)
	l.mu.Lock()
	if len(l.requests) == 0 {
		l.none = make(chan struct{})
	}
	l.requests[r] = struct{}{}
	draining := l.draining
	l.mu.Unlock()
	l.gauge.WithLabelValues(string(r.kind)).Inc()
	if draining {
		r.leave()
	}
	l.poke()
}

func (l *Live) remove(r *liveRequest) {
	l.mu.Lock()
	delete(l.requests, r)
	if len(l.requests) == 0 {
		close(l.none)
	}
	l.mu.Unlock()
	l.gauge.WithLabelValues(string(r.kind)).Dec()
}

// leave ends a request because the gateway stops. A gRPC call is left alone:
// it has an end of its own, and its client is told by HTTP/2.
func (r *liveRequest) leave() {
	if r.kind == liveGRPC {
		return
	}
	r.goingAway.Store(true)
	r.end(problem.New(problem.UpstreamUnreachable, "This gateway is stopping. Connect again."))
}

// Drain tells WebSockets to go (close code 1001, RFC 6455 §7.4.1), ends event
// streams, and waits until there is no live request, or until ctx ends.
func (l *Live) Drain(ctx context.Context) error {
	l.mu.Lock()
	l.draining = true
	for r := range l.requests {
		r.leave()
	}
	none := l.none
	l.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
