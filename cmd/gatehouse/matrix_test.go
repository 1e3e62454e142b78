package main_test

import (
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/keystore/redistest"
)

// mode is how gateways look keys up.
type mode struct{ name, yaml string }

// The modes of the matrix. What is cached is kept for so long that only a change
// that was heard of, or a cache that is off, makes it right.
func modes() []mode {
	return []mode{
		{"strict", "lookup: strict"},
		{"cached", "lookup: cached\n  cache: {ttl: 1m}"},
		{"stale", "lookup: cached\n  cache: {ttl: 1m}\n  stale_if_unavailable: 2m"},
	}
}

// soak reports whether there is time for everything: the matrix as a whole, and
// samples enough for a p99.
func soak() bool { return os.Getenv("GATEHOUSE_SOAK") != "" }

// needsFaults skips a test of faults, aloud, unless it is asked for: in short
// form by GATEHOUSE_FAULTS=1, at length by make soak.
func needsFaults(t *testing.T) {
	t.Helper()
	if !soak() && os.Getenv("GATEHOUSE_FAULTS") == "" {
		t.Skip("SKIPPED: GATEHOUSE_FAULTS=1 runs it in short form, make soak at length")
	}
}

// inShort are the rows that are run where there is no time for all, with the
// modes that tell most.
func inShort() map[redistest.Kind]map[string][]string {
	return map[redistest.Kind]map[string][]string{
		redistest.Standalone: {"kill": {"strict", "stale"}, "restart-empty": {"strict", "stale"}, "restart-older": {"strict", "cached"}, "full-memory": {"strict"}},
		redistest.Sentinel:   {"failover": {"strict", "cached"}},
		redistest.Cluster:    {"kill": {"strict", "stale"}, "restart-empty": {"strict"}},
		embeddedKind:         {"kill": {"strict"}, "full-disk": {"strict"}},
	}
}

// TestFaultMatrix does to stores what happens to them, while clients use keys,
// change them and hang up: {fault} × {topology} × {lookup}. Nothing may be let
// through that an acknowledged change forbids, no good key may be refused as a
// bad one, and nothing that was acknowledged may be lost.
//
// With GATEHOUSE_SOAK=1 every cell is run; single ones with
// -run 'TestFaultMatrix/sentinel/failover/strict'.
func TestFaultMatrix(t *testing.T) {
	needsFaults(t)
	redistest.Need(t)
	binary(t)
	table := &matrixTable{}
	t.Cleanup(func() { table.write(t) })
	for _, kind := range []redistest.Kind{redistest.Standalone, redistest.Sentinel, redistest.Cluster, embeddedKind} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			for _, f := range faults() {
				if f.without(kind) != "" {
					continue
				}
				chosen := modes()
				if !soak() {
					chosen = slices.DeleteFunc(chosen, func(m mode) bool { return !slices.Contains(inShort()[kind][f.name], m.name) })
				}
				if len(chosen) == 0 {
					continue
				}
				t.Run(f.name, func(t *testing.T) {
					t.Parallel()
					newMatrixRow(t, kind, f).run(t, chosen, table)
				})
			}
		})
	}
}

// matrixRow is one fault of one topology. All modes go through it together, each
// with gateways and a store of its own.
type matrixRow struct {
	kind  redistest.Kind
	fault fault
	site  *site
	over  chan struct{} // closed when everything was done and seen

	faultAt, healedAt, normalFrom time.Time
}

func newMatrixRow(t *testing.T, kind redistest.Kind, f fault) *matrixRow {
	t.Helper()
	var o redistest.Options
	if f.option != nil {
		f.option(&o)
	}
	return &matrixRow{kind: kind, fault: f, site: startSite(t, kind, o), over: make(chan struct{})}
}

func (r *matrixRow) run(t *testing.T, chosen []mode, table *matrixTable) {
	var running sync.WaitGroup
	defer running.Wait()
	var over sync.Once
	end := func() { over.Do(func() { close(r.over) }) }
	defer end()
	arrived := make(chan *fleet)
	for _, m := range chosen {
		running.Go(func() {
			var once sync.Once
			arrive := func(f *fleet) { once.Do(func() { arrived <- f }) }
			defer arrive(nil) // it was not to be run, or failed
			t.Run(m.name, func(t *testing.T) {
				f := startFleet(t, r.plan(m))
				arrive(f)
				<-r.over
				r.verdict(t, m, f, table)
			})
		})
	}
	for range chosen {
		if f := <-arrived; f != nil {
			r.site.fleets = append(r.site.fleets, f)
		}
	}
	if len(r.site.fleets) == 0 || t.Failed() {
		return
	}
	r.goThrough(t)
}

