// Package proxy is the way of a request: from its path and route over its
// credential and the decision to a backend, and the record of it. It decides
// nothing by itself (policy does) and keeps nothing (keystore does).
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// KeyFinder finds the key of a token, as keystore.Store does.
type KeyFinder interface {
	Lookup(ctx context.Context, t keystore.Token) (keystore.Entry, error)
}

// Options is what a Gateway is made of.
type Options struct {
	Routes      *Routes
	Addresses   ClientAddress
	Keys        KeyFinder
	TokenPrefix string
	// Limits limits what each key asks of products, where neither its route nor
	// its account's plan has a limit of its own, Management what it asks of
	// Gatehouse's own API; nil does not limit.
	Limits, Management *Limiter
	// Plans are the limits of accounts' plans.
	Plans *Plans
	// InFlight bounds the requests of each key that are under way, Failures
	// those of each address that show invalid tokens; nil does not limit.
	InFlight *InFlight
	Failures *FailureLimiter
	// Origins are those whose pages may use Gatehouse's own API from a browser.
	Origins []string
	// Used is told of every request that is let through; nil for nobody. It
	// must not wait for anything.
	Used func(key policy.KeyID, account policy.AccountID, at time.Time)
	// Counted is told of every request of a known key when it has ended, with its
	// record's reason as outcome and its route as metrics name it; nil for nobody.
	// It must not wait for anything.
	Counted func(keystore.CountedRequest)
	// UnderWay counts the requests under way; nil for nobody.
	UnderWay *atomic.Int64
	// Live watches over requests that last; nil for nobody.
	Live *Live
	// Sites are what people are served. The first that owns a request answers it.
	Sites []*Site
	// ProtocolTokens lets a WebSocket present its token as the subprotocol
	// gatehouse.token.TOKEN, as browsers must.
	ProtocolTokens bool
	Records        Recorder
	// Traces makes spans of requests; nil makes none.
	Traces trace.TracerProvider
	// MaxBody is the largest request body, in bytes.
	MaxBody int64
	// MaxHeaderLines is how many header lines a request may have; 0: any number.
	MaxHeaderLines int
	// MinBodyRate is how many bytes a second the client must send of a body, but
	// for its first seconds; 0: any number.
	MinBodyRate int64
	Now         func() time.Time
}

// Gateway answers product and key API requests. It is immutable, and may be
// used concurrently.
type Gateway struct {
	o      Options
	cors   cors
	tracer trace.Tracer // nil: there is no tracing
}

// New makes a gateway. Every option must be given but the limits, Origins,
// Used, Counted, UnderWay and Traces.
func New(o Options) (*Gateway, error) {
	if o.Routes == nil || o.Keys == nil || o.Records == nil || o.Now == nil || o.TokenPrefix == "" || o.MaxBody <= 0 {
		return nil, errors.New("new gateway: an option is missing")
	}
	return &Gateway{o: o, cors: newCORS(o.Origins), tracer: newTracer(o.Traces)}, nil
}

// exchange is one request on its way, and what has become known of it.
type exchange struct {
	w      *responseWriter
	r      *http.Request
	path   string // as it was sent
	query  string // as it was sent
	from   origin
	record Record
	route  *Route         // nil until one matched
	caller policy.Caller  // without a key until that is known
	looked time.Duration  // from its beginning until the lookup had its answer
	asked  policy.Request // what was decided on
	// upgrade: the request opens a WebSocket.
	upgrade bool
	step    step // the one that the request is at
	// dry: the request is explained, and nothing is counted, answered or
	// forwarded; nil for every other one.
	dry     *dryRun
	body    *requestBody // nil for a request without one
	lasting lasting
	spans   *spans // nil: there is no tracing
}

// ServeHTTP answers one request and records it, also when it breaks off.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.o.UnderWay != nil {
		g.o.UnderWay.Add(1)
	}
	x := g.begin(w, r)
	if g.tracer != nil {
		x.spans = beginSpans(g.tracer, x)
	}
	defer g.end(x)
	if err := g.serve(r.Context(), x); err != nil {
		x.spans.endStep(&x.record, err)
		g.noteRefusal(r.Context(), x, err)
		x.fail(err)
	}
}

