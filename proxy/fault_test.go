package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/proxy"
)

const (
	lengthHead    = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
	lengthAnswer  = lengthHead + "0123456789"
	chunkedHead   = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	chunkedAnswer = chunkedHead + "5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"
)

// brokenOff is the status of an answer that the client sees begin and break.
const brokenOff = -1

// TestFaults: whatever a backend or the network does, the client gets the
// promised answer or sees its answer break off, the next request is answered as
// ever, and no goroutine or connection is left. It counts goroutines, and so
// runs alone.
func TestFaults(t *testing.T) {
	unending := "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 1<<20)
	for _, row := range []struct {
		name   string
		answer string // of the backend
		fault  fault
		status int
		code   string
		body   string
		keeps  bool // the connection is used again
	}{
		{"nothing", lengthAnswer, pass, 200, "allowed", "0123456789", true},
		{"chunks", chunkedAnswer, pass, 200, "allowed", "firstsecond", true},
		{"reset at once", lengthAnswer, after(0, reset), 502, "upstream_unreachable", "", false},
		{"closed at once", lengthAnswer, after(0, end), 502, "upstream_unreachable", "", false},
		{"half-closed at once", lengthAnswer, after(0, halfClose), 502, "upstream_unreachable", "", false},
		{"blackhole", lengthAnswer, after(0, hang), 504, "upstream_timeout", "", false},
		{"blackhole in the headers", lengthAnswer, after(20, hang), 504, "upstream_timeout", "", false},
		{"cut in the status line", lengthAnswer, after(10, end), 502, "upstream_unreachable", "", false},
		{"cut in the headers", lengthAnswer, after(20, end), 502, "upstream_unreachable", "", false},
		{"reset in the headers", lengthAnswer, after(20, reset), 502, "upstream_unreachable", "", false},
		{"half-closed in the headers", lengthAnswer, after(20, halfClose), 502, "upstream_unreachable", "", false},
		{"cut in the body", lengthAnswer, after(int64(len(lengthHead))+4, end), brokenOff, "response_aborted", "0123456789", false},
		{"reset in the body", lengthAnswer, after(int64(len(lengthHead))+4, reset), brokenOff, "response_aborted", "0123456789", false},
		{"half-closed in the body", lengthAnswer, after(int64(len(lengthHead))+4, halfClose), brokenOff, "response_aborted", "0123456789", false},
		{"cut in a chunk", chunkedAnswer, after(int64(len(chunkedHead))+15, end), brokenOff, "response_aborted", "firstsecond", false},
		{"cut in the size of a chunk", chunkedAnswer, after(int64(len(chunkedHead))+11, end), brokenOff, "response_aborted", "firstsecond", false},
		{"cut before the last chunk", chunkedAnswer, after(int64(len(chunkedAnswer))-5, end), brokenOff, "response_aborted", "firstsecond", false},
		{"half-closed before the last chunk", chunkedAnswer, after(int64(len(chunkedAnswer))-5, halfClose), brokenOff, "response_aborted", "firstsecond", false},
		{"garbage in the place of a chunk", chunkedAnswer, instead(chunkedHead + "5\r\nfirst\r\nzz\r\n"), brokenOff, "response_aborted", "firstsecond", false},
		{"garbage", lengthAnswer, instead("\x00\x01\x02garbage\r\n\r\n"), 502, "upstream_unreachable", "", false},
		{"another protocol", lengthAnswer, instead("SSH-2.0-OpenSSH_9.9\r\n"), 502, "upstream_unreachable", "", false},
		{"garbage in the headers", lengthAnswer, instead("HTTP/1.1 200 OK\r\nNo header\r\n\r\n"), 502, "upstream_unreachable", "", false},
		{"headers without end", lengthAnswer, instead(unending), 502, "upstream_unreachable", "", false},
		{"interim answers without end", lengthAnswer, instead(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000)), 502, "upstream_unreachable", "", false},
		{"half-closed behind a whole answer", lengthAnswer, after(int64(len(lengthAnswer)), halfClose), 200, "allowed", "0123456789", false},
		{"closed behind a whole answer", chunkedAnswer, after(int64(len(chunkedAnswer)), end), 200, "allowed", "firstsecond", false},
		{"an answer twice", lengthAnswer, instead(lengthAnswer + strings.Replace(lengthAnswer, "0123456789", "stranger's", 1)), 200, "allowed", "0123456789", false},
		{"chunks twice", chunkedAnswer, instead(chunkedAnswer + chunkedAnswer), 200, "allowed", "firstsecond", false},
		{"a body longer than it says", lengthAnswer, instead(lengthAnswer + "more"), 200, "allowed", "0123456789", false},
	} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(row.name+"/"+method, func(t *testing.T) {
				settled := goroutinesSettle(t)
				b := newBackend(t)
				f := newFaulty(t, b)
				g := start(t, func(s *setup) {
					s.upstream.Targets = []*url.URL{f.url()}
					if row.status == http.StatusGatewayTimeout {
						s.upstream.Timeout = 150 * time.Millisecond
					}
				})
				raw := get(product + "/proxy-list")
				if method == "POST" {
					raw = request("POST", product+"/settings", "a body")
				}
				b.says(row.answer)
				f.does(row.fault)
				status, body := g.outcome(raw)
				record := g.records.next(t)
				if status != row.status || record.Reason != row.code {
					t.Errorf("got %d %q, recorded as %s (%v); want %d and %s", status, body, record.Reason, record.Cause, row.status, row.code)
				}
				isWhole := body == row.body || row.body == ""
				if !isWhole && (row.status != brokenOff || !strings.HasPrefix(row.body, body)) {
					t.Errorf("the client got %q, want %q, or what came of it", body, row.body)
				}
				if !row.keeps {
					eventually(t, "the connection is closed", func() bool { return f.connections() == 0 })
				}
				f.does(pass)
				b.says(okAnswer)
				for range 3 {
					if status, body := g.outcome(raw); status != 200 || body != "ok" {
						t.Errorf("the request after it got %d %q, want 200 and ok (%v)", status, body, g.records.next(t).Cause)
						break
					}
					g.records.next(t)
				}
				g.stop()
				eventually(t, "every connection to the backend is closed", func() bool { return f.connections() == 0 })
				f.close()
				b.stop()
				settled()
			})
		}
	}
}

