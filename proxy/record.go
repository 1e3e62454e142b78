package proxy

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// Reasons of a record beside the codes of package problem.
const (
	reasonAllowed    = string(policy.Allowed)
	reasonClientGone = problem.ClientGone
	reasonAborted    = problem.Aborted
	reasonPreflight  = "preflight" // a browser's question was answered

	// statusClientGone is what nginx made the custom for the first of these.
	statusClientGone = 499
)

// Record is what is remembered of a request. It is complete when it is given
// to a Recorder. Nothing in it was chosen by a client but Method, which is one
// that a route can name, Asked, BytesIn and BytesOut.
type Record struct {
	Start     time.Time
	RequestID string
	Method    string
	// Asked is what the client sent, as it was sent: only Clean may show it.
	Asked Asked
	// Route is the pattern that matched, "" for none, and Template its path.
	Route, Template string
	Status          int
	// Reason is "allowed", "preflight", or what the request was refused or failed
	// with.
	Reason     string
	Key        policy.KeyID
	Account    policy.AccountID
	Permission policy.Permission
	// Client is the address that counts, Peer the other end of the connection.
	Client, Peer netip.Addr
	// Source is where the answer of the lookup came from, or "unknown" or
	// "unavailable"; "" where nothing was looked up.
	Source keystore.Source
	// Limit is the limit that refused the request; "" for none.
	Limit string
	// Lasting: it was a WebSocket or an event stream.
	Lasting  bool
	BytesIn  int64
	BytesOut int64
	Duration time.Duration
	// Lookup is the time the key store took, Decision the time from then until
	// the backend got the request, Upstream the time from then until its answer
	// began; 0 where a request did not come so far.
	Lookup   time.Duration
	Decision time.Duration
	Upstream time.Duration
	// Cause is the error behind the reason, for operators.
	Cause error
	// TraceID and SpanID are those of the request's span; zero without tracing.
	TraceID trace.TraceID
	SpanID  trace.SpanID
}

// Recorder keeps records. It is called once a request, also when that breaks
// off, after the client has its answer.
type Recorder interface {
	Record(*Record)
}

// Recorders are Recorders of the same requests, in this order.
type Recorders []Recorder

// Record gives the record to each of them.
func (rs Recorders) Record(r *Record) {
	for _, to := range rs {
		to.Record(r)
	}
}

// Metrics is the Recorder that counts requests for Prometheus.
type Metrics struct{ counted *requestMetrics }

// NewMetrics declares the metrics in the registry.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	return &Metrics{counted: newRequestMetrics(registry)}
}

// UnderWay is how many requests are under way, as far as gateways count there.
func (m *Metrics) UnderWay() *atomic.Int64 { return &m.counted.underWay }

// Record counts. It is safe for concurrent use.
func (m *Metrics) Record(r *Record) { m.counted.count(r) }

// refuse notes a problem in the record.
func (r *Record) refuse(p *problem.Problem) {
	r.Status, r.Reason, r.Limit = p.Code.Status(), string(p.Code), p.Limit
	if p.Cause != nil && !errors.Is(p.Cause, p) {
		r.Cause = p.Cause
	}
}
