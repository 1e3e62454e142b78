package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"gatehouse/keystore"
	"gatehouse/proxy"
)

func trusting(prefixes ...string) func(*setup) {
	return func(s *setup) {
		s.options.Addresses.Header = "X-Forwarded-For"
		for _, p := range prefixes {
			s.options.Addresses.TrustedProxies = append(s.options.Addresses.TrustedProxies, netip.MustParsePrefix(p))
		}
	}
}

func backendFunc(f func(w http.ResponseWriter, r *http.Request) error) func(*setup) {
	return func(s *setup) {
		s.backend = proxy.BackendFunc(func(w http.ResponseWriter, r *http.Request, _ proxy.Access) error { return f(w, r) })
	}
}

func TestHalfAnAnswerIsNeverTakenForAWholeOne(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, answer string }{
		{"with a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal"},
		{"in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n"},
		{"a broken chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\nzz\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			g.backend.does(func(c net.Conn, _ int) bool {
				_, _ = io.WriteString(c, row.answer)
				return false
			})
			text := g.raw(get(product + "/proxy-list"))
			if text != "" {
				r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
				if err == nil {
					_, err = io.ReadAll(r.Body)
					_ = r.Body.Close()
				}
				if err == nil {
					t.Errorf("the client saw a whole answer: %q", text)
				}
			}
			if record := g.records.next(t); record.Reason != "response_aborted" || record.Status != http.StatusOK {
				t.Errorf("recorded %d %s, want 200 response_aborted", record.Status, record.Reason)
			}
		})
	}
}

func TestPanicInAnAnswerBreaksItOffAndIsRecorded(t *testing.T) {
	t.Parallel()
	g := start(t, backendFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "begun")
		panic("inside")
	}))
	conn := g.dial()
	_, _ = io.WriteString(conn, get(product+"/proxy-list"))
	if text, _ := io.ReadAll(conn); strings.Contains(string(text), "0\r\n\r\n") || strings.Contains(string(text), "inside") {
		t.Errorf("the client saw %q", text)
	}
	record := g.records.next(t)
	if record.Status != http.StatusOK || record.Reason != "internal_error" || record.Cause == nil || record.BytesOut != 5 {
		t.Errorf("recorded %+v, want 200 internal_error with its cause and 5 bytes", record)
	}
}

func TestHTTP10GetsNoInformationalAnswers(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.backend.says("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + okAnswer)
	text := g.raw("GET " + product + "/proxy-list HTTP/1.0\r\nHost: x\r\nApi-Token: " + good + "\r\n\r\n")
	if !strings.HasPrefix(text, "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(text, "\r\n\r\nok") || strings.Contains(text, "Link") {
		t.Errorf("answered %q", text)
	}
}

func TestErrorOfABackendThatHasBegunBreaksTheAnswerOff(t *testing.T) {
	t.Parallel()
	g := newGate(t, backendFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusAccepted)
		return errors.New("too late")
	}))
	r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
	r.Header.Set("Api-Token", good)
	func() {
		defer func() {
			if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // a panic's value, as net/http compares it
				t.Errorf("panicked with %v, want http.ErrAbortHandler", p)
			}
		}()
		g.gateway.ServeHTTP(httptest.NewRecorder(), r)
	}()
	if record := g.records.next(t); record.Status != http.StatusAccepted || record.Reason != "internal_error" {
		t.Errorf("recorded %d %s, want 202 internal_error", record.Status, record.Reason)
	}
}

