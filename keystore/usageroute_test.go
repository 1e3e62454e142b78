package keystore_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// counts counts requests that begin now.
func (n *node) counts(account policy.AccountID, key policy.KeyID, permission policy.Permission, outcome, route string, times int) {
	for range times {
		n.Count(keystore.CountedRequest{Key: key, Account: account, Permission: permission, Outcome: outcome, Route: route, At: n.w.clock.Now()})
	}
}

// routesOf tells what the caller is told, with products and routes.
func routesOf(n *node, by policy.Caller, changes ...func(*keystore.UsageFilter)) []string {
	n.t.Helper()
	f := keystore.UsageFilter{From: n.w.clock.Now().Add(-time.Hour), To: n.w.clock.Now().Add(time.Hour), Step: keystore.ByDay}
	for _, change := range changes {
		change(&f)
	}
	rows, err := n.Usage(n.t.Context(), by, f)
	if err != nil {
		n.t.Fatal(err)
	}
	lines := make([]string, 0, len(rows))
	for _, r := range rows {
		lines = append(lines, fmt.Sprintf("%s|%s|%s %d", r.Product, r.Route, r.Outcome, r.Requests))
	}
	return lines
}

func byRoute(f *keystore.UsageFilter) { f.ByRoute = true }

func TestRequestsAreCountedByRouteAndProduct(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		noon := w.noon()
		n := w.node()
		person := n.account("acme")
		k, _ := n.key(person)
		n.counts("acme", k.ID, read, "allowed", getRoute, 4)
		n.counts("acme", k.ID, read, "rate_limited", getRoute, 1)
		n.counts("acme", k.ID, write, "allowed", setRoute, 2)
		n.counts("acme", k.ID, policy.AnyValidKey, "allowed", "GET /v4/account/whoami", 1)
		n.flush()
		for name, test := range map[string]struct {
			change func(*keystore.UsageFilter)
			want   []string
		}{
			"by neither":             {func(*keystore.UsageFilter) {}, []string{"||allowed 7", "||rate_limited 1"}},
			"by product":             {func(f *keystore.UsageFilter) { f.ByProduct = true }, []string{"any-valid-key||allowed 1", "proxies||allowed 6", "proxies||rate_limited 1"}},
			"by route":               {byRoute, []string{"|GET /v4/account/whoami|allowed 1", "|" + getRoute + "|allowed 4", "|" + getRoute + "|rate_limited 1", "|" + setRoute + "|allowed 2"}},
			"a route":                {func(f *keystore.UsageFilter) { f.Route = setRoute }, []string{"||allowed 2"}},
			"a beginning":            {func(f *keystore.UsageFilter) { f.Route = "GET /v4/account" }, []string{}},
			"a product":              {func(f *keystore.UsageFilter) { f.Product = "proxies" }, []string{"||allowed 6", "||rate_limited 1"}},
			"what any key may":       {func(f *keystore.UsageFilter) { byRoute(f); f.Product = "any-valid-key" }, []string{"|GET /v4/account/whoami|allowed 1"}},
			"a product of another":   {func(f *keystore.UsageFilter) { f.Product = "serp" }, []string{}},
			"a route and an outcome": {func(f *keystore.UsageFilter) { f.Route, f.Outcome = getRoute, "rate_limited" }, []string{"||rate_limited 1"}},
		} {
			for _, key := range []policy.KeyID{"", k.ID} { // the account, and its only key
				if diff := cmp.Diff(test.want, routesOf(n, person, ofKey(key), test.change)); diff != "" {
					t.Errorf("%s of %q (-want +got):\n%s", name, key, diff)
				}
			}
		}
		field := "12 " + string(read) + " allowed " + getRoute
		bucket := w.options.Prefix + "account:{acme}:usage:" + string(k.ID) + ":" + noon.Format(time.DateOnly)
		if got, err := keystore.ClientOf(n.Store).HGet(t.Context(), bucket, field).Result(); err != nil || got != "4" {
			t.Errorf("the field %q is %q, %v", field, got, err)
		}
	})
}

// TestCountersOfBeforeRoutesStillCount, and what is no counter is passed over.
func TestCountersOfBeforeRoutesStillCount(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		noon := w.noon()
		n := w.node()
		person := n.account("acme")
		k, _ := n.key(person)
		bucket := w.options.Prefix + "account:{acme}:usage:" + string(k.ID) + ":" + noon.Format("2006-01")
		today := fmt.Sprint(noon.Day())
		for field, requests := range map[string]any{
			today + " proxies:read allowed":       7,
			today + " proxies:read":               1,
			today + " proxies:read  GET /x":       1,
			today + "  allowed":                   1,
			today + " proxies:read allowed ":      1,
			"32 proxies:read allowed":             1,
			"0 proxies:read allowed GET /x":       1,
			"x proxies:read allowed GET /x":       1,
			today + " proxies:read allowed GET /": "many",
		} {
			set := keystore.Step{Kind: keystore.StepHSet, Key: bucket, Field: field, Value: fmt.Sprint(requests)}
			if err := keystore.CommitTo(t.Context(), n.Store, nil, []keystore.Step{set}); err != nil {
				t.Fatal(err)
			}
		}
		n.counts("acme", k.ID, read, "allowed", getRoute, 1)
		n.flush()
		want := []string{"||allowed 7", "|" + getRoute + "|allowed 1"}
		if diff := cmp.Diff(want, routesOf(n, person, byRoute, ofKey(k.ID))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if got := routesOf(n, person, ofKey(k.ID)); len(got) != 1 || got[0] != "||allowed 8" {
			t.Errorf("told %q, want 8 requests", got)
		}
	})
}

