package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/proxy"
)

// TestRequestGoesToAnotherTarget when one cannot be connected to, whatever its
// method, and once and whole.
func TestRequestGoesToAnotherTarget(t *testing.T) {
	t.Parallel()
	well := newBackend(t)
	b := startBalanced(t, []*url.URL{closedPort(), well.url()}, func(o *proxy.UpstreamOptions) { o.Ejection.Failures = 1 << 30 })
	sent := 0
	for range 5 {
		for _, raw := range []string{
			get(product + "/proxy-list"), get(product + "/whitelist?type=add"), request("POST", product+"/settings", "the body"),
			request("PUT", product+"/settings", ""), request("DELETE", product+"/settings", ""), request("PATCH", product+"/settings", "the body", "Expect: 100-continue"),
		} {
			text := b.raw(raw)
			if record := b.records.next(t); record.Status != 200 {
				t.Errorf("%q got %q (%v)", raw, text, record.Cause)
			}
			sent++
		}
	}
	saw := well.saw()
	if len(saw) != sent {
		t.Errorf("the backend saw %d requests, want %d", len(saw), sent)
	}
	for _, one := range saw {
		if isPost := strings.HasPrefix(one.raw, "POST"); !one.whole || isPost && !strings.HasSuffix(one.raw, "\r\n\r\nthe body") {
			t.Errorf("the backend saw %q", one.raw)
		}
	}
	if b.shows(`gatehouse_upstream_retries_total{upstream="test"} 0`) {
		t.Error("no request was sent once more, which proves nothing")
	}
}

// TestOnlyReadsAreSentToAnotherTarget when a connection breaks behind the
// request: a backend may have acted on it.
func TestOnlyReadsAreSentToAnotherTarget(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, raw string
		isRead    bool
	}{
		{"a read", get(product + "/proxy-list"), true},
		{"a read by HEAD", request("HEAD", product+"/proxy-list", ""), true},
		{"a read with a body", request("GET", product+"/files/a", "a body"), false},
		{"a write by GET", get(product + "/whitelist?type=add"), false},
		{"a write by GET, said to be repeatable", get(product+"/whitelist?type=add", "Idempotency-Key: 1"), false},
		{"a write", request("POST", product+"/settings", "a body"), false},
		{"a write without a body", request("POST", product+"/settings", ""), false},
		{"a write, said to be repeatable", request("POST", product+"/settings", "", "Idempotency-Key: 1", "X-Idempotency-Key: 1"), false},
		{"a DELETE", request("DELETE", product+"/settings", ""), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			first, second := newBackend(t), newBackend(t)
			for _, b := range []*backend{first, second} {
				b.does(func(c net.Conn, number int) bool { return false })
			}
			g := start(t, func(s *setup) { s.upstream.Targets = []*url.URL{first.url(), second.url()} })
			g.raw(row.raw)
			record := g.records.next(t)
			want := [2]int{1, 0}
			if row.isRead {
				want = [2]int{1, 1}
			}
			got := [2]int{max(len(first.saw()), len(second.saw())), min(len(first.saw()), len(second.saw()))}
			if got != want || record.Status != 502 {
				t.Errorf("the targets saw %v requests, and the client got %d; want %v and 502", got, record.Status, want)
			}
		})
	}
}

// TestReadIsAnsweredByAnotherTarget, unless anything of an answer has come.
func TestReadIsAnsweredByAnotherTarget(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		came   string
		status int
	}{{"", 200}, {"HTTP/1.1 1", 502}, {"HTTP/1.1 103 Early Hints\r\n\r\n", 502}} {
		t.Run(fmt.Sprintf("%q", row.came), func(t *testing.T) {
			t.Parallel()
			broken, well := newBackend(t), newBackend(t)
			broken.does(func(c net.Conn, _ int) bool {
				_, _ = io.WriteString(c, row.came)
				return false
			})
			g := start(t, func(s *setup) {
				s.upstream.Targets = []*url.URL{broken.url(), well.url()}
				s.upstream.Ejection.Failures = 1 << 30
			})
			for len(broken.saw()) == 0 {
				status, _ := g.outcome(get(product + "/proxy-list"))
				if record := g.records.next(t); len(broken.saw()) > 0 && status != row.status {
					t.Errorf("got %d (%v), want %d", status, record.Cause, row.status)
				}
			}
		})
	}
}

