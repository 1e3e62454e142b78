package proxy_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/proxy"
)

// textOf is what the registry shows, in the text format.
func textOf(t testing.TB, registry *prometheus.Registry) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// shows expects these lines among the metrics.
func shows(t testing.TB, registry *prometheus.Registry, lines ...string) {
	t.Helper()
	text := textOf(t, registry)
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			t.Errorf("the metrics lack %s:\n%s", line, text)
		}
	}
}

// TestEachRequestIsCountedByWhatBecameOfIt: one request, and all that counts it
// beside gatehouse_requests_total.
func TestEachRequestIsCountedByWhatBecameOfIt(t *testing.T) {
	t.Parallel()
	unknown := tokenOf("unknown")
	for name, row := range map[string]struct {
		change func(*setup)
		raw    string
		lines  []string
	}{
		"allowed": {nil, get(product + "/proxy-list"), []string{
			`gatehouse_lookups_total{outcome="found"} 1`, `gatehouse_lookup_duration_seconds_count{outcome="found"} 1`,
			`gatehouse_request_duration_seconds_count{outcome="allowed",route="GET /v4/account/{subaccount}/datacenter_shared/proxy-list"} 1`,
			`gatehouse_failed_authentications_total{kind="unknown"} 0`,
		}},
		"cached": {func(s *setup) {
			e := entry()
			e.Source = keystore.FromCache
			s.keys = only(t, good, e)
		}, get(product + "/proxy-list"), []string{`gatehouse_lookups_total{outcome="cached"} 1`, `gatehouse_lookups_total{outcome="found"} 0`}},
		"stale": {func(s *setup) {
			e := entry()
			e.Source = keystore.FromStale
			s.keys = only(t, good, e)
		}, get(product + "/proxy-list"), []string{`gatehouse_lookups_total{outcome="stale"} 1`}},
		"unknown": {nil, strings.ReplaceAll(get(product+"/proxy-list"), good, unknown), []string{
			`gatehouse_lookups_total{outcome="unknown"} 1`, `gatehouse_failed_authentications_total{kind="unknown"} 1`,
			`gatehouse_request_duration_seconds_count{outcome="refused",route="GET /v4/account/{subaccount}/datacenter_shared/proxy-list"} 1`,
		}},
		"malformed": {nil, strings.ReplaceAll(get(product+"/proxy-list"), good, "x"), []string{
			`gatehouse_failed_authentications_total{kind="malformed"} 1`, `gatehouse_lookups_total{outcome="unknown"} 0`,
		}},
		"missing": {nil, strings.ReplaceAll(get(product+"/proxy-list"), "Api-Token", "Other"), []string{
			`gatehouse_failed_authentications_total{kind="missing"} 1`,
		}},
		"ambiguous": {nil, get(product+"/proxy-list", "Authorization: Bearer "+unknown), []string{
			`gatehouse_failed_authentications_total{kind="ambiguous"} 1`,
		}},
		"too many failures": {func(s *setup) { s.options.Failures = proxy.NewFailureLimiter(1, 0) }, strings.ReplaceAll(get(product+"/proxy-list"), good, unknown), []string{
			`gatehouse_failed_authentications_total{kind="limited"} 1`, `gatehouse_rate_limited_total{limit="failed_auth"} 1`,
			`gatehouse_failed_authentications_total{kind="unknown"} 0`,
		}},
		"over the key's rate": {func(s *setup) {
			s.options.Limits = proxy.NewLimiter(proxy.LimiterOptions{Name: "key", Rate: 1})
			t.Cleanup(s.options.Limits.Close)
		}, get(product + "/proxy-list"), []string{`gatehouse_rate_limited_total{limit="key"} 1`}},
		"unavailable": {func(s *setup) {
			s.keys = finder(func(context.Context, keystore.Token) (keystore.Entry, error) {
				return keystore.Entry{}, errors.New("no answer")
			})
		}, get(product + "/proxy-list"), []string{
			`gatehouse_lookups_total{outcome="unavailable"} 1`,
			`gatehouse_request_duration_seconds_count{outcome="failed",route="GET /v4/account/{subaccount}/datacenter_shared/proxy-list"} 1`,
		}},
		"a body": {nil, request("POST", product+"/settings", "four"), []string{
			`gatehouse_request_body_bytes_total{route="POST /v4/account/{subaccount}/datacenter_shared/settings"} 4`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, func(s *setup) {
				if row.change != nil {
					row.change(s)
				}
			})
			g.do(row.raw)
			shows(t, g.registry, row.lines...)
		})
	}
}

