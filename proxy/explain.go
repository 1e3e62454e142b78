package proxy

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
	"gatehouse/proxy/wire"
)

// Question is a request that is to be explained, as a client would send it over
// HTTP/1.1, without its body.
type Question struct {
	Method string
	Host   string
	Target string // path and query
	// Headers are lines "Name: value", the credential's too.
	Headers []string
	// Client is the other end of the connection.
	Client netip.Addr
	// Key is the key that the request is explained for, in the place of the one
	// that it shows; nil for that.
	Key *keystore.Entry
	// At is when the request comes; its zero value: now.
	At time.Time
	// Limits are those of the listener.
	Limits wire.Limits
}

// Outcome says how a step of a request came out.
type Outcome string

// The outcomes.
const (
	Passed     Outcome = "passed"
	Refused    Outcome = "refused"
	NotReached Outcome = "not_reached"
	// Skipped: there was nothing to judge, or explaining does not do it.
	Skipped Outcome = "skipped"
	// Undecided: the store did not say.
	Undecided Outcome = "undecided"
)

// Step is a step of an explained request: its short name, the sentence of the
// contract, and how it came out.
type Step struct {
	Name     string
	Sentence string
	Outcome  Outcome
	// Detail says what was seen, or what was wrong; "" for nothing.
	Detail string
}

// Explanation says what a gateway would do with a request.
type Explanation struct {
	// Reason is what the record of the request would say: "allowed",
	// "preflight", or the code of Problem.
	Reason string
	// Problem is the refusal, nil for none.
	Problem *problem.Problem
	// Steps are all there are, in their order.
	Steps      []Step
	Route      string
	Permission policy.Permission
	Subaccount policy.SubaccountID
	Key        policy.KeyID
	Account    policy.AccountID
	// Upstream names the upstream of the route; "" for none.
	Upstream string
	// Client is the address that counts; invalid where a trusted proxy did not
	// say it understandably.
	Client netip.Addr
}

// errLineBreak: with it a line would be two.
var errLineBreak = errors.New("explain: a line break in the request")

// Explain says what the gateway would do with the request at this moment. It is
// the code that decides every request, which here counts nothing, notes nothing
// and forwards nothing.
func (g *Gateway) Explain(ctx context.Context, q Question) (Explanation, error) {
	head := q.Method + " " + q.Target + " HTTP/1.1\r\nHost: " + q.Host + "\r\n"
	for _, line := range q.Headers {
		if line == "" {
			return Explanation{}, errors.New("explain: an empty header line")
		}
		head += line + "\r\n"
	}
	if strings.Count(head, "\r") != 2+len(q.Headers) || strings.Count(head, "\n") != 2+len(q.Headers) {
		return Explanation{}, errLineBreak
	}
	head += "\r\n"
	if fault := wire.Judge([]byte(head), q.Limits); fault != nil {
		return unreadable(fault, q), nil
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		return unreadable(&problem.Problem{Code: problem.InvalidRequest, Detail: "This request is malformed.", Cause: err}, q), nil //nolint:nilerr // it is what is explained
	}
	r.RemoteAddr = netip.AddrPortFrom(q.Client, 0).String()
	x := g.begin(nowhere{http.Header{}}, r.WithContext(ctx))
	x.dry = &dryRun{known: q.Key}
	if !q.At.IsZero() {
		x.record.Start = q.At
	}
	err = g.serve(ctx, x)
	if errors.Is(err, errClientGone) {
		return Explanation{}, err
	}
	return x.explained(err, g), nil
}

// dryRun is of a request that is explained.
type dryRun struct {
	// known is the key that it is explained for in the place of the one that it
	// shows; nil for that.
	known *keystore.Entry
}

// nowhere is where the answers to explained requests go.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

// peek returns what would still refuse a request that was decided on.
func (g *Gateway) peek(ctx context.Context, x *exchange) error {
	if err := g.o.InFlight.peek(x.caller.Key.ID); err != nil {
		return err
	}
	if err := g.limiterOf(x).peek(ctx, string(x.caller.Key.ID), x.record.Start); err != nil {
		return err
	}
	x.step = stepForward
	_, err := g.maxBody(x, x.route)
	return err
}

// unreadable explains what never becomes a request.
func unreadable(fault *problem.Problem, q Question) Explanation {
	x := &exchange{from: origin{client: q.Client}, dry: &dryRun{}}
	if fault.Code == problem.AmbiguousPath || fault.Code == problem.AmbiguousQuery {
		x.step = stepPath
	}
	return x.explained(fault, nil)
}

// explained says how the exchange came out: err is what refused it, nil for
// nothing.
func (x *exchange) explained(err error, g *Gateway) Explanation {
	e := Explanation{
		Reason: x.record.Reason, Route: x.record.Route, Permission: x.record.Permission, Subaccount: x.asked.Subaccount,
		Key: x.record.Key, Account: x.record.Account, Client: x.from.client,
	}
	if x.route != nil {
		if upstream, is := x.route.backend.(interface{ Name() string }); is {
			e.Upstream = upstream.Name()
		}
	}
	at := x.step
	if err != nil {
		e.Problem = problem.From(err)
		e.Reason = string(e.Problem.Code)
		if at == stepDecide {
			at = stepOf(policy.Reason(e.Problem.Code))
		}
	}
	for s := range steps {
		name, sentence := s.words()
		outcome := x.outcome(s, at, e.Problem)
		step := Step{Name: name, Sentence: sentence, Outcome: outcome}
		switch outcome {
		case Refused:
			step.Detail = x.fault(e.Problem)
		case Passed, Skipped:
			step.Detail = x.seen(s, e, g)
		case NotReached, Undecided:
		}
		e.Steps = append(e.Steps, step)
	}
	return e
}

func (x *exchange) outcome(s, at step, p *problem.Problem) Outcome {
	assumed := x.dry.known != nil && s >= stepCredential && s <= stepStore
	switch {
	case p != nil && s == at:
		return Refused
	case s > at:
		return NotReached
	case s == stepToken && p != nil && at == stepStore:
		return Undecided
	case assumed, s == stepForward, s == stepHandshake && !x.upgrade:
		return Skipped
	}
	return Passed
}
