package wire_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/proxy/problem"
	"gatehouse/proxy/wire"
)

const patience = 10 * time.Second // only a failing test waits so long

// site is a server behind a guarded listener that remembers what its handler
// saw: "METHOD target body", or the code of a refusal.
type site struct {
	t    testing.TB
	addr string

	stop func() // ends the server

	mu   sync.Mutex
	saw  []string
	held chan context.Context // requests for /held
	free chan struct{}
}

// errTimeout is the error of a read that nothing ended but its deadline.
var errTimeout = os.ErrDeadlineExceeded

// hold makes requests for /held wait for release.
func (s *site) hold() (held <-chan context.Context, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.free = make(chan context.Context, 1), make(chan struct{})
	return s.held, func() { close(s.free) }
}

// served makes a request on the connection, which must be answered.
func (s *site) served(c net.Conn) {
	s.t.Helper()
	_, _ = io.WriteString(c, get)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, r.Body)
	_ = r.Body.Close()
}

// eventually fails the test when it does not become so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-timeout.C:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// tunnel echoes whatever the client sends, past net/http.
func (s *site) tunnel(w http.ResponseWriter) {
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.t.Error(err)
		return
	}
	defer func() { _ = c.Close() }()
	wire.Tunnel(c)
	_, _ = io.WriteString(c, "go")
	_, _ = io.Copy(c, io.MultiReader(io.LimitReader(buffered, int64(buffered.Reader.Buffered())), c))
}

func start(t testing.TB, o wire.Options) *site {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if o.Limits == (wire.Limits{}) {
		o.Limits = wire.Limits{Bytes: 1000, Lines: 10}
	}
	if o.HeadTimeout == 0 {
		o.HeadTimeout = patience
	}
	l, err := wire.Listen(inner, o)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, addr: inner.Addr().String()}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(o.H2C)
	server := &http.Server{
		Handler: http.HandlerFunc(s.serve), ConnContext: wire.Context, Protocols: protocols,
		ReadHeaderTimeout: patience, IdleTimeout: patience, DisableGeneralOptionsHandler: true,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	s.stop = sync.OnceFunc(func() {
		if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	if refusal := wire.Refusal(r); refusal != nil {
		s.note(string(refusal.Code))
		problem.Write(w, refusal, "id")
		return
	}
	switch s.mu.Lock(); {
	case r.URL.Path == "/held" && s.held != nil:
		held, free := s.held, s.free
		s.mu.Unlock()
		held <- r.Context()
		<-free
	case r.URL.Path == "/tunnel":
		s.mu.Unlock()
		s.tunnel(w)
		return
	default:
		s.mu.Unlock()
	}
	body, err := io.ReadAll(r.Body)
	switch malformed := wire.BodyFault(r); {
	case err != nil && malformed != nil:
		s.note(r.Method + " " + r.RequestURI + " " + string(malformed.Code))
		problem.Write(w, malformed, "id")
		return
	case err != nil:
		s.note(r.Method + " " + r.RequestURI + " broke off")
		return
	}
	proto := ""
	if r.ProtoMajor > 1 {
		proto = " " + r.Proto
	}
	if r.TLS != nil {
		proto += " over TLS"
	}
	s.note(strings.TrimSpace(r.Method + " " + r.RequestURI + " " + string(body) + proto))
	_, _ = io.WriteString(w, "ok")
}

func (s *site) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saw = append(s.saw, what)
}

func (s *site) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.saw...)
}

