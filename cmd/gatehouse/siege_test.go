package main_test

import (
	"fmt"
	"testing"
	"time"

	"gatehouse/keystore/redistest"
)

// TestSiege: kill -9 of gateways and of Redis, again and again while changes are
// acknowledged, loses none of these.
func TestSiege(t *testing.T) {
	needsFaults(t)
	redistest.Need(t)
	gateways, servers := 5, 3
	if soak() {
		gateways, servers = 100, 20
	}
	t.Run("gateways on Redis", func(t *testing.T) {
		t.Parallel()
		f := startFleet(t, siegePlan(t, redistest.Start(t, redistest.Standalone, siegeOptions(t))))
		f.besiege(t, gateways, func(n int) {
			g := f.gateways[n%len(f.gateways)]
			g.kill()
			g.runAgain(t)
		})
	})
	t.Run("embedded gateway", func(t *testing.T) {
		t.Parallel()
		p := siegePlan(t, nil)
		p.nodes = 1
		f := startFleet(t, p)
		f.besiege(t, gateways, func(int) {
			f.gateways[0].kill()
			f.gateways[0].runAgain(t)
		})
	})
	t.Run("Redis", func(t *testing.T) {
		t.Parallel()
		topology := redistest.Start(t, redistest.Standalone, siegeOptions(t))
		f := startFleet(t, siegePlan(t, topology))
		f.besiege(t, servers, func(int) {
			topology.Nodes[0].Kill()
			if err := topology.Nodes[0].Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func siegeOptions(t *testing.T) redistest.Options {
	t.Helper()
	return redistest.Options{Users: []string{"user " + storeUser + " on >" + storePassword + " " + userRules(t)}}
}

func siegePlan(t *testing.T, topology *redistest.Topology) plan {
	t.Helper()
	p := plan{
		mode: "strict", nodes: 2, timeout: "1s", unchanged: 10, changing: 20, accounts: 2, plain: soak(),
		pace: 50 * time.Millisecond, changers: 4, rest: 10 * time.Millisecond,
	}
	if topology == nil {
		p.store = []string{fmt.Sprintf("embedded: {file: %q}", t.TempDir()+"/store")}
	} else {
		p.store = []string{redisYAML(topology.Kind, topology.Addrs(), modes()[0], false)}
	}
	return p
}

// besiege kills so often, each time after some changes were acknowledged.
func (f *fleet) besiege(t *testing.T, times int, kill func(n int)) {
	t.Helper()
	f.run()
	defer f.stop()
	f.troubleBegan.Store(time.Now().UnixNano())
	const between = 10
	acknowledged := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.findings.changes - f.findings.unsure
	}
	for n := range times {
		before := acknowledged()
		eventually(t, patience, "changes are acknowledged", func() error { return unless(acknowledged() >= before+between, "not yet") })
		kill(n)
	}
	if !waitNormal([]*fleet{f}, time.Second, patience) {
		t.Error("requests and changes do not become normal")
	}
	f.troubleEnded.Store(time.Now().UnixNano())
	f.conclusion(t)
	t.Logf("%d kills, %d changes acknowledged, %d unsure", times, acknowledged(), f.findings.unsure)
}
