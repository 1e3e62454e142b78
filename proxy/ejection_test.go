package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/proxy"
)

// balanced is a gateway in front of some targets, with its metrics.
type balanced struct {
	*gate
	options proxy.UpstreamOptions
}

func startBalanced(t *testing.T, targets []*url.URL, changes ...func(*proxy.UpstreamOptions)) *balanced {
	t.Helper()
	b := &balanced{}
	clock, registry := newClock(), prometheus.NewRegistry()
	b.gate = start(t, func(s *setup) {
		s.upstream.Targets, s.upstream.Now, s.upstream.Metrics = targets, clock.Now, proxy.NewUpstreamMetrics(registry)
		s.upstream.Ejection = proxy.Ejection{Failures: 3, Backoff: time.Second, MaxBackoff: 4 * time.Second}
		for _, change := range changes {
			change(&s.upstream)
		}
		b.options = s.upstream
	})
	b.clock, b.registry = clock, registry
	return b
}

// shows reports whether the metrics have the line.
func (b *balanced) shows(line string) bool { return strings.Contains(b.metrics(), line+"\n") }

func upLine(target *url.URL, value int) string {
	return fmt.Sprintf(`gatehouse_upstream_target_up{target="%s",upstream="test"} %d`, target, value)
}

func ejectionsLine(target *url.URL, count int) string {
	return fmt.Sprintf(`gatehouse_upstream_ejections_total{target="%s",upstream="test"} %d`, target, count)
}

// reads sends so many reads, all of which must be answered.
func (b *balanced) reads(count int) {
	b.t.Helper()
	for range count {
		if a, record := b.do(get(product + "/proxy-list")); a.Status != 200 {
			b.t.Fatalf("got %d (%v), want 200", a.Status, record.Cause)
		}
	}
}

// untilEjected sends reads until the target is out for the count-th time.
func (b *balanced) untilEjected(target *url.URL, count int) {
	b.t.Helper()
	for range 200 {
		b.reads(1)
		if b.shows(ejectionsLine(target, count)) {
			return
		}
	}
	b.t.Fatalf("200 requests did not eject %s for the %d. time:\n%s", target, count, b.metrics())
}

// TestTargetThatCannotBeConnectedToIsEjected: no request suffers, the target
// gets one request after each back-off, which doubles up to the cap, and comes
// back when it answers.
func TestTargetThatCannotBeConnectedToIsEjected(t *testing.T) {
	t.Parallel()
	well := newBackend(t)
	sick, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := &url.URL{Scheme: "http", Host: sick.Addr().String()}
	_ = sick.Close() // its port refuses connections
	b := startBalanced(t, []*url.URL{well.url(), at})
	b.untilEjected(at, 1)
	if !b.shows(upLine(at, 0)) || !b.shows(upLine(well.url(), 1)) {
		t.Errorf("the metrics are\n%s", b.metrics())
	}
	for i, backoff := range []time.Duration{1, 2, 4, 4} {
		b.clock.Advance(backoff*time.Second*8/10 - time.Millisecond) // up to a fifth is taken off
		b.reads(20)
		if !b.shows(ejectionsLine(at, i+1)) {
			t.Fatalf("a probe came before its time:\n%s", b.metrics())
		}
		b.clock.Advance(backoff*time.Second*2/10 + time.Millisecond)
		b.reads(20)
		if !b.shows(ejectionsLine(at, i+2)) {
			t.Fatalf("no probe came, or more than one, after %d s:\n%s", backoff, b.metrics())
		}
	}
	if sick, err = net.Listen("tcp", at.Host); err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(sick) }()
	defer func() { _ = server.Close() }()
	b.clock.Advance(4 * time.Second)
	b.reads(1)
	if !b.shows(upLine(at, 1)) {
		t.Errorf("the target answered its probe, and is out:\n%s", b.metrics())
	}
}

// TestOneProbeAtATime: while nobody knows whether a target is well again, it
// gets one request.
func TestOneProbeAtATime(t *testing.T) {
	t.Parallel()
	well, sick := newBackend(t), newBackend(t)
	sick.does(func(net.Conn, int) bool { return false })
	b := startBalanced(t, []*url.URL{well.url(), sick.url()})
	b.untilEjected(sick.url(), 1)
	release := make(chan struct{})
	sick.does(func(c net.Conn, _ int) bool {
		<-release
		_, err := io.WriteString(c, okAnswer)
		return err == nil
	})
	b.clock.Advance(time.Second)
	before := len(sick.saw())
	probe := b.dial()
	_, _ = io.WriteString(probe, get(product+"/proxy-list"))
	eventually(t, "the probe has arrived", func() bool { return len(sick.saw()) == before+1 })
	b.reads(30)
	if got := len(sick.saw()) - before; got != 1 {
		t.Errorf("the target got %d requests", got)
	}
	close(release)
	_, _ = io.ReadAll(probe)
	b.records.next(t)
	if !b.shows(upLine(sick.url(), 1)) {
		t.Errorf("the target answered its probe, and is out:\n%s", b.metrics())
	}
}

