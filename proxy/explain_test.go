package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/problem"
	"gatehouse/proxy/wire"
)

// asked is a request that is sent and explained.
type asked struct {
	method, target string
	headers        []string
}

func (a asked) raw() string {
	lines := append([]string{a.method + " " + a.target + " HTTP/1.1", "Host: api.example.com"}, a.headers...)
	return strings.Join(lines, "\r\n") + "\r\nConnection: close\r\n\r\n"
}

func (a asked) question() proxy.Question {
	return proxy.Question{
		Method: a.method, Host: "api.example.com", Target: a.target, Headers: append(slices.Clone(a.headers), "Connection: close"),
		Client: mustAddr("127.0.0.1"), Limits: wire.Limits{Bytes: 64 << 10, Lines: 100},
	}
}

func (g *gate) explain(t testing.TB, q proxy.Question) proxy.Explanation {
	t.Helper()
	e, err := g.gateway.Explain(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// askable are requests of all kinds.
func askable() []asked {
	var all []asked
	targets := []string{
		product + "/proxy-list", product + "/proxy-list?x=%zz", product + "/whitelist", product + "/whitelist?type=get", product + "/whitelist?type=add&Type=get",
		product + "/settings", product + "/files/a/b", product + "/files/%2e", product + "/nothing", product + "/proxy-list/", "/v4//account", "/serp/v1/search", "/serp/v1/open",
		strings.Replace(product, string(subA), string(subB), 1) + "/proxy-list", strings.Replace(product, string(subA), "x", 1) + "/proxy-list",
		"/serp/v1/open#x", "/serp/v1/open?a#x", "/é", "/a%zz", "*", "/serp/v1/op en",
	}
	credentials := [][]string{
		nil,
		{"api-token: " + good},
		{"Authorization: Bearer " + good},
		{"api-token: " + good, "Authorization: Bearer x"},
		{"api-token: " + tokenOf("unknown")},
		{"api-token: x"},
		{"api-token: " + good, "api-token: " + good},
		{"Authorization: Basic eDp5"},
	}
	for _, target := range targets {
		for _, lines := range credentials {
			all = append(all, asked{"GET", target, lines})
		}
	}
	for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PURGE", "get", "CONNECT", "G T"} {
		for _, target := range targets[:7] {
			all = append(all, asked{method, target, credentials[1]})
		}
	}
	for _, line := range []string{
		"X-Forwarded-For: 203.0.113.9", "Content-Length: 0", "Content-Length: x", "Content-Length: 99999", "Expect: x", " folded: x", "No-Colon", "Bad Name: x", "X: \x01", "X: é\xff",
		"Upgrade: websocket", "Transfer-Encoding: gzip", "Sec-WebSocket-Protocol: gatehouse.token." + good, "Many: x" + strings.Repeat("\r\nMany: x", 101),
	} {
		all = append(all, asked{"GET", product + "/proxy-list", append([]string{"api-token: " + good}, strings.Split(line, "\r\n")...)})
	}
	return all
}

// entries are keys and accounts, each refused for another reason.
func entries() map[string]keystore.Entry {
	changed := func(change func(k *policy.Key, a *policy.Account)) keystore.Entry {
		e := entry()
		change(e.Key, e.Account)
		return e
	}
	return map[string]keystore.Entry{
		"good":      entry(),
		"disabled":  changed(func(k *policy.Key, _ *policy.Account) { k.Active = false }),
		"suspended": changed(func(_ *policy.Key, a *policy.Account) { a.Status = policy.Suspended }),
		"expired":   changed(func(k *policy.Key, _ *policy.Account) { k.Expiry = policy.ExpiresAt(theTime.Unix()) }),
		"elsewhere": changed(func(k *policy.Key, _ *policy.Account) {
			k.Addresses = policy.OnlyAddresses(netip.MustParsePrefix("10.0.0.0/8"))
		}),
		"reader": changed(func(k *policy.Key, _ *policy.Account) {
			k.Permissions = policy.NewPermissionSet(readPermission, serpPermission)
		}),
		"lost": changed(func(_ *policy.Key, a *policy.Account) { a.Permissions = policy.NewPermissionSet(serpPermission) }),
	}
}

// TestExplanationIsTheAnswer: of every request, it says what became of it.
func TestExplanationIsTheAnswer(t *testing.T) {
	t.Parallel()
	for name, e := range entries() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, func(s *setup) {
				s.keys, s.options.MaxHeaderLines = only(t, good, e), 100
				s.backend = proxy.BackendFunc(accept)
			})
			seen := map[string]int{}
			for _, a := range askable() {
				explained := g.explain(t, a.question())
				g.raw(a.raw())
				record := g.records.next(t)
				seen[record.Reason]++
				if explained.Reason != record.Reason || explained.Route != record.Route || explained.Permission != record.Permission || explained.Key != record.Key {
					t.Errorf("%s %q %q: explained as %+v, and it was %+v", a.method, a.target, a.headers, explained, record)
				}
				checkSteps(t, explained)
			}
			t.Logf("%v", seen)
			if len(seen) < 9 {
				t.Errorf("only %v came out: little was tested", seen)
			}
		})
	}
}

