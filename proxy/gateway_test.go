package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/problem"
)

// kase is one request to a gateway. Its zero value, completed by newKase, passes.
type kase struct {
	method, path, query, body string
	headers                   []string
	chunked                   bool // the body breaks off where it ends
	warmUp                    int  // requests that come before
	warmUpToken               string
	entry                     keystore.Entry
	lookup                    error
	limits                    *proxy.Limiter
	failures                  *proxy.FailureLimiter
	backend                   proxy.Backend
	answer                    func(net.Conn, int) bool
	timeout                   time.Duration
	target                    *url.URL
}

func newKase() *kase {
	return &kase{
		method: "GET", path: product + "/proxy-list", headers: []string{"api-token: " + good},
		entry: entry(), timeout: patience, warmUpToken: good,
	}
}

func (k *kase) raw() string {
	target := k.path
	if k.query != "" {
		target += "?" + k.query
	}
	lines := append([]string{k.method + " " + target + " HTTP/1.1", "Host: api.example.com", "Connection: close"}, k.headers...)
	switch {
	case k.chunked:
		lines = append(lines, "Transfer-Encoding: chunked")
	case k.body != "":
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(k.body)))
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + k.body
}

// start starts the gate of the case, and sends what comes before.
func (k *kase) start(t *testing.T) *gate {
	t.Helper()
	g := start(t, func(s *setup) {
		find := only(t, good, k.entry)
		s.keys = finder(func(ctx context.Context, token keystore.Token) (keystore.Entry, error) {
			if k.lookup != nil {
				return keystore.Entry{}, k.lookup
			}
			return find(ctx, token)
		})
		s.options.Limits, s.options.Failures = k.limits, k.failures
		s.backend, s.upstream.Timeout = k.backend, k.timeout
		if k.target != nil {
			s.upstream.Targets = []*url.URL{k.target}
		}
	})
	if k.answer != nil {
		g.backend.does(k.answer)
	}
	for range k.warmUp {
		g.do("GET " + product + "/proxy-list HTTP/1.1\r\nHost: a\r\nConnection: close\r\nApi-Token: " + k.warmUpToken + "\r\n\r\n")
	}
	return g
}

func header(name, value string) func(*kase) {
	return func(k *kase) { k.headers = []string{name + ": " + value} }
}

func newLimiter(t testing.TB, perSecond float64, burst int) *proxy.Limiter {
	l := proxy.NewLimiter(proxy.LimiterOptions{Name: "key", Rate: perSecond, Burst: burst})
	t.Cleanup(l.Close)
	return l
}

// refusal is a row of API.md's table: what differs from a request that
// passes, and how little less of it would pass.
type refusal struct {
	name  string
	code  problem.Code
	spoil func(*testing.T, *kase)
	pass  func(*testing.T, *kase) // nil: newKase itself
}

func on(change func(*kase)) func(*testing.T, *kase) {
	return func(_ *testing.T, k *kase) { change(k) }
}

