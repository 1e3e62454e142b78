package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"gatehouse/proxy"
)

func TestTargetArrivesByteForByte(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"/proxy-list", "/proxy-list?", "/proxy-list??", "/proxy-list?a=1&a=2&b", "/proxy-list?a;b=1;c", "/proxy-list?%zz", "/proxy-list?a=%",
		"/proxy-list?%2e%2E%2f", "/proxy-list?a=%20+b&=&&=x&", "/proxy-list?a=b?c/../d//e", `/proxy-list?"<>\^{|}` + "`",
		"/proxy-list?" + strings.Repeat("a&", 20_000),
		"/proxy-list?api-token=" + good,
		"/files/a/b/", "/files/", "/files/%20%22%C3%A4", "/files/!$&'()*+,=:@-._~", "/files/%25", "/files/a%40b%3A", "/files/%5B%5D|"[:13],
	} {
		name := target
		if len(name) > 40 {
			name = name[:40]
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			if _, record := g.do(get(product + target)); record.Reason != "allowed" {
				t.Fatalf("recorded %s", record.Reason)
			}
			_, raw := g.backend.one(t)
			want := "GET " + product + target + " HTTP/1.1"
			if line, _, _ := strings.Cut(raw, "\r\n"); line != want {
				t.Errorf("the backend saw %q, want %q", line, want)
			}
		})
	}
}

// TestWriteReachesItsBackendAtMostOnce: a connection that was used before
// breaks when the backend has the request, which http.Transport would repeat.
func TestWriteReachesItsBackendAtMostOnce(t *testing.T) {
	t.Parallel()
	type sent struct{ method, path, body, line string }
	cases := []sent{{method: "GET", path: "/whitelist?type=add"}, {method: "HEAD", path: "/whitelist?type=add"}}
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"} {
		for _, line := range []string{"", "Idempotency-Key: 1", "X-Idempotency-Key: 1", "IDEMPOTENCY-KEY:", "Content-Length: 0", "Expect: 100-continue"} {
			cases = append(cases, sent{method, "/settings", "", line})
			if !strings.HasPrefix(line, "Content") {
				cases = append(cases, sent{method, "/settings", "body", line})
			}
		}
		cases = append(cases, sent{method, "/settings", "0\r\n\r\n", "Transfer-Encoding: chunked\r\nIdempotency-Key: 1"})
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s%s/%s/%d", c.method, c.path, c.line, len(c.body)), func(t *testing.T) {
			t.Parallel()
			g := start(t)
			breakSecond(g)
			lines := []string{}
			if c.line != "" {
				lines = append(lines, c.line)
			}
			raw := request(c.method, product+c.path, c.body, lines...)
			if strings.Contains(c.line, "chunked") {
				raw = strings.Replace(raw, "Content-Length: 5\r\n", "", 1)
			}
			text := g.raw(raw)
			if record := g.records.next(t); record.Status != http.StatusBadGateway || !strings.Contains(text, " 502 Bad Gateway\r\n") {
				t.Errorf("answered %q, want 502", text)
			}
			saw := g.backend.saw()
			if len(saw) != 2 || saw[0].connection != saw[1].connection {
				t.Errorf("the backend saw %+v, want the write once, on the connection of the first", saw)
			}
		})
	}
}

// breakSecond sends one request, and breaks the connection when the next has arrived.
func breakSecond(g *gate) {
	g.t.Helper()
	g.backend.does(func(c net.Conn, number int) bool {
		if number == 2 {
			return false
		}
		_, err := io.WriteString(c, okAnswer)
		return err == nil
	})
	g.do(get(product + "/proxy-list"))
}

// TestReadMayBeRepeated shows that the backend above does provoke a repetition.
func TestReadMayBeRepeated(t *testing.T) {
	t.Parallel()
	g := start(t)
	breakSecond(g)
	if a, _ := g.do(get(product + "/proxy-list")); a.Status != http.StatusOK || len(g.backend.saw()) != 3 {
		t.Errorf("status %d and %d requests, want 200 and 3", a.Status, len(g.backend.saw()))
	}
}

func TestWriteGetHasNoBodyOnTheWire(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"X: y", "Content-Length: 0"} {
		g := start(t)
		g.do(get(product+"/whitelist?type=add", line))
		_, raw := g.backend.one(t)
		if !strings.HasSuffix(raw, "\r\n\r\n") || strings.Contains(raw, "Content-Length") || strings.Contains(raw, "Transfer-Encoding") {
			t.Errorf("with %s the backend saw %q", line, raw)
		}
	}
}

func TestIdempotencyKeyArrives(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.do(request("POST", product+"/settings", "", "Idempotency-Key: a", "X-Idempotency-Key: b"))
	saw, raw := g.backend.one(t)
	if saw.Header.Get("Idempotency-Key") != "a" || saw.Header.Get("X-Idempotency-Key") != "b" {
		t.Errorf("the backend saw %q", raw)
	}
}

