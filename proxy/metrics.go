package proxy

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/keystore"
	"gatehouse/proxy/problem"
)

// requestMetrics counts requests for Prometheus. Labels are bounded by the
// configuration: routes are patterns, reasons are codes, and a status code that
// nobody has named counts as its class.
type requestMetrics struct {
	underWay  atomic.Int64
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	bytesIn   *prometheus.CounterVec
	bytesOut  *prometheus.CounterVec
	firstByte *prometheus.HistogramVec
	decision  prometheus.Histogram
	// The others have all their series from the start.
	lookups     map[keystore.Source]lookupSeries
	rateLimited map[string]prometheus.Counter
	failedAuth  map[string]prometheus.Counter

	// series holds what a request counts for, by seriesKey, so that counting
	// takes no lock and looks no label up.
	series sync.Map
}

// noRoute is the route label of a request that matched none.
const noRoute = "none"

// What a lookup ended with, beside the sources of an answer.
const (
	lookupUnknown     keystore.Source = "unknown"
	lookupUnavailable keystore.Source = "unavailable"
)

// The ways to fail to authenticate, as gatehouse_failed_authentications_total
// names them.
const (
	authMissing   = "missing"
	authAmbiguous = "ambiguous"
	authMalformed = "malformed"
	authUnknown   = "unknown"
	authLimited   = "limited"
)

type lookupSeries struct {
	count    prometheus.Counter
	duration prometheus.Observer
}

// histogram has native buckets beside those that are given. Memory is bounded
// by coarser ones, and by starting anew where that was not enough.
func histogram(name, help string, buckets ...float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}
}

func counter(name, help string) prometheus.CounterOpts {
	return prometheus.CounterOpts{Name: name, Help: help}
}

// newRequestMetrics declares the metrics in the registry.
func newRequestMetrics(registry prometheus.Registerer) *requestMetrics {
	m := &requestMetrics{
		requests: prometheus.NewCounterVec(counter("gatehouse_requests_total",
			"Requests answered, by route, class of the method, HTTP status code and reason (allowed, or what it was refused with)."),
			[]string{"route", "method", "code", "reason"}),
		durations: prometheus.NewHistogramVec(histogram("gatehouse_request_duration_seconds",
			"Time from the end of a request's headers to the end of its answer, by route and outcome.",
			.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30), []string{"route", "outcome"}),
		bytesIn: prometheus.NewCounterVec(counter("gatehouse_request_body_bytes_total",
			"Bytes of request bodies that were read, by route."), []string{"route"}),
		bytesOut: prometheus.NewCounterVec(counter("gatehouse_response_body_bytes_total",
			"Bytes of response bodies that were written, by route."), []string{"route"}),
		firstByte: prometheus.NewHistogramVec(histogram("gatehouse_upstream_first_byte_seconds",
			"Time from handing a request to its backend until the headers of the answer, by route.",
			.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30), []string{"route"}),
		decision: prometheus.NewHistogram(histogram("gatehouse_decision_duration_seconds",
			"Time from a lookup's answer until its request was handed to its backend: the decision, and limits.",
			.000005, .00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25)),
	}
	registry.MustRegister(m.requests, m.durations, m.bytesIn, m.bytesOut, m.firstByte, m.decision,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gatehouse_requests_in_flight", Help: "Requests under way.",
		}, func() float64 { return float64(m.underWay.Load()) }))
	m.declareLookups(registry)
	m.rateLimited = closedCounters(registry, counter("gatehouse_rate_limited_total",
		"Requests refused by a limit, by which one it was."), "limit",
		"key", "plan", "route", "management", inFlightLimit, failureLimit)
	m.failedAuth = closedCounters(registry, counter("gatehouse_failed_authentications_total",
		"Requests without a credential that could be used, by what was wrong with it."), "kind",
		authMissing, authAmbiguous, authMalformed, authUnknown, authLimited)
	return m
}

func (m *requestMetrics) declareLookups(registry prometheus.Registerer) {
	count := prometheus.NewCounterVec(counter("gatehouse_lookups_total",
		"Lookups of the keys of requests, by outcome."), []string{"outcome"})
	duration := prometheus.NewHistogramVec(histogram("gatehouse_lookup_duration_seconds",
		"Time a lookup took, by outcome.",
		.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1), []string{"outcome"})
	registry.MustRegister(count, duration)
	m.lookups = make(map[keystore.Source]lookupSeries)
	for _, s := range []keystore.Source{keystore.FromStore, keystore.FromCache, keystore.FromStale, lookupUnknown, lookupUnavailable} {
		m.lookups[s] = lookupSeries{count.WithLabelValues(string(s)), duration.WithLabelValues(string(s))}
	}
}

