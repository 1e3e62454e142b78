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
	if err := wire.Tunnel(c); err != nil {
		panic(err)
	}
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
