package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/proxy"
	"gatehouse/proxy/attacktest"
)

// decided are the requests that a gateway has let through, as it read them.
type decided struct {
	upstream *proxy.Upstream

	mu       sync.Mutex
	readings []attacktest.Reading
	faults   []string
}

// Serve notes what was decided on, and forwards it also when the client has
// gone: what reaches the backend is what counts here.
func (d *decided) Serve(w http.ResponseWriter, r *http.Request, a proxy.Access) error {
	path, query, _ := strings.Cut(r.RequestURI, "?")
	d.mu.Lock()
	d.readings = append(d.readings, attacktest.Reading{Method: r.Method, Path: path, Query: query})
	if err := proxy.CanonicalPath(path); err != nil {
		d.faults = append(d.faults, path)
	}
	d.mu.Unlock()
	return d.upstream.Serve(w, r.WithContext(context.WithoutCancel(r.Context())), a)
}

func (d *decided) take() (readings []attacktest.Reading, faults []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	readings, faults = d.readings, d.faults
	d.readings, d.faults = nil, nil
	return readings, faults
}

// nobody records nothing.
type nobody struct{}

func (nobody) Record(*proxy.Record) {}

// FuzzAnythingSent sends bytes over a connection. What reaches the backend are
// the requests that were decided on: as many, with the same method, path and
// query to net/http and to a parser that takes everything for something, with
// the caller's identity and no credential.
func FuzzAnythingSent(f *testing.F) {
	attacks, err := attacktest.Load("testdata/attacks")
	if err != nil {
		f.Fatal(err)
	}
	words := strings.NewReplacer("{token}", good, "{other}", tokenOf("other"), "{bound}", good, "{sub}", string(subA))
	for _, a := range attacks {
		if raw := words.Replace(a.Raw); raw != "" && len(raw) < 4096 {
			f.Add([]byte(strings.ReplaceAll(raw, "/serp/v1/", product+"/files/")))
		}
	}
	d := &decided{}
	g := start(f, func(s *setup) {
		upstream, err := proxy.NewUpstream(s.upstream)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(upstream.Close)
		d.upstream, s.backend, s.options.Records = upstream, d, nobody{}
	})
	f.Fuzz(func(t *testing.T, sent []byte) {
		answer := g.sendAll(t, sent)
		if answer != "" && !strings.HasPrefix(answer, "HTTP/1.") {
			t.Errorf("answered %q", answer)
		}
		readings, faults := d.take()
		if faults != nil {
			t.Errorf("let through the paths %q", faults)
		}
		var seen []attacktest.Reading
		for _, came := range g.backend.forget() {
			if !came.whole {
				continue // its client had gone, and no backend takes it for a request
			}
			seen = append(seen, attacktest.Lenient(came.raw)...)
			checkForwardedHead(t, came.raw)
		}
		for _, r := range seen {
			i := slices.Index(readings, r)
			if i < 0 {
				t.Errorf("%q reached the backend as %q, which nobody decided on", sent, r)
				continue
			}
			readings = slices.Delete(readings, i, i+1)
		}
	})
}

// sendAll sends the bytes and then says that there are no more, and returns
// what comes back.
func (g *gate) sendAll(t testing.TB, sent []byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetLinger(0) // thousands of connections a second
	defer func() { _ = tcp.Close() }()
	_ = tcp.SetDeadline(time.Now().Add(patience))
	go func() { // ends with the deadline at the latest
		_, _ = tcp.Write(sent)
		_ = tcp.CloseWrite()
	}()
	answer, err := io.ReadAll(tcp) // an answer may come before all was sent
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q is waited for, and answered %q", sent, answer)
	}
	return string(answer)
}

// forget returns what the backend saw since the last time.
func (b *backend) forget() []arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := b.requests
	b.requests = nil
	for range len(b.arrived) {
		<-b.arrived
	}
	return seen
}

// checkForwardedHead: one identity, the caller's, and no credential, however the
// backend spells names.
func checkForwardedHead(t testing.TB, raw string) {
	t.Helper()
	head, _, _ := strings.Cut(raw, "\r\n\r\n")
	identities := map[string]string{}
	for i, line := range strings.Split(head, "\r\n") {
		name, value, ok := strings.Cut(line, ": ")
		if i == 0 || !ok {
			continue
		}
		plain := strings.Map(asCGI, name)
		if strings.HasPrefix(plain, "x-gatehouse-") {
			if _, twice := identities[plain]; twice || plain != strings.ToLower(name) {
				t.Errorf("the backend saw %q in\n%q", name, raw)
			}
			identities[plain] = value
		}
		if plain == "api-token" || plain == "authorization" {
			t.Errorf("the backend saw %q", line)
		}
	}
	if identities["x-gatehouse-account"] != "acme" || identities["x-gatehouse-key-id"] == "" || identities["x-gatehouse-permission"] == "" {
		t.Errorf("the backend saw the identities %q", identities)
	}
	for name := range identities {
		if !slices.Contains([]string{"x-gatehouse-account", "x-gatehouse-key-id", "x-gatehouse-permission", "x-gatehouse-subaccount"}, name) {
			t.Errorf("the backend saw %s", name)
		}
	}
}

// asCGI reads a name as CGI-like servers do.
func asCGI(r rune) rune {
	switch {
	case 'A' <= r && r <= 'Z':
		return r + 'a' - 'A'
	case (r < 'a' || r > 'z') && (r < '0' || r > '9'):
		return '-'
	}
	return r
}
