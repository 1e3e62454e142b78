package main_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

// limitedBy sends a request, and returns the name of the limit that refused
// it, "" for none.
func (g *gateway) limitedBy(t *testing.T, r request) string {
	t.Helper()
	got := g.send(t, r)
	if got.status == http.StatusOK {
		return ""
	}
	refusal{status: 429, code: "rate_limited", retry: true}.check(t, got)
	name, _, _ := strings.Cut(got.header.Get("RateLimit-Policy"), ";")
	return strings.Trim(name, `"`)
}

// passing sends the request so many times, and returns how many passed.
func (g *gateway) passing(t *testing.T, times int, r request) int {
	t.Helper()
	passed := 0
	for range times {
		if g.limitedBy(t, r) == "" {
			passed++
		}
	}
	return passed
}

// TestGatewaysShareTheBudgetOfAKey, and each has its own while Redis is away.
func TestGatewaysShareTheBudgetOfAKey(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	s := settings{
		Store: redis.yaml() + "\n  stale_if_unavailable: 10m", Timeout: "1s", Scope: "cluster",
		Key: "{rate: 0.01, burst: 6}", Serp: "{rate: 0.01, burst: 2}",
	}
	one := newTable(t, s)
	s.Datacenter, s.Residential = one.backends[0].addr, one.backends[1].addr
	two := startGateway(t, s)
	gateways := []*gateway{one.gateway, two}
	by := func(k key) request { return get(k, proxyListOfA) }

	passed := 0
	for i := range 16 {
		passed += gateways[i%2].passing(t, 1, by(one.key))
	}
	if passed != 6 {
		t.Errorf("%d requests passed on both gateways, want 6", passed)
	}
	serp := one.createKey(t, one.root, may("serp_api:read", "datacenter_shared:read"))
	passed = 0
	for i := range 8 {
		passed += gateways[i%2].passing(t, 1, get(serp, "/serp/v1/search"))
	}
	if name := two.limitedBy(t, get(serp, "/serp/v1/search")); passed != 2 || name != "route" {
		t.Errorf("%d requests passed the route on both gateways, want 2; refused by %q", passed, name)
	}
	if name := two.limitedBy(t, by(serp)); name != "" {
		t.Errorf("another route's budget was taken from: refused by %q", name)
	}

	const heard = "gatehouse_change_propagation_seconds_count"
	before := []float64{one.metric(t, heard), two.metric(t, heard)}
	other := one.createKey(t, one.root, may("datacenter_shared:read"))
	for i, g := range gateways {
		// A node that hears of it later forgets what it has seen of it.
		eventually(t, patience, "the key is heard of", func() error { return unless(g.metric(t, heard) > before[i], "it is not") })
		if passed := g.passing(t, 1, by(other)); passed != 1 { // it is known here now
			t.Fatalf("%d requests passed", passed)
		}
	}
	redis.kill()
	for i, g := range gateways {
		if passed := g.passing(t, 20, by(other)); passed != 5 {
			t.Errorf("gateway %d without Redis: %d requests passed, want the 5 that are left of its own", i, passed)
		}
		if passed := g.passing(t, 3, by(one.key)); passed != 0 {
			t.Errorf("gateway %d without Redis: %d requests of a key that had none left passed", i, passed)
		}
		g.wantShared(t, "0")
	}
	redis.runAgain(t)
	third := key{}
	eventually(t, patience, "a key is made again", func() error {
		got := one.send(t, creation(one.root, `{"name": "third", "permissions": ["datacenter_shared:read"]}`))
		if got.status == http.StatusCreated {
			third = created(t, got)
		}
		return unless(third.Token != "", got.body)
	})
	eventually(t, patience, "both share again", func() error {
		for _, g := range gateways {
			g.send(t, by(third))
			if metrics, err := g.probe("/metrics"); err != nil || !strings.Contains(metrics, "\ngatehouse_shared_limits_available 1\n") {
				return unless(false, "it does not")
			}
		}
		return nil
	})
	for i, g := range gateways {
		if passed := g.passing(t, 20, by(third)); passed > 0 && i == 1 {
			t.Errorf("gateway %d: %d requests passed that the other one had spent", i, passed)
		}
	}
	for name := range strings.FieldsSeq(redis.dump(t)) {
		if strings.Contains(name, "budget:") && (!strings.HasPrefix(name, "gatehouse:budget:") || len(name) > 80) {
			t.Errorf("a budget is called %s", name)
		}
	}
}