// TestRefusedConnectionIsA502 also where there were connections before.
func TestRefusedConnectionIsA502(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	f := newFaulty(t, b)
	g := start(t, func(s *setup) { s.upstream.Targets = []*url.URL{f.url()} })
	g.do(get(product + "/proxy-list"))
	f.refuse()
	for _, raw := range []string{get(product + "/proxy-list"), request("POST", product+"/settings", "a body"), get(product + "/whitelist?type=add")} {
		if _, record := g.do(raw); record.Status != 502 || record.Reason != "upstream_unreachable" {
			t.Errorf("recorded %d %s (%v)", record.Status, record.Reason, record.Cause)
		}
	}
}

// TestSlowAnswerIsAnAnswer within the timeout.
func TestSlowAnswerIsAnAnswer(t *testing.T) {
	t.Parallel()
	f := newFaulty(t, newBackend(t))
	release := make(chan struct{})
	f.does(onceReleased(release))
	g := start(t, func(s *setup) { s.upstream.Targets = []*url.URL{f.url()} })
	conn := g.dial()
	_, _ = io.WriteString(conn, get(product+"/proxy-list"))
	eventually(t, "the backend is at work", func() bool { return f.connections() == 1 })
	close(release)
	text, _ := io.ReadAll(conn)
	if a := parseAnswer(t, "GET", string(text)); a.Status != 200 || a.Body != "ok" {
		t.Errorf("got %d %q", a.Status, a.Body)
	}
}

// TestSecondAnswerIsNobodys: what a backend sends behind an answer never is the
// answer to the next request, however fast that comes.
func TestSecondAnswerIsNobodys(t *testing.T) {
	t.Parallel()
	const clients, requests = 8, 300
	b := newBackend(t)
	b.arrived = make(chan arrival, 2*clients*requests)
	b.says("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nstranger's")
	g := newGate(t, func(s *setup) {
		s.upstream.Targets = []*url.URL{b.url()}
		s.options.Records = discardRecords{}
		s.upstream.Ejection = proxy.Ejection{Failures: 1 << 30}
	})
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for range requests {
				r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
				r.Header.Set("Api-Token", good)
				w := httptest.NewRecorder()
				g.gateway.ServeHTTP(w, r)
				if strings.Contains(w.Body.String(), "stranger") {
					t.Error("a client got the answer that nobody asked for")
					return
				}
			}
		})
	}
	running.Wait()
}

// outcome is the status of an answer and its body as far as it came.
func (g *gate) outcome(raw string) (status int, body string) {
	g.t.Helper()
	method, _, _ := strings.Cut(raw, " ")
	conn := g.dial()
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, raw); err != nil {
		g.t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	var r *http.Response
	for {
		var err error
		if r, err = http.ReadResponse(in, &http.Request{Method: method}); err != nil {
			// Where the backend broke off at once, nothing may have been flushed.
			return brokenOff, ""
		}
		if r.StatusCode >= 200 {
			break
		}
	}
	got, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		return brokenOff, string(got)
	}
	return r.StatusCode, string(got)
}

// goroutinesSettle returns a function that waits until there are no more
// goroutines than now.
func goroutinesSettle(t *testing.T) func() {
	t.Helper()
	base := runtime.NumGoroutine()
	return func() {
		t.Helper()
		eventually(t, fmt.Sprintf("there are %d goroutines again", base), func() bool { return runtime.NumGoroutine() <= base })
	}
}

// eventually fails the test unless it becomes true in time.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-timeout.C:
			buffer := make([]byte, 1<<20)
			t.Fatalf("not within %s: %s\n%s", patience, what, buffer[:runtime.Stack(buffer, true)])
		case <-tick.C:
		}
	}
}