func refusals() []refusal {
	allowed := func(prefixes ...string) func(*testing.T, *kase) {
		return on(func(k *kase) {
			list := make([]netip.Prefix, len(prefixes))
			for i, p := range prefixes {
				list[i] = netip.MustParsePrefix(p)
			}
			k.entry.Key.Addresses = policy.OnlyAddresses(list...)
		})
	}
	post := func(body string) func(*testing.T, *kase) {
		return on(func(k *kase) { k.method, k.path, k.body = "POST", product+"/settings", body })
	}
	path := func(path string) func(*testing.T, *kase) { return on(func(k *kase) { k.path = path }) }
	return []refusal{
		{"ambiguous_path", problem.AmbiguousPath, path(product + "/%2e%2e/proxy-list"), nil},
		{"unknown_route", problem.UnknownRoute, path(product + "/proxy-lists"), nil},
		{"method_not_allowed", problem.MethodNotAllowed, on(func(k *kase) { k.method = "DELETE" }), nil},
		{
			"ambiguous_query", problem.AmbiguousQuery,
			on(func(k *kase) { k.path, k.query = product+"/whitelist", "type=get&type=get" }),
			on(func(k *kase) { k.path, k.query = product+"/whitelist", "type=get" }),
		},
		{"missing_credentials", problem.MissingCredentials, on(func(k *kase) { k.headers = nil }), nil},
		{
			"ambiguous_credentials", problem.AmbiguousCredentials,
			on(func(k *kase) { k.headers = append(k.headers, bearerName+tokenOf("other")) }),
			on(func(k *kase) { k.headers = append(k.headers, bearerName+good) }),
		},
		{"invalid_token_malformed", problem.InvalidToken, on(header("api-token", good[:63]+"_")), nil},
		{"invalid_token_unknown", problem.InvalidToken, on(header("api-token", tokenOf("unknown"))), nil},
		{
			"rate_limited_failures", problem.RateLimited,
			func(t *testing.T, k *kase) {
				k.failures, k.warmUp, k.warmUpToken = proxy.NewFailureLimiter(0.1, 2), 2, "wrong"
				header("api-token", "wrong")(k)
			},
			on(func(k *kase) { k.failures, k.warmUp, k.warmUpToken = proxy.NewFailureLimiter(0.1, 2), 3, "wrong" }),
		},
		{"key_store_unavailable", problem.KeyStoreUnavailable, on(func(k *kase) { k.lookup = keystore.ErrUnavailable }), nil},
		{"key_disabled", problem.KeyDisabled, on(func(k *kase) { k.entry.Key.Active = false }), nil},
		{"account_suspended", problem.AccountSuspended, on(func(k *kase) { k.entry.Account.Status = policy.Suspended }), nil},
		{
			"key_expired", problem.KeyExpired,
			on(func(k *kase) { k.entry.Key.Expiry = policy.ExpiresAt(theTime.Unix()) }),
			on(func(k *kase) { k.entry.Key.Expiry = policy.ExpiresAt(theTime.Unix() + 1) }),
		},
		{"ip_not_allowed", problem.IPNotAllowed, allowed("127.0.0.2/32", "::1/128"), allowed("127.0.0.1/32")},
		{
			"subaccount_not_allowed_by_key", problem.SubaccountNotAllowed,
			path(strings.ReplaceAll(product, string(subA), string(subB)) + "/proxy-list"),
			on(func(k *kase) {
				k.path = strings.ReplaceAll(product, string(subA), string(subB)) + "/proxy-list"
				k.entry.Key.Subaccounts = policy.AllSubaccounts()
			}),
		},
		{"subaccount_not_allowed_by_account", problem.SubaccountNotAllowed, on(func(k *kase) {
			k.path = strings.ReplaceAll(product, string(subA), string(subC)) + "/proxy-list"
			k.entry.Key.Subaccounts = policy.AllSubaccounts()
		}), on(func(k *kase) { k.entry.Key.Subaccounts = policy.AllSubaccounts() })},
		{"permission_denied", problem.PermissionDenied, path("/serp/v1/search"), path("/serp/v1/open")},
		{
			"rate_limited", problem.RateLimited,
			func(t *testing.T, k *kase) { k.limits, k.warmUp = newLimiter(t, 0.5, 2), 2 },
			func(t *testing.T, k *kase) { k.limits, k.warmUp = newLimiter(t, 0.5, 3), 2 },
		},
		{"body_too_large", problem.BodyTooLarge, post(strings.Repeat("a", maxBody+1)), post(strings.Repeat("a", maxBody))},
		{"upstream_unreachable", problem.UpstreamUnreachable, on(func(k *kase) { k.target = closedPort() }), nil},
		{"upstream_timeout", problem.UpstreamTimeout, on(func(k *kase) {
			k.timeout = 200 * time.Millisecond
			k.answer = func(c net.Conn, _ int) bool {
				_, _ = c.Read(make([]byte, 1)) // until the gateway gives up
				return false
			}
		}), nil},
		{"internal_error", problem.InternalError, on(func(k *kase) {
			k.backend = proxy.BackendFunc(func(http.ResponseWriter, *http.Request, proxy.Access) error { panic("the inside of " + good) })
		}), on(func(k *kase) { k.backend = proxy.BackendFunc(accept) })},
	}
}

// closedPort is one at which nothing listens, not even a test that runs meanwhile.
func closedPort() *url.URL { return &url.URL{Scheme: "http", Host: "127.0.0.1:1"} }

