package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"gatehouse/proxy/problem"
)

// maxInformational is how many 1xx answers may come before the answer itself.
const maxInformational = 10

var (
	errTooSlow         = errors.New("the backend did not answer in time")
	errSentTwice       = errors.New("the request may have been acted on, and is not sent again")
	errTooManyInterims = errors.New("the backend sent too many 1xx answers")
)

// attempt sends one request to a target, and where that is safe once more to
// another one. It is the http.RoundTripper of one ReverseProxy, and not for
// concurrent use; hooks and the request's body run in other goroutines.
type attempt struct {
	u       *Upstream
	ctx     context.Context // ends with the attempt, or when the answer is late
	cancel  context.CancelFunc
	client  context.Context // ends when the client has gone
	timeout time.Duration   // from the whole request to the headers of the answer
	isSafe  bool            // the request may be sent again

	repeated bool      // it was sent again, and is not a third time
	until    time.Time // when the answer is late; moves while the client is waited for
	cut      atomic.Bool

	spans   *spans
	span    trace.Span // of the try under way, or that was answered; nil: none
	chosen  choice
	trace   httptrace.ClientTrace
	interim func(code int, header textproto.MIMEHeader) error // ReverseProxy's
	timer   *time.Timer
	outcome atomic.Int32 // one of the constants below

	// Of the try under way:
	asked, connected bool // for a connection, to the target
	reused           bool // the connection had carried other requests
	isTwice          bool // http.Transport wanted to send it once more
	conn             *patientConn
	protocol         int32
	before           int64 // written on the connection before this request
	interims         atomic.Int32
	wroteHeaders     atomic.Bool
	gotByte          atomic.Bool // of an answer
	bodyTouched      atomic.Bool
	bodyBroken       atomic.Bool // reading it from the client failed
}

// What became of an attempt.
const (
	outcomeOpen int32 = iota
	outcomeAnswered
	outcomeLate
)

// newAttempt's end must be called when the answer has been passed on.
func (u *Upstream) newAttempt(r *http.Request, a Access) *attempt {
	t := &attempt{u: u, client: r.Context(), timeout: u.timeout, isSafe: a.Permission.SafeToRepeat(), spans: a.exchange.spans}
	if route := a.exchange.route; route != nil && route.timeout > 0 {
		t.timeout = route.timeout
	}
	t.ctx, t.cancel = context.WithCancel(r.Context())
	t.trace = httptrace.ClientTrace{
		GetConn: t.askedConn, GotConn: t.gotConn, Got1xxResponse: t.gotInterim,
		GotFirstResponseByte: func() { t.gotByte.Store(true) },
	}
	if u.mayMultiplex {
		t.trace.WroteHeaders = func() { t.wroteHeaders.Store(true) }
	}
	return t
}

// giveUp ends the attempt for a reason that is neither the client's nor the
// backend's.
func (t *attempt) giveUp() {
	t.cut.Store(true)
	t.cancel()
}

func (t *attempt) end() {
	if t.timer != nil {
		t.timer.Stop()
	}
	t.cancel()
	t.endSpan()
	if t.chosen.target != nil {
		t.chosen.inFlight.Add(-1)
	}
}

// RoundTrip sends the request that rewrite has made.
func (t *attempt) RoundTrip(in *http.Request) (*http.Response, error) {
	if outer := httptrace.ContextClientTrace(in.Context()); outer != nil {
		t.interim = outer.Got1xxResponse
	}
	t.choose(t.u.pick(nil))
	res, err := t.try(in) //nolint:contextcheck // it has t.ctx, which ends with the request's
	if err == nil || !t.mayRepeat() {
		return res, err
	}
	next := t.u.pick(t.chosen.target)
	if next.target == nil && len(t.u.targets) == 1 && t.reused {
		next = t.chosen // the connection was stale, and others may be too
		t.chosen.forgetIdle()
	}
	if next.target == nil {
		return nil, err
	}
	t.repeated = true
	t.choose(next)
	t.u.retried()
	res, again := t.try(in) //nolint:contextcheck // it has t.ctx, which ends with the request's
	if again != nil {
		return nil, fmt.Errorf("%w; before that: %w", again, err)
	}
	return res, nil
}

func (t *attempt) choose(c choice) {
	if t.chosen.target != nil {
		t.chosen.inFlight.Add(-1)
	}
	c.inFlight.Add(1)
	t.chosen = c
}

func (t *attempt) try(in *http.Request) (*http.Response, error) {
	t.asked, t.connected, t.reused, t.conn, t.protocol = false, false, false, nil, protocolUnknown
	t.wroteHeaders.Store(false)
	t.gotByte.Store(false)
	t.interims.Store(0)
	target := t.chosen.target
	out := in.WithContext(httptrace.WithClientTrace(t.ctx, &t.trace))
	out.URL = target.locate(in.URL)
	t.beginTry(out)
	t.prepare(out)

	res, err := target.transport(t.u.now()).RoundTrip(out)
	if err == nil && !t.outcome.CompareAndSwap(outcomeOpen, outcomeAnswered) {
		_ = res.Body.Close() // it has been given up already
		res, err = nil, errTooSlow
	}
	if err != nil && t.isLate() {
		err = errTooSlow
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	t.judge(err)
	t.endTry(res, err)
	return res, err
}

// prepare makes of the request what http.Transport sends as it should be.
func (t *attempt) prepare(out *http.Request) {
	multiplexed := t.chosen.spoken == schemeH2C
	// A backend that answers HEAD with a body, as many do by mistake, leaves it
	// on the connection, where it would be the next request's answer.
	out.Close = out.Method == http.MethodHead && !multiplexed
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = &sentBody{ReadCloser: out.Body, attempt: t}
	} else if !t.isSafe && !multiplexed {
		sendOnce(out)
	}
}

