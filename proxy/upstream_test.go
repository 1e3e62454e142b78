package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatehouse/proxy"
)

// arrival is a request as it came, on which connection, and whether it was whole.
type arrival struct {
	raw        string
	connection int
	whole      bool
}

// backend is a product. It remembers every request byte for byte.
type backend struct {
	t        testing.TB
	listener net.Listener
	arrived  chan arrival
	mu       sync.Mutex
	requests []arrival
	answer   func(c net.Conn, number int) (keep bool)
	wg       sync.WaitGroup
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func newBackend(t testing.TB) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{t: t, listener: l, arrived: make(chan arrival, 1000)}
	b.says(okAnswer)
	b.wg.Go(b.listen)
	t.Cleanup(b.stop)
	return b
}

func (b *backend) stop() {
	_ = b.listener.Close()
	b.wg.Wait()
}

// says makes the backend answer everything with the same bytes.
func (b *backend) says(text string) {
	b.does(func(c net.Conn, _ int) bool {
		_, err := io.WriteString(c, text)
		return err == nil
	})
}

// does makes the backend answer with a function, which gets the number of the
// request (from 1) and reports whether to keep the connection.
func (b *backend) does(answer func(c net.Conn, number int) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

func (b *backend) url() *url.URL { return &url.URL{Scheme: "http", Host: b.listener.Addr().String()} }

func (b *backend) listen() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for number := 1; ; number++ {
		conn, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.wg.Go(func() {
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			defer func() { _ = conn.Close() }()
			b.converse(conn, number)
		})
	}
}

// converse reads one request after the other, each before it is answered.
func (b *backend) converse(conn net.Conn, connection int) {
	var sent bytes.Buffer
	in := bufio.NewReader(io.TeeReader(conn, &sent))
	for {
		r, err := http.ReadRequest(in)
		if err == nil && r.Header.Get("Expect") != "" {
			_, err = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
		}
		if sent.Len() > 0 {
			came := arrival{raw: sent.String(), connection: connection, whole: err == nil}
			sent.Reset()
			b.mu.Lock()
			b.requests = append(b.requests, came)
			number, answer := len(b.requests), b.answer
			b.mu.Unlock()
			b.arrived <- came
			if err == nil && answer(conn, number) {
				continue
			}
		}
		return
	}
}

// saw returns every request so far.
func (b *backend) saw() []arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.requests)
}

// next waits for the next request that is whole, or broke off.
func (b *backend) next(t testing.TB) arrival {
	t.Helper()
	select {
	case a := <-b.arrived:
		return a
	case <-time.After(patience):
		t.Fatal("nothing reached the backend")
		panic("unreachable")
	}
}

// sawNothing fails the test when a request has reached the backend.
func (b *backend) sawNothing(t testing.TB) {
	t.Helper()
	if saw := b.saw(); len(saw) > 0 {
		t.Errorf("the backend saw %+v, want nothing", saw)
	}
}

// one parses the only request that the backend saw.
func (b *backend) one(t testing.TB) (*http.Request, string) {
	t.Helper()
	saw := b.saw()
	if len(saw) != 1 {
		t.Fatalf("the backend saw %d requests, want one: %+v", len(saw), saw)
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(saw[0].raw)))
	if err != nil {
		t.Fatal(err)
	}
	return r, saw[0].raw
}

func TestUpstreamNeedsPlainTargets(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		target string
		ok     bool
	}{
		{"http://backend", true},
		{"https://backend:8443", true},
		{"http://[::1]:80", true},
		{"backend:80", false},
		{"ftp://backend", false},
		{"h2c://backend", true},
		{"http://", false},
		{"http://backend/", false},
		{"http://backend/base", false},
		{"http://backend?a=b", false},
		{"http://name:password@backend", false},
	} {
		target, err := url.Parse(row.target)
		if err != nil {
			t.Fatal(err)
		}
		u, err := proxy.NewUpstream(proxy.UpstreamOptions{Name: "x", Targets: []*url.URL{target}, Timeout: time.Second, Log: zap.NewNop()})
		if (err == nil) != row.ok || (u == nil) == row.ok {
			t.Errorf("%s: %v", row.target, err)
		}
		if err != nil && strings.Contains(err.Error(), "password") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func TestUpstreamNeedsItsOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]proxy.UpstreamOptions{
		"targets": {Timeout: time.Second, Log: zap.NewNop()},
		"timeout": {Targets: []*url.URL{closedPort()}, Log: zap.NewNop()},
		"log":     {Targets: []*url.URL{closedPort()}, Timeout: time.Second},
	} {
		if _, err := proxy.NewUpstream(o); err == nil {
			t.Errorf("an upstream without %s, want an error", name)
		}
	}
}

