package proxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/proxy"
)

// spellings are ways in which some backend reads the same header name.
func spellings(name string) []string {
	under := strings.ReplaceAll(name, "-", "_")
	half := strings.Replace(name, "-", "_", 1)
	dots := strings.ReplaceAll(name, "-", ".") // some CGI servers take every other byte for an underscore
	return []string{name, strings.ToLower(name), strings.ToUpper(name), under, strings.ToUpper(under), half, dots, name + "_"}
}

// TestWithheldHeadersNeverArrive in any spelling, also when there are two.
func TestWithheldHeadersNeverArrive(t *testing.T) {
	t.Parallel()
	names := []string{
		"X-Gatehouse-Account", "X-Gatehouse-Key-Id", "X-Gatehouse-Subaccount", "X-Gatehouse-Permission", "X-Gatehouse-Later", "X-Gatehouse-",
		"Forwarded", "X-Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix",
		"X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Anything",
		"X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "X-Remote-IP", "X-Remote-Addr", "X-Originating-IP",
		"True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP", "Client-IP",
		"X-Original-URL", "X-Original-URI", "X-Rewrite-URL", "X-Original-Host", "X-Host",
		"X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override",
		"Proxy", "X-Request-Id", "Traceparent", "X-Edge-Client",
	}
	g := start(t, func(s *setup) { s.upstream.AddressHeader = "X-Edge-Client" })
	for _, name := range names {
		for _, spelling := range spellings(name) {
			lines := []string{spelling + ": evil"}
			// Another field of the same name must not shelter it.
			lines = append(lines, spelling+":", strings.ToLower(spelling)+": evil, evil")
			if _, record := g.do(get(product+"/proxy-list", lines...)); record.Reason != "allowed" {
				t.Errorf("%s: recorded %s", spelling, record.Reason)
			}
			if came := g.backend.next(t); strings.Contains(came.raw, "evil") {
				t.Errorf("%s arrived: %q", spelling, came.raw)
			}
		}
	}
}

// TestFramingInAnotherSpellingNeverArrives: CGI-like backends do not tell it
// from the real one.
func TestFramingInAnotherSpellingNeverArrives(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, name := range []string{"Content_Length", "Content.Length", "TRANSFER_ENCODING", "transfer~encoding", "Host_"} {
		_, record := g.do(request("POST", product+"/settings", "abc", name+": evil"))
		if came := g.backend.next(t); record.Reason != "allowed" || strings.Contains(came.raw, "evil") || !strings.Contains(came.raw, "\r\nContent-Length: 3\r\n") {
			t.Errorf("%s: recorded %s, the backend saw %q", name, record.Reason, came.raw)
		}
	}
}

func TestCredentialsNeverArrive(t *testing.T) {
	t.Parallel()
	for _, lines := range [][]string{
		{"api-token: " + good},
		{"API-TOKEN: " + good, "Authorization: Bearer " + good},
		{"AUTHORIZATION: bearer " + good},
		{"api-token: " + good, "api_token: " + good, "API_TOKEN: other", "api_Token: " + good},
		{"api-token: " + good, "Proxy-Authorization: Basic " + good},
	} {
		g := start(t)
		_, record := g.do("GET " + product + "/proxy-list HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")
		_, raw := g.backend.one(t)
		if lower := strings.ToLower(raw); record.Reason != "allowed" || strings.Contains(raw, good) || strings.Contains(lower, "token") || strings.Contains(lower, "authorization") {
			t.Errorf("%v: recorded %s, the backend saw %q", lines, record.Reason, raw)
		}
	}
}

func TestHopByHopHeadersEndAtTheGateway(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.do(chunkedRequest("3\r\nabc\r\n0\r\n\r\n",
		"Keep-Alive: evil", "Proxy-Connection: evil", "Proxy-Authenticate: evil", "Upgrade: evil", "HTTP2-Settings: evil", "X-Named: evil", "x-other: evil",
		"Connection: X-Named, HTTP2-Settings,Upgrade", "Connection: X-Other", "TE: gzip, evil"))
	saw, raw := g.backend.one(t)
	if strings.Contains(raw, "evil") || saw.Header.Get("Te") != "" || saw.Header.Get("Connection") != "" {
		t.Errorf("the backend saw %q", raw)
	}
	if body, err := io.ReadAll(saw.Body); string(body) != "abc" || err != nil || len(saw.Trailer) > 0 {
		t.Errorf("the body arrived as %q with the trailers %v, %v", body, saw.Trailer, err)
	}
}

