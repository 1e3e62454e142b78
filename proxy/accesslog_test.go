package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/proxy"
)

// logOf is the line that a request leaves, with its fields.
func logOf(t *testing.T, g *gate) map[string]any {
	t.Helper()
	g.records.next(t)
	var fields map[string]any
	if err := json.Unmarshal([]byte(g.log.String()), &fields); err != nil {
		t.Fatalf("%v: %s", err, g.log)
	}
	return fields
}

// TestWhatAClientSentIsCleanedForTheLog: no token, no query, one short line.
func TestWhatAClientSentIsCleanedForTheLog(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(r *http.Request)
		field  string
		want   string
	}{
		{"a path", func(*http.Request) {}, "url.path", product + "/proxy-list"},
		{"a path with an escape", func(r *http.Request) { at(r, product+"/files/%20") }, "url.path", product + "/files/%20"},
		{"a token in the path", func(r *http.Request) { at(r, product+"/files/"+good) }, "url.path", product + "/files/gk_g..."},
		{"a long path", func(r *http.Request) { at(r, product+"/files"+strings.Repeat("/a", 200)) }, "url.path", strings.TrimRight((product + "/files" + strings.Repeat("/a", 200))[:256], "a") + "..."},
		{"a token that hides in an ambiguous path", func(r *http.Request) { at(r, "/%67"+good[1:]) }, "url.path", ""},
		{"a query", func(r *http.Request) { at(r, product+"/files/a?"+good) }, "url.path", product + "/files/a"},
		{"a user agent", func(r *http.Request) { r.Header.Set("User-Agent", "a\x1b[31m\u202e\"b\" "+good) }, "user_agent.original", `a\u001b[31m\u202e"b" gk_g...`},
		{"a long user agent", func(r *http.Request) { r.Header.Set("User-Agent", strings.Repeat("Mozilla ", 40)) }, "user_agent.original", strings.Repeat("Mozilla ", 24) + "..."},
		{"no user agent", func(*http.Request) {}, "user_agent.original", ""},
		{"a host with a port", func(*http.Request) {}, "server.address", "api.example.com"},
		{"a token for a host", func(r *http.Request) { r.Host = good }, "server.address", "gk_g..."},
		{"HTTP/1.0", func(r *http.Request) { r.ProtoMinor = 0 }, "network.protocol.version", "1.0"},
		{"HTTP/2", func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 2, 0 }, "network.protocol.version", "2"},
		{"an odd method", func(r *http.Request) { r.Method = good }, "http.request.method", "_OTHER"},
		{"no route", func(r *http.Request) { at(r, "/nowhere") }, "http.route", ""},
		{"a peer", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "198.51.100.7") }, "network.peer.address", "127.0.0.1"},
		{"a client", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "198.51.100.7") }, "client.address", "198.51.100.7"},
		{"a client that is not known", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "x") }, "client.address", ""},
		{"a scheme", func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") }, "url.scheme", "https"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t, trusting("127.0.0.0/8"), backendFunc(func(w http.ResponseWriter, _ *http.Request) error {
				w.WriteHeader(http.StatusNoContent)
				return nil
			}))
			r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
			r.Host, r.RemoteAddr = "api.example.com:8443", "127.0.0.1:1"
			r.Header.Set("Api-Token", good)
			row.change(r)
			g.gateway.ServeHTTP(httptest.NewRecorder(), r)
			if fields := logOf(t, g); fields[row.field] != row.want {
				t.Errorf("%s is %q, want %q", row.field, fields[row.field], row.want)
			}
		})
	}
}

// at changes where the request goes, as a server would have read it.
func at(r *http.Request, target string) {
	u, err := r.URL.Parse(target)
	if err != nil {
		panic(err) // the row above is wrong
	}
	r.URL, r.RequestURI = u, target
}

// TestSampleIsForWhatWentWell alone, whole or not at all at its ends, and alike
// for the same request id.
func TestSampleIsForWhatWentWell(t *testing.T) {
	t.Parallel()
	const requests = 2000
	lines := func(share float64, r proxy.Record) int {
		var log lockedBuffer
		a := proxy.NewAccessLog(newLog(&log))
		a.Sample(share)
		for i := range requests {
			r.RequestID = fmt.Sprintf("01a21428-3f8d-744c-bb6b-%012x", i)
			again := r
			a.Record(&r)
			a.Record(&again)
		}
		n := strings.Count(log.String(), "\n")
		if n%2 != 0 {
			t.Error("the same request was logged once and not logged once")
		}
		return n / 2
	}
	well := proxy.Record{Status: http.StatusOK, Reason: "allowed"}
	for _, row := range []struct {
		name        string
		share       float64
		r           proxy.Record
		least, most int
	}{
		{"all", 1, well, requests, requests},
		{"none", 0, well, 0, 0},
		{"a tenth", 0.1, well, 120, 280}, // six standard deviations
		{"a preflight", 0, proxy.Record{Status: http.StatusNoContent, Reason: "preflight"}, 0, 0},
		{"not found by the backend", 0, proxy.Record{Status: http.StatusNotFound, Reason: "allowed"}, 0, 0},
		{"a refusal", 0, proxy.Record{Status: http.StatusForbidden, Reason: "permission_denied"}, requests, requests},
		{"a backend's own 500", 0, proxy.Record{Status: http.StatusInternalServerError, Reason: "allowed"}, requests, requests},
		{"a client that has gone", 0, proxy.Record{Status: 499, Reason: "client_closed_request"}, requests, requests},
		{"an answer that broke off", 0, proxy.Record{Status: http.StatusOK, Reason: "response_aborted"}, requests, requests},
	} {
		if n := lines(row.share, row.r); n < row.least || n > row.most {
			t.Errorf("%s: %d lines of %d, want %d to %d", row.name, n, requests, row.least, row.most)
		}
	}
}