// TestLessBusyTargetIsPreferred: while one target is at work on a request,
// the other gets all that come.
func TestLessBusyTargetIsPreferred(t *testing.T) {
	t.Parallel()
	first, second := newBackend(t), newBackend(t)
	release := make(chan struct{})
	hold := func(c net.Conn, _ int) bool {
		<-release
		_, err := io.WriteString(c, okAnswer)
		return err == nil
	}
	g := start(t, func(s *setup) { s.upstream.Targets = []*url.URL{first.url(), second.url()} })
	first.does(hold)
	second.does(hold)
	held := g.dial()
	_, _ = io.WriteString(held, get(product+"/proxy-list"))
	var busy, free *backend
	select {
	case <-first.arrived:
		busy, free = first, second
	case <-second.arrived:
		busy, free = second, first
	}
	free.says(okAnswer)
	for range 20 {
		g.do(get(product + "/proxy-list"))
	}
	if len(busy.saw()) != 1 || len(free.saw()) != 20 {
		t.Errorf("the busy target saw %d requests and the free one %d, want 1 and 20", len(busy.saw()), len(free.saw()))
	}
	close(release)
	if _, err := io.ReadAll(held); err != nil {
		t.Fatal(err)
	}
	g.records.next(t)
	before := len(busy.saw())
	for range 100 {
		g.do(get(product + "/proxy-list"))
	}
	if got := len(busy.saw()) - before; got < 20 || got > 80 {
		t.Errorf("of 100 requests to two idle targets one got %d", got)
	}
}

// TestTargetThatFailsIsIdleAgain: a failure must not count as a request that
// goes on for ever.
func TestTargetThatFailsIsIdleAgain(t *testing.T) {
	t.Parallel()
	first, second := newBackend(t), newBackend(t)
	g := start(t, func(s *setup) { s.upstream.Targets = []*url.URL{first.url(), second.url()} })
	broken := func(c net.Conn, _ int) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
		return false
	}
	first.does(broken)
	for range 20 {
		g.raw(get(product + "/proxy-list"))
		g.records.next(t)
	}
	first.says(okAnswer)
	before := len(first.saw())
	for range 60 {
		g.do(get(product + "/proxy-list"))
	}
	if got := len(first.saw()) - before; got < 10 {
		t.Errorf("of 60 requests the target that had failed got %d", got)
	}
}

func TestClosedUpstreamKeepsNoConnection(t *testing.T) {
	t.Parallel()
	var upstream *proxy.Upstream
	g := start(t, func(s *setup) {
		u, err := proxy.NewUpstream(s.upstream)
		if err != nil {
			t.Fatal(err)
		}
		upstream, s.backend = u, u
	})
	for range 2 {
		g.do(get(product + "/proxy-list"))
	}
	upstream.Close()
	g.do(get(product + "/proxy-list"))
	saw := g.backend.saw()
	if saw[0].connection != saw[1].connection || saw[1].connection == saw[2].connection {
		t.Errorf("the connections were %d, %d and, after Close, %d", saw[0].connection, saw[1].connection, saw[2].connection)
	}
}

// TestNoProxyOfTheEnvironmentIsAsked: a gateway is configured by its file alone.
func TestNoProxyOfTheEnvironmentIsAsked(t *testing.T) {
	if p := proxy.NewTransport(time.Second).Proxy; p != nil {
		t.Error("the transport has a proxy function")
	}
}

func TestBufferPoolLendsWholeBuffers(t *testing.T) {
	t.Parallel()
	var pool proxy.BufferPool
	b := pool.Get()
	pool.Put(b[:10]) // not one of its own
	pool.Put(b)
	if got := pool.Get(); len(got) != len(b) {
		t.Errorf("lent %d bytes, want %d", len(got), len(b))
	}
}