func TestAnswerThatIsNoneIsA502(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, answer string }{
		{"closed", ""},
		{"garbage", "garbage\r\n\r\n"},
		{"half a status line", "HTTP/1.1 20"},
		{"half the headers", "HTTP/1.1 200 OK\r\nContent-Le"},
		{"a broken length", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"},
		{"too many headers", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 300<<10) + "\r\n\r\n"},
		{"a status that is none", "HTTP/1.1 099 None\r\nContent-Length: 0\r\n\r\n"},
		{"a protocol without a name", "HTTP/1.1 101 Switching Protocols\r\n\r\nGET / HTTP/1.1\r\n\r\n"},
		{"a protocol nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\n\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			g.backend.does(func(c net.Conn, _ int) bool {
				_, _ = io.WriteString(c, row.answer)
				return false
			})
			a, record := g.do(get(product+"/proxy-list", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="))
			if a.Status != http.StatusBadGateway || record.Reason != "upstream_unreachable" || record.Cause == nil {
				t.Errorf("answered %d, recorded %s (%v), want 502 upstream_unreachable", a.Status, record.Reason, record.Cause)
			}
			if _, raw := g.backend.one(t); strings.Contains(strings.ToLower(raw), "upgrade") {
				t.Errorf("the backend saw an upgrade: %q", raw)
			}
		})
	}
}

func TestTLSBackendWithoutATrustedCertificateIsA502(t *testing.T) {
	t.Parallel()
	secured := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") }))
	secured.Config.ErrorLog = discardLog()
	secured.StartTLS()
	t.Cleanup(secured.Close)
	plain := newBackend(t).url()
	for name, host := range map[string]string{"unknown authority": secured.Listener.Addr().String(), "no TLS at all": plain.Host} {
		t.Run(name, func(t *testing.T) {
			g := start(t, func(s *setup) { s.upstream.Targets = []*url.URL{{Scheme: "https", Host: host}} })
			if a, record := g.do(get(product + "/proxy-list")); a.Status != http.StatusBadGateway {
				t.Errorf("answered %d (%v), want 502", a.Status, record.Cause)
			}
		})
	}
}

func TestBackendThatStopsReadingIsA504(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // what connects waits in the backlog and is never read
	g := start(t, func(s *setup) {
		s.options.MaxBody, s.upstream.Timeout = 1<<30, 300*time.Millisecond
		s.upstream.Targets = []*url.URL{{Scheme: "http", Host: l.Addr().String()}}
	})
	conn := g.dial()
	go func() { _, _ = io.WriteString(conn, request("POST", product+"/settings", strings.Repeat("a", 64<<20))) }()
	if record := g.records.next(t); record.Reason != "upstream_timeout" {
		t.Errorf("recorded %s (%v), want upstream_timeout", record.Reason, record.Cause)
	}
}

func TestForwardingPastTheGatewayIsRefused(t *testing.T) {
	t.Parallel()
	u, err := proxy.NewUpstream(proxy.UpstreamOptions{Targets: []*url.URL{closedPort()}, Timeout: patience, Log: newLog(io.Discard)})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := u.Serve(w, httptest.NewRequest(http.MethodGet, "/", nil), proxy.Access{}); err == nil || w.Body.Len() > 0 {
		t.Errorf("got %v and %q, want an error and nothing written", err, w.Body)
	}
}

// TestGoldenInformationalAnswers: 1xx answers are passed on, less what only
// Gatehouse may say, and take nothing away from the answer that follows.
func TestGoldenInformationalAnswers(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]string{
		"early_hints":             okAnswer,
		"early_hints_and_failure": "garbage\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			g.backend.says("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Gatehouse-Account: evil\r\nX_Gatehouse_Account: evil\r\nX-Request-Id: evil\r\n\r\n" +
				"HTTP/1.1 102 Processing\r\n\r\n" + last)
			text := g.raw(get(product + "/proxy-list"))
			golden(t, "answers/"+name, steady(text))
			record := g.records.next(t)
			if strings.Contains(text, "evil") || strings.Count(text, "X-Request-Id: "+record.RequestID) != 3 {
				t.Errorf("the client saw %q", text)
			}
		})
	}
}