func TestTooManyRequestsInFlightAreA503(t *testing.T) {
	t.Parallel()
	one := newBackend(t)
	release := make(chan struct{})
	one.does(func(c net.Conn, _ int) bool {
		<-release
		_, err := io.WriteString(c, okAnswer)
		return err == nil
	})
	b := startBalanced(t, []*url.URL{one.url()}, func(o *proxy.UpstreamOptions) { o.MaxInFlight = 2 })
	var held []net.Conn
	for range 2 {
		conn := b.dial()
		_, _ = io.WriteString(conn, get(product+"/proxy-list"))
		one.next(t)
		held = append(held, conn)
	}
	if !b.shows(`gatehouse_upstream_in_flight{upstream="test"} 2`) {
		t.Errorf("the metrics are\n%s", b.metrics())
	}
	a, record := b.do(get(product + "/proxy-list"))
	if a.Status != 503 || record.Reason != "upstream_overloaded" || a.Header.Get("Retry-After") != "1" || len(one.saw()) != 2 {
		t.Errorf("got %d %v, recorded as %s", a.Status, a.Header, record.Reason)
	}
	close(release)
	for _, conn := range held {
		_, _ = io.ReadAll(conn)
		b.records.next(t)
	}
	b.reads(1)
	if !b.shows(`gatehouse_upstream_in_flight{upstream="test"} 0`) {
		t.Errorf("the metrics are\n%s", b.metrics())
	}
}

// TestRouteHasItsOwnTimeout, longer or shorter than the upstream's.
func TestRouteHasItsOwnTimeout(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		upstream, route time.Duration
		status          int
	}{{patience, 50 * time.Millisecond, 504}, {50 * time.Millisecond, patience, 200}} {
		t.Run(row.route.String(), func(t *testing.T) {
			t.Parallel()
			g := start(t, func(s *setup) {
				s.upstream.Timeout = row.upstream
				u, err := proxy.NewUpstream(s.upstream)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(u.Close)
				s.backend = u
				list, err := proxy.NewRoutes(nil, []proxy.RouteSpec{{Match: "GET /slow", Permission: readPermission, Backend: u, Timeout: row.route}})
				if err != nil {
					t.Fatal(err)
				}
				s.options.Routes = list
			})
			g.backend.does(func(c net.Conn, _ int) bool {
				wait := time.NewTimer(200 * time.Millisecond)
				defer wait.Stop()
				<-wait.C
				_, err := io.WriteString(c, okAnswer)
				return err == nil
			})
			if a, record := g.do(get("/slow")); a.Status != row.status {
				t.Errorf("got %d (%v), want %d", a.Status, record.Cause, row.status)
			}
		})
	}
}

// TestConnectionGrowsOld: it is used until its age, and then no more, and what
// is under way on it goes on.
func TestConnectionGrowsOld(t *testing.T) {
	t.Parallel()
	one := newBackend(t)
	b := startBalanced(t, []*url.URL{one.url()}, func(o *proxy.UpstreamOptions) { o.MaxConnectionAge = time.Minute })
	b.reads(2)
	b.clock.Advance(48*time.Second - time.Millisecond)
	b.reads(1)
	release := make(chan struct{})
	one.does(func(c net.Conn, _ int) bool {
		<-release
		_, err := io.WriteString(c, okAnswer)
		return err == nil
	})
	held := b.dial()
	_, _ = io.WriteString(held, get(product+"/proxy-list"))
	eventually(t, "a request is under way", func() bool { return len(one.saw()) == 4 })
	one.says(okAnswer)
	b.clock.Advance(12*time.Second + time.Millisecond)
	b.reads(2)
	close(release)
	text, _ := io.ReadAll(held)
	if a := parseAnswer(t, "GET", string(text)); a.Status != 200 {
		t.Errorf("the request under way got %d", a.Status)
	}
	b.records.next(t)
	b.reads(1)
	saw := one.saw()
	for i, connection := range []int{0, 0, 0, 0, 1, 1, 1} {
		if got := saw[i].connection - saw[0].connection; got != connection {
			t.Errorf("request %d came on connection %d, want %d", i, got, connection)
		}
	}
}

// TestReadIsSentAgainOnce: however many stale connections there are.
func TestReadIsSentAgainOnce(t *testing.T) {
	t.Parallel()
	const idle = 8
	g := start(t)
	together := make(chan struct{})
	var arrived atomic.Int64
	g.backend.does(func(c net.Conn, _ int) bool {
		if arrived.Add(1) == idle {
			close(together)
		}
		select {
		case <-together:
		case <-t.Context().Done():
			return false
		}
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		return err == nil
	})
	var all sync.WaitGroup
	for range idle {
		all.Go(func() { g.raw(get(product + "/proxy-list")) })
	}
	all.Wait()
	g.backend.does(func(net.Conn, int) bool { return false }) // every connection ends with the request
	before := len(g.backend.saw())
	a := parseAnswer(t, "GET", g.raw(get(product+"/proxy-list")))
	if asked := len(g.backend.saw()) - before; asked > 2 || a.Status != http.StatusBadGateway {
		t.Errorf("the backend was asked %d times, and the client got %d", asked, a.Status)
	}
}
