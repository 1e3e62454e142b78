package proxy_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
)

// limitGate answers everything in this process, within its limits. Of every
// token that begins with "good" it knows a key of its own.
func limitGate(t *testing.T, keys *proxy.Limiter, failures *proxy.FailureLimiter, changes ...func(*setup)) *gate {
	t.Helper()
	known := map[keystore.Token]keystore.Entry{}
	for _, word := range []string{"good", "good2"} {
		token, err := keystore.ParseToken("gk_", tokenOf(word))
		if err != nil {
			t.Fatal(err)
		}
		e := entry()
		e.Key.ID = policy.KeyID(word)
		known[token] = e
	}
	return newGate(t, append(changes, func(s *setup) {
		if s.backend == nil {
			s.backend = proxy.BackendFunc(accept)
		}
		s.options.Limits, s.options.Failures = keys, failures
		s.keys = finder(func(_ context.Context, token keystore.Token) (keystore.Entry, error) {
			if e, ok := known[token]; ok {
				return e, nil
			}
			return keystore.Entry{}, keystore.ErrUnknownToken
		})
	})...)
}

// ask makes one request, and returns the reason and Retry-After.
func (g *gate) ask(t *testing.T, token, peer string, header ...string) (reason, retryAfter string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
	r.RemoteAddr = peer
	r.Header = http.Header{}
	if token != "" {
		r.Header.Set("Api-Token", token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w, record := g.serve(t, r)
	return record.Reason, w.Header().Get("Retry-After")
}

const someone = "198.51.100.1:1"

func TestLimiter(t *testing.T) {
	t.Parallel()
	type step struct {
		at         time.Duration
		allowed    bool
		retryAfter string
	}
	for _, row := range []struct {
		name  string
		rate  float64
		burst int
		steps []step
	}{
		{"one at a time", 1, 1, []step{
			{0, true, ""}, {0, false, "1"}, {999 * time.Millisecond, false, "1"}, {time.Second, true, ""}, {time.Second, false, "1"},
		}},
		{"three at once", 1, 3, []step{
			{0, true, ""}, {0, true, ""}, {0, true, ""}, {0, false, "1"}, {2 * time.Second, true, ""}, {2 * time.Second, true, ""}, {2 * time.Second, false, "1"},
		}},
		{"the budget is never more than the burst", 10, 2, []step{
			{0, true, ""}, {time.Hour, true, ""}, {time.Hour, true, ""}, {time.Hour, false, "1"},
		}},
		{"one in ten seconds", 0.1, 1, []step{
			{0, true, ""}, {0, false, "10"}, {2500 * time.Millisecond, false, "8"}, {9 * time.Second, false, "1"}, {10 * time.Second, true, ""},
		}},
		{"refusals cost nothing", 0.5, 1, []step{
			{0, true, ""}, {0, false, "2"}, {0, false, "2"}, {0, false, "2"}, {2 * time.Second, true, ""},
		}},
		{"many", 1000, 1, []step{{0, true, ""}, {0, false, "1"}, {time.Millisecond, true, ""}}},
		{"a burst of none", 1, 0, []step{{0, false, "1"}, {time.Hour, false, "1"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := limitGate(t, newLimiter(t, row.rate, row.burst), nil)
			for i, s := range row.steps {
				g.clock.Advance(s.at - g.clock.Now().Sub(theTime))
				reason, retryAfter := g.ask(t, good, someone)
				if (reason == "allowed") != s.allowed || retryAfter != s.retryAfter {
					t.Errorf("step %d at %v: %s, Retry-After %q, want allowed %v and %q", i, s.at, reason, retryAfter, s.allowed, s.retryAfter)
				}
			}
		})
	}
}

func TestNoLimiterDoesNotLimit(t *testing.T) {
	t.Parallel()
	for _, keys := range []*proxy.Limiter{nil, newLimiter(t, 0, 10), newLimiter(t, -1, 10)} {
		keys.Close()
		g := limitGate(t, keys, proxy.NewFailureLimiter(0, 10))
		for range 100 {
			if reason, _ := g.ask(t, good, someone); reason != "allowed" {
				t.Fatalf("recorded %s", reason)
			}
			if reason, _ := g.ask(t, "wrong", someone); reason != "invalid_token" {
				t.Fatalf("recorded %s", reason)
			}
		}
	}
}

func TestEachKeyHasABudgetOfItsOwn(t *testing.T) {
	t.Parallel()
	g := limitGate(t, newLimiter(t, 1, 1), nil)
	for i, row := range []struct{ token, peer, want string }{
		{good, someone, "allowed"},
		{good, "198.51.100.2:1", "rate_limited"}, // another address does not help
		{tokenOf("good2"), someone, "allowed"},
		{tokenOf("good2"), someone, "rate_limited"},
	} {
		if reason, _ := g.ask(t, row.token, row.peer); reason != row.want {
			t.Errorf("step %d: recorded %s, want %s", i, reason, row.want)
		}
	}
}

func TestRefusedRequestsDoNotUseTheBudgetOfTheKey(t *testing.T) {
	t.Parallel()
	g := limitGate(t, newLimiter(t, 1, 1), nil)
	for range 3 {
		r := httptest.NewRequest(http.MethodGet, "/serp/v1/search", nil)
		r.Header.Set("Api-Token", good)
		if _, record := g.serve(t, r); record.Reason != "permission_denied" {
			t.Fatalf("recorded %s", record.Reason)
		}
	}
	if reason, _ := g.ask(t, good, someone); reason != "allowed" {
		t.Errorf("recorded %s, want allowed", reason)
	}
}

// TestFailuresAreLimitedByAddress: steps of one story each, of tokens,
// addresses and what becomes of them.
func TestFailuresAreLimitedByAddress(t *testing.T) {
	t.Parallel()
	type step struct{ token, peer, want string }
	const limited, invalid = "rate_limited", "invalid_token"
	for _, row := range []struct {
		name  string
		steps []step
	}{
		{"malformed and unknown tokens count alike", []step{
			{"wrong", someone, invalid}, {tokenOf("unknown"), someone, invalid}, {"wrong", someone, limited}, {tokenOf("unknown"), someone, limited},
		}},
		{"a neighbour with a good key passes", []step{
			{"wrong", someone, invalid}, {"wrong", someone, invalid}, {"wrong", someone, limited}, {good, someone, "allowed"}, {good, "198.51.100.1:2", "allowed"},
		}},
		{"good keys do not count", []step{
			{good, someone, "allowed"}, {good, someone, "allowed"}, {good, someone, "allowed"}, {"wrong", someone, invalid}, {"wrong", someone, invalid}, {"wrong", someone, limited},
		}},
		{"requests without a token do not count", []step{
			{"", someone, "missing_credentials"}, {"", someone, "missing_credentials"}, {"", someone, "missing_credentials"}, {"wrong", someone, invalid},
		}},
		{"another address is another's", []step{
			{"wrong", someone, invalid}, {"wrong", someone, invalid}, {"wrong", "198.51.100.2:1", invalid}, {"wrong", someone, limited},
		}},
		{"another port is the same address", []step{
			{"wrong", "198.51.100.1:1", invalid}, {"wrong", "198.51.100.1:2", invalid}, {"wrong", "198.51.100.1:3", limited},
		}},
		{"a mapped address is the same", []step{
			{"wrong", "198.51.100.1:1", invalid}, {"wrong", "[::ffff:198.51.100.1]:1", invalid}, {"wrong", someone, limited},
		}},
		{"IPv6 counts by /64", []step{
			{"wrong", "[2001:db8::1]:1", invalid},
			{"wrong", "[2001:db8::ffff:1:2:3]:1", invalid},
			{"wrong", "[2001:db8::4]:1", limited},
			{"wrong", "[2001:db8:0:1::1]:1", invalid},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := limitGate(t, nil, proxy.NewFailureLimiter(0.1, 2))
			for i, s := range row.steps {
				if reason, _ := g.ask(t, s.token, s.peer); reason != s.want {
					t.Errorf("step %d: recorded %s, want %s", i, reason, s.want)
				}
			}
		})
	}
}

// TestFailuresBehindAProxyCountForTheClient, and for the proxy when it does
// not say who that is.
func TestFailuresBehindAProxyCountForTheClient(t *testing.T) {
	t.Parallel()
	const edge, said = "10.0.0.1:1", "X-Forwarded-For"
	g := limitGate(t, nil, proxy.NewFailureLimiter(0.1, 1), trusting("10.0.0.0/8"))
	for i, row := range []struct{ peer, client, want string }{
		{edge, "198.51.100.1", "invalid_token"},
		{edge, "198.51.100.1", "rate_limited"},
		{"10.0.0.2:1", "198.51.100.1", "rate_limited"},
		{edge, "198.51.100.2", "invalid_token"},
		{"198.51.100.3:1", "198.51.100.4", "invalid_token"},
		{"198.51.100.3:1", "198.51.100.5", "rate_limited"}, // its own word changes nothing
		{edge, "unknown", "invalid_token"},
		{edge, "_other", "rate_limited"},
		{"10.0.0.2:1", "unknown", "invalid_token"},
	} {
		if reason, _ := g.ask(t, "wrong", row.peer, said, row.client); reason != row.want {
			t.Errorf("step %d: recorded %s, want %s", i, reason, row.want)
		}
	}
}
