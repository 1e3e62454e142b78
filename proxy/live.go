package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
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
	// liveTurns is after how many ticks each request is looked up again, whether
	// or not a change of its key was announced: a message may be lost, a turn
	// cannot. Requests are spread over the ticks. 20 ticks are 5 s.
	liveTurns = 20
	// liveUnsubscribed is after how many ticks all of them are looked up while the
	// node is not subscribed to changes. With the tick itself, an end comes within
	// a second then too.
	liveUnsubscribed = 2
	// livePatience is for how long a request goes on whose key cannot be
	// looked up.
	livePatience = 10 * time.Second
	// liveAfter is from when on any request is watched over: backends know
	// other ways to stream than those with a name.
	liveAfter = time.Second
	// liveLookups is how many lookups are under way at a time, which the store
	// combines: so many keys are one round trip.
	liveLookups = 200
)

// liveKind is what a live request is, as the metric gatehouse_live_requests
// names it.
type liveKind string

const (
	liveWebSocket liveKind = "websocket"
	liveEvents    liveKind = "event_stream"
	liveGRPC      liveKind = "grpc"
	liveOther     liveKind = "other" // any request that takes longer than liveAfter
)

// LiveOptions is what a Live is made of.
type LiveOptions struct {
	// Keys must not answer from a cache while the store can be asked.
	Keys KeyFinder
	// Subscribed reports whether changes are announced to this node at the
	// moment, so that Changed is called for them. While it is false, every request
	// is looked up twice a second.
	Subscribed func() bool
	Now        func() time.Time
	// Metrics is where gatehouse_live_requests is declared.
	Metrics prometheus.Registerer
}

// Live knows the requests that last: WebSockets, event streams, gRPC calls, and
// whatever else is under way for longer than a second. Each of them ends within
// a second of the moment from which its key would not let it begin; within ten
// seconds where the change of the key was not announced to this node. It may be
// used concurrently.
type Live struct {
	o     LiveOptions
	wake  chan struct{}
	gauge *prometheus.GaugeVec

	mu       sync.Mutex
	requests map[*liveRequest]struct{}
	draining bool
	none     chan struct{} // closed while there is no request

	looking atomic.Bool // lookups are under way
	lookups sync.WaitGroup
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
	// cut breaks the request off, on both sides. It may take its time.
	cut func()

	// turn is the tick, of liveTurns, at which it is looked up again.
	turn int
	// doubtful: the key may have changed since it was looked up.
	doubtful atomic.Bool
	known    atomic.Pointer[keystore.Entry] // what was found last; never nil
	// unknownSince is when looking it up failed first; zero for a success. It is
	// the lookup's own.
	unknownSince time.Time
}

// NewLive makes a Live, which judges nothing until Run is called.
func NewLive(o LiveOptions) (*Live, error) {
	if o.Keys == nil || o.Subscribed == nil || o.Now == nil || o.Metrics == nil {
		return nil, errors.New("new live: an option is missing")
	}
	l := &Live{
		o: o, wake: make(chan struct{}, 1), requests: map[*liveRequest]struct{}{}, none: make(chan struct{}),
		gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gatehouse_live_requests",
			Help: "Requests under way that last: WebSockets, event streams, gRPC calls, and others that take longer than a second, by kind.",
		}, []string{"kind"}),
	}
	close(l.none)
	for _, kind := range []liveKind{liveWebSocket, liveEvents, liveGRPC, liveOther} {
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
	defer l.lookups.Wait()
	wasSubscribed := true
	for ticks := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-tick.C:
			ticks++
			subscribed := l.o.Subscribed()
			all := !subscribed && (wasSubscribed || ticks%liveUnsubscribed == 0)
			l.doubt(ticks%liveTurns, all)
			wasSubscribed = subscribed
		}
		l.judgeAll(ctx)
	}
}

// doubt has the requests looked up again whose turn it is, or all of them.
func (l *Live) doubt(turn int, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.requests {
		if all || r.turn == turn {
			r.doubtful.Store(true)
		}
	}
}

// judgeAll decides on every request by what is known, which waits for nothing,
// and has those looked up that are in doubt.
func (l *Live) judgeAll(ctx context.Context) {
	l.mu.Lock()
	all := make([]*liveRequest, 0, len(l.requests))
	for r := range l.requests {
		all = append(all, r)
	}
	l.mu.Unlock()
	now := l.o.Now()
	doubtful := all[:0]
	for _, r := range all {
		r.decide(now)
		if r.doubtful.Load() && r.ending.Load() == nil {
			doubtful = append(doubtful, r)
		}
	}
	if len(doubtful) > 0 && l.looking.CompareAndSwap(false, true) {
		l.lookups.Go(func() { l.lookUp(ctx, doubtful) })
	}
}

// lookUp looks the keys of requests up again. What came into doubt meanwhile is
// looked up behind it.
func (l *Live) lookUp(ctx context.Context, doubtful []*liveRequest) {
	slots := make(chan struct{}, liveLookups)
	var lookups sync.WaitGroup
	for _, r := range doubtful {
		slots <- struct{}{}
		lookups.Go(func() {
			defer func() { <-slots }()
			l.judge(ctx, r)
		})
	}
	lookups.Wait()
	again := l.isInDoubt()
	l.looking.Store(false)
	if again {
		l.poke()
	}
}

// isInDoubt reports whether a request was brought into doubt again, and not
// only left there because the store did not answer.
func (l *Live) isInDoubt() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.requests {
		if r.doubtful.Load() && r.unknownSince.IsZero() {
			return true
		}
	}
	return false
}

// judge looks the key up again.
func (l *Live) judge(ctx context.Context, r *liveRequest) {
	r.doubtful.Store(false)
	entry, err := l.o.Keys.Lookup(ctx, r.token)
	now := l.o.Now()
	switch {
	case err == nil && entry.Key != nil && entry.Account != nil:
		r.unknownSince = time.Time{}
		r.known.Store(&entry)
		r.decide(now)
	case errors.Is(err, keystore.ErrUnknownToken):
		r.end(problem.New(problem.InvalidToken, "This token is not valid any more."))
	case ctx.Err() != nil:
	case errors.Is(err, keystore.ErrOlder):
		// The store answers, and lacks what is known of this key: that will not
		// pass by itself.
		r.end(problem.StoreUnavailable(err))
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
	asked, known := r.asked, r.known.Load()
	asked.At = now
	if decision := policy.Decide(asked, known.Key, known.Account); !decision.Allowed() {
		r.end(problem.Refused(decision))
	}
}

// end has the request cut off beside whoever judges: a backend that takes
// nothing any more may hold that up until its connection is given up.
func (r *liveRequest) end(p *problem.Problem) {
	if r.ending.CompareAndSwap(nil, p) {
		go r.cut()
	}
}

// add begins to watch over a request that was let through, and looks its key
// up again at once: it may have changed since. The request must be removed.
func (l *Live) add(r *liveRequest) {
	r.doubtful.Store(true)
	r.turn = rand.IntN(liveTurns) //nolint:gosec // it spreads work, and keeps no secret
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

// leave ends a request because the gateway stops. One that has an end of its
// own is left alone.
func (r *liveRequest) leave() {
	if r.kind != liveWebSocket && r.kind != liveEvents {
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