// TestClientThatHasGoneIsRecordedAs499 and is no failure of backend or store.
func TestClientThatHasGoneIsRecordedAs499(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		setup func(reached chan<- struct{}) func(*setup)
	}{
		{"while the backend works", func(reached chan<- struct{}) func(*setup) {
			return func(s *setup) {
				upstream, err := proxy.NewUpstream(s.upstream)
				if err != nil {
					panic(err)
				}
				s.backend = proxy.BackendFunc(func(w http.ResponseWriter, r *http.Request, a proxy.Access) error {
					reached <- struct{}{}
					return upstream.Serve(w, r, a)
				})
			}
		}},
		{"while the store is asked", func(reached chan<- struct{}) func(*setup) {
			return func(s *setup) {
				s.keys = finder(func(ctx context.Context, _ keystore.Token) (keystore.Entry, error) {
					reached <- struct{}{}
					<-ctx.Done()
					return keystore.Entry{}, fmt.Errorf("%w: %w", keystore.ErrUnavailable, ctx.Err())
				})
			}
		}},
		{"while the key API works", func(reached chan<- struct{}) func(*setup) {
			return backendFunc(func(_ http.ResponseWriter, r *http.Request) error {
				reached <- struct{}{}
				<-r.Context().Done()
				return errors.Join(keystore.ErrUnavailable, r.Context().Err())
			})
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			reached := make(chan struct{}, 1)
			g := start(t, row.setup(reached))
			g.backend.does(func(c net.Conn, _ int) bool {
				_, _ = c.Read(make([]byte, 1)) // until the gateway gives up
				return false
			})
			conn := g.dial()
			_, _ = io.WriteString(conn, get(product+"/proxy-list"))
			<-reached
			_ = conn.Close()
			if record := g.records.next(t); record.Status != 499 || record.Reason != "client_closed_request" {
				t.Errorf("recorded %d %s (%v), want 499 client_closed_request", record.Status, record.Reason, record.Cause)
			}
		})
	}
}

func TestOutageIsAnOutageWhileTheClientWaits(t *testing.T) {
	t.Parallel()
	g := start(t, func(s *setup) {
		s.keys = finder(func(context.Context, keystore.Token) (keystore.Entry, error) {
			return keystore.Entry{}, fmt.Errorf("%w: %w", keystore.ErrUnavailable, context.Canceled)
		})
	})
	if _, record := g.do(get(product + "/proxy-list")); record.Status != http.StatusServiceUnavailable {
		t.Errorf("recorded %d, want 503", record.Status)
	}
}

func TestClientThatLeavesInAnAnswerEndsIt(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	g := start(t, backendFunc(func(w http.ResponseWriter, r *http.Request) error {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				ended <- err
				panic(http.ErrAbortHandler)
			}
		}
		ended <- r.Context().Err()
		panic(http.ErrAbortHandler)
	}))
	conn := g.dial()
	_, _ = io.WriteString(conn, get(product+"/proxy-list"))
	if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if err := <-ended; err == nil {
		t.Error("the backend did not notice")
	}
	if record := g.records.next(t); record.Reason != "response_aborted" || record.Status != http.StatusOK || record.BytesOut == 0 {
		t.Errorf("recorded %+v, want 200 response_aborted", record)
	}
}

// TestBrokenBodyIsTheClientsFault: no backend takes it for a whole one, and
// the next request is not mixed up with it.
func TestBrokenBodyIsTheClientsFault(t *testing.T) {
	t.Parallel()
	const chunked = "Transfer-Encoding: chunked"
	for _, row := range []struct {
		name, line, body string
		status           int
		reason           string
	}{
		{"shorter than its length", "Content-Length: 10", "short", 400, "invalid_request"},
		{"no body at all", "Content-Length: 10", "", 400, "invalid_request"},
		{"chunks that end", chunked, "3\r\nabc\r\n", 400, "invalid_request"},
		{"chunks that are none", chunked, "3\r\nabc\r\nxyz\r\n", 400, "invalid_request"},
		{"a chunk of the wrong size", chunked, "3\r\nabcdef\r\n0\r\n\r\n", 400, "invalid_request"},
		{"a negative chunk", chunked, "-1\r\n\r\n", 400, "invalid_request"},
		{"chunks that are too many", chunked, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", maxBody+1, strings.Repeat("a", maxBody+1)), 413, "body_too_large"},
		{"a chunk too many", chunked, fmt.Sprintf("%x\r\n%s\r\n1\r\na\r\n0\r\n\r\n", maxBody, strings.Repeat("a", maxBody)), 413, "body_too_large"},
		{"chunks that fit", chunked, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", maxBody, strings.Repeat("a", maxBody)), 200, "allowed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			conn := g.dial()
			_, _ = io.WriteString(conn, strings.Replace(request("POST", product+"/settings", "", row.line), "Connection: close\r\n", "", 1)+row.body)
			if row.status != http.StatusOK {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			in := bufio.NewReader(conn)
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
			record := g.records.next(t)
			if r.StatusCode != row.status || record.Reason != row.reason {
				t.Errorf("answered %d %s, want %d %s", r.StatusCode, record.Reason, row.status, row.reason)
			}
			if row.status == http.StatusOK {
				return
			}
			if _, err := in.ReadByte(); err != io.EOF {
				t.Errorf("after the answer the connection gave %v, want its end", err)
			}
			g.do(get(product + "/proxy-list"))
			saw := g.backend.saw()
			next := slices.IndexFunc(saw, func(a arrival) bool { return a.whole })
			if next < 0 || !strings.HasPrefix(saw[next].raw, "GET "+product+"/proxy-list HTTP/1.1\r\n") {
				t.Fatalf("the backend saw %+v, want the next request alone whole", saw)
			}
			for i, a := range saw {
				if i != next && (a.whole || a.connection == saw[next].connection || strings.HasSuffix(a.raw, "\r\n0\r\n\r\n")) {
					t.Errorf("the backend saw %+v beside %+v", a, saw[next])
				}
			}
		})
	}
}

// deadlines is a writer whose connection remembers the deadlines it got.
type deadlines struct {
	*httptest.ResponseRecorder
	mu          sync.Mutex
	read, write []time.Time
}

func newDeadlines() *deadlines { return &deadlines{ResponseRecorder: httptest.NewRecorder()} }

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read = append(d.read, at)
	return nil
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write = append(d.write, at)
	return nil
}