// TestMoreThanHalfIsNeverEjected: when everything is down, ejections count for
// nothing, and what comes back is used at once.
func TestMoreThanHalfIsNeverEjected(t *testing.T) {
	t.Parallel()
	for _, count := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			t.Parallel()
			var all []*backend
			var targets []*url.URL
			for range count {
				one := newBackend(t)
				one.does(func(net.Conn, int) bool { return false })
				all, targets = append(all, one), append(targets, one.url())
			}
			b := startBalanced(t, targets)
			for range 60 {
				if a, _ := b.do(get(product + "/proxy-list")); a.Status != 502 {
					t.Fatalf("got %d, want 502", a.Status)
				}
			}
			for _, target := range targets {
				if !b.shows(upLine(target, 0)) {
					t.Errorf("%s is in:\n%s", target, b.metrics())
				}
			}
			for _, one := range all {
				one.says(okAnswer)
			}
			b.reads(20)
		})
	}
}

// TestClientsEjectNobody: what breaks off for a client's fault, comes late or
// is answered with an error says nothing about a target.
func TestClientsEjectNobody(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		raw    string
		answer func(c net.Conn, _ int) bool
	}{
		"a broken body": {raw: strings.Replace(request("POST", product+"/settings", ""), "Connection: close\r\n", "Transfer-Encoding: chunked\r\n", 1) + "zz\r\n"},
		"a body that is too large": {raw: request("POST", product+"/settings", "", "Transfer-Encoding: chunked") +
			fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", maxBody+1, strings.Repeat("a", maxBody+1))},
		"an error": {raw: get(product + "/proxy-list"), answer: func(c net.Conn, _ int) bool {
			_, err := io.WriteString(c, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		}},
		"garbage": {raw: get(product + "/proxy-list"), answer: func(c net.Conn, _ int) bool {
			_, _ = io.WriteString(c, "garbage\r\n\r\n")
			return false
		}},
		"lateness": {raw: get(product + "/proxy-list"), answer: func(c net.Conn, _ int) bool {
			_, _ = c.Read(make([]byte, 1)) // until the gateway gives up
			return false
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one := newBackend(t)
			if row.answer != nil {
				one.does(row.answer)
			}
			b := startBalanced(t, []*url.URL{one.url()}, func(o *proxy.UpstreamOptions) { o.Timeout = 50 * time.Millisecond })
			for range 5 {
				b.raw(row.raw)
				b.records.next(t)
			}
			if !b.shows(upLine(one.url(), 1)) {
				t.Errorf("the target is out:\n%s", b.metrics())
			}
		})
	}
}

// TestUnhealthyTargetGetsNothing until its checks are good again. They carry
// nothing of a client.
func TestUnhealthyTargetGetsNothing(t *testing.T) {
	t.Parallel()
	var isSick atomic.Bool
	var checks, served atomic.Int64
	checked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			served.Add(1)
			return
		}
		checks.Add(1)
		if len(r.Header["Api-Token"])+len(r.Header["Authorization"])+len(r.Header["X-Gatehouse-Account"]) > 0 || r.Method != http.MethodGet {
			t.Errorf("a check was %s with %v", r.Method, r.Header)
		}
		if isSick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer checked.Close()
	at, _ := url.Parse(checked.URL)
	always := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer always.Close()
	other, _ := url.Parse(always.URL)
	b := startBalanced(t, []*url.URL{at, other}, func(o *proxy.UpstreamOptions) {
		o.HealthCheck = &proxy.HealthCheck{Path: "/healthz", Interval: 5 * time.Millisecond, Timeout: patience, Healthy: 2, Unhealthy: 3}
	})
	isSick.Store(true)
	eventually(t, "the target is out", func() bool { return b.shows(upLine(at, 0)) })
	before := served.Load()
	b.reads(30)
	if got := served.Load() - before; got != 0 {
		t.Errorf("the unhealthy target got %d requests", got)
	}
	isSick.Store(false)
	eventually(t, "the target is in", func() bool { return b.shows(upLine(at, 1)) })
	b.reads(60)
	if served.Load() == before {
		t.Error("the healthy target got no request")
	}
	b.stop()
	if last := checks.Load(); b.shows(upLine(at, 1)) || checks.Load() != last {
		t.Errorf("a closed upstream is still there:\n%s", b.metrics())
	}
}

// TestRestIsNotOverrun: two of three targets are out, which is more than half,
// so they get requests all the same.
func TestRestIsNotOverrun(t *testing.T) {
	t.Parallel()
	well, first, second := newBackend(t), newBackend(t), newBackend(t)
	cut := func(net.Conn, int) bool { return false }
	first.does(cut)
	second.does(cut)
	b := startBalanced(t, []*url.URL{well.url(), first.url(), second.url()})
	for range 200 {
		if b.do(get(product + "/proxy-list")); b.shows(ejectionsLine(first.url(), 1)) && b.shows(ejectionsLine(second.url(), 1)) {
			break
		}
	}
	first.says(okAnswer)
	second.says(okAnswer)
	before := len(well.saw())
	b.reads(60)
	if got := len(well.saw()) - before; got > 50 {
		t.Errorf("of 60 requests the rest got %d", got)
	}
}
