package proxy

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

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
// to a Recorder. Nothing in it was chosen by a client but Method, which is cut,
// and BytesIn and BytesOut.
type Record struct {
	Start     time.Time
	RequestID string
	Method    string
	// Route is the pattern that matched, "" for none.
	Route  string
	Status int
	// Reason is "allowed", "preflight", or what the request was refused or failed
	// with.
	Reason     string
	Key        policy.KeyID
	Account    policy.AccountID
	Permission policy.Permission
	Client     netip.Addr
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
}

// Recorder keeps records. It is called once a request, also when that breaks
// off, after the client has its answer.
type Recorder interface {
	Record(*Record)
}

// Metrics is the Recorder that counts requests for Prometheus and writes a
// line a request to the access log.
type Metrics struct {
	log     *zap.Logger
	counted *requestMetrics
}

// NewMetrics declares the metrics in the registry.
func NewMetrics(registry prometheus.Registerer, log *zap.Logger) *Metrics {
	return &Metrics{log: log, counted: newRequestMetrics(registry)}
}

// UnderWay is how many requests are under way, as far as gateways count there.
func (m *Metrics) UnderWay() *atomic.Int64 { return &m.counted.underWay }

// Record counts and logs. It is safe for concurrent use.
func (m *Metrics) Record(r *Record) {
	m.counted.count(r)
	route := r.Route
	if route == "" {
		route = noRoute
	}
	m.writeLine(route, r)
}

// writeLine writes the access log. A problem on our side is an error, every
// other request is information.
func (m *Metrics) writeLine(route string, r *Record) {
	level := zap.InfoLevel
	if r.Cause != nil && r.Status >= 500 {
		level = zap.ErrorLevel
	}
	line := m.log.Check(level, "request")
	if line == nil {
		return
	}
	fields := [...]zap.Field{
		zap.String("request_id", r.RequestID),
		zap.String("method", r.Method),
		zap.String("route", route),
		zap.Int("status", r.Status),
		zap.String("reason", r.Reason),
		zap.String("key_id", string(r.Key)),
		zap.String("account", string(r.Account)),
		zap.String("permission", string(r.Permission)),
		zap.Stringer("client_address", r.Client),
		zap.String("lookup", string(r.Source)),
		zap.Int64("bytes_in", r.BytesIn),
		zap.Int64("bytes_out", r.BytesOut),
		zap.Float64("duration_ms", milliseconds(r.Duration)),
		zap.Float64("lookup_ms", milliseconds(r.Lookup)),
		zap.Float64("upstream_ms", milliseconds(r.Upstream)),
		zap.Error(r.Cause),
	}
	line.Write(fields[:]...)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// refuse notes a problem in the record.
func (r *Record) refuse(p *problem.Problem) {
	r.Status, r.Reason, r.Limit = p.Code.Status(), string(p.Code), p.Limit
	if p.Cause != nil && !errors.Is(p.Cause, p) {
		r.Cause = p.Cause
	}
}