// chunkedRequest is a POST whose body is in chunks, with trailers perhaps.
func chunkedRequest(body string, lines ...string) string {
	return strings.Replace(request("POST", product+"/settings", body, append(lines, "Transfer-Encoding: chunked")...),
		fmt.Sprintf("Content-Length: %d\r\n", len(body)), "", 1)
}

// TestAnnouncedTrailersPass: but for those that would be withheld as headers,
// and those that nobody announced.
func TestAnnouncedTrailersPass(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.do(chunkedRequest("3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\nx_gatehouse_account: evil\r\nX-Gatehouse-Key-Id: evil\r\nX-Forwarded-For: evil\r\nX-Late: evil\r\n\r\n",
		"Trailer: X-Sum, X-Gatehouse-Key-Id", "Trailer: x_gatehouse_account, X-Forwarded-For, X-Empty"))
	saw, raw := g.backend.one(t)
	body, err := io.ReadAll(saw.Body)
	if string(body) != "abc" || err != nil || strings.Contains(raw, "evil") {
		t.Errorf("the backend saw %q, %v", raw, err)
	}
	if diff := cmp.Diff(http.Header{"X-Sum": {"1", "2"}, "X-Empty": nil}, saw.Trailer); diff != "" {
		t.Errorf("the trailers (-want +got):\n%s", diff)
	}
}

func TestConnectionHeaderCannotRemoveWhatTheGatewaySays(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.do(get(product+"/proxy-list",
		"Connection: X-Gatehouse-Account, x-gatehouse-key-id, X-Gatehouse-Subaccount, X-Gatehouse-Permission",
		"Connection: X-Request-Id, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Traceparent, Host"))
	saw, raw := g.backend.one(t)
	for _, name := range []string{
		"X-Gatehouse-Account", "X-Gatehouse-Key-Id", "X-Gatehouse-Subaccount", "X-Gatehouse-Permission",
		"X-Request-Id", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Traceparent",
	} {
		if len(saw.Header[name]) != 1 || saw.Header.Get(name) == "" {
			t.Errorf("%s is %q in %q", name, saw.Header[name], raw)
		}
	}
	if saw.Host != "api.example.com" {
		t.Errorf("the host is %q", saw.Host)
	}
}

