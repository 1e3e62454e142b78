package main_test

import (
	"context"
	"testing"
	"time"

	"gatehouse/keystore/redistest"
)

// TestThreeGateways: whatever clients change that hang up, no node accepts what
// its bound forbids: while the subscriptions of the others are cut, while they
// are half open, and through a failover.
func TestThreeGateways(t *testing.T) {
	needsFaults(t)
	redistest.Need(t)
	for name, row := range map[string]struct {
		kind    redistest.Kind
		trouble func(ctx context.Context, topology *redistest.Topology, own []*redistest.Link) error
	}{
		"subscription cut": {redistest.Standalone, func(_ context.Context, _ *redistest.Topology, own []*redistest.Link) error {
			own[1].Set(redistest.Refuse, redistest.Subscriptions)
			own[2].Set(redistest.HalfOpen, redistest.Subscriptions)
			return nil
		}},
		"failover": {redistest.Sentinel, func(ctx context.Context, topology *redistest.Topology, _ []*redistest.Link) error {
			_, err := topology.Failover(ctx, 0)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topology := redistest.Start(t, row.kind, redistest.Options{Links: true, Users: []string{"user " + storeUser + " on >" + storePassword + " " + userRules(t)}})
			var own []*redistest.Link
			p := plan{
				mode: "cached", nodes: 3, timeout: "500ms", unchanged: 20, changing: 130, accounts: 5,
				pace: 30 * time.Millisecond, changers: 4, rest: 60 * time.Millisecond, streams: 5,
			}
			lasts := 5 * time.Second
			if soak() {
				p.changing, p.timeout, p.plain, lasts = 980, "250ms", true, 25*time.Second
			}
			for range p.nodes {
				addrs := topology.Addrs()
				if row.kind == redistest.Standalone { // each gateway has its own way to it
					link, err := redistest.NewLink(topology.Nodes[0].Server.Addr())
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(link.Close)
					own, addrs = append(own, link), []string{link.Addr()}
				}
				p.store = append(p.store, redisYAML(row.kind, addrs, modes()[1], row.kind == redistest.Sentinel && knowsDurability(t)))
			}
			f := startFleet(t, p)
			f.run()
			defer f.stop()
			pass(2 * time.Second)
			began := time.Now()
			f.troubleBegan.Store(began.UnixNano())
			if err := row.trouble(t.Context(), topology, own); err != nil {
				t.Fatal(err)
			}
			pass(lasts)
			healed := time.Now()
			for _, link := range own {
				link.Set(redistest.Pass)
			}
			if !waitNormal([]*fleet{f}, time.Second, patience) {
				t.Error("requests and changes do not become normal")
			}
			f.troubleEnded.Store(time.Now().UnixNano())
			pass(2 * time.Second)
			f.conclusion(t)
			t.Logf("%+v", f.report(began, healed, healed))
		})
	}
}

// conclusion ends the changes and holds what is there against what was
// acknowledged.
func (f *fleet) conclusion(t *testing.T) {
	t.Helper()
	f.halt()
	if err := f.settle(patience); err != nil {
		t.Error(err)
	}
	f.verify()
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.findings
	for _, wrong := range got.wrongs {
		t.Log(wrong)
	}
	if got.letThrough > 0 || got.refused > 0 || got.lost > 0 {
		t.Errorf("let through wrongly %d, refused wrongly %d, lost %d: want none", got.letThrough, got.refused, got.lost)
	}
	if got.changes-got.unsure < 20 {
		t.Errorf("%d of %d changes were acknowledged: nothing was tested", got.changes-got.unsure, got.changes)
	}
}