func (g *Gateway) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{r: r, from: g.o.Addresses.of(r)}
	x.record = Record{
		Start: g.o.Now(), RequestID: requestID(r.Header, x.from.trusted, g.o.TokenPrefix), Method: methodName(r.Method),
		Client: x.from.client, Peer: x.from.peer, Reason: reasonAllowed, Asked: Asked{request: r, trusted: x.from.trusted},
	}
	x.w = &responseWriter{ResponseWriter: w, now: g.o.Now, requestID: []string{x.record.RequestID}, connection: w.Header()["Connection"], renewed: x.record.Start}
	x.w.old = !r.ProtoAtLeast(1, 1)
	control := http.NewResponseController(w) // not every writer in tests has deadlines
	switch {
	case r.ProtoMajor > 1:
		x.w.multiplexed = true
		_ = control.SetWriteDeadline(time.Time{})
	case r.Body != nil && r.Body != http.NoBody:
		// The server reads what is left of a body, also that of a refused
		// request, and would wait for it without end.
		_ = control.SetReadDeadline(wallClock().Add(ioPatience))
	}
	w.Header()["X-Request-Id"] = x.w.requestID
	return x
}

// serve is the way of a request. Every error is a refusal, and until the last
// line nothing has reached a backend. A request that is explained goes the same
// way, and ends before anything is counted.
func (g *Gateway) serve(ctx context.Context, x *exchange) error {
	answered, err := g.decide(ctx, x)
	if err != nil || answered {
		return err
	}
	x.step = stepLimits
	if x.dry != nil {
		return g.peek(ctx, x)
	}
	if err := g.o.InFlight.enter(x.caller.Key.ID); err != nil {
		return err
	}
	defer g.o.InFlight.leave(x.caller.Key.ID)
	if err := g.count(ctx, x); err != nil {
		return err
	}
	x.spans.endStep(&x.record, nil)
	return g.hand(x, x.route, Access{
		Caller: x.caller, Subaccount: x.asked.Subaccount, Permission: x.asked.Needs, RequestID: x.record.RequestID,
	})
}

// decide goes the way of a request up to the decision, in the order of the
// contract. It reports whether that has answered the request already. What it
// refuses, the step that x is at refuses.
func (g *Gateway) decide(ctx context.Context, x *exchange) (answered bool, err error) {
	if err := g.isRequest(x); err != nil {
		return false, err
	}
	x.step = stepPath
	if x.path, x.query, err = splitTarget(x.r); err != nil {
		return false, err
	}
	if err := CanonicalPath(x.path); err != nil {
		return false, err
	}
	x.record.Asked.path = x.path
	x.step = stepRoute
	for _, site := range g.o.Sites {
		if site.owns(x.r, x.path) {
			return true, g.visit(x, site)
		}
	}
	if g.o.Routes.isReserved(x.path) && g.cors.admit(x.w.Header(), x.r.Header) && g.preflight(x) {
		return true, nil
	}
	route, err := g.o.Routes.Match(x.r, x.path)
	if err != nil {
		return false, err
	}
	x.route, x.record.Route, x.record.Template = route, route.Pattern(), route.template
	x.step = stepNeeds
	needs, err := route.Needs(x.r, x.query)
	if err != nil {
		return false, err
	}
	x.record.Permission = needs
	x.step = stepHandshake
	if x.upgrade, err = upgrade(x.r, route); err != nil {
		return false, err
	}
	x.step = stepCredential
	if err := g.takeProtocolToken(x); err != nil {
		return false, err
	}
	entry, err := g.identify(ctx, x)
	if err != nil {
		return false, err
	}
	x.record.Key, x.record.Account = entry.Key.ID, entry.Key.Account
	x.caller = policy.Caller{Account: entry.Account, Key: entry.Key, Client: x.from.client, RequestID: x.record.RequestID}
	x.w.retiring(entry.Key)

	x.spans.begin(spanDecision, &x.record)
	x.step = stepDecide
	subaccount := route.Subaccount(x.path)
	x.asked = policy.Request{At: x.record.Start, Client: x.from.client, Subaccount: subaccount, Needs: needs}
	if decision := policy.Decide(x.asked, entry.Key, entry.Account); !decision.Allowed() {
		return false, problem.Refused(decision)
	}
	if route.subaccount >= 0 && subaccount == "" {
		return false, problem.Refused(policy.Decision{Reason: policy.SubaccountNotAllowed})
	}
	return false, nil
}

