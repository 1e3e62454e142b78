package proxy

import (
	"errors"
	"net/http"
	"net/netip"
	"strconv"
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
	Source       keystore.Source
	BytesIn      int64
	BytesOut     int64
	Duration     time.Duration
	// Lookup is the time the key store took, Upstream the time until the
	// backend's answer began; 0 where a request did not come so far.
	Lookup   time.Duration
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
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// noRoute is the route label of a request that matched none.
const noRoute = "none"

// NewMetrics declares the metrics in the registry. The labels are bounded by
// the configuration: routes are patterns, reasons are codes, and a status code
// that nobody has named counts as its class.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_requests_total",
			Help: "Requests answered, by route, HTTP status code and reason (allowed, or what it was refused with).",
		}, []string{"route", "code", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "gatehouse_request_duration_seconds",
			Help:    "Time from the end of a request's headers to the end of its answer, by route, HTTP status code and reason.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "code", "reason"}),
	}
	registry.MustRegister(m.requests, m.duration)
	return m
}

// Record counts. It is safe for concurrent use.
func (m *Metrics) Record(r *Record) {
	route, code := r.Route, codeLabel(r.Status)
	if route == "" {
		route = noRoute
	}
	m.requests.WithLabelValues(route, code, r.Reason).Inc()
	m.duration.WithLabelValues(route, code, r.Reason).Observe(r.Duration.Seconds())
}

// codeLabel keeps a backend from making a series for every number there is.
func codeLabel(status int) string {
	if http.StatusText(status) != "" || status == statusClientGone || status == 0 {
		return strconv.Itoa(status)
	}
	return strconv.Itoa(status/100) + "xx"
}

// refuse notes a problem in the record.
func (r *Record) refuse(p *problem.Problem) {
	r.Status, r.Reason = p.Code.Status(), string(p.Code)
	if p.Cause != nil && !errors.Is(p.Cause, p) {
		r.Cause = p.Cause
	}
}