// judge tells the target how it did. A request that broke off for its client's
// fault says nothing about a target: nobody may eject one that way.
func (t *attempt) judge(err error) {
	target, isProbe := t.chosen.target, t.chosen.isProbe
	isOurs := t.client.Err() != nil || t.bodyBroken.Load() || t.isTwice || t.cut.Load()
	if t.connected && t.protocol == protocolHTTP2 && !isEnd(err) {
		isOurs = true // of one stream, which may be the client's own fault
	}
	switch {
	case err == nil:
		target.answered()
	case isProbe && t.isLate():
		target.failed(t.u.now(), true, err)
	case !isOurs && !t.isLate() && !t.gotByte.Load() && (t.asked || t.connected):
		target.failed(t.u.now(), isProbe, err)
	case isProbe:
		target.dropProbe()
	}
}

// isEnd reports whether the error is the end of a connection.
func isEnd(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op)
}

func (t *attempt) isLate() bool { return t.outcome.Load() == outcomeLate }

// mayRepeat: nothing of the request was written, or it only reads and nothing
// of an answer came.
func (t *attempt) mayRepeat() bool {
	switch {
	case t.client.Err() != nil || t.cut.Load() || t.isLate() || t.isTwice || t.repeated || t.bodyTouched.Load() || t.gotByte.Load():
		return false
	case !t.connected:
		return t.asked
	}
	return !t.wroteAny() || t.isSafe
}

// wroteAny reports whether the target may have seen something of the request.
func (t *attempt) wroteAny() bool {
	switch {
	case !t.connected:
		return false
	case t.protocol == protocolHTTP2:
		return t.wroteHeaders.Load()
	}
	return t.conn == nil || t.conn.written.Load() != t.before
}

func (t *attempt) askedConn(string) { t.asked = true }

// gotConn: the request is about to be written to the connection.
func (t *attempt) gotConn(info httptrace.GotConnInfo) {
	if t.wroteAny() {
		// http.Transport is about to send it once more: over HTTP/1 because the
		// connection was stale, over HTTP/2 because the backend refused it, also
		// with an error that does not say whether it acted on it. That may count
		// for the one time that is allowed. A request whose context has ended is
		// not written over HTTP/2; over HTTP/1 it may be.
		if !t.isSafe || t.repeated {
			t.isTwice = true
			t.cancel()
			if _, protocol := connOf(info.Conn); protocol == protocolHTTP1 && t.chosen.spoken != schemeH2C {
				_ = info.Conn.Close()
			}
			return
		}
		t.repeated = true
		t.u.retried()
	}
	t.connected, t.reused = true, info.Reused
	t.conn, t.protocol = connOf(info.Conn)
	if t.chosen.spoken == schemeH2C {
		t.protocol = protocolHTTP2
	}
	if t.conn != nil && t.protocol == protocolHTTP1 {
		if info.Reused {
			t.conn.settle(t.ctx)
		}
		t.before = t.conn.written.Load()
	}
	if t.timer == nil {
		t.until = wallClock().Add(t.timeout)
		t.timer = time.AfterFunc(t.timeout, t.expire)
	} else if !t.bodyTouched.Load() {
		t.timer.Reset(t.until.Sub(wallClock())) // another try has no time of its own
	}
}

func (t *attempt) expire() {
	if t.outcome.CompareAndSwap(outcomeOpen, outcomeLate) {
		t.cancel()
	}
}

func (t *attempt) gotInterim(code int, header textproto.MIMEHeader) error {
	if t.interims.Add(1) > maxInformational {
		return errTooManyInterims
	}
	if t.interim == nil {
		return nil
	}
	return t.interim(code, header)
}

// explain says what became of a request that got no answer.
func (t *attempt) explain(err error) error {
	var timeout net.Error
	switch {
	case t.client.Err() != nil:
		return errors.Join(errClientGone, err)
	case t.isLate() || t.connected && errors.As(err, &timeout) && timeout.Timeout():
		return late(err)
	case t.isTwice:
		err = errors.Join(errSentTwice, err)
	}
	return unreachable(err)
}

func late(cause error) error {
	return &problem.Problem{Code: problem.UpstreamTimeout, Detail: "The product behind this gateway did not answer in time.", Cause: cause}
}

func unreachable(cause error) error {
	return &problem.Problem{Code: problem.UpstreamUnreachable, Detail: "The product behind this gateway could not be reached.", Cause: cause}
}

// sentBody is a request's body as a transport reads it. The backend has its
// time from the end of each read to the next, and then to its answer; while the
// client is waited for it has none to lose.
type sentBody struct {
	io.ReadCloser
	attempt *attempt
}

func (b *sentBody) Read(p []byte) (int, error) {
	t := b.attempt
	t.bodyTouched.Store(true)
	t.timer.Stop()
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		t.bodyBroken.Store(true)
	}
	if t.outcome.Load() == outcomeOpen {
		t.timer.Reset(t.timeout)
	}
	return n, err
}

// Close leaves a body alone that another try may need; ReverseProxy closes it.
func (b *sentBody) Close() error {
	if !b.attempt.bodyTouched.Load() {
		return nil
	}
	return b.ReadCloser.Close()
}