// TestMethodsCountByTheirClass: whatever a client calls its method.
func TestMethodsCountByTheirClass(t *testing.T) {
	t.Parallel()
	for method, class := range map[string]string{
		"GET": "read", "HEAD": "read", "POST": "write", "PUT": "write", "PATCH": "write", "DELETE": "write", "OPTIONS": "other", "other": "other",
	} {
		registry := prometheus.NewRegistry()
		proxy.NewMetrics(registry).Record(&proxy.Record{Method: method, Status: 200, Reason: "allowed"})
		shows(t, registry, `gatehouse_requests_total{code="200",method="`+class+`",reason="allowed",route="none"} 1`)
	}
}

// TestDurationsByOutcome: what lasts is kept apart, so that it does not look
// like slowness.
func TestDurationsByOutcome(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		r       proxy.Record
		outcome string
	}{
		"allowed":           {proxy.Record{Status: 200, Reason: "allowed"}, "allowed"},
		"the backend's 500": {proxy.Record{Status: 500, Reason: "allowed"}, "failed"},
		"preflight":         {proxy.Record{Status: 204, Reason: "preflight"}, "allowed"},
		"refused":           {proxy.Record{Status: 403, Reason: "permission_denied"}, "refused"},
		"not implemented":   {proxy.Record{Status: 501, Reason: "method_not_implemented"}, "refused"},
		"store away":        {proxy.Record{Status: 503, Reason: "key_store_unavailable"}, "failed"},
		"backend away":      {proxy.Record{Status: 502, Reason: "upstream_unreachable"}, "failed"},
		"broken off":        {proxy.Record{Status: 200, Reason: "response_aborted"}, "broken_off"},
		"client gone":       {proxy.Record{Status: 499, Reason: "client_closed_request"}, "broken_off"},
		"WebSocket":         {proxy.Record{Status: 101, Reason: "allowed", Lasting: true}, "lasting"},
		"ended stream":      {proxy.Record{Status: 200, Reason: "invalid_token", Lasting: true}, "lasting"},
	} {
		registry := prometheus.NewRegistry()
		proxy.NewMetrics(registry).Record(&row.r)
		if text := textOf(t, registry); !strings.Contains(text, `gatehouse_request_duration_seconds_count{outcome="`+row.outcome+`",route="none"} 1`) {
			t.Errorf("%s: want the outcome %s in\n%s", name, row.outcome, text)
		}
	}
}

// TestPartsOfTheDuration: lookup, decision and the backend's first byte.
func TestPartsOfTheDuration(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m := proxy.NewMetrics(registry)
	m.Record(&proxy.Record{
		Status: 200, Reason: "allowed", Source: keystore.FromStore, Route: "GET /a",
		Lookup: 3 * time.Millisecond, Decision: 2 * time.Millisecond, Upstream: 20 * time.Millisecond, Duration: time.Second,
	})
	m.Record(&proxy.Record{Status: 404, Reason: "unknown_route"}) // went through none of them
	shows(t, registry,
		`gatehouse_lookup_duration_seconds_sum{outcome="found"} 0.003`, `gatehouse_lookup_duration_seconds_count{outcome="found"} 1`,
		`gatehouse_decision_duration_seconds_sum 0.002`, `gatehouse_decision_duration_seconds_count 1`,
		`gatehouse_upstream_first_byte_seconds_sum{route="GET /a"} 0.02`, `gatehouse_upstream_first_byte_seconds_count{route="GET /a"} 1`,
		`gatehouse_request_duration_seconds_sum{outcome="allowed",route="GET /a"} 1`)
	if text := textOf(t, registry); strings.Contains(text, `gatehouse_upstream_first_byte_seconds_count{route="none"}`) {
		t.Errorf("a request that reached no backend has its series:\n%s", text)
	}
}

