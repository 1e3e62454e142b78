package proxy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"gatehouse/proxy"
)

const (
	// seriesBudget is how many series the requests below may make: for each
	// route of the harness that answers, the statuses and reasons there are.
	seriesBudget = 150
	// longestLine is how long a line of the access log may be, in bytes.
	longestLine = 2048
)

// hostile makes texts that a client could send to deceive who reads a log, or
// to fill memory with them.
type hostile struct {
	*rand.Rand
	tokens []string
}

func (h *hostile) text() string {
	parts := []string{
		"\x00", "\n", "\r\n", "\t", "\x1b[2J\x1b[31m", "\x1b]0;title\a", "\x7f", "\u0085", "\u009b1m", "\u2028", "\u202e", "\xff\xfe", "\xc0\xaf",
		`"`, `\`, `","reason":"allowed`, "}\n{", "%0a", "%00", "%1b", "{route=\"x\"}", "\u00e9", "../", "//", ";", "a", "key", "..", "${jndi:x}", " ",
		strings.Repeat("A", 1+h.IntN(3000)), fmt.Sprint(h.Uint64()), h.tokens[h.IntN(len(h.tokens))],
	}
	var s strings.Builder
	for range 1 + h.IntN(6) {
		s.WriteString(parts[h.IntN(len(parts))])
	}
	return s.String()
}

// request is one that a server could not even have read, too. Half of them
// are hostile in their headers alone.
func (h *hostile) request() *http.Request {
	number := fmt.Sprint(h.Uint64())
	method, path, query, host := "GET", product+"/files/"+number, "a="+number, "host-"+number
	if h.IntN(2) == 0 {
		method = []string{"GET", "POST", "DELETE", "TRACE", h.text(), "get"}[h.IntN(6)]
		path = []string{"/" + h.text(), "/" + number, product + "/files/" + h.text(), "/serp/v1/open", "/serp/v1/search", product + "/proxy-list", h.text()}[h.IntN(7)]
		query = []string{"", h.text(), query, "type=get"}[h.IntN(4)]
		host = []string{host, h.text()}[h.IntN(2)]
	}
	r := &http.Request{
		Method: method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: host, RemoteAddr: "127.0.0.1:1", Body: http.NoBody,
		RequestURI: path, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{},
	}
	if query != "" {
		r.RequestURI += "?" + query
	}
	for _, name := range []string{"X-Request-Id", "X-Forwarded-For", "Traceparent", "User-Agent", "Referer", "Cookie", "X-Forwarded-Host", "Forwarded", "Upgrade", h.text()} {
		if h.IntN(3) == 0 {
			r.Header[name] = []string{h.text()}
		}
	}
	switch h.IntN(4) {
	case 0:
		r.Header["Api-Token"] = []string{h.text()}
	case 1:
		r.Header["Authorization"] = []string{"Bearer " + h.tokens[h.IntN(len(h.tokens))]}
	default:
		r.Header["Api-Token"] = []string{good}
	}
	return r
}

// TestLogsAndMetricsStayBoundedAndClean whatever clients send, and whatever
// backends answer: each request is one short line, and few series are made.
func TestLogsAndMetricsStayBoundedAndClean(t *testing.T) {
	t.Parallel()
	const requests = 10_000
	h := &hostile{rand.New(rand.NewPCG(1, 2)), []string{good, tokenOf("unknown"), tokenOf("other")}}
	status := 0
	g := newGate(t, trusting("127.0.0.0/8"), backendFunc(func(w http.ResponseWriter, _ *http.Request) error {
		status++
		w.WriteHeader(200 + status%800) // a backend that lets clients choose
		return nil
	}), func(s *setup) {
		s.options.Failures = proxy.NewFailureLimiter(10, 100)
	})
	forwarded := 0
	for i := range requests {
		g.gateway.ServeHTTP(httptest.NewRecorder(), h.request())
		if record := g.records.next(t); record.Reason == "allowed" {
			forwarded++
		} else if record.Reason == "internal_error" {
			t.Errorf("request %d: %v", i, record.Cause)
		}
	}
	if forwarded < requests/20 || forwarded > requests*19/20 {
		t.Errorf("%d of %d requests were forwarded: the test sees one side alone", forwarded, requests)
	}
	metrics := g.metrics()
	if n := strings.Count(metrics, "\ngatehouse_requests_total{"); n > seriesBudget {
		t.Errorf("%d series, want at most %d:\n%s", n, seriesBudget, metrics)
	}
	lines := 0
	for line := range strings.Lines(g.log.String()) {
		lines++
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["msg"] != "request" || len(line) > longestLine {
			t.Fatalf("a line of %d bytes, %v: %q", len(line), err, line)
		}
		if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
			t.Fatalf("a character that is no plain text in %q", line)
		}
	}
	if lines != requests {
		t.Errorf("%d lines for %d requests", lines, requests)
	}
	for _, token := range h.tokens {
		if strings.Contains(metrics+g.log.String(), token[3:20]) {
			t.Errorf("a token is in the log or the metrics")
		}
	}
}
