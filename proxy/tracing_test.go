package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
)

const (
	givenTraceID = "0af7651916cd43dd8448eb211c80319c"
	givenSpanID  = "b7ad6b7169203331"
)

// traced has the gate make spans, of which share is recorded where nobody else
// has decided.
func traced(share float64) (*tracetest.SpanRecorder, func(*setup)) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(share))),
	)
	return recorder, func(s *setup) { s.options.Traces = provider }
}

// tree is the spans as lines: name, kind, parent, and what it ended with.
func tree(spans []sdktrace.ReadOnlySpan) string {
	names := map[trace.SpanID]string{}
	for _, s := range spans {
		names[s.SpanContext().SpanID()] = s.Name()
	}
	var lines []string
	for _, s := range spans {
		line := fmt.Sprintf("%s %s below %q: %s", s.SpanKind(), s.Name(), names[s.Parent().SpanID()], attributeOf(s, "gatehouse.reason"))
		if s.Status().Code == codes.Error {
			line += " error " + attributeOf(s, "error.type")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func attributeOf(s sdktrace.ReadOnlySpan, name string) string {
	for _, a := range s.Attributes() {
		if string(a.Key) == name {
			return a.Value.String()
		}
	}
	return ""
}

func TestSpansOfARequest(t *testing.T) {
	t.Parallel()
	recorder, change := traced(1)
	g := start(t, change)
	_, record := g.do(get(product+"/files/a?b=c", "User-Agent: curl/8"))
	want := `internal lookup below "GET /v4/account/{subaccount}/datacenter_shared/files/{path...}": allowed
internal decision below "GET /v4/account/{subaccount}/datacenter_shared/files/{path...}": allowed
client GET below "GET /v4/account/{subaccount}/datacenter_shared/files/{path...}": 
server GET /v4/account/{subaccount}/datacenter_shared/files/{path...} below "": allowed`
	spans := recorder.Ended()
	if got := tree(spans); got != want {
		t.Fatalf("got the spans\n%s\nwant\n%s", got, want)
	}
	forwarded, server := spans[2], spans[3]
	for name, want := range map[string]string{
		"http.request.method": "GET", "http.route": "/v4/account/{subaccount}/datacenter_shared/files/{path...}", "url.path": product + "/files/a",
		"url.scheme": "http", "url.query": "", "http.response.status_code": "200", "client.address": "127.0.0.1", "server.address": "api.example.com",
		"network.protocol.version": "1.1", "user_agent.original": "curl/8", "gatehouse.account": "acme", "gatehouse.lookup": "found",
		"gatehouse.request_id": record.RequestID, "gatehouse.key_id": string(record.Key), "gatehouse.permission": string(readPermission),
	} {
		if got := attributeOf(server, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"http.request.method": "GET", "server.address": "127.0.0.1", "server.port": g.backend.url().Port(), "gatehouse.upstream": "test",
		"http.response.status_code": "200", "http.request.resend_count": "",
	} {
		if got := attributeOf(forwarded, name); got != want {
			t.Errorf("of the upstream, %s is %q, want %q", name, got, want)
		}
	}
	saw, _ := g.backend.one(t)
	if got := saw.Header["Traceparent"]; !slices.Equal(got, []string{parentOf(forwarded, "01")}) {
		t.Errorf("the backend saw %q, want the span of the upstream, %s", got, parentOf(forwarded, "01"))
	}
	line := fmt.Sprintf(`"trace_id":"%s","span_id":"%s"`, server.SpanContext().TraceID(), server.SpanContext().SpanID())
	if !strings.Contains(g.log.String(), line) {
		t.Errorf("the log does not name the span %s: %s", line, g.log)
	}
}

// parentOf is the traceparent that names the span.
func parentOf(s sdktrace.ReadOnlySpan, flags string) string {
	return fmt.Sprintf("00-%s-%s-%s", s.SpanContext().TraceID(), s.SpanContext().SpanID(), flags)
}

// TestSpansEndWhereTheRequestWasRefused: no step begins behind a refusal.
func TestSpansEndWhereTheRequestWasRefused(t *testing.T) {
	t.Parallel()
	const list = "GET /v4/account/{subaccount}/datacenter_shared/proxy-list"
	const allowed = `internal lookup below "` + list + `": allowed` + "\n"
	for _, row := range []struct {
		name, raw, want string
		change          func(*setup)
	}{
		{"no route", get("/nowhere"), `server GET below "": unknown_route`, nil},
		{"an odd method", request("BREW", product+"/proxy-list", ""), `server HTTP below "": method_not_implemented error method_not_implemented`, nil},
		{"an ambiguous path", get("//nowhere"), `server GET below "": ambiguous_path`, nil},
		{"an unknown token", strings.Replace(get(product+"/proxy-list"), good, tokenOf("x"), 1), `internal lookup below "` + list + `": invalid_token
server ` + list + ` below "": invalid_token`, nil},
		{"a store that is away", get(product + "/proxy-list"), `internal lookup below "` + list + `": key_store_unavailable
server ` + list + ` below "": key_store_unavailable error key_store_unavailable`, func(s *setup) {
			s.keys = finder(func(context.Context, keystore.Token) (keystore.Entry, error) {
				return keystore.Entry{}, errors.New("away")
			})
		}},
		{"a permission that is not held", get("/serp/v1/search"), `internal lookup below "GET /serp/v1/search": allowed
internal decision below "GET /serp/v1/search": permission_denied
server GET /serp/v1/search below "": permission_denied`, nil},
		{"too many at once", get(product + "/proxy-list"), allowed + `internal decision below "` + list + `": rate_limited
server ` + list + ` below "": rate_limited`, func(s *setup) {
			s.options.Limits = newLimiter(t, 0.001, 1) // the first request is not looked at
		}},
		{"a backend that is away", get(product + "/proxy-list"), allowed + `internal decision below "` + list + `": allowed
client GET below "` + list + `":  error upstream_unreachable
server ` + list + ` below "": upstream_unreachable error upstream_unreachable`, func(s *setup) {
			s.upstream.Targets = []*url.URL{closedPort()}
		}},
		{"a backend that panics", get(product + "/proxy-list"), allowed + `internal decision below "` + list + `": allowed
server ` + list + ` below "": internal_error error internal_error`, backendFunc(func(http.ResponseWriter, *http.Request) error { panic("oh") })},
		{"a lookup that panics", get(product + "/proxy-list"), `internal lookup below "` + list + `": internal_error
server ` + list + ` below "": internal_error error internal_error`, func(s *setup) {
			s.keys = finder(func(context.Context, keystore.Token) (keystore.Entry, error) { panic("oh") })
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			recorder, change := traced(1)
			g := start(t, change, func(s *setup) {
				if row.change != nil {
					row.change(s)
				}
			})
			g.do(row.raw)
			if row.name == "too many at once" {
				recorder.Reset()
				g.do(row.raw)
			}
			if got := tree(recorder.Ended()); got != row.want {
				t.Errorf("got the spans\n%s\nwant\n%s", got, row.want)
			}
		})
	}
}

// TestTraceIsContinuedFromTrustedProxiesAlone, and recorded as they say.
func TestTraceIsContinuedFromTrustedProxiesAlone(t *testing.T) {
	t.Parallel()
	const parent = "traceparent: 00-" + givenTraceID + "-" + givenSpanID
	for _, row := range []struct {
		name                string
		lines               []string
		share               float64
		trusted             bool
		continued, recorded bool
		state               []string
	}{
		{"sampled", []string{parent + "-01", "tracestate: a=b", "tracestate: c=d"}, 0, true, true, true, []string{"a=b,c=d"}},
		{"not sampled", []string{parent + "-00", "tracestate: a=b"}, 1, true, true, false, []string{"a=b"}},
		{"with a state that is none", []string{parent + "-01", "tracestate: a b c"}, 0, true, true, true, nil},
		{"two", []string{parent + "-01", parent + "-01", "tracestate: a=b"}, 1, true, false, true, nil},
		{"of another version", []string{strings.Replace(parent, " 00", " 01", 1) + "-01", "tracestate: a=b"}, 1, true, false, true, nil},
		{"none", []string{"tracestate: a=b"}, 1, true, false, true, nil},
		{"of a stranger", []string{parent + "-01", "tracestate: a=b"}, 1, false, false, true, nil},
		{"of a stranger who wants it recorded", []string{parent + "-01", "tracestate: a=b"}, 0, false, false, false, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			recorder, change := traced(row.share)
			trust := trusting()
			if row.trusted {
				trust = trusting("127.0.0.1/32")
			}
			g := start(t, change, trust)
			_, record := g.do(get(product+"/proxy-list", row.lines...))
			saw, _ := g.backend.one(t)
			said := strings.Split(strings.Join(saw.Header["Traceparent"], " "), "-")
			if len(said) != 4 {
				t.Fatalf("the backend saw the traceparent %q", saw.Header["Traceparent"])
			}
			if continued := said[1] == givenTraceID; continued != row.continued || said[1] != record.TraceID.String() {
				t.Errorf("the backend saw the trace %s, and the record is of %s; continued: %v", said[1], record.TraceID, row.continued)
			}
			if said[2] == givenSpanID || said[2] == record.SpanID.String() || (said[3] == "01") != row.recorded {
				t.Errorf("the backend saw the parent %s with the flags %s; recorded: %v", said[2], said[3], row.recorded)
			}
			if got := saw.Header["Tracestate"]; !slices.Equal(got, row.state) {
				t.Errorf("the backend saw the state %q, want %q", got, row.state)
			}
			if recorded := len(recorder.Ended()) == 4; recorded != row.recorded || !recorded && len(recorder.Ended()) != 0 {
				t.Errorf("recorded\n%s", tree(recorder.Ended()))
			}
		})
	}
}

// TestTriesOfOneRequestAreToldApart by their spans, and by what became of them.
func TestTriesOfOneRequestAreToldApart(t *testing.T) {
	t.Parallel()
	recorder, change := traced(1)
	well := newBackend(t)
	broken := newFaulty(t, newBackend(t))
	broken.does(after(0, end))
	g := start(t, change, func(s *setup) {
		s.upstream.Targets = []*url.URL{broken.url(), well.url()}
		s.upstream.Ejection.Failures = 1 << 30
	})
	for range 20 { // until the broken one is asked first
		recorder.Reset()
		if _, record := g.do(get(product + "/proxy-list")); record.Status != http.StatusOK {
			t.Fatalf("recorded %+v", record)
		}
		spans := recorder.Ended()
		if len(spans) != 5 {
			continue
		}
		first, second := spans[2], spans[3]
		if attributeOf(first, "error.type") != "upstream_unreachable" || attributeOf(first, "http.request.resend_count") != "" ||
			attributeOf(second, "http.response.status_code") != "200" || attributeOf(second, "http.request.resend_count") != "1" {
			t.Errorf("got the spans\n%s\n%v\n%v", tree(spans), first.Attributes(), second.Attributes())
		}
		saw := well.saw()
		if last := saw[len(saw)-1].raw; !strings.Contains(last, "Traceparent: "+parentOf(second, "01")+"\r\n") {
			t.Errorf("the backend saw %q, want the span %s", last, parentOf(second, "01"))
		}
		return
	}
	t.Error("no request was sent twice, which proves nothing")
}

// TestSpansStayBoundedAndClean whatever clients send.
func TestSpansStayBoundedAndClean(t *testing.T) {
	t.Parallel()
	h := &hostile{rand.New(rand.NewPCG(5, 6)), []string{good, tokenOf("unknown"), tokenOf("other")}}
	recorder, change := traced(1)
	g := newGate(t, change, trusting("127.0.0.0/8"), backendFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}))
	names := map[string]bool{}
	for range 3000 {
		g.gateway.ServeHTTP(httptest.NewRecorder(), h.request())
		g.records.next(t)
		for _, s := range recorder.Ended() {
			names[s.Name()] = true
			checkAttributes(t, s.Attributes(), h.tokens)
		}
		recorder.Reset()
	}
	if len(names) < 8 || len(names) > 20 {
		t.Errorf("%d names: %v", len(names), names)
	}
}

func checkAttributes(t *testing.T, attributes []attribute.KeyValue, tokens []string) {
	t.Helper()
	for _, a := range attributes {
		text := a.Value.String()
		if len(text) > 300 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) || strings.Contains(text, "?") && a.Key == "url.path" {
			t.Fatalf("%s is %q", a.Key, text)
		}
		for _, token := range tokens {
			if strings.Contains(text, token[3:20]) {
				t.Fatalf("%s shows a token: %q", a.Key, text)
			}
		}
	}
}

// TestSpanOfGatehousesOwnAPI: there is no upstream.
func TestSpanOfGatehousesOwnAPI(t *testing.T) {
	t.Parallel()
	recorder, change := traced(1)
	g := start(t, change, func(s *setup) {
		s.options.Routes = must(proxy.NewRoutes([]string{"/own"}, []proxy.RouteSpec{
			{Match: "GET /own/{id}", Permission: policy.AnyValidKey, Own: true, Backend: proxy.BackendFunc(accept)},
		}))(t)
	})
	g.do(get("/own/7"))
	want := `internal lookup below "GET /own/{id}": allowed
internal decision below "GET /own/{id}": allowed
server GET /own/{id} below "": allowed`
	if got := tree(recorder.Ended()); got != want {
		t.Errorf("got the spans\n%s\nwant\n%s", got, want)
	}
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