// TestLongRoutesAreShortenedAndStayApart: a route takes no more than 256 bytes,
// and is found by its whole name and by the one that is shown.
func TestLongRoutesAreShortenedAndStayApart(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	k, _ := n.key(person)
	long := "GET /" + strings.Repeat("ä", 300)
	whole := "GET /" + strings.Repeat("x", 251)
	for _, route := range []string{long + "/one", long + "/two", whole} {
		n.counts("acme", k.ID, read, "allowed", route, len(route)%7+1)
	}
	n.flush()
	rows, err := n.Usage(t.Context(), person, keystore.UsageFilter{From: w.clock.Now(), To: w.clock.Now().Add(1), Step: keystore.ByDay, ByRoute: true})
	if err != nil || len(rows) != 3 {
		t.Fatalf("told %v, %v, want three routes", rows, err)
	}
	for _, r := range rows {
		if len(r.Route) > 256 || strings.ToValidUTF8(r.Route, "") != r.Route || r.Route != whole && !strings.HasPrefix(r.Route, "GET /äää") {
			t.Errorf("shown is %q, %d bytes", r.Route, len(r.Route))
		}
		if got := routesOf(n, person, func(f *keystore.UsageFilter) { f.Route = r.Route }); len(got) != 1 || got[0] != fmt.Sprintf("||allowed %d", r.Requests) {
			t.Errorf("of %q is told %q", r.Route, got)
		}
	}
	for _, route := range []string{long + "/one", long + "/two", whole} {
		if got := routesOf(n, person, func(f *keystore.UsageFilter) { f.Route = route }); len(got) != 1 || got[0] != fmt.Sprintf("||allowed %d", len(route)%7+1) {
			t.Errorf("of %q is told %q", route, got)
		}
	}
}

// TestManyCountersAreWrittenInPortions: lookups wait for one of them, and not
// for all.
func TestManyCountersAreWrittenInPortions(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	for range 10 {
		k, _ := n.key(person)
		for i := range 100 {
			n.counts("acme", k.ID, read, "allowed", fmt.Sprintf("GET /%d", i), 1)
		}
	}
	scripts, largest := 0, 0
	n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
		if isCommit(cmd) {
			scripts, largest = scripts+1, max(largest, len(cmd.Args()))
		}
		return next()
	})
	n.flush()
	// A counter is written for its key and for the account, by hour and by day, in
	// five arguments each.
	if most := 5*4*500 + 1000; scripts != 2 || largest > most {
		t.Errorf("%d scripts of up to %d arguments, want two of up to %d", scripts, largest, most)
	}
	if got := routesOf(n, person); len(got) != 1 || got[0] != "||allowed 1000" {
		t.Errorf("told %q, want 1000 requests", got)
	}
	if got := routesOf(n, person, byRoute); len(got) != 100 || got[0] != "|GET /0|allowed 10" {
		t.Errorf("told of %d routes, the first of which is %q", len(got), got)
	}
}

// TestCountingAllocatesNothing for a request like one of the last minute, also
// of one of many routes, and of a long one, and when that was written.
func TestCountingAllocatesNothing(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	k, _ := n.key(person)
	at := w.clock.Now()
	routes := []string{"GET /" + strings.Repeat("very-", 100) + "long"}
	for i := range 30 {
		routes = append(routes, fmt.Sprintf("GET /v4/things/%d", i))
	}
	for _, some := range [][]string{routes[:1], routes[1:2], routes} {
		next := 0
		one := func() {
			n.Count(keystore.CountedRequest{Key: k.ID, Account: "acme", Permission: read, Outcome: "allowed", Route: some[next%len(some)], At: at})
			next++
		}
		for range some {
			one()
		}
		n.flush()
		for range some {
			one()
		}
		if got := testing.AllocsPerRun(1000, one); got != 0 {
			t.Errorf("%d routes: %v allocations, want none", len(some), got)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100_000 {
			one()
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
			t.Errorf("%d routes: counting took %d bytes", len(some), grown)
		}
	}
	if got := testing.AllocsPerRun(1000, func() { n.Used(k.ID, "acme", at) }); got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}