// closedCounters declares counters for a label that has these values only.
func closedCounters(registry prometheus.Registerer, o prometheus.CounterOpts, label string, values ...string) map[string]prometheus.Counter {
	all := prometheus.NewCounterVec(o, []string{label})
	registry.MustRegister(all)
	counters := make(map[string]prometheus.Counter, len(values))
	for _, v := range values {
		counters[v] = all.WithLabelValues(v)
	}
	return counters
}

// seriesKey is all of a request that chooses its series.
type seriesKey struct {
	route, method, reason, outcome string
	status                         int  // a class, negative, where it has no name
	forwarded                      bool // its backend's answer began
}

type series struct {
	requests          prometheus.Counter
	duration          prometheus.Observer
	bytesIn, bytesOut prometheus.Counter
	firstByte         prometheus.Observer // nil unless forwarded
}

// count is safe for concurrent use.
func (m *requestMetrics) count(r *Record) {
	s := m.seriesOf(r)
	s.requests.Inc()
	s.duration.Observe(r.Duration.Seconds())
	if r.BytesIn > 0 {
		s.bytesIn.Add(float64(r.BytesIn))
	}
	if r.BytesOut > 0 {
		s.bytesOut.Add(float64(r.BytesOut))
	}
	if s.firstByte != nil {
		s.firstByte.Observe(r.Upstream.Seconds())
	}
	if l, looked := m.lookups[r.Source]; looked {
		l.count.Inc()
		l.duration.Observe(r.Lookup.Seconds())
	}
	if r.Decision > 0 {
		m.decision.Observe(r.Decision.Seconds())
	}
	if limit, has := m.rateLimited[r.Limit]; has {
		limit.Inc()
	}
	if failed, has := m.failedAuth[r.failedAuth()]; has {
		failed.Inc()
	}
}

func (m *requestMetrics) seriesOf(r *Record) *series {
	k := seriesKey{
		route: r.Route, method: methodClass(r.Method), reason: r.Reason, outcome: r.outcome(),
		status: r.Status, forwarded: r.Upstream > 0,
	}
	if !isNamed(k.status) {
		k.status = -k.status / 100
	}
	if found, ok := m.series.Load(k); ok {
		return found.(*series) //nolint:forcetypeassert // nothing else is stored
	}
	route := k.route
	if route == "" {
		route = noRoute
	}
	made := &series{
		requests: m.requests.WithLabelValues(route, k.method, codeLabel(r.Status), k.reason),
		duration: m.durations.WithLabelValues(route, k.outcome),
		bytesIn:  m.bytesIn.WithLabelValues(route), bytesOut: m.bytesOut.WithLabelValues(route),
	}
	if k.forwarded {
		made.firstByte = m.firstByte.WithLabelValues(route)
	}
	m.series.Store(k, made)
	return made
}

// methodClass says whether the method reads or writes; "other" for what says
// neither.
func methodClass(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "read"
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return "write"
	}
	return otherMethod
}

// isNamed reports whether the status has a name, or is one of ours.
func isNamed(status int) bool {
	return http.StatusText(status) != "" || status == statusClientGone || status == 0
}

// codeLabel keeps a backend from making a series for every number there is.
func codeLabel(status int) string {
	if isNamed(status) {
		return strconv.Itoa(status)
	}
	return strconv.Itoa(status/100) + "xx"
}

// outcome is how the request ended, in few words: "lasting" for a WebSocket or
// an event stream, whose duration says nothing of how fast the gateway is, and
// "broken_off" where one side went away, so that it could not end.
func (r *Record) outcome() string {
	switch {
	case r.Lasting:
		return "lasting"
	case r.Reason == reasonClientGone || r.Reason == reasonAborted:
		return "broken_off"
	case r.Status >= http.StatusInternalServerError && r.Reason != string(problem.MethodNotImplemented):
		return "failed"
	case r.Reason == reasonAllowed || r.Reason == reasonPreflight:
		return "allowed"
	}
	return "refused"
}

// failedAuth is the way in which the request failed to authenticate; "" where
// it did not.
func (r *Record) failedAuth() string {
	switch {
	case r.Reason == string(problem.MissingCredentials):
		return authMissing
	case r.Reason == string(problem.AmbiguousCredentials):
		return authAmbiguous
	case r.Limit == failureLimit:
		return authLimited
	case r.Reason != string(problem.InvalidToken):
	case r.Source == lookupUnknown:
		return authUnknown
	case r.Source == "":
		return authMalformed
	}
	return "" // the token was a good one, or was not looked at
}
