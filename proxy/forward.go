package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"gatehouse/proxy/problem"
)

// errSwitched: a backend changed the protocol of a connection without having
// been asked to. What came behind that would pass unjudged.
var errSwitched = errors.New("the backend switched protocols unasked")

// errNoStatus: RFC 9110 §15 knows no such status as that of the answer.
var errNoStatus = errors.New("the backend's status code is none")

// Serve forwards the request and its answer. It returns an error, and has
// written nothing, when there is no answer.
func (u *Upstream) Serve(w http.ResponseWriter, r *http.Request, a Access) error {
	if a.exchange == nil {
		return problem.Internal(errors.New("forwarded past the gateway"))
	}
	if r.URL.EscapedPath() != a.exchange.path {
		// net/url would spell the path in another way than it was matched.
		return problem.New(problem.AmbiguousPath, "The path of this request is ambiguous: it has more than one spelling.")
	}
	if u.inFlight.Add(1) > u.maxInFlight {
		u.inFlight.Add(-1)
		return overloaded()
	}
	defer u.inFlight.Add(-1)
	x := a.exchange
	// ReverseProxy hands an upgrade on; without the header there is none. See
	// rewrite for the one that is allowed.
	delete(r.Header, "Upgrade")
	if isGRPC(r) {
		x.watch(liveGRPC) // from its beginning on: its answer may be long in coming
	}
	t := u.newAttempt(r, a)
	defer t.end()
	x.onCut(t.giveUp)

	var failure error
	var upgraded *http.Response
	var backend io.ReadWriteCloser
	forward := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { u.rewrite(p, a) },
		ModifyResponse: func(answer *http.Response) error {
			if conn, is := answer.Body.(io.ReadWriteCloser); is && x.upgrade && answer.StatusCode == http.StatusSwitchingProtocols {
				upgraded, backend = answer, conn
				answer.Body = http.NoBody // which ReverseProxy closes
				cleanHeaders(answer)
				return errUpgraded
			}
			if err := cleanResponse(answer); err != nil {
				return err
			}
			x.answered(answer)
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failure = err },
		Transport:    t,
		BufferPool:   u.buffers,
		ErrorLog:     u.errorLog,
	}
	forward.ServeHTTP(w, r)
	switch p := x.ending(); {
	case errors.Is(failure, errUpgraded):
		return u.tunnel(w, x, upgraded, backend)
	case failure != nil && p != nil:
		return p
	case failure != nil && t.client.Err() == nil && x.isOverdue(u.now()):
		return late(failure) // the backend ended what took longer than the client wanted
	case failure != nil:
		return t.explain(failure)
	}
	stripTrailers(w.Header())
	x.endCall()
	return nil
}

// rewrite makes the request that the backend gets: what the client sent, byte
// for byte, less what is withheld, plus what the gateway knows. It runs after
// ReverseProxy has removed hop-by-hop headers, so that a client's Connection
// header cannot remove ours.
func (u *Upstream) rewrite(p *httputil.ProxyRequest, a Access) {
	x, out := a.exchange, p.Out
	out.URL.RawQuery = x.query // ReverseProxy has dropped what it could not parse
	out.Host = p.In.Host
	out.Trailer = x.body.announceTrailers(u.filter)
	u.filter.strip(out.Header)

	trace, continued := "", false // each try has its own; see beginTry
	if x.spans == nil {
		trace, continued = traceparent(p.In.Header, x.from.trusted)
	}
	if !continued {
		delete(out.Header, "Tracestate")
	}
	set := newHeaderSetter(out.Header, 9)
	set.set("X-Gatehouse-Account", string(a.Caller.Account.ID))
	set.set("X-Gatehouse-Key-Id", string(a.Caller.Key.ID))
	set.set("X-Gatehouse-Permission", string(a.Permission))
	if a.Subaccount != "" {
		set.set("X-Gatehouse-Subaccount", string(a.Subaccount))
	}
	set.set("X-Request-Id", a.RequestID)
	set.set("X-Forwarded-For", x.from.forwardedForValue())
	set.set("X-Forwarded-Host", p.In.Host)
	set.set("X-Forwarded-Proto", x.from.scheme(p.In))
	if trace != "" {
		set.set("Traceparent", trace)
	}
	stripWebSocket(out.Header, x.upgrade)
	if x.upgrade {
		out.Header["Connection"], out.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
}

// sendOnce keeps http.Transport from sending the request again when a
// connection breaks: the backend may have acted on it already. The transport
// repeats what has no body and either a safe method or an Idempotency-Key.
func sendOnce(out *http.Request) {
	if out.Body != nil && out.Body != http.NoBody {
		return
	}
	switch out.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		out.Body = emptyBody{}
		return
	}
	// The transport looks for these two spellings only; to a backend every
	// letter case is the same (RFC 9110 §5.1).
	rename(out.Header, "Idempotency-Key", "idempotency-key")
	rename(out.Header, "X-Idempotency-Key", "x-idempotency-key")
}

func rename(h http.Header, from, to string) {
	if values, ok := h[from]; ok {
		delete(h, from)
		h[to] = values
	}
}

// emptyBody is no body on the wire, and a body to http.Transport.
type emptyBody struct{}

func (emptyBody) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyBody) Close() error             { return nil }

// cleanResponse takes out of a backend's answer what only Gatehouse may say.
func cleanResponse(r *http.Response) error {
	switch {
	case r.StatusCode == http.StatusSwitchingProtocols:
		return errSwitched
	case r.StatusCode < http.StatusOK || r.StatusCode > 999:
		return errNoStatus
	}
	cleanHeaders(r)
	return nil
}

func cleanHeaders(r *http.Response) {
	for _, h := range []http.Header{r.Header, r.Trailer} {
		stripIdentity(h)
		delete(h, "X-Request-Id") // ours is on the answer already
	}
}

// stripTrailers does the same to trailers that the backend did not announce.
func stripTrailers(h http.Header) {
	for name := range h {
		trailer, is := strings.CutPrefix(name, http.TrailerPrefix)
		if is && (isIdentity(trailer) || trailer == "X-Request-Id") {
			delete(h, name)
		}
	}
}

func overloaded() error {
	p := problem.New(problem.UpstreamOverloaded, "The product behind this gateway has too many requests at once.")
	p.RetryAfter = time.Second
	return p
}