// TestDecisionIsWhatComesBetween: the record's Decision is the time that limits
// took, and not that of the lookup or of the backend.
func TestDecisionIsWhatComesBetween(t *testing.T) {
	t.Parallel()
	var g *gate
	g = start(t, func(s *setup) {
		find := s.keys
		s.keys = finder(func(ctx context.Context, token keystore.Token) (keystore.Entry, error) {
			g.clock.Advance(3 * time.Millisecond)
			return find.Lookup(ctx, token)
		})
	}, backendFunc(func(w http.ResponseWriter, _ *http.Request) error {
		g.clock.Advance(20 * time.Millisecond)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}), func(s *setup) {
		s.options.Limits = proxy.NewLimiter(proxy.LimiterOptions{Name: "key", Rate: 1, Burst: 1, Shared: proxy.NewSharedBudgets(slowBudgets{func() {
			g.clock.Advance(2 * time.Millisecond)
		}}, prometheus.NewRegistry(), zap.NewNop())})
		t.Cleanup(s.options.Limits.Close)
	})
	_, record := g.do(get(product + "/proxy-list"))
	if record.Lookup != 3*time.Millisecond || record.Decision != 2*time.Millisecond || record.Upstream != 20*time.Millisecond {
		t.Errorf("lookup %v, decision %v, upstream %v", record.Lookup, record.Decision, record.Upstream)
	}
}

// slowBudgets allow everything, and take their time.
type slowBudgets struct{ wait func() }

func (b slowBudgets) Spend(context.Context, string, keystore.Rate) (keystore.Spent, error) {
	b.wait()
	return keystore.Spent{Allowed: true}, nil
}

func (slowBudgets) Left(context.Context, string, keystore.Rate) (int, error) { return 1, nil }

func TestRequestsUnderWayAreCounted(t *testing.T) {
	t.Parallel()
	var underWay atomic.Int64
	var during int64
	g := newGate(t, func(s *setup) { s.options.UnderWay = &underWay }, backendFunc(func(http.ResponseWriter, *http.Request) error {
		during = underWay.Load()
		panic(http.ErrAbortHandler)
	}))
	r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
	r.Header.Set("Api-Token", good)
	func() {
		defer func() { _ = recover() }() // as net/http does
		g.gateway.ServeHTTP(httptest.NewRecorder(), r)
	}()
	if during != 1 || underWay.Load() != 0 {
		t.Errorf("%d while it was answered, and %d behind it, want 1 and 0", during, underWay.Load())
	}
}

// TestHistogramsAreNativeToo: a scraper that asks for native histograms gets
// them, and every other one the buckets.
func TestHistogramsAreNativeToo(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	proxy.NewMetrics(registry).Record(&proxy.Record{
		Status: 200, Reason: "allowed", Source: keystore.FromStore, Lookup: 1, Decision: 1, Upstream: 1, Duration: 1,
	})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetType() != dto.MetricType_HISTOGRAM || m.GetHistogram().GetSampleCount() == 0 {
				continue
			}
			if h := m.GetHistogram(); len(h.GetPositiveSpan()) == 0 || len(h.GetBucket()) == 0 {
				t.Errorf("%s has %d native spans and %d buckets", f.GetName(), len(h.GetPositiveSpan()), len(h.GetBucket()))
			}
		}
	}
}

// TestCountingAllocatesNothing: nor does a line that is not written.
func TestCountingAllocatesNothing(t *testing.T) {
	m := proxy.NewMetrics(prometheus.NewRegistry())
	r := usual()
	if n := testing.AllocsPerRun(100, func() { m.Record(&r) }); n != 0 {
		t.Errorf("%v allocations for each request, want none", n)
	}
}

// usual is the record of a usual request.
func usual() proxy.Record {
	return proxy.Record{
		Method: "GET", Route: "GET /v4/account/{subaccount}/datacenter_shared/proxy-list", Status: 200, Reason: "allowed",
		Source: keystore.FromStore, BytesIn: 10, BytesOut: 100, Lookup: 200 * time.Microsecond, Decision: 20 * time.Microsecond,
		Upstream: 3 * time.Millisecond, Duration: 4 * time.Millisecond,
	}
}

// BenchmarkRecord is what counting adds to a request.
func BenchmarkRecord(b *testing.B) {
	m := proxy.NewMetrics(prometheus.NewRegistry())
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		r := usual()
		for p.Next() {
			m.Record(&r)
		}
	})
}