func (r *matrixRow) plan(m mode) plan {
	p := plan{
		mode: m.name, nodes: 2, store: []string{r.site.store(m, r.fault.option != nil)}, timeout: "500ms", unchanged: 20, changing: 30, accounts: 3,
		pace: 25 * time.Millisecond, changers: 2, rest: 80 * time.Millisecond, streams: 3,
	}
	if soak() {
		p.timeout, p.plain = "250ms", true
	}
	if r.kind == embeddedKind {
		p.nodes = 1
	}
	return p
}

// goThrough is what happens, to all fleets at once.
func (r *matrixRow) goThrough(t *testing.T) {
	const (
		calm     = 2 * time.Second
		holds    = 3 * time.Second
		while    = time.Second // that all must be well
		recovers = 40 * time.Second
	)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	fleets := r.site.fleets
	for _, f := range fleets {
		f.run()
		defer f.stop()
	}
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	step("the victim", r.site.choose(ctx))
	pass(calm / 2)
	if r.fault.copies {
		var err error
		r.site.older, err = r.site.copy()
		step("a copy of the data", err)
	}
	pass(calm / 2)
	for _, f := range fleets {
		f.warm(ctx)
		f.troubleBegan.Store(time.Now().UnixNano())
	}
	r.faultAt = time.Now()
	step("the fault", r.fault.begin(ctx, r.site))
	pass(holds - time.Since(r.faultAt))
	heals := r.fault.heals && (r.kind == redistest.Sentinel || r.kind == redistest.Cluster)
	if heals && !waitNormal(fleets, while, recovers) {
		t.Errorf("requests and changes are not normal %s after a fault of one server, while others could take over", recovers)
	}
	r.healedAt = time.Now()
	if r.normalFrom = r.healedAt; heals {
		r.normalFrom = r.faultAt
	}
	step("the end of the fault", r.fault.end(ctx, r.site))
	if !waitNormal(fleets, while, recovers) {
		t.Errorf("requests and changes are not normal %s after the end of the fault", recovers)
	}
	for _, f := range fleets {
		f.troubleEnded.Store(time.Now().UnixNano())
	}
	pass(calm)
	var all sync.WaitGroup
	for _, f := range fleets {
		all.Go(func() {
			f.halt()
			if err := f.settle(recovers); err != nil {
				f.wrong(&f.findings.lost, "%v", err)
				return
			}
			f.verify()
		})
	}
	all.Wait()
}

// pass lets time pass, in which the clients do their work.
func pass(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// waitNormal waits until all fleets are normal, and reports whether they are.
func waitNormal(fleets []*fleet, while, within time.Duration) bool {
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if !slices.ContainsFunc(fleets, func(f *fleet) bool { return !f.isNormal(while) }) {
			return true
		}
		select {
		case <-tick.C:
		case <-timeout.C:
			return false
		}
	}
}

// verdict holds what the clients saw against what is promised.
func (r *matrixRow) verdict(t *testing.T, m mode, f *fleet, table *matrixTable) {
	if r.faultAt.IsZero() || r.healedAt.IsZero() {
		return // it did not come to that
	}
	got := f.report(r.faultAt, r.healedAt, r.normalFrom)
	table.add(r.kind, r.fault.name, m.name, got)
	t.Logf("%s: %+v", cellName(r.kind, r.fault.name, m.name), got)
	for _, wrong := range f.findings.wrongs {
		t.Log(wrong)
	}
	if got.letThrough > 0 || got.refused > 0 || got.lost > 0 {
		t.Errorf("let through wrongly %d, refused wrongly %d, lost %d: want none", got.letThrough, got.refused, got.lost)
	}
	const mostly = 0.99
	// A Sentinel takes a master whose disk is full for dead: it answers PING with
	// MISCONF.
	reads := r.fault.reads && r.kind != embeddedKind && (r.kind != redistest.Sentinel || r.fault.name != "full-disk")
	if (m.name == "stale" && r.kind != embeddedKind || reads) && got.passed < mostly {
		t.Errorf("%.1f %% of the requests passed in the outage, want %.0f %%", 100*got.passed, 100*mostly)
	}
	if r.fault.takes && (got.taken == 0 || got.notTaken > 0) {
		t.Errorf("in the outage %d of %d rights could be taken, want all", got.taken, got.taken+got.notTaken)
	}
	if got.changes-got.unsure < 10 {
		t.Errorf("%d of %d changes were acknowledged: nothing was tested", got.changes-got.unsure, got.changes)
	}
}
