package proxy_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/keystore"
	"gatehouse/proxy"
)

// timed is a gate whose store takes 3 ms, and whose backend begins to answer
// after 20 ms and ends after 50 ms.
func timed(t *testing.T) *gate {
	t.Helper()
	var g *gate
	g = start(t, func(s *setup) {
		find := s.keys
		s.keys = finder(func(ctx context.Context, token keystore.Token) (keystore.Entry, error) {
			g.clock.Advance(3 * time.Millisecond)
			return find.Lookup(ctx, token)
		})
	}, backendFunc(func(w http.ResponseWriter, r *http.Request) error {
		_, _ = io.Copy(io.Discard, r.Body)
		g.clock.Advance(20 * time.Millisecond)
		w.WriteHeader(http.StatusCreated)
		g.clock.Advance(50 * time.Millisecond)
		_, err := io.WriteString(w, "hello")
		return err
	}))
	return g
}

// TestGoldenMetricsAndAccessLog: the names and labels of the metrics, and the
// lines of the log, are a contract.
func TestGoldenMetricsAndAccessLog(t *testing.T) {
	t.Parallel()
	g := timed(t)
	g.do(request("POST", product+"/settings?secret=1", "body", "User-Agent: curl/8.5.0", "Referer: secret", "Cookie: secret"))
	g.do(request("POST", product+"/settings", "body"))
	g.do(get("/elsewhere?secret=1"))
	golden(t, "record/metrics", g.metrics())
	golden(t, "record/log", steady(g.log.String()))
	if text := g.metrics() + g.log.String(); strings.Contains(text, "secret") || strings.Contains(text, good[3:]) {
		t.Errorf("a client's text is in %s", text)
	}
}

func TestRecordSaysHowLongEachStepTook(t *testing.T) {
	t.Parallel()
	g := timed(t)
	_, record := g.do(request("POST", product+"/settings", "body"))
	if record.Lookup != 3*time.Millisecond || record.Upstream != 20*time.Millisecond || record.Duration != 73*time.Millisecond {
		t.Errorf("lookup %v, upstream %v, duration %v", record.Lookup, record.Upstream, record.Duration)
	}
	if record.Lasting || record.BytesIn != 4 || record.BytesOut != 5 || record.Status != http.StatusCreated || !record.Start.Equal(theTime) {
		t.Errorf("recorded %+v", record)
	}
}

// TestLabelsAreBoundedWhateverClientsSend: a scan adds one series a code.
func TestLabelsAreBoundedWhateverClientsSend(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, method := range []string{"GET", "PROPFIND", "X-" + strings.Repeat("A", 1000), "!#$%&'*+-.^_`|~"} {
		for _, target := range []string{"/a", "/b", "/v4/account/x", "/%41", "*", "http://elsewhere/"} {
			raw := method + " " + target + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\nApi-Token: " + target + "\r\n\r\n"
			if text := g.raw(raw); !strings.HasPrefix(text, "HTTP/1.1 4") && !strings.HasPrefix(text, "HTTP/1.1 501 ") {
				t.Errorf("%s %s: %q", method, target, text)
			}
			if record := g.records.next(t); record.Route != "" || len(record.Method) > 16 {
				t.Errorf("%s %s: recorded %+v", method, target, record)
			}
		}
	}
	if n := strings.Count(g.metrics(), "gatehouse_requests_total{"); n != 4 { // 400 of GET and of others, 404 and 501
		t.Errorf("%d series, want 4:\n%s", n, g.metrics())
	}
}

func TestOurOwnFailuresAreLoggedAsErrors(t *testing.T) {
	t.Parallel()
	cause := errors.New("why")
	for _, row := range []struct {
		name  string
		r     proxy.Record
		level string
	}{
		{"allowed", proxy.Record{Status: 200, Reason: "allowed"}, "info"},
		{"a refusal", proxy.Record{Status: 403, Reason: "permission_denied"}, "info"},
		{"a backend's own 500", proxy.Record{Status: 500, Reason: "allowed"}, "info"},
		{"a client that has gone", proxy.Record{Status: 499, Reason: "client_closed_request", Cause: cause}, "info"},
		{"a body that broke off", proxy.Record{Status: 400, Reason: "invalid_request", Cause: cause}, "info"},
		{"a store that is away", proxy.Record{Status: 503, Reason: "key_store_unavailable", Cause: cause}, "error"},
		{"a backend that is away", proxy.Record{Status: 502, Reason: "upstream_unreachable", Cause: cause}, "error"},
	} {
		var log lockedBuffer
		proxy.NewAccessLog(newLog(&log)).Record(&row.r)
		if !strings.HasPrefix(log.String(), `{"level":"`+row.level+`"`) || strings.Contains(log.String(), "why") != (row.r.Cause != nil) {
			t.Errorf("%s: logged %s", row.name, log.String())
		}
	}
}

func TestQuietLogStillCounts(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	proxy.NewMetrics(registry).Record(&proxy.Record{Status: 200, Reason: "allowed"})
	shows(t, registry, `gatehouse_requests_total{code="200",method="other",reason="allowed",route="none"} 1`)
}
