package main_test

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

const (
	serverSpan = "SERVER GET /v4/account/{subaccount}/datacenter_shared/proxy-list"
	clientSpan = "CLIENT GET"
	parentSpan = "b7ad6b7169203331"
)

// tracedTable is a table whose gateway sends spans; 127.0.0.1 is a trusted proxy
// of it, and 127.0.0.2 is not.
func tracedTable(t *testing.T, endpoint, protocol, more string) *table {
	t.Helper()
	return newTable(t, settings{
		Store: embeddedStore(t), ClientAddress: "{trusted_proxies: [127.0.0.1/32]}", Grace: "10s",
		Tracing: fmt.Sprintf("{endpoint: %q, protocol: %s%s}", endpoint, protocol, more),
	})
}

// traceOf sends a request, and returns the trace and the parent that the backend
// was told of.
func (d *table) traceOf(t *testing.T, r request) (trace, parent string) {
	t.Helper()
	before := d.backends[0].count()
	d.passes(t, r)
	said := strings.Split(d.backends[0].seen(before)[0].header["traceparent"][0], "-")
	return said[1], said[2]
}

func (d *table) asStranger(lines ...string) request {
	r := get(d.key, proxyListOfA+"?token="+d.key.Token).with(lines...)
	r.from = "127.0.0.2"
	return r
}

func idOf(id []byte) string { return hex.EncodeToString(id) }

// TestSpansReachACollector, over both protocols, with their parents.
func TestSpansReachACollector(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			c := startCollector(t)
			d := tracedTable(t, c.endpoint(protocol), protocol, `, sample: 1, headers: {authorization: "Bearer collectors"}`)
			trace, parent := d.traceOf(t, d.asStranger("Traceparent: 00-"+spoofedTrace+"-"+parentSpan+"-01", "Tracestate: evil=1", "Baggage: evil=1", "User-Agent: "+d.key.Token))
			if trace == spoofedTrace {
				t.Error("the trace of a stranger goes on")
			}
			var spans map[string]*tracepb.Span
			eventually(t, patience, "the spans", func() error {
				spans = c.ofTrace(trace)
				return unless(len(spans) == 4, fmt.Sprint(slices.Sorted(maps.Keys(spans))))
			})
			server := spans[serverSpan]
			if server == nil || len(server.GetParentSpanId()) != 0 || server.GetTraceState() != "" {
				t.Fatalf("the request's span is %v", server)
			}
			for _, name := range []string{"INTERNAL lookup", "INTERNAL decision", clientSpan} {
				if idOf(spans[name].GetParentSpanId()) != idOf(server.GetSpanId()) {
					t.Errorf("the parent of %s is %x, want %x", name, spans[name].GetParentSpanId(), server.GetSpanId())
				}
			}
			if got := idOf(spans[clientSpan].GetSpanId()); got != parent {
				t.Errorf("the backend was told of %s, and the span of the upstream is %s", parent, got)
			}
			text, services, tokens := c.all()
			checkNoToken(t, "what the collector got", text)
			if !services["gatehouse"] || len(services) != 1 || !tokens["Bearer collectors"] || len(tokens) != 1 || strings.Contains(text, "?token") {
				t.Errorf("the collector got spans of %v with %v", services, tokens)
			}
			d.checkFlush(t, c)
		})
	}
}

// checkFlush: what waits for its export when the gateway stops is exported.
func (d *table) checkFlush(t *testing.T, c *collector) {
	t.Helper()
	trace, _ := d.traceOf(t, d.asStranger())
	d.signal(t, syscall.SIGTERM)
	if code := d.wait(t, patience); code != 0 {
		t.Errorf("the gateway ended with %d, want 0", code)
	}
	if spans := c.ofTrace(trace); len(spans) != 4 {
		t.Errorf("the last request has the spans %v", slices.Sorted(maps.Keys(spans)))
	}
}