// TestEverythingElseArrivesUnchanged: header lines in, the values that the
// backend sees out.
func TestEverythingElseArrivesUnchanged(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		lines []string
		want  map[string][]string
	}{
		{"order of values", []string{"X-Many: b", "X-Other: 1", "x-many: a", "X-MANY: b, c"}, map[string][]string{"X-Many": {"b", "a", "b, c"}, "X-Other": {"1"}}},
		{"empty values", []string{"X-Empty:", "X-Empty: 1", "X-Empty: "}, map[string][]string{"X-Empty": {"", "1", ""}}},
		{"Cookie", []string{"Cookie: a=1; b=2", "Cookie: c=3"}, map[string][]string{"Cookie": {"a=1; b=2", "c=3"}}},
		{
			"cookies beside the dashboard's",
			[]string{"Cookie: a=1;__Host-gatehouse-session=secret; b=2", "Cookie:  __HOST-Gatehouse=secret", "Cookie: __Host-gatehouse_x=secret; c=3"},
			map[string][]string{"Cookie": {"a=1; b=2", "c=3"}},
		},
		{"the dashboard's cookie alone", []string{"Cookie: __Host-gatehouse-session=secret"}, map[string][]string{"Cookie": nil}},
		{"Accept-Encoding", []string{"Accept-Encoding: br;q=1.0, *;q=0"}, map[string][]string{"Accept-Encoding": {"br;q=1.0, *;q=0"}}},
		{"nothing is added", nil, map[string][]string{"Accept-Encoding": nil, "User-Agent": nil, "Te": nil, "Via": nil, "Content-Type": nil}},
		{"User-Agent", []string{"User-Agent: x/1 (y; z)"}, map[string][]string{"User-Agent": {"x/1 (y; z)"}}},
		{"TE: trailers", []string{"TE: trailers"}, map[string][]string{"Te": {"trailers"}}},
		{"Range", []string{"Range: bytes=0-,5-6", `If-Range: "x"`}, map[string][]string{"Range": {"bytes=0-,5-6"}, "If-Range": {`"x"`}}},
		{"conditions", []string{`If-None-Match: W/"a", "b"`}, map[string][]string{"If-None-Match": {`W/"a", "b"`}}},
		{"bytes above ASCII", []string{"X-Bytes: \xff\xc3\xa4"}, map[string][]string{"X-Bytes": {"\xff\xc3\xa4"}}},
		{
			"names that only look alike",
			[]string{"X-Gatehouse: 1", "X-Forwardedly: 1", "Api-Tokens: 1", "X-Api-Token: 1", "X-Hosts: 1", "Proxy-Foo: 1"},
			map[string][]string{"X-Gatehouse": {"1"}, "X-Forwardedly": {"1"}, "Api-Tokens": {"1"}, "X-Api-Token": {"1"}, "X-Hosts": {"1"}, "Proxy-Foo": {"1"}},
		},
		{"tracestate without a trace", []string{"Tracestate: a=b", "Baggage: a=b"}, map[string][]string{"Tracestate": nil, "Baggage": {"a=b"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			g.do(get(product+"/proxy-list", row.lines...))
			saw, raw := g.backend.one(t)
			for name, want := range row.want {
				if diff := cmp.Diff(want, saw.Header[name]); diff != "" {
					t.Errorf("%s (-want +got):\n%s\nin %q", name, diff, raw)
				}
			}
		})
	}
}

func TestBodyArrivesUnchanged(t *testing.T) {
	t.Parallel()
	body := "{\"a\": \"\\u0000\xff\"}\r\n\r\n"
	for _, line := range []string{"X: y", "Expect: 100-continue", "Content-Encoding: gzip", "Content-Type: text/x; charset=y"} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			g.raw(request("POST", product+"/settings", body, line))
			record := g.records.next(t)
			saw, raw := g.backend.one(t)
			got, err := io.ReadAll(saw.Body)
			if string(got) != body || err != nil || !strings.Contains(raw, line) || record.BytesIn != int64(len(body)) {
				t.Errorf("the backend saw %q (%v), %d bytes were recorded", raw, err, record.BytesIn)
			}
		})
	}
}

// TestGoldenForwardedRequest is the whole request as it arrives.
func TestGoldenForwardedRequest(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.do(request("POST", product+"/settings?a=1;b", `{"a":1}`, "Content-Type: application/json", "User-Agent: test", "Accept: */*", "X-Forwarded-For: 1.2.3.4"))
	_, raw := g.backend.one(t)
	golden(t, "forwarded/post", steady(raw))
}