// bounded reports whether the last deadline is near.
func bounded(all []time.Time) bool {
	return len(all) > 0 && time.Until(all[len(all)-1]) < time.Minute && !all[len(all)-1].IsZero()
}

func upload(body io.Reader, major int) *http.Request {
	r := httptest.NewRequest(http.MethodPost, product+"/settings", body)
	r.Header.Set("Api-Token", good)
	r.ContentLength, r.ProtoMajor = -1, major
	return r
}

// TestSilentClientIsNotWaitedForWithoutEnd: the server reads what is left of
// a body before it answers, so every way out must leave it a deadline.
func TestSilentClientIsNotWaitedForWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		body   io.Reader
		change func(*http.Request)
		status int
	}{
		{"refused before its body was read", strings.NewReader("abc"), func(r *http.Request) { r.Header.Del("Api-Token") }, 401},
		{"refused for its path", strings.NewReader("abc"), func(r *http.Request) { r.RequestURI += "/.." }, 400},
		{"body that failed", iotest.ErrReader(context.DeadlineExceeded), nil, 400},
		{"body that is too large", strings.NewReader(strings.Repeat("a", maxBody+1)), nil, 413},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t, backendFunc(func(_ http.ResponseWriter, r *http.Request) error {
				_, err := io.Copy(io.Discard, r.Body)
				return err
			}))
			r := upload(row.body, 1)
			if row.change != nil {
				row.change(r)
			}
			w := newDeadlines()
			g.gateway.ServeHTTP(w, r)
			if w.Code != row.status || !bounded(w.read) {
				t.Errorf("status %d and the read deadlines %v, want %d and one that is near", w.Code, w.read, row.status)
			}
		})
	}
}

// TestSlowClientHasTimeForAsLongAsItSends: each read has a deadline of its
// own, and behind the whole body there is none.
func TestSlowClientHasTimeForAsLongAsItSends(t *testing.T) {
	t.Parallel()
	for major := 1; major <= 2; major++ {
		w := newDeadlines()
		g := newGate(t, backendFunc(func(_ http.ResponseWriter, r *http.Request) error {
			before := 0
			for {
				_, err := r.Body.Read(make([]byte, 1))
				w.mu.Lock()
				fresh, last := len(w.read) > before, w.read[len(w.read)-1]
				before = len(w.read)
				w.mu.Unlock()
				if !fresh {
					t.Error("a read without a new deadline")
				}
				// In HTTP/2 a deadline would also end a body that a backend is slow to take.
				if major == 2 && !last.IsZero() {
					t.Error("HTTP/2: the deadline outlived the read")
				}
				if err != nil {
					return nil //nolint:nilerr // the end of the body
				}
			}
		}))
		g.gateway.ServeHTTP(w, upload(iotest.OneByteReader(strings.NewReader("abc")), major))
		if last := w.read[len(w.read)-1]; !last.IsZero() {
			t.Errorf("HTTP/%d: behind the body the read deadline is %v, want none", major, last)
		}
		if record := g.records.next(t); record.BytesIn != 3 {
			t.Errorf("recorded %d bytes in, want 3", record.BytesIn)
		}
	}
}