// count takes the request from the budget of its key, and tells of its use.
func (g *Gateway) count(ctx context.Context, x *exchange) error {
	if err := g.limiterOf(x).take(ctx, string(x.caller.Key.ID), x.record.Start); err != nil {
		return err
	}
	if g.o.Used != nil {
		g.o.Used(x.caller.Key.ID, x.caller.Account.ID, x.record.Start)
	}
	return nil
}

// limiterOf returns the one limit that counts: the route's own, else that of
// the account's plan, else that of every key.
func (g *Gateway) limiterOf(x *exchange) *Limiter {
	if x.route.own {
		return g.o.Management
	}
	if x.route.limit != nil {
		return x.route.limit
	}
	if limiter, has := g.o.Plans.of(x.caller.Account.Plan); has {
		return limiter
	}
	return g.o.Limits
}

// hand gives the request to its backend.
func (g *Gateway) hand(x *exchange, route *Route, a Access) error {
	maxBody, err := g.maxBody(x, route)
	if err != nil {
		return err
	}
	body := newRequestBody(x, maxBody, g.o.MinBodyRate)
	defer body.finish(&x.record)
	x.body = body
	if err := body.checkEmpty(); err != nil {
		return body.explain(err)
	}
	x.w.backend = g.o.Now()
	x.record.Decision = x.w.backend.Sub(x.record.Start) - x.looked
	if route.own {
		route.setPathValues(x.r, x.path)
	} else {
		x.mayLast(g.o.Live)
		defer x.unwatch()
	}
	a.exchange = x
	return body.explain(route.backend.Serve(x.w, x.r, a))
}

// maxBody is how large the body of a request to the route may be. It is an
// error that the request has announced a larger one.
func (g *Gateway) maxBody(x *exchange, route *Route) (int64, error) {
	most := cmp.Or(route.maxBody, g.o.MaxBody)
	if x.r.ContentLength > most {
		return 0, bodyTooLarge()
	}
	return most, nil
}

// fail answers with the problem that err is. Where an answer has begun, the
// connection is broken off instead, so that the client does not take half an
// answer for a whole one.
func (x *exchange) fail(err error) {
	gone := errors.Is(err, context.Canceled) && x.r.Context().Err() != nil
	if gone || errors.Is(err, errClientGone) {
		x.record.Status, x.record.Reason, x.record.Cause = statusClientGone, reasonClientGone, err
		panic(http.ErrAbortHandler)
	}
	p := problem.From(err)
	x.record.refuse(p)
	if x.w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	x.answer(p)
}

// answer answers with a problem, in the words of the client's protocol.
func (x *exchange) answer(p *problem.Problem) {
	if isGRPC(x.r) {
		problem.WriteGRPC(x.w, p)
		return
	}
	problem.Write(x.w, p, x.record.RequestID)
}

// end records the request. A panic of a backend ends here: as a 500 where
// nothing was answered yet.
func (g *Gateway) end(x *exchange) {
	panicked := recover()
	aborted := panicked != nil
	if err, ok := panicked.(error); aborted && (!ok || !errors.Is(err, http.ErrAbortHandler)) {
		cause := fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())
		p := problem.Internal(cause)
		x.record.refuse(p)
		if x.w.status == 0 {
			x.answer(p)
			aborted = false
		}
	}
	if aborted && x.record.Reason == reasonAllowed {
		x.record.Reason = reasonAborted
	}
	if x.w.status != 0 {
		x.record.Status = x.w.status
	}
	x.w.finish()
	x.record.BytesOut, x.record.Upstream = x.w.written, x.w.upstream
	x.record.Duration = g.o.Now().Sub(x.record.Start)
	if g.o.Counted != nil && x.record.Key != "" {
		g.o.Counted(keystore.CountedRequest{
			Key: x.record.Key, Account: x.record.Account, Permission: x.record.Permission,
			Outcome: x.record.Reason, Route: x.record.Route, At: x.record.Start,
		})
	}
	x.spans.end(&x.record)
	g.o.Records.Record(&x.record)
	if g.o.UnderWay != nil {
		g.o.UnderWay.Add(-1)
	}
	if aborted {
		panic(http.ErrAbortHandler)
	}
}
