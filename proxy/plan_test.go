package proxy_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/policy"
	"gatehouse/proxy"
)

// named is a limiter that never fills up again.
func named(t *testing.T, name string, burst int) *proxy.Limiter {
	t.Helper()
	l := proxy.NewLimiter(proxy.LimiterOptions{Name: name, Rate: 0.001, Burst: burst})
	t.Cleanup(l.Close)
	return l
}

// planGate has a route with a limit of 2, one with a limit of 1, one that is
// not limited, and one with no limit of its own. A key has 3, on the plan gold
// 4, on the plan free 1, and on the plan endless any number.
func planGate(t *testing.T, plan string) (*gate, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	g := newGate(t, func(s *setup) {
		s.backend = proxy.BackendFunc(accept)
		list, err := proxy.NewRoutes(nil, []proxy.RouteSpec{
			{Match: "/slow", ByMethod: map[string]policy.Permission{"GET": readPermission, "POST": readPermission}, Backend: s.backend, Limit: named(t, "route", 2)},
			{Match: "GET /slower", Permission: readPermission, Backend: s.backend, Limit: named(t, "route", 1)},
			{Match: "GET /open", Permission: readPermission, Backend: s.backend, Limit: proxy.NewLimiter(proxy.LimiterOptions{Name: "route"})},
			{Match: "GET /usual", Permission: readPermission, Backend: s.backend},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.options.Routes, s.options.Limits = list, named(t, "key", 3)
		s.options.Plans = proxy.NewPlans(map[string]*proxy.Limiter{
			"gold": named(t, "plan", 4), "free": named(t, "plan", 1), "endless": proxy.NewLimiter(proxy.LimiterOptions{Name: "plan"}),
		}, newLog(log))
		on := entry()
		on.Account.Plan = plan
		s.keys = only(t, good, on)
	})
	return g, log
}

// refusedBy makes one request, and returns the name of the limit that refused
// it, "" for none.
func refusedBy(t *testing.T, g *gate, method, path string) string {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Api-Token", good)
	w, record := g.serve(t, r)
	name, _, _ := strings.Cut(w.Header().Get("RateLimit-Policy"), ";")
	want := "allowed"
	if name != "" {
		want = "rate_limited"
	}
	if record.Reason != want {
		t.Fatalf("%s: recorded %s with the policy %q", path, record.Reason, name)
	}
	return strings.Trim(name, `"`)
}

// TestOneLimitCountsForARequest: that of its route, else that of the plan, else
// that of every key.
func TestOneLimitCountsForARequest(t *testing.T) {
	t.Parallel()
	const all = -1
	for _, row := range []struct {
		name, plan, path string
		passing          int
		limit            string
	}{
		{"no plan", "", "/usual", 3, "key"},
		{"a faster plan", "gold", "/usual", 4, "plan"},
		{"a slower plan", "free", "/usual", 1, "plan"},
		{"a plan without a limit", "endless", "/usual", all, ""},
		{"a plan that is no more", "bronze", "/usual", 3, "key"},
		{"a route's own", "", "/slow", 2, "route"},
		{"a route's own, on a faster plan", "gold", "/slow", 2, "route"},
		{"a route's own, on a slower plan", "free", "/slow", 2, "route"},
		{"a route's own, on a plan without a limit", "endless", "/slow", 2, "route"},
		{"a route without a limit", "", "/open", all, ""},
		{"a route without a limit, on a slower plan", "free", "/open", all, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g, _ := planGate(t, row.plan)
			for i := range 20 {
				want := ""
				if row.passing != all && i >= row.passing {
					want = row.limit
				}
				if got := refusedBy(t, g, "GET", row.path); got != want {
					t.Errorf("request %d: refused by %q, want %q", i, got, want)
				}
			}
		})
	}
}

// TestBudgetOfARouteIsItsOwn: it takes from no other, and its methods share it.
func TestBudgetOfARouteIsItsOwn(t *testing.T) {
	t.Parallel()
	g, _ := planGate(t, "")
	for i, step := range []struct{ method, path, want string }{
		{"GET", "/slow", ""},
		{"POST", "/slow", ""},
		{"GET", "/slow", "route"},
		{"POST", "/slow", "route"},
		{"GET", "/slower", ""},
		{"GET", "/slower", "route"},
		{"GET", "/usual", ""},
		{"GET", "/usual", ""},
		{"GET", "/usual", ""},
		{"GET", "/usual", "key"},
		{"GET", "/open", ""},
	} {
		if got := refusedBy(t, g, step.method, step.path); got != step.want {
			t.Errorf("step %d, %s %s: refused by %q, want %q", i, step.method, step.path, got, step.want)
		}
	}
}

// TestPlanThatIsNoMoreIsLoggedOnce, and not once a request.
func TestPlanThatIsNoMoreIsLoggedOnce(t *testing.T) {
	t.Parallel()
	g, log := planGate(t, "bronze")
	for range 10 {
		refusedBy(t, g, "GET", "/usual")
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `"plan":"bronze"`) {
		t.Errorf("logged %s", text)
	}
	var none *proxy.Plans // no plans are configured
	g = newGate(t, func(s *setup) {
		s.options.Plans, s.backend = none, proxy.BackendFunc(accept)
		on := entry()
		on.Account.Plan = "bronze"
		s.keys = only(t, good, on)
	})
	if _, record := g.serve(t, listRequest(good)); record.Reason != "allowed" {
		t.Errorf("recorded %s", record.Reason)
	}
}