func TestBodyThatOutlivesItsRequestTouchesNoDeadline(t *testing.T) {
	t.Parallel()
	var kept io.Reader
	g := newGate(t, backendFunc(func(_ http.ResponseWriter, r *http.Request) error {
		kept = r.Body
		return nil
	}))
	w := newDeadlines()
	g.gateway.ServeHTTP(w, upload(strings.NewReader("abc"), 1))
	before := len(w.read)
	_, _ = io.Copy(io.Discard, kept)
	if len(w.read) != before {
		t.Errorf("%d more deadlines, want none: the connection carries another request", len(w.read)-before)
	}
}

// TestSlowReaderHasTimeForAsLongAsItTakes: the write deadline moves, once a
// second at the most, and never in HTTP/2, where it would end other answers.
func TestSlowReaderHasTimeForAsLongAsItTakes(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		major  int
		steps  []time.Duration // before each write
		expect int
	}{
		{1, []time.Duration{0, 0, 999 * time.Millisecond}, 0},
		{1, []time.Duration{time.Second, 0, 999 * time.Millisecond, time.Second}, 2},
		{1, []time.Duration{time.Hour, time.Hour, time.Hour}, 3},
		{2, []time.Duration{time.Hour, time.Hour, time.Hour}, 2}, // at the beginning none, and one for the end
	} {
		w := newDeadlines()
		var g *gate
		g = newGate(t, backendFunc(func(w http.ResponseWriter, _ *http.Request) error {
			for _, step := range row.steps {
				g.clock.Advance(step)
				_, _ = w.Write([]byte("x"))
			}
			return nil
		}))
		g.gateway.ServeHTTP(w, upload(http.NoBody, row.major))
		if len(w.write) != row.expect || (row.major == 1 && row.expect > 0 && !bounded(w.write)) || (row.major == 2 && (!w.write[0].IsZero() || w.write[1].IsZero())) {
			t.Errorf("HTTP/%d, %v: write deadlines %v, want %d", row.major, row.steps, w.write, row.expect)
		}
	}
}

// TestFramingThatTwoServersCouldReadDifferentlyIsRefusedOrEndsItsConnection:
// what follows must never be taken for another request.
func TestFramingThatTwoServersCouldReadDifferentlyIsRefusedOrEndsItsConnection(t *testing.T) {
	t.Parallel()
	const next = "GET " + product + "/proxy-list HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, row := range []struct{ name, version, head, body string }{
		{"HTTP/1.0 with chunks", "1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked", "0\r\n\r\n" + next},
		{"HTTP/1.0 with chunks and a length", "1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n" + next},
		{"HTTP/1.0", "1.0", "Connection: keep-alive", next},
		{"two lengths", "1.1", "Content-Length: 0\r\nContent-Length: 5", next},
		{"two lengths in one", "1.1", "Content-Length: 0, 5", next},
		{"a length with a sign", "1.1", "Content-Length: +5", next},
		{"a length that is too long", "1.1", "Content-Length: 99999999999999999999", next},
		{"two encodings", "1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n" + next},
		{"an unknown encoding", "1.1", "Transfer-Encoding: xchunked", "0\r\n\r\n" + next},
		{"a list of encodings", "1.1", "Transfer-Encoding: gzip, chunked", "0\r\n\r\n" + next},
		{"a name with a space", "1.1", "Transfer-Encoding : chunked", "0\r\n\r\n" + next},
		{"two hosts", "1.1", "Host: b", next},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			text := g.raw("POST " + product + "/settings HTTP/" + row.version + "\r\nHost: a\r\nApi-Token: " + good + "\r\n" + row.head + "\r\n\r\n" + row.body)
			if n := strings.Count(text, "HTTP/1."); n != 1 || len(g.backend.saw()) > 1 {
				t.Errorf("%d answers %q, the backend saw %+v", n, text, g.backend.saw())
			}
		})
	}
}

// What stands behind a body that cannot be read to its end is no request.
func TestNothingIsReadBehindABrokenBody(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.backend.says(okAnswer)
	text := g.raw("POST " + product + "/files/x HTTP/1.1\r\nHost: x\r\nApi-Token: " + good + "\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"3\r\nabc\r\n0\r\nbad line\r\nGET " + product + "/proxy-list HTTP/1.1\r\nHost: x\r\nApi-Token: " + good + "\r\nX-Smuggled: 1\r\n\r\n")
	if strings.Count(text, "HTTP/1.1 ") != 1 || !strings.HasPrefix(text, "HTTP/1.1 400 ") {
		t.Errorf("answered %q, want one refusal", text)
	}
}