// checkSteps: all before the one that refused have passed, none behind it was
// reached, and one refuses exactly where the request is refused.
func checkSteps(t *testing.T, e proxy.Explanation) {
	t.Helper()
	refused := slices.IndexFunc(e.Steps, func(s proxy.Step) bool { return s.Outcome == proxy.Refused })
	if (refused >= 0) != (e.Problem != nil) || (e.Problem != nil) != (e.Reason != "allowed") {
		t.Errorf("%s: the steps are %+v", e.Reason, e.Steps)
	}
	for i, s := range e.Steps {
		if refused >= 0 && (i > refused) != (s.Outcome == proxy.NotReached) || refused < 0 && s.Outcome == proxy.NotReached {
			t.Errorf("%s: step %s is %s, and step %d refused", e.Reason, s.Name, s.Outcome, refused)
		}
	}
}

// TestStepsAreThoseOfTheContract, in its order and words, with two more: what is
// no request, and a handshake that is not whole.
func TestStepsAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| step | refused with |")
	var want []string
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) == 4 && !strings.Contains(line, "---") {
			want = append(want, strings.TrimSpace(cells[1]))
		} else if len(want) > 0 {
			break
		}
	}
	g := newGate(t)
	var got []string
	for _, s := range g.explain(t, asked{"GET", "/", nil}.question()).Steps {
		if s.Name != "request" && s.Name != "handshake" {
			got = append(got, s.Sentence)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the steps are\n%s\nand docs/api.md has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// stepRefused is the step that refused, and what it says.
func stepRefused(e proxy.Explanation) (name, detail string) {
	for _, s := range e.Steps {
		if s.Outcome == proxy.Refused {
			return s.Name, s.Detail
		}
	}
	return "", ""
}

func TestExplanationNamesTheStepThatRefused(t *testing.T) {
	t.Parallel()
	down := finder(func(context.Context, keystore.Token) (keystore.Entry, error) {
		return keystore.Entry{}, fmt.Errorf("%w: no route to host", keystore.ErrUnavailable)
	})
	find := func(name string) proxy.KeyFinder { return only(t, good, entries()[name]) }
	shown := []string{"api-token: " + good}
	for _, row := range []struct {
		name    string
		keys    proxy.KeyFinder
		asked   asked
		step    string
		details string
	}{
		{"request", find("good"), asked{"PURGE", "/", nil}, "request", "method"},
		{"path", find("good"), asked{"GET", "//", nil}, "path", "empty segment"},
		{"query that is none", find("good"), asked{"GET", "/?#", nil}, "path", "character"},
		{"route", find("good"), asked{"GET", "/", nil}, "route", "nothing at this path"},
		{"method", find("good"), asked{"PUT", product + "/proxy-list", nil}, "route", "method"},
		{"needs", find("good"), asked{"GET", product + "/whitelist", nil}, "needs", "missing"},
		{"credential", find("good"), asked{"GET", "/serp/v1/open", nil}, "credential", "api-token"},
		{"token", find("good"), asked{"GET", "/serp/v1/open", []string{"api-token: x"}}, "token", "not valid"},
		{"unknown token", find("good"), asked{"GET", "/serp/v1/open", []string{"api-token: " + tokenOf("no")}}, "token", "not valid"},
		{"store", down, asked{"GET", "/serp/v1/open", shown}, "store", "no route to host"},
		{"disabled", find("disabled"), asked{"GET", "/serp/v1/open", shown}, "active", "disabled"},
		{"suspended", find("suspended"), asked{"GET", "/serp/v1/open", shown}, "active", "suspended"},
		{"expiry", find("expired"), asked{"GET", "/serp/v1/open", shown}, "expiry", "2026-11-23T12:00:00Z"},
		{"address", find("elsewhere"), asked{"GET", "/serp/v1/open", shown}, "address", "10.0.0.0/8"},
		{"subaccount of nobody", find("good"), asked{"GET", strings.Replace(product, string(subA), string(subC), 1) + "/proxy-list", shown}, "subaccount", "none of the account's"},
		{"subaccount of others", find("good"), asked{"GET", strings.Replace(product, string(subA), string(subB), 1) + "/proxy-list", shown}, "subaccount", "limited to others"},
		{"permission", find("good"), asked{"GET", "/serp/v1/search", shown}, "permission", "lacks the permission serp_api:write"},
		{"permission of the account", find("lost"), asked{"GET", product + "/proxy-list", shown}, "permission", "its account has not"},
		{"body", find("good"), asked{"POST", product + "/settings", append([]string{"Content-Length: 99999"}, shown...)}, "forward", "larger than this gateway accepts"},
		{"allowed", find("good"), asked{"GET", "/serp/v1/open", shown}, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t, func(s *setup) { s.keys = row.keys })
			e := g.explain(t, row.asked.question())
			step, detail := stepRefused(e)
			if step != row.step || !strings.Contains(detail, row.details) {
				t.Errorf("refused by %q, %q, want %q, %q", step, detail, row.step, row.details)
			}
			checkSteps(t, e)
			if row.name == "allowed" && e.Upstream != "test" {
				t.Errorf("it would go to %q", e.Upstream)
			}
			if row.name == "store" && e.Steps[slices.IndexFunc(e.Steps, func(s proxy.Step) bool { return s.Name == "token" })].Outcome != proxy.Undecided {
				t.Errorf("nobody knows of the token: %+v", e.Steps)
			}
		})
	}
}