// wantShared checks whether the gateway says that budgets are shared.
func (g *gateway) wantShared(t *testing.T, want string) {
	t.Helper()
	metrics, err := g.probe("/metrics")
	if err != nil || !strings.Contains(metrics, "\ngatehouse_shared_limits_available "+want+"\n") {
		t.Errorf("%v; /metrics does not say that the shared limits are %s", err, want)
	}
}

// TestPlanSetsTheRateOfKeys from the moment on at which it is given, on every node.
func TestPlanSetsTheRateOfKeys(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		d := newTable(t, settings{Store: store, Key: "{rate: 0.01, burst: 1}"})
		on := func(plan string) {
			t.Helper()
			a := acme()
			a.Plan = plan
			d.putAccount(t, "acme", a)
		}
		fresh := func() request { return get(d.createKey(t, d.root, may("datacenter_shared:read")), proxyListOfA) }
		hold := func(plan string, r request, burst int, name string) {
			t.Helper()
			if passed := d.passing(t, 6, r); passed != burst {
				t.Errorf("on the plan %q %d requests passed, want %d", plan, passed, burst)
			}
			if got := d.limitedBy(t, r); got != name {
				t.Errorf("on the plan %q refused by %q, want %q", plan, got, name)
			}
		}
		hold("", fresh(), 1, "key")
		on("gold")
		hold("gold", fresh(), 3, "plan")
		on("")
		hold("", fresh(), 1, "key")
		refusal{status: 422, code: "validation_failed", field: "plan"}.check(t, d.operate(t, http.MethodPut, "/accounts/acme", `{"permissions": ["*"], "plan": "golden"}`))
		if got := d.operate(t, http.MethodGet, "/accounts/acme", nil); !strings.Contains(got.body, `"plan":null`) {
			t.Errorf("the account is %s", got.body)
		}
	})
}

// TestPlanThatTheConfigurationHasNoMore: its keys have the rate of all keys,
// and the log says so, once.
func TestPlanThatTheConfigurationHasNoMore(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	d := newTable(t, settings{Store: redis.yaml(), Key: "{rate: 0.01, burst: 2}", Plans: "{bronze: {rate: 0}}"})
	a := acme()
	a.Plan = "bronze"
	d.putAccount(t, "acme", a)
	if passed := d.passing(t, 5, get(d.key, proxyListOfA)); passed != 5 {
		t.Errorf("%d requests passed on a plan without a limit", passed)
	}
	without := startGateway(t, settings{Store: redis.yaml(), Key: "{rate: 0.01, burst: 2}", Plans: "{}", Datacenter: d.backends[0].addr})
	if passed := without.passing(t, 5, get(d.key, proxyListOfA)); passed != 2 {
		t.Errorf("%d requests passed, want 2", passed)
	}
	eventually(t, patience, "the log speaks of the plan", func() error {
		return unless(strings.Contains(without.stdout.String(), `"plan":"bronze"`), "not yet")
	})
	if n := strings.Count(without.stdout.String(), `"plan":"bronze"`); n != 1 {
		t.Errorf("the log speaks of the plan %d times", n)
	}
}

// TestRequestsOfAKeyInFlight: a request that lasts counts until it ends.
func TestRequestsOfAKeyInFlight(t *testing.T) {
	t.Parallel()
	begun, letGo := make(chan struct{}, 10), make(chan struct{})
	slow := startBackend(t, func(c net.Conn, r received) bool {
		begun <- struct{}{}
		<-letGo
		return answerOK(c, r)
	})
	d := newTable(t, settings{Store: embeddedStore(t), InFlight: "2", Others: map[string]string{"slow": slow.addr}, OtherTimeout: "1m"})
	k := d.createKey(t, d.root, may("serp_api:read", "datacenter_shared:read"))
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			got, err := d.exchange(get(k, "/slow/x"))
			if err == nil {
				err = unless(got.status == http.StatusOK, got.body)
			}
			ended <- err
		}()
		<-begun
	}
	for _, target := range []string{"/slow/x", proxyListOfA, whoamiPath} {
		if name := d.limitedBy(t, get(k, target)); name != "in_flight" {
			t.Errorf("%s: refused by %q", target, name)
		}
	}
	d.passes(t, d.base()) // of another key
	close(letGo)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	eventually(t, patience, "the key may ask again", func() error {
		return unless(d.limitedBy(t, get(k, proxyListOfA)) == "", "not yet")
	})
}
