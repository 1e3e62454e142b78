package main_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/proxy/attacktest"
)

// arena is a gateway that attacks are sent to, and what their placeholders
// stand for.
type arena struct {
	*table
	words *strings.Replacer
}

func newArena(t *testing.T, d *table) *arena {
	t.Helper()
	create := func(k newKey) string { return d.firstKey(t, "acme", k).Token }
	read := may("serp_api:read", "serp_api:write", "datacenter_shared:read")
	bound := may("serp_api:read")
	bound.IPs = []string{"203.0.113.9"}
	return &arena{table: d, words: strings.NewReplacer(
		"{token}", create(read), "{other}", create(read), "{bound}", create(bound), "{sub}", subA,
	)}
}

// TestAttacks sends every request of the corpus to the binary over a socket. It
// must get the answer that is written there, a backend must see what is written
// there and nothing else, and the connection must be closed, or carry another
// request unharmed.
func TestAttacks(t *testing.T) {
	t.Parallel()
	attacks, err := attacktest.Load("../../proxy/testdata/attacks")
	if err != nil {
		t.Fatal(err)
	}
	const trusting = "trusted_proxies: [127.0.0.0/8]"
	certFile, keyFile, roots := certificate(t)
	arenas := map[string]*arena{
		"":          newArena(t, newTable(t, settings{Store: embeddedStore(t)})),
		"proxied":   newArena(t, newTable(t, settings{Store: embeddedStore(t), ClientAddress: "{" + trusting + "}"})),
		"forwarded": newArena(t, newTable(t, settings{Store: embeddedStore(t), ClientAddress: "{" + trusting + ", header: Forwarded}"})),
		"http2": newArena(t, newPlainTable(t, settings{
			Store: embeddedStore(t), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile),
		})),
	}
	for _, a := range attacks {
		t.Run(a.Class+"/"+a.Name, func(t *testing.T) {
			if a.IsHTTP2() {
				arenas["http2"].sendFrames(t, a, roots)
				return
			}
			arenas[a.Gateway].sendBytes(t, a)
		})
	}
}

func (d *arena) sendBytes(t *testing.T, a attacktest.Attack) {
	t.Helper()
	before := d.counts()
	c, err := d.dial(request{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // it was read to its end
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	raw := d.words.Replace(a.Raw)
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.WriteString(c, raw) // an answer may come before all was written
		if a.HalfClose {
			_ = c.(*net.TCPConn).CloseWrite() // as above
		}
	}()
	in := bufio.NewReader(c)
	var got []string
	method, _, _ := strings.Cut(raw, " ")
	open := true
	for range a.Answers {
		said, keep, err := readAnswer(in, method)
		if err != nil {
			break
		}
		got, open = append(got, said), keep
	}
	<-written
	compareAnswers(t, a.Answers, got)
	d.checkSeen(t, a, before)
	if open && len(a.Answers) > 0 {
		d.probeOn(t, c, in)
	} else if extra, err := in.ReadByte(); err == nil {
		t.Errorf("the connection is open, and says %q", extra)
	}
}

// readAnswer returns the status and the code, and whether the connection goes on.
func readAnswer(in *bufio.Reader, method string) (said string, keep bool, err error) {
	response, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return "", false, err
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return "", false, err
	}
	keep = !response.Close && response.ProtoAtLeast(1, 1)
	return saidBy(response.StatusCode, response.Header.Get("Content-Type"), body), keep, nil
}

func saidBy(status int, contentType string, body []byte) string {
	var p problemDocument
	if contentType == "application/problem+json" && json.Unmarshal(body, &p) == nil {
		return fmt.Sprintf("%d %s", status, p.Error)
	}
	return fmt.Sprint(status)
}

// compareAnswers: where the client has gone wrong in the middle of a stream,
// that may end before its answer.
func compareAnswers(t *testing.T, want, got []string) {
	t.Helper()
	if len(want) == 1 {
		one, maybe := strings.CutSuffix(want[0], " or none")
		if maybe && len(got) == 0 {
			return
		}
		want = []string{one}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}

// probeOn sends one more request on the connection, which must be that request
// to both ends.
func (d *arena) probeOn(t *testing.T, c net.Conn, in *bufio.Reader) {
	t.Helper()
	before := d.counts()
	raw := d.words.Replace("GET /serp/v1/probe HTTP/1.1\r\nHost: api.example.com\r\napi-token: {token}\r\n\r\n")
	if got, err := exchangeOn(c, in, http.MethodGet, []byte(raw)); err != nil || got.status != http.StatusOK {
		t.Errorf("behind it, a good request got %d %s, %v", got.status, got.body, err)
	}
	d.checkSeen(t, attacktest.Attack{Seen: []string{"GET /serp/v1/probe"}}, before)
}

// checkSeen holds what the backends saw since then against what they may see:
// read by net/http, and by a parser that takes everything for something.
func (d *arena) checkSeen(t *testing.T, a attacktest.Attack, before []int) {
	t.Helper()
	var targets []string
	for i, b := range d.backends {
		for _, seen := range b.seen(before[i]) {
			targets = append(targets, seen.method+" "+seen.target)
			path, query, _ := strings.Cut(seen.target, "?")
			one := []attacktest.Reading{{Method: seen.method, Path: path, Query: query}}
			if readings := attacktest.Lenient(seen.raw); !slices.Equal(readings, one) {
				t.Errorf("a lenient server reads %q in\n%q", readings, seen.raw)
			}
			checkSecrets(t, seen)
			for _, line := range a.Has {
				checkHas(t, seen, line)
			}
		}
	}
	var want []string
	for _, target := range a.Seen {
		want = append(want, d.words.Replace(target))
	}
	if diff := cmp.Diff(want, targets); diff != "" {
		t.Errorf("the backend saw (-want +got):\n%s", diff)
	}
}

// checkSecrets: no credential arrives, and the identity is that of the key.
// What an attack says to be believed has "evil" in it.
func checkSecrets(t *testing.T, seen received) {
	t.Helper()
	head, _, _ := strings.Cut(seen.raw, "\r\n\r\n")
	_, lines, _ := strings.Cut(head, "\r\n")
	if strings.Contains(seen.raw, "gk_") || strings.Contains(strings.ToLower(lines), "evil") && !strings.Contains(seen.target, "evil") {
		t.Errorf("the backend saw\n%s", seen.raw)
	}
	for name, values := range seen.header {
		if plain := strings.Map(dashes, name); strings.HasPrefix(plain, "x-gatehouse-") && (len(values) != 1 || plain != name) {
			t.Errorf("the backend saw %s: %q", name, values)
		}
	}
	if got := strings.Join(seen.header["x-gatehouse-account"], " | "); got != "acme" {
		t.Errorf("the backend saw the account %q", got)
	}
}

// dashes reads a name as CGI-like servers do.
func dashes(r rune) rune {
	if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
		return '-'
	}
	return r
}

func checkHas(t *testing.T, seen received, line string) {
	t.Helper()
	name, value, isThere := strings.Cut(line, ": ")
	got := seen.header[strings.ToLower(name)]
	if isThere && (len(got) != 1 || got[0] != value) || !isThere && got != nil {
		t.Errorf("the backend saw %s: %q, want %q", name, got, line)
	}
}