// TestForwardedHeadersSayWhatIsKnown: nothing of a client that is no trusted
// proxy, and of one that is what it says understandably.
func TestForwardedHeadersSayWhatIsKnown(t *testing.T) {
	t.Parallel()
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	said := []string{"X-Forwarded-For: 6.6.6.6, 198.51.100.7, 10.0.0.9", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https", "Traceparent: " + trace, "Tracestate: a=b"}
	for _, row := range []struct {
		name       string
		trusted    []string
		lines      []string
		forwarded  string
		proto      string
		traceState []string
	}{
		{"a client", nil, said, "127.0.0.1", "http", nil},
		{"a proxy that is not trusted", []string{"10.0.0.0/8"}, said, "127.0.0.1", "http", nil},
		{"a trusted proxy", []string{"127.0.0.0/8"}, said, "10.0.0.9, 127.0.0.1", "https", []string{"a=b"}},
		{"two trusted proxies", []string{"127.0.0.0/8", "10.0.0.0/8"}, said, "198.51.100.7, 10.0.0.9, 127.0.0.1", "https", []string{"a=b"}},
		{"all are trusted", []string{"0.0.0.0/0"}, said, "6.6.6.6, 198.51.100.7, 10.0.0.9, 127.0.0.1", "https", []string{"a=b"}},
		{"a trusted proxy without a word", []string{"127.0.0.0/8"}, nil, "127.0.0.1", "http", nil},
		{
			"a trusted proxy that cannot be understood",
			[]string{"127.0.0.0/8"},
			[]string{"X-Forwarded-For: 6.6.6.6, unknown", "X-Forwarded-Proto: ftp"},
			"127.0.0.1", "http", nil,
		},
		{"two protocols", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Proto: https", "X-Forwarded-Proto: http"}, "127.0.0.1", "http", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, trusting(row.trusted...))
			g.do(get(product+"/proxy-list", row.lines...))
			saw, _ := g.backend.one(t)
			for name, want := range map[string][]string{
				"X-Forwarded-For": {row.forwarded}, "X-Forwarded-Host": {"api.example.com"}, "X-Forwarded-Proto": {row.proto}, "Tracestate": row.traceState,
			} {
				if diff := cmp.Diff(want, saw.Header[name]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
			if kept := saw.Header.Get("Traceparent") == trace; kept != (row.traceState != nil) {
				t.Errorf("traceparent is %q", saw.Header["Traceparent"])
			}
		})
	}
}

var uuid7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestRequestID(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		trusted bool
		given   []string
		kept    bool
	}{
		{"plain", true, []string{"abc-123_X.z"}, true},
		{"of a client", false, []string{"abc-123_X.z"}, false},
		{"as long as it may be", true, []string{strings.Repeat("a", 128)}, true},
		{"too long", true, []string{strings.Repeat("a", 129)}, false},
		{"empty", true, []string{""}, false},
		{"none", true, nil, false},
		{"two", true, []string{"a", "a"}, false},
		{"with a space", true, []string{"a b"}, false},
		{"with a tilde", true, []string{"a~b"}, false},
		{"that could be a token", true, []string{tokenOf("other")}, false},
		{"with a token in it", true, []string{"id-" + tokenOf("other")}, false},
		{"that breaks a log", true, []string{`a","b`}, false},
		{"not ASCII", true, []string{"ä"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			change := func(*setup) {}
			if row.trusted {
				change = trusting("127.0.0.0/8")
			}
			g := start(t, change)
			lines := []string{}
			for _, v := range row.given {
				lines = append(lines, "X-Request-ID: "+v)
			}
			a, record := g.do(get(product+"/proxy-list", lines...))
			saw, _ := g.backend.one(t)
			id := record.RequestID
			if row.kept && id != row.given[0] || !row.kept && !uuid7.MatchString(id) {
				t.Errorf("the id is %q", id)
			}
			for side, got := range map[string][]string{"client": a.Header["X-Request-Id"], "backend": saw.Header["X-Request-Id"]} {
				if len(got) != 1 || got[0] != id {
					t.Errorf("the %s sees %q, want %q", side, got, id)
				}
			}
		})
	}
}

var newTrace = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-00$`)

func TestTraceparent(t *testing.T) {
	t.Parallel()
	const id, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for _, row := range []struct {
		name  string
		given []string
		kept  bool
	}{
		{"sampled", []string{"00-" + id + "-" + span + "-01"}, true},
		{"not sampled", []string{"00-" + id + "-" + span + "-00"}, true},
		{"of another version", []string{"01-" + id + "-" + span + "-01"}, false},
		{"of a version that cannot be", []string{"ff-" + id + "-" + span + "-01"}, false},
		{"in capitals", []string{"00-" + strings.ToUpper(id) + "-" + span + "-01"}, false},
		{"without a trace", []string{"00-" + strings.Repeat("0", 32) + "-" + span + "-01"}, false},
		{"without a span", []string{"00-" + id + "-" + strings.Repeat("0", 16) + "-01"}, false},
		{"with more behind", []string{"00-" + id + "-" + span + "-01-x"}, false},
		{"too short", []string{"00-" + id + "-" + span + "-1"}, false},
		{"dashes elsewhere", []string{"00-" + id[:31] + "-" + span + "-001"}, false},
		{"a flag that is no number", []string{"00-" + id + "-" + span + "-0g"}, false},
		{"two", []string{"00-" + id + "-" + span + "-01", "00-" + id + "-" + span + "-01"}, false},
		{"none", nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for _, trusted := range []bool{true, false} {
				change := trusting()
				if trusted {
					change = trusting("127.0.0.1/32")
				}
				g := start(t, change)
				var lines []string
				for _, v := range row.given {
					lines = append(lines, "traceparent: "+v)
				}
				g.do(get(product+"/proxy-list", lines...))
				saw, _ := g.backend.one(t)
				got := saw.Header["Traceparent"]
				if row.kept && trusted && !slices.Equal(got, row.given) || (!row.kept || !trusted) && (len(got) != 1 || !newTrace.MatchString(got[0]) || slices.Equal(got, row.given)) {
					t.Errorf("trusted %v: the backend saw %q", trusted, got)
				}
			}
		})
	}
}

// FuzzIDsOfUntrustedPeersAreNeverKept: what a client says of request and trace
// never reaches a backend, and a trusted proxy's only when it is plain.
func FuzzIDsOfUntrustedPeersAreNeverKept(f *testing.F) {
	for _, s := range []string{"", "abc", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a b", "\x00", strings.Repeat("a", 200)} {
		f.Add(s, s, true)
		f.Add(s, s, false)
	}
	plain := regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	trace := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
	strict, open := start(f), start(f, trusting("192.0.2.0/24"))
	f.Fuzz(func(t *testing.T, id, parent string, trusted bool) {
		g := strict
		if trusted {
			g = open
		}
		r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
		r.Header = http.Header{"Api-Token": {good}, "X-Request-Id": {id}, "Traceparent": {parent}, "Tracestate": {"a=b"}}
		w, record := g.serve(t, r)
		if w.Code != http.StatusOK {
			t.Fatalf("status %d: %v", w.Code, record.Cause)
		}
		came := g.backend.next(t)
		saw := textproto.MIMEHeader{}
		for line := range strings.SplitSeq(came.raw, "\r\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				saw.Add(name, value)
			}
		}
		keptID, keptTrace := record.RequestID == id, saw.Get("Traceparent") == parent
		if keptID != (trusted && plain.MatchString(id) && !strings.Contains(id, "gk_")) || !keptID && !uuid7.MatchString(record.RequestID) {
			t.Errorf("trusted %v: the request id %q became %q", trusted, id, record.RequestID)
		}
		if !trusted && keptTrace || keptTrace && !trace.MatchString(parent) || !keptTrace && !newTrace.MatchString(saw.Get("Traceparent")) {
			t.Errorf("trusted %v: the trace %q became %q", trusted, parent, saw.Get("Traceparent"))
		}
		if keptTrace != (saw.Get("Tracestate") == "a=b") || len(saw["X-Request-Id"]) != 1 || saw.Get("X-Request-Id") != record.RequestID ||
			w.Header().Get("X-Request-Id") != record.RequestID {
			t.Errorf("the backend saw %q", came.raw)
		}
	})
}

// TestHTTP2 goes the same way, over TLS.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	server := httptest.NewUnstartedServer(nil)
	server.Config = proxy.NewServer(g.gateway, serverOptions())
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	client := server.Client()
	r, err := http.NewRequest(http.MethodPost, server.URL+product+"/settings?a;b", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"api-token": {good}, "X-Gatehouse-Account": {"evil"}, "Te": {"trailers"}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	saw, raw := g.backend.one(t)
	if answer.ProtoMajor != 2 || answer.TLS == nil || answer.TLS.Version < tls.VersionTLS12 || answer.StatusCode != http.StatusOK {
		t.Errorf("answered %+v", answer)
	}
	if saw.Header.Get("X-Forwarded-Proto") != "https" || strings.Contains(raw, "evil") || !strings.HasSuffix(raw, "\r\n\r\nbody") ||
		!strings.HasPrefix(raw, "POST "+product+"/settings?a;b HTTP/1.1\r\n") {
		t.Errorf("the backend saw %q", raw)
	}
	if record := g.records.next(t); record.BytesIn != 4 || record.Reason != "allowed" {
		t.Errorf("recorded %+v", record)
	}
}