// TestExplainingDoesNothing: no budget is taken from, no backend sees anything,
// nothing is recorded or told of.
func TestExplainingDoesNothing(t *testing.T) {
	t.Parallel()
	p := newPot(1)
	told := 0
	g := start(t, func(s *setup) {
		shared := proxy.NewSharedBudgets(p, prometheus.NewRegistry(), newLog(&lockedBuffer{}))
		s.options.Limits = proxy.NewLimiter(proxy.LimiterOptions{Name: "key", Rate: 0.001, Burst: 1, Shared: shared})
		t.Cleanup(s.options.Limits.Close)
		s.options.InFlight, s.options.Failures = proxy.NewInFlight(1), proxy.NewFailureLimiter(0.001, 1)
		s.options.Used = func(policy.KeyID, policy.AccountID, time.Time) { told++ }
		s.options.Counted = func(keystore.CountedRequest) { told++ }
	})
	allowed := asked{"GET", product + "/proxy-list", []string{"api-token: " + good}}
	unknown := asked{"GET", product + "/proxy-list", []string{"api-token: " + tokenOf("unknown")}}
	for range 5 {
		if e := g.explain(t, allowed.question()); e.Reason != "allowed" {
			t.Fatalf("got %s", e.Reason)
		}
		if e := g.explain(t, unknown.question()); e.Reason != "invalid_token" {
			t.Fatalf("got %s", e.Reason)
		}
	}
	if seen := g.backend.saw(); len(seen) != 0 || told != 0 || len(g.records) != 0 || p.timesAsked() != 0 || g.log.String() != "" {
		t.Errorf("the backend saw %d, %d were told, %d recorded, %d asked for, and logged %q", len(seen), told, len(g.records), p.timesAsked(), g.log.String())
	}
	// And what is used up is said, and it was there.
	for _, a := range []asked{allowed, unknown} {
		want := g.explain(t, a.question()).Reason
		if _, record := g.do(a.raw()); record.Reason != want {
			t.Errorf("got %s, want %s", record.Reason, want)
		}
		e := g.explain(t, a.question())
		if _, record := g.do(a.raw()); e.Reason != "rate_limited" || record.Reason != "rate_limited" {
			t.Errorf("explained as %s, and it was %s, want rate_limited", e.Reason, record.Reason)
		}
	}
	if step, _ := stepRefused(g.explain(t, allowed.question())); step != "limits" {
		t.Errorf("refused by %s, want limits", step)
	}
	if step, _ := stepRefused(g.explain(t, unknown.question())); step != "token" {
		t.Errorf("refused by %s, want token", step)
	}
}