// TestTracesAreSampled: those that begin here by the setting, those of a trusted
// proxy as it says, and a stranger has no say.
func TestTracesAreSampled(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	d := tracedTable(t, c.grpc, "grpc", ", sample: 0")
	for range 5 {
		d.passes(t, d.asStranger("Traceparent: 00-"+spoofedTrace+"-"+parentSpan+"-01"))
		d.passes(t, get(d.key, proxyListOfA).with("Traceparent: 00-"+strings.Repeat("1", 32)+"-"+parentSpan+"-00"))
	}
	trace, _ := d.traceOf(t, get(d.key, proxyListOfA).with("Traceparent: 00-"+spoofedTrace+"-"+parentSpan+"-01", "Tracestate: edge=1"))
	d.signal(t, syscall.SIGTERM)
	d.wait(t, patience)
	spans := c.ofTrace(trace)
	if trace != spoofedTrace || len(spans) != 4 || c.count() != 4 {
		t.Fatalf("the collector has %d spans, and of the trace %s %v", c.count(), trace, spans)
	}
	if server := spans[serverSpan]; idOf(server.GetParentSpanId()) != parentSpan || server.GetTraceState() != "edge=1" {
		t.Errorf("the request's span is %v", server)
	}
}

// TestNothingIsExportedWithoutAnEndpoint, also where the environment names one.
func TestNothingIsExportedWithoutAnEndpoint(t *testing.T) {
	c := startCollector(t)
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		t.Setenv(name, c.http)
	}
	d := newTable(t, settings{Store: embeddedStore(t), ClientAddress: "{trusted_proxies: [127.0.0.1/32]}", Tracing: "{protocol: http, sample: 1}"})
	for range 20 {
		trace, parent := d.traceOf(t, get(d.key, proxyListOfA).with("Traceparent: 00-"+spoofedTrace+"-"+parentSpan+"-01"))
		if trace != spoofedTrace || parent != parentSpan {
			t.Errorf("the backend was told of %s-%s", trace, parent)
		}
	}
	metrics, err := d.probe("/metrics")
	if err != nil || strings.Contains(metrics, "gatehouse_tracing_spans_total") {
		t.Errorf("there are metrics of spans, %v", err)
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, patience)
	if n := c.count(); n != 0 || strings.Contains(d.stdout.String(), "trace_id") {
		t.Errorf("%d spans were exported, or traces are in the log", n)
	}
}

// TestCollectorThatIsAway costs a metric and a line, and the end no time.
func TestCollectorThatIsAway(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			d := tracedTable(t, "http://"+closedPort(t), protocol, ", sample: 1, timeout: 1s")
			for range 3 { // exports
				before := d.metric(t, `gatehouse_tracing_spans_total{result="failed"}`)
				d.passes(t, d.asStranger())
				eventually(t, patience, "an export fails", func() error {
					return unless(d.metric(t, `gatehouse_tracing_spans_total{result="failed"}`) > before, "it did not")
				})
			}
			d.signal(t, syscall.SIGTERM)
			if code := d.wait(t, patience); code != 0 {
				t.Errorf("the gateway ended with %d, want 0", code)
			}
			if n := strings.Count(d.stdout.String(), `"message":"spans are not exported"`); n < 1 || n > 2 {
				t.Errorf("%d lines say that spans are not exported", n)
			}
			if d.stderr.String() != "" {
				t.Errorf("stderr says %q", d.stderr.String())
			}
		})
	}
}

// TestCollectorThatHangs holds no request up, and not the end: what does not fit
// is dropped.
func TestCollectorThatHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var hanging sync.WaitGroup
	hanging.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			hanging.Go(func() {
				_, _ = io.Copy(io.Discard, conn) // until the gateway has ended
				_ = conn.Close()
			})
		}
	})
	d := tracedTable(t, "http://"+l.Addr().String(), "http", ", sample: 1, timeout: 10m")
	t.Cleanup(func() {
		d.kill()
		_ = l.Close() // ends the goroutine
		hanging.Wait()
	})
	const mostRequests = 2000 // of four spans each
	for i := range mostRequests {
		d.passes(t, get(d.key, proxyListOfA))
		if i%100 == 99 && d.metric(t, `gatehouse_tracing_spans_total{result="dropped"}`) > 0 {
			break
		}
	}
	if d.metric(t, `gatehouse_tracing_spans_total{result="dropped"}`) == 0 {
		t.Fatal("nothing was dropped, which proves nothing")
	}
	begun := time.Now()
	d.signal(t, syscall.SIGTERM)
	if code := d.wait(t, patience); code != 0 {
		t.Errorf("the gateway ended with %d, want 0", code)
	}
	t.Logf("it ended after %s", time.Since(begun))
	if log := d.stdout.String(); !strings.Contains(log, "spans were not exported before the end") {
		t.Errorf("the log does not say what is lost: %s", lastOf(log))
	}
}
