package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
)

const (
	// mostSeries is how many series of its own the gateway may have after
	// everything below was sent to it: 18 for each pair of a route, a status and a
	// reason that occurred.
	mostSeries = 18 * 60
	// longestLine is how long a line of the log may be, in bytes.
	longestLine = 8 << 10
)

// nastyTexts end lines, move cursors, break JSON and labels, are no UTF-8, or
// are long.
func nastyTexts(token string) []string {
	return []string{
		"\x1b[2J\x1b[31m", "\x1b]0;title\a", "\x7f", "\u0085", "\u009b1m", "\u2028", "\u202e", "\xff\xfe", "\xc0\xaf", "\x00", "\n", "\t",
		`"`, `\`, `","reason":"allowed`, "}{", "%0a", "%00", "%1b%5b31m", `{route="x"}`, "\u00e9", "../", "//", ";", "..", "${jndi:x}", " ", "a", "key",
		strings.Repeat("A", 3000), strings.Repeat("\x1b", 3000), token, token[:40], strings.Repeat("x ", 1000) + token,
	}
}

// echo is a backend that answers with what it was sent, where no answer has
// such things.
func echo(token string) answerFunc {
	texts := nastyTexts(token)
	return func(c net.Conn, r received) bool {
		nasty := texts[len(r.target)%len(texts)] + r.target
		_, _ = io.WriteString(c, []string{ // the gateway may have gone
			"HTTP/1.1 " + nasty + "\r\n\r\n",
			nasty + "\r\n\r\n",
			"HTTP/1.1 200 OK\r\n" + nasty + "\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: " + nasty + "\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + nasty + "\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + nasty + "\r\n\r\n",
			fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", 200+len(r.target)%800, nasty),
		}[len(r.raw)%7])
		return false
	}
}

// TestLogAndMetricsStayCleanWhateverIsSent by clients and by backends: every
// line of the log is one line of JSON, not too long, moves no cursor and shows
// no token, and there are few series.
func TestLogAndMetricsStayCleanWhateverIsSent(t *testing.T) {
	t.Parallel()
	const clients, each = 4, 400
	token := unknownToken()
	garbage := startBackend(t, echo(token))
	d := newTable(t, settings{Store: embeddedStore(t), ClientAddress: "{trusted_proxies: [127.0.0.0/8]}", Others: map[string]string{"echo": garbage.addr}})
	k := d.createKey(t, d.root, may("serp_api:read"))
	texts := nastyTexts(k.Token)
	var sending sync.WaitGroup
	for n := range clients {
		sending.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 3))
			for range each {
				if err := d.sendRaw(nastyRequest(random, texts, k.Token)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	sending.Wait()
	d.passes(t, get(d.key, proxyListOfA))
	if garbage.count() < clients*each/10 {
		t.Errorf("the backend saw %d requests: the test sees one side alone", garbage.count())
	}
	metrics, err := d.probe("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(metrics, "\ngatehouse_"); n > mostSeries {
		t.Errorf("there are %d series, want at most %d:\n%s", n, mostSeries, metrics)
	}
	checkNoToken(t, "/metrics", metrics)
	d.signal(t, syscall.SIGTERM)
	d.wait(t, patience)
	checkLines(t, d.stdout.String(), clients*each)
}

// checkLines holds every line of a log, and that there are as many as requests.
func checkLines(t *testing.T, log string, requests int) {
	t.Helper()
	lines, causes := 0, 0
	for line := range strings.Lines(log) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil || !strings.HasSuffix(line, "\n") || len(line) > longestLine {
			t.Fatalf("a line of %d bytes, %v: %q", len(line), err, line)
		}
		for name, value := range fields {
			if s := fmt.Sprint(value); strings.ContainsFunc(s, func(r rune) bool {
				return r == unicode.ReplacementChar || unicode.IsControl(r) && (name != "error" || r != '\n' && r != '\t') || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Cf)
			}) {
				t.Fatalf("%s is not clean: %q", name, s)
			}
		}
		if fields["message"] == "request" {
			lines++
		}
		if fields["error"] != nil {
			causes++
		}
	}
	if lines < requests/3 || causes < requests/20 {
		t.Errorf("%d lines of requests, %d with an error, for %d requests: the test proves nothing", lines, causes, requests)
	}
	checkNoToken(t, "the log", log)
}

// nastyRequest is the bytes of a request; half of them are nasty in places
// where a server will let them be.
func nastyRequest(random *rand.Rand, texts []string, token string) string {
	nasty := func() string { return texts[random.IntN(len(texts))] }
	number := fmt.Sprint(random.Uint64())
	line, host := "GET /echo/"+number[:1+random.IntN(len(number))]+"?t="+token+" HTTP/1.1", "host-"+number
	if random.IntN(2) == 0 {
		line = []string{"GET", "POST", "TRACE", nasty(), "X-" + number}[random.IntN(5)] + " " +
			[]string{"/" + nasty(), "/" + number, "/echo/" + nasty(), "/serp/v1/" + number, nasty(), "/echo/" + token}[random.IntN(6)] + " HTTP/1.1"
		host = []string{host, nasty()}[random.IntN(2)]
	}
	raw := line + "\r\nHost: " + host + "\r\nConnection: close\r\n"
	for _, name := range []string{"X-Request-Id", "X-Forwarded-For", "Traceparent", "User-Agent", "Cookie", "Forwarded", "Upgrade", "Expect", "TE", "X-" + number} {
		if random.IntN(6) == 0 {
			raw += name + ": " + nasty() + "\r\n"
		}
	}
	return raw + "api-token: " + []string{token, token, token, nasty()}[random.IntN(4)] + "\r\n\r\n"
}

// sendRaw sends bytes, and takes whatever comes back until the end.
func (g *gateway) sendRaw(raw string) error {
	c, err := g.dial(request{})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // all was read
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, _ = io.WriteString(c, raw) // it may be refused before it is read
	_, _ = io.Copy(io.Discard, c) // likewise
	return nil
}