// TestWhatOthersHaveUsedUpIsSaid: a budget that is used up on other nodes is.
func TestWhatOthersHaveUsedUpIsSaid(t *testing.T) {
	t.Parallel()
	p := newPot(0)
	shared := proxy.NewSharedBudgets(p, prometheus.NewRegistry(), newLog(&lockedBuffer{}))
	limits := proxy.NewLimiter(proxy.LimiterOptions{Name: "key", Rate: 1, Burst: 1, Shared: shared})
	t.Cleanup(limits.Close)
	g := newGate(t, func(s *setup) { s.options.Limits = limits })
	q := asked{"GET", product + "/proxy-list", []string{"api-token: " + good}}.question()
	if e := g.explain(t, q); e.Reason != "rate_limited" {
		t.Errorf("got %s", e.Reason)
	}
	p.change(func(p *pot) { p.away = true })
	if e := g.explain(t, q); e.Reason != "allowed" {
		t.Errorf("got %s while nobody can say: each node counts by itself", e.Reason)
	}
}

// TestKeyIsExplainedWithoutItsToken, at any time.
func TestKeyIsExplainedWithoutItsToken(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	e := entries()["expired"]
	q := asked{"GET", product + "/proxy-list", nil}.question()
	q.Key = &e
	if got := g.explain(t, q); got.Reason != "key_expired" || got.Key != e.Key.ID {
		t.Errorf("got %+v", got)
	}
	q.At = theTime.Add(-time.Second)
	got := g.explain(t, q)
	if got.Reason != "allowed" {
		t.Errorf("a second before: %s", got.Reason)
	}
	for _, s := range got.Steps {
		if assumed := slices.Contains([]string{"credential", "token", "store"}, s.Name); assumed && s.Outcome != proxy.Skipped {
			t.Errorf("step %s is %s: no token was shown", s.Name, s.Outcome)
		}
	}
}

// TestLineBreaksMakeNoOtherRequest: a header is one line, whatever is in it.
func TestLineBreaksMakeNoOtherRequest(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	token := "api-token: " + good
	for name, change := range map[string]func(q *proxy.Question){
		"method": func(q *proxy.Question) { q.Method = "GET /serp/v1/open HTTP/1.1\r\n" + token + "\r\nX: " },
		"target": func(q *proxy.Question) { q.Target = "/serp/v1/open HTTP/1.1\r\n" + token + "\r\nX: " },
		"host":   func(q *proxy.Question) { q.Host = "a\r\n" + token },
		"header": func(q *proxy.Question) { q.Headers = []string{"X: a\r\n" + token} },
		"lf":     func(q *proxy.Question) { q.Headers = []string{"X: a\n" + token} },
		"empty":  func(q *proxy.Question) { q.Headers = []string{"", token} },
	} {
		q := asked{"GET", "/serp/v1/open", nil}.question()
		change(&q)
		if e, err := g.gateway.Explain(t.Context(), q); err == nil {
			t.Errorf("%s: explained as %s", name, e.Reason)
		}
	}
}