func (s *site) dial() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// send sends the pieces, each in a packet of its own as far as that can be
// had, and returns the statuses of the answers until the end.
func (s *site) send(pieces ...string) []int {
	s.t.Helper()
	c := s.dial()
	go func() {
		for _, piece := range pieces {
			_, _ = io.WriteString(c, piece)
		}
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	var statuses []int
	for in := bufio.NewReader(c); ; {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
		statuses = append(statuses, r.StatusCode)
	}
}

const (
	get     = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
	smuggle = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
)

func post(lines, body string) string {
	return "POST /a HTTP/1.1\r\nHost: x\r\n" + lines + "\r\n" + body
}

func chunked(body string) string { return post("Transfer-Encoding: chunked\r\n", body) }

type guardCase struct {
	name, raw string
	want      []string // what the handler sees of raw
}

func guardCases() []guardCase {
	return []guardCase{
		{"a request", get, []string{"GET /a"}},
		{"HTTP/1.0 without Host", "GET /a HTTP/1.0\r\n\r\n", []string{"GET /a"}},
		{"a length", post("Content-Length: 3\r\n", "abc"), []string{"POST /a abc"}},
		{"a length of 0", post("Content-Length: 0\r\n", ""), []string{"POST /a"}},
		{"values with spaces, tabs and high bytes", "GET /a HTTP/1.1\r\nHost:\t x \r\nA:\r\nB: a\tb \xff\r\n\r\n", []string{"GET /a"}},
		{"chunks", chunked("3\r\nabc\r\n0a\r\n0123456789\r\n0\r\n\r\n"), []string{"POST /a abc0123456789"}},
		{"extensions", chunked("3;a;b=c;d=\"e\\\"f\"\r\nabc\r\n000;x\r\n\r\n"), []string{"POST /a abc"}},
		{"a trailer", chunked("1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"), []string{"POST /a a"}},
		{
			"pipelined", get + post("Content-Length: 3\r\n", "abc") + chunked("1\r\na\r\n0\r\nA: b\r\n\r\n") + get,
			[]string{"GET /a", "POST /a abc", "POST /a a", "GET /a"},
		},
		{"a body that looks like a request", post("Content-Length: 35\r\n", smuggle), []string{"POST /a " + strings.TrimRight(smuggle, "\r\n")}},

		{"bare LF", "GET /a HTTP/1.1\nHost: x\n\n", []string{"invalid_request"}},
		{"bare LF at the end of a header", "GET /a HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", []string{"invalid_request"}},
		{"bare CR in a value", "GET /a HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", []string{"invalid_request"}},
		{"CR CR LF", "GET /a HTTP/1.1\r\r\nHost: x\r\n\r\n", []string{"invalid_request"}},
		{"an empty line in front", "\r\n" + get, []string{"invalid_request"}},
		{"an empty line behind a body", post("Content-Length: 1\r\n", "a") + "\r\n" + smuggle, []string{"POST /a a", "invalid_request"}},
		{"obs-fold", "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", []string{"invalid_request"}},
		{"obs-fold in front", "GET /a HTTP/1.1\r\n Host: x\r\n\r\n", []string{"invalid_request"}},
		{"a space before the colon", "GET /a HTTP/1.1\r\nHost : x\r\n\r\n", []string{"invalid_request"}},
		{"no colon", "GET /a HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", []string{"invalid_request"}},
		{"no name", "GET /a HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n", []string{"invalid_request"}},
		{"a name with a high byte", "GET /a HTTP/1.1\r\nHost: x\r\nA\xe9: a\r\n\r\n", []string{"invalid_request"}},
		{"NUL in a value", "GET /a HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", []string{"invalid_request"}},
		{"DEL in a value", "GET /a HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n", []string{"invalid_request"}},
		{"no host", "GET /a HTTP/1.1\r\nA: b\r\n\r\n", []string{"invalid_request"}},
		{"two hosts", "GET /a HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n", []string{"invalid_request"}},
		{"a host with a path", "GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n", []string{"invalid_request"}},
		{"an unknown expectation", post("Expect: 200-ok\r\n", ""), []string{"invalid_request"}},
		{"two spaces", "GET  /a HTTP/1.1\r\nHost: x\r\n\r\n", []string{"invalid_request"}},
		{"a tab for a space", "GET\t/a HTTP/1.1\r\nHost: x\r\n\r\n", []string{"invalid_request"}},
		{"a space behind the version", "GET /a HTTP/1.1 \r\nHost: x\r\n\r\n", []string{"invalid_request"}},
		{"HTTP/0.9", "GET /a\r\n\r\n", []string{"invalid_request"}},
		{"HTTP/1.2", "GET /a HTTP/1.2\r\nHost: x\r\n\r\n", []string{"invalid_request"}},
		{"HTTP/2.0", "GET /a HTTP/2.0\r\nHost: x\r\n\r\n", []string{"invalid_request"}},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []string{"invalid_request"}},
		{"a version in lower case", "GET /a http/1.1\r\nHost: x\r\n\r\n", []string{"invalid_request"}},
		{"CONNECT", "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", []string{"method_not_implemented"}},
		{"the substitute itself", "REFUSED * HTTP/1.1\r\nHost: x\r\n\r\n", []string{"ambiguous_path"}},
		{"a target in absolute form", "GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n", []string{"ambiguous_path"}},
		{"a fragment", "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", []string{"ambiguous_path"}},
		{"a fragment in a query", "GET /a?a#b HTTP/1.1\r\nHost: x\r\n\r\n", []string{"ambiguous_query"}},
		{"a high byte in a path", "GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", []string{"ambiguous_path"}},
		{"a high byte in a query", "GET /?\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", []string{"ambiguous_query"}},
		{"a broken escape", "GET /%4 HTTP/1.1\r\nHost: x\r\n\r\n", []string{"ambiguous_path"}},

		{"two lengths that are the same", post("Content-Length: 1\r\nContent-Length: 1\r\n", "a"), []string{"invalid_request"}},
		{"a list of lengths", post("Content-Length: 1, 1\r\n", "a"), []string{"invalid_request"}},
		{"a sign", post("Content-Length: +1\r\n", "a"), []string{"invalid_request"}},
		{"a leading zero", post("Content-Length: 01\r\n", "a"), []string{"invalid_request"}},
		{"a length in hex", post("Content-Length: 0x1\r\n", "a"), []string{"invalid_request"}},
		{"no length", post("Content-Length:\r\n", "a"), []string{"invalid_request"}},
		{"a length that is too long", post("Content-Length: 99999999999999999999\r\n", "a"), []string{"invalid_request"}},
		{"length and coding", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+smuggle), []string{"invalid_request"}},
		{"coding and length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"+smuggle), []string{"invalid_request"}},
		{"a coding in HTTP/1.0", "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggle, []string{"invalid_request"}},
		{"two codings", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), []string{"invalid_request"}},
		{"chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), []string{"invalid_request"}},
		{"a coding in capitals", post("Transfer-Encoding: Chunked\r\n", "0\r\n\r\n"), []string{"invalid_request"}},
		{"no coding", post("Transfer-Encoding:\r\n", "0\r\n\r\n"), []string{"invalid_request"}},

		{"no size", chunked("\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"a size with a sign", chunked("+3\r\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"a size with 0x", chunked("0x3\r\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"a size with a space behind", chunked("3 \r\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"a size that is too long", chunked("0000000000000003\r\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"bare LF behind a size", chunked("3\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"bare CR in an extension", chunked("3;a\rb\r\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"bare LF in an extension", chunked("3;a\nb\r\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"an extension without a name", chunked("3;\r\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"an open quote", chunked("3;a=\"b\r\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"a long extension", chunked("3;" + strings.Repeat("a", 300) + "\r\nabc\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"a chunk that is longer", chunked("3\r\nabcd\r\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"a chunk that ends with LF", chunked("3\r\nabc\n0\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"a length in a trailer", chunked("0\r\nContent-Length: 3\r\n\r\n" + smuggle), []string{"POST /a invalid_request"}},
		{"a credential in a trailer", chunked("0\r\nAPI-Token: 3\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"obs-fold in a trailer", chunked("0\r\nA: b\r\n c\r\n\r\n"), []string{"POST /a invalid_request"}},
		{"bare LF in a trailer", chunked("0\r\nA: b\n\r\n"), []string{"POST /a invalid_request"}},
		{"a trailer that is too large", chunked("0\r\nA: " + strings.Repeat("b", 1000) + "\r\n\r\n"), []string{"POST /a header_too_large"}},

		{"as many lines as may be", "GET /a HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 9) + "\r\n", []string{"GET /a"}},
		{"one line too many", "GET /a HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 10) + "\r\n", []string{"header_too_large"}},
		{"as many bytes as may be", "GET /a HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 1000-33) + "\r\n\r\n", []string{"GET /a"}},
		{"one byte too many", "GET /a HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 1000-32) + "\r\n\r\n", []string{"header_too_large"}},
		{"a line without end", "GET /" + strings.Repeat("a", 2000), []string{"header_too_large"}},
		{"half a request", "GET /a HTTP/1.1\r\nHost:", nil},
	}
}

// TestNothingMalformedReachesTheHandler, however the bytes are cut, and also
// behind requests that are good: those are answered first.
func TestNothingMalformedReachesTheHandler(t *testing.T) {
	t.Parallel()
	for _, row := range guardCases() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bad := len(row.want) > 0 && (!strings.Contains("GET POST", strings.Fields(row.want[len(row.want)-1])[0]) ||
				strings.Contains(row.want[len(row.want)-1], "_"))
			raw := row.raw
			if bad {
				raw += smuggle // never read
			}
			bytewise := strings.Split(raw, "")
			for name, sent := range map[string]struct {
				pieces []string
				want   []string
			}{
				"whole":     {[]string{raw}, row.want},
				"bytewise":  {bytewise, row.want},
				"pipelined": {[]string{get + get + raw}, append([]string{"GET /a", "GET /a"}, row.want...)},
				"behind":    {append([]string{get}, bytewise...), append([]string{"GET /a"}, row.want...)},
			} {
				s := start(t, wire.Options{})
				statuses := s.send(sent.pieces...)
				if diff := cmp.Diff(sent.want, s.seen(), emptyIsNil()); diff != "" {
					t.Errorf("%s: the handler saw (-want +got):\n%s", name, diff)
				}
				if len(statuses) != len(sent.want) {
					t.Errorf("%s: answers %v, want %d", name, statuses, len(sent.want))
				}
				for i, status := range statuses {
					if last := i == len(statuses)-1; (status != http.StatusOK) != (last && bad) {
						t.Errorf("%s: answers %v", name, statuses)
					}
				}
			}
		})
	}
}

func emptyIsNil() cmp.Option {
	return cmp.Transformer("list", func(list []string) string { return fmt.Sprintf("%q", list) })
}