// TestGoldenAnswerIsPassedOnLessWhatOnlyGatehouseMaySay: everything else stays.
func TestGoldenAnswerIsPassedOnLessWhatOnlyGatehouseMaySay(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"headers": "HTTP/1.1 418 I'm a teapot\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 2\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\n" +
			"Location: http://elsewhere/../x\r\nWWW-Authenticate: Basic\r\nCache-Control: public\r\nServer: product\r\nX-Empty:\r\nX-Request-Id: evil\r\n" +
			"X-Gatehouse-Account: evil\r\nx-gatehouse-Foo: evil\r\nX_GATEHOUSE_KEY_ID: evil\r\n" +
			"Connection: X-Named, keep-alive\r\nX-Named: evil\r\nKeep-Alive: evil\r\nProxy-Authenticate: evil\r\nProxy-Connection: evil\r\n\r\nok",
		"trailers": "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Gatehouse-Account, X-Request-Id\r\n\r\n" +
			"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Gatehouse-Account: evil\r\nX_Gatehouse_Foo: evil\r\nX-Request-Id: evil\r\n\r\n",
		"no_content": "HTTP/1.1 204 No Content\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: \"x\"\r\n\r\n",
		"redirect":   "HTTP/1.1 302 Found\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nLocation: /v4/account/x\r\nContent-Length: 0\r\n\r\n",
		"compressed": "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			g.backend.says(text)
			got := g.raw(get(product+"/proxy-list", "TE: trailers"))
			if strings.Contains(got, "evil") {
				t.Errorf("the client saw %q", got)
			}
			if record := g.records.next(t); strings.Count(got, "X-Request-Id") != 1 || !strings.Contains(got, record.RequestID) {
				t.Errorf("the client saw %q, want the request id %s once", got, record.RequestID)
			}
			golden(t, "answers/"+name, steady(got))
		})
	}
}

// TestEventsArriveAsTheyAreSent: the backend sends the next event only when
// the client has the one before.
func TestEventsArriveAsTheyAreSent(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"event stream":   "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked",
		"unknown length": "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			received := make(chan struct{})
			g.backend.does(func(c net.Conn, _ int) bool {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+head+"\r\n\r\n")
				for range 3 {
					_, _ = io.WriteString(c, "6\r\nevent\n\r\n")
					<-received
				}
				_, err := io.WriteString(c, "0\r\n\r\n")
				return err == nil
			})
			conn := g.dial()
			_, _ = io.WriteString(conn, get(product+"/proxy-list"))
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = r.Body.Close() }()
			lines := bufio.NewReader(r.Body)
			for range 3 {
				if line, err := lines.ReadString('\n'); err != nil || line != "event\n" {
					t.Errorf("got %q, %v", line, err)
				}
				received <- struct{}{}
			}
			if _, err := lines.ReadByte(); err != io.EOF {
				t.Errorf("got %v, want the end", err)
			}
		})
	}
}

// TestBodiesAreStreamed: 64 MiB each way allocate next to nothing. It is not
// parallel, because it counts what the process allocates.
func TestBodiesAreStreamed(t *testing.T) {
	const size = 64 << 20
	product := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); n != size || err != nil {
			t.Errorf("the backend got %d bytes and %v, want %d", n, err, size)
		}
		_, _ = io.Copy(w, io.LimitReader(zeros{}, size))
	}))
	defer product.Close()
	target, err := url.Parse(product.URL)
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, func(s *setup) {
		s.options.MaxBody, s.upstream.Targets = size, []*url.URL{target}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	conn := g.dial()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		_, _ = io.WriteString(conn, request("POST", "/v4/account/"+string(subA)+"/datacenter_shared/settings", "", fmt.Sprintf("Content-Length: %d", size)))
		_, _ = io.Copy(conn, io.LimitReader(zeros{}, size))
	}()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r.Body)
	_ = r.Body.Close()
	if n != size || err != nil {
		t.Errorf("the client got %d bytes and %v, want %d", n, err, size)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > size/16 {
		t.Errorf("allocated %d KiB for two bodies of %d KiB", allocated>>10, size>>10)
	}
	if record := g.records.next(t); record.BytesIn != size || record.BytesOut != size {
		t.Errorf("recorded %d bytes in and %d out", record.BytesIn, record.BytesOut)
	}
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func BenchmarkForward(b *testing.B) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"success":true}`)
	}))
	defer target.Close()
	backend, err := url.Parse(target.URL)
	if err != nil {
		b.Fatal(err)
	}
	body := strings.Repeat("a", 1024)
	for _, row := range []struct{ name, method, path, body string }{
		{"get", http.MethodGet, product + "/proxy-list", ""},
		{"post_1k", http.MethodPost, product + "/settings", body},
	} {
		b.Run(row.name, func(b *testing.B) {
			g := start(b, func(s *setup) {
				s.upstream.Targets, s.options.Records = []*url.URL{backend}, discardRecords{}
			})
			client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequest(row.method, "http://"+g.addr+row.path, strings.NewReader(row.body))
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Api-Token", good)
				answer, err := client.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				if _ = answer.Body.Close(); answer.StatusCode != http.StatusOK {
					b.Fatalf("status %d", answer.StatusCode)
				}
			}
			client.CloseIdleConnections()
		})
	}
}

// A backend that answers HEAD with a body must not hand that body to whoever
// uses the connection next.
func TestHeadNeverSharesItsConnection(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.backend.says(okAnswer)
	g.raw("HEAD " + product + "/proxy-list HTTP/1.1\r\nHost: x\r\nConnection: close\r\nApi-Token: " + good + "\r\n\r\n")
	if seen := g.backend.next(t); !strings.Contains(seen.raw, "Connection: close\r\n") {
		t.Errorf("the backend saw %q, want it to be asked to close", seen.raw)
	}
}