// TestExplanationOfWhatNobodyWaitsFor is none.
func TestExplanationOfWhatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(t.Context())
	g := newGate(t, func(s *setup) {
		s.keys = finder(func(ctx context.Context, _ keystore.Token) (keystore.Entry, error) {
			cancel()
			return keystore.Entry{}, errors.Join(keystore.ErrUnavailable, ctx.Err())
		})
	})
	if e, err := g.gateway.Explain(gone, asked{"GET", "/serp/v1/open", []string{"api-token: " + good}}.question()); err == nil {
		t.Errorf("got %+v", e)
	}
}

// TestPreflightIsExplained as what it is: a question that Gatehouse answers.
func TestPreflightIsExplained(t *testing.T) {
	t.Parallel()
	g := ownGate(t, &notes{})
	e := g.explain(t, asked{"OPTIONS", "/own", []string{page, "Access-Control-Request-Method: GET"}}.question())
	if e.Reason != "preflight" || e.Problem != nil || e.Steps[2].Outcome != proxy.Passed || e.Steps[3].Outcome != proxy.NotReached {
		t.Errorf("got %+v", e)
	}
	// Of Gatehouse's own API too nothing is noted.
	n := &notes{}
	g = ownGate(t, n)
	if e := g.explain(t, asked{"PUT", "/own/x", []string{"api-token: " + good}}.question()); e.Reason != string(problem.PermissionDenied) || len(n.taken()) != 0 {
		t.Errorf("got %s, and noted %v", e.Reason, n.taken())
	}
}

// TestSiteIsExplainedAndNotServed: it signs people in by itself.
func TestSiteIsExplainedAndNotServed(t *testing.T) {
	t.Parallel()
	served := 0
	g := newGate(t, func(s *setup) {
		s.options.Sites = []*proxy.Site{{
			Prefix: "/dashboard", Pattern: func(*http.Request) string { return "GET /dashboard/" },
			Serve: func(http.ResponseWriter, *http.Request, proxy.Visit) error { served++; return nil },
		}}
	})
	e := g.explain(t, asked{"GET", "/dashboard/keys", nil}.question())
	if e.Reason != "allowed" || e.Route != "GET /dashboard/" || served != 0 || e.Steps[3].Outcome != proxy.NotReached {
		t.Errorf("served %d times, and explained as %+v", served, e)
	}
	if e := g.explain(t, asked{"POST", "/dashboard/keys", []string{"Content-Length: 99999"}}.question()); e.Reason != string(problem.BodyTooLarge) {
		t.Errorf("got %s", e.Reason)
	}
}

// FuzzExplain: whatever is asked, the explanation is what becomes of it.
func FuzzExplain(f *testing.F) {
	f.Add("GET", product+"/proxy-list", "api-token: "+good)
	f.Add("POST", product+"/whitelist?type=add", "Content-Length: 3")
	f.Add("OPTIONS", "/%2e", "Authorization: Bearer "+good)
	g := start(f, func(s *setup) { s.backend = proxy.BackendFunc(accept) })
	f.Fuzz(func(t *testing.T, method, target, line string) {
		a := asked{method, target, []string{line}}
		name, _, _ := strings.Cut(line, ":")
		// One request at a time, over HTTP/1.1 and without a body.
		if strings.ContainsAny(method+target+line, "\r\n") || line == "" || method == "" || strings.EqualFold(strings.TrimSpace(name), "Transfer-Encoding") ||
			strings.EqualFold(strings.TrimSpace(name), "Content-Length") || strings.EqualFold(strings.TrimSpace(name), "Expect") || strings.HasPrefix(method, "PRI") {
			t.Skip()
		}
		e := g.explain(t, a.question())
		g.sendAll(t, []byte(a.raw()))
		if record := g.records.next(t); record.Reason != e.Reason {
			t.Errorf("%q: explained as %s, and it was %s", a.raw(), e.Reason, record.Reason)
		}
	})
}