// TestGoldenRefusals: the whole answer, that nothing reached the backend, the
// record, the metric and the line of the access log.
func TestGoldenRefusals(t *testing.T) {
	t.Parallel()
	reached := []problem.Code{problem.UpstreamTimeout} // the backend got the request
	for _, row := range refusals() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := newKase()
			row.spoil(t, k)
			g := k.start(t)
			before := len(g.backend.saw())
			lines, metrics := g.log.String(), g.metrics()
			text := g.raw(k.raw())
			record := g.records.next(t)
			if record.Reason != string(row.code) || record.Status != row.code.Status() {
				t.Errorf("recorded %d %s, want %d %s", record.Status, record.Reason, row.code.Status(), row.code)
			}
			if saw := g.backend.saw(); len(saw) > before && !slices.Contains(reached, row.code) {
				t.Errorf("the backend saw %+v, want nothing", saw[before:])
			}
			if strings.Contains(text, good) || strings.Contains(text, "goroutine") {
				t.Errorf("the answer says more than it should: %s", text)
			}
			cause := "none"
			if record.Cause != nil {
				cause, _, _ = strings.Cut(record.Cause.Error(), "\n")
			}
			log, _, _ := strings.Cut(strings.TrimPrefix(g.log.String(), lines), `,"error":`)
			golden(t, "refusals/"+row.name, steady(fmt.Sprintf("-- answer --\n%s\n-- record --\n%s %d %s, cause: %s\n-- metric --\n%s-- log --\n%s\n",
				text, record.Route, record.Status, record.Reason, cause, counted(metrics, g.metrics()), strings.TrimSpace(log))))
		})
	}
}

// counted is which counters differ.
func counted(before, after string) string {
	var out strings.Builder
	for line := range strings.Lines(after) {
		if strings.HasPrefix(line, "gatehouse_requests_total{") && !strings.Contains(before, line) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestEachRefusalHasANeighbourThatPasses(t *testing.T) {
	t.Parallel()
	for _, row := range refusals() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := newKase()
			if row.pass != nil {
				row.pass(t, k)
			}
			g := k.start(t)
			before := len(g.backend.saw())
			a, record := g.do(k.raw())
			if a.Status/100 != 2 || record.Reason != "allowed" || record.Cause != nil {
				t.Errorf("got %d %q (%v), want it to pass", a.Status, record.Reason, record.Cause)
			}
			if got := len(g.backend.saw()) - before; got != 1 && k.backend == nil {
				t.Errorf("the backend saw %d requests, want 1", got)
			}
		})
	}
}

// TestEveryReasonHasARefusal keeps the table whole.
func TestEveryReasonHasARefusal(t *testing.T) {
	t.Parallel()
	tested := map[string]bool{string(policy.Allowed): true}
	for _, row := range refusals() {
		tested[string(row.code)] = true
	}
	for _, reason := range policy.Reasons() {
		if !tested[string(reason)] {
			t.Errorf("no refusal for %s; tested are %v", reason, slices.Sorted(maps.Keys(tested)))
		}
	}
}

// TestStepsComeInTheOrderOfTheContract spoils a request at one step and at
// every later one: the earliest answers.
func TestStepsComeInTheOrderOfTheContract(t *testing.T) {
	t.Parallel()
	steps := []struct {
		code  problem.Code
		spoil func(*testing.T, *kase)
	}{
		{problem.AmbiguousPath, on(func(k *kase) { k.path += "/.." })},
		{problem.UnknownRoute, on(func(k *kase) { k.path = "/nowhere" })},
		{problem.MethodNotAllowed, on(func(k *kase) { k.method = "DELETE" })},
		{problem.AmbiguousQuery, on(func(k *kase) { k.path, k.query = product+"/whitelist", "type=guess" })},
		{problem.AmbiguousCredentials, on(func(k *kase) { k.headers = append(k.headers, bearerName+"other") })},
		{problem.InvalidToken, on(header("api-token", "malformed"))},
		{problem.KeyStoreUnavailable, on(func(k *kase) { k.lookup = errors.New("down") })},
		{problem.KeyDisabled, on(func(k *kase) { k.entry.Key.Active = false })},
		{problem.AccountSuspended, on(func(k *kase) { k.entry.Account.Status = policy.Suspended })},
		{problem.KeyExpired, on(func(k *kase) { k.entry.Key.Expiry = policy.ExpiresAt(1) })},
		{problem.IPNotAllowed, on(func(k *kase) { k.entry.Key.Addresses = policy.AddressSet{} })},
		{problem.SubaccountNotAllowed, on(func(k *kase) { k.entry.Key.Subaccounts = policy.OnlySubaccounts(subB) })},
		{problem.PermissionDenied, on(func(k *kase) { k.entry.Key.Permissions = nil })},
		{problem.RateLimited, func(t *testing.T, k *kase) { k.limits = newLimiter(t, 1, 0) }},
		{problem.BodyTooLarge, on(func(k *kase) { k.body = strings.Repeat("a", maxBody+1) })},
		{problem.UpstreamUnreachable, on(func(k *kase) { k.target = closedPort() })},
	}
	for i, step := range steps {
		t.Run(string(step.code), func(t *testing.T) {
			t.Parallel()
			k := newKase()
			k.path = product + "/proxy-list"
			for j := len(steps) - 1; j >= i; j-- {
				steps[j].spoil(t, k)
			}
			g := k.start(t)
			if _, record := g.do(k.raw()); record.Reason != string(step.code) {
				t.Errorf("recorded %s, want %s", record.Reason, step.code)
			}
			g.backend.sawNothing(t)
		})
	}
}

// TestServerAnswersNothingPastTheGateway: what net/http would answer itself is
// refused, and recorded.
func TestServerAnswersNothingPastTheGateway(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, target := range []string{"OPTIONS *", "GET http://api.example.com" + product + "/proxy-list"} {
		a, record := g.do(target + " HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nApi-Token: " + good + "\r\n\r\n")
		if a.Status != http.StatusBadRequest || record.Reason != "ambiguous_path" {
			t.Errorf("%s: answered %d %s, want 400 ambiguous_path", target, a.Status, record.Reason)
		}
	}
	for _, target := range []string{"CONNECT api.example.com:443", "CONNECT /", "PROPFIND " + product + "/proxy-list", "REFUSED /", "get /"} {
		a, record := g.do(target + " HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nApi-Token: " + good + "\r\n\r\n")
		if a.Status != http.StatusNotImplemented || record.Reason != "method_not_implemented" {
			t.Errorf("%s: answered %d %s, want 501 method_not_implemented", target, a.Status, record.Reason)
		}
	}
	g.backend.sawNothing(t)
}

func TestGatewayNeedsItsOptions(t *testing.T) {
	t.Parallel()
	whole := proxy.Options{
		Routes: routes(t, proxy.BackendFunc(accept)), Keys: only(t, good, entry()), TokenPrefix: "gk_",
		Records: make(records), MaxBody: 1, Now: newClock().Now,
	}
	if _, err := proxy.New(whole); err != nil {
		t.Error(err)
	}
	for name, remove := range map[string]func(*proxy.Options){
		"routes": func(o *proxy.Options) { o.Routes = nil }, "keys": func(o *proxy.Options) { o.Keys = nil },
		"token prefix": func(o *proxy.Options) { o.TokenPrefix = "" }, "records": func(o *proxy.Options) { o.Records = nil },
		"max body": func(o *proxy.Options) { o.MaxBody = 0 }, "clock": func(o *proxy.Options) { o.Now = nil },
	} {
		o := whole
		remove(&o)
		if _, err := proxy.New(o); err == nil {
			t.Errorf("a gateway without %s, want an error", name)
		}
	}
}

func BenchmarkGateway(b *testing.B) {
	for name, change := range map[string]func(*setup, *http.Request){
		"allowed": func(*setup, *http.Request) {},
		"limited": func(s *setup, _ *http.Request) {
			s.options.Limits, s.options.InFlight = newLimiter(b, 1e6, 1e6), proxy.NewInFlight(1000)
			s.options.Now = time.Now
		},
		"counted": func(s *setup, _ *http.Request) {
			s.options.Used = func(policy.KeyID, policy.AccountID, time.Time) {}
			s.options.Counted = func(keystore.CountedRequest) {}
		},
		"unknown_token":     func(_ *setup, r *http.Request) { r.Header.Set("Api-Token", tokenOf("unknown")) },
		"permission_denied": func(_ *setup, r *http.Request) { r.URL.Path, r.RequestURI = "/serp/v1/search", "/serp/v1/search" },
		"rate_limited":      func(s *setup, _ *http.Request) { s.options.Limits = newLimiter(b, 1, 0) },
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
			r.Header.Set("Api-Token", good)
			g := newGate(b, func(s *setup) {
				s.backend, s.options.Records = proxy.BackendFunc(accept), discardRecords{}
				change(s, r)
			})
			w := &discardWriter{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				g.gateway.ServeHTTP(w, r)
			}
		})
	}
}

type discardRecords struct{}

func (discardRecords) Record(*proxy.Record) {}

type discardWriter struct{ header http.Header }

func (w *discardWriter) Header() http.Header         { return w.header }
func (w *discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *discardWriter) WriteHeader(int)             {}
