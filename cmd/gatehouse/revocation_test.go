package main_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/keystore/redistest"
)

// sample is for how long after the acknowledgement of its revocation a key was
// let through: new requests that began then, and an event stream.
type sample struct{ request, stream time.Duration }

// TestRevocationBound measures how long a revocation takes to hold: at the node
// that acknowledged it and at another, with a subscription that tells of it and
// with one that is deaf: half open, so that nothing says that it is.
func TestRevocationBound(t *testing.T) {
	needsFaults(t)
	redistest.Need(t)
	samples := 20
	if soak() {
		samples = 300
	}
	topology := redistest.Start(t, redistest.Standalone, redistest.Options{Users: []string{"user " + storeUser + " on >" + storePassword + " " + userRules(t)}})
	link, err := redistest.NewLink(topology.Nodes[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	f := startFleet(t, plan{
		nodes: 2, store: []string{redisYAML(redistest.Standalone, []string{link.Addr()}, modes()[1], false)}, timeout: "1s",
		unchanged: 1, changing: 0, accounts: 3, plain: soak(),
	})
	lines := []string{"| subscription | revoked at | | median | p99 | longest |", "| --- | --- | --- | --- | --- | --- |"}
	for _, row := range []struct {
		subscription string
		deaf         bool
		at           string
		node         int
		bound        [2]time.Duration // of requests and streams
	}{
		{"connected", false, "the same node", 0, [2]time.Duration{0, connectedBound}},
		{"connected", false, "another node", 1, [2]time.Duration{connectedBound, connectedBound}},
		{"deaf", true, "the same node", 0, [2]time.Duration{0, worstBound}},
		{"deaf", true, "another node", 1, [2]time.Duration{worstBound, worstBound}},
	} {
		var got []sample
		for len(got) < samples {
			got = append(got, f.revokeMany(t, row.node, min(50, samples-len(got)), func() {
				if row.deaf {
					link.Set(redistest.HalfOpen, redistest.Subscriptions)
				}
			})...)
			link.Set(redistest.Pass)
		}
		for i, of := range []func(s sample) time.Duration{func(s sample) time.Duration { return s.request }, func(s sample) time.Duration { return s.stream }} {
			what := []string{"new requests", "streams"}[i]
			all := make([]time.Duration, len(got))
			for n, s := range got {
				all[n] = max(0, of(s))
			}
			slices.Sort(all)
			longest := all[len(all)-1]
			line := fmt.Sprintf("| %s | %s | %s | %s | %s | %s |", row.subscription, row.at, what, inMillis(all[len(all)/2]), inMillis(all[len(all)*99/100]), inMillis(longest))
			lines = append(lines, line)
			t.Log(line)
			// A bound of none is none on any machine.
			if bound := row.bound[i]; longest > bound && longest > slack*bound {
				t.Errorf("%s, revoked at %s, %s: %s after the acknowledgement, want %s", row.subscription, row.at, what, longest, bound)
			}
		}
	}
	writeSection(t, "revocation bound", lines)
}

func inMillis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// revokeMany makes keys that are in use at the first node, revokes them at a
// node, and says for how long each went on.
func (f *fleet) revokeMany(t *testing.T, at, count int, before func()) []sample {
	t.Helper()
	subjects := make([]*subject, count)
	each := func(do func(i int)) {
		var all sync.WaitGroup
		for i := range subjects {
			all.Go(func() { do(i) })
		}
		all.Wait()
	}
	each(func(i int) { subjects[i] = f.create(t.Context(), i%len(f.roots), 0, nil) })
	if slices.Contains(subjects, nil) {
		t.Fatal("a key could not be made")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*worstBound)
	defer cancel()
	var using sync.WaitGroup
	defer using.Wait()
	last := make([]sampleEnd, count)
	for i, s := range subjects {
		begun := make(chan struct{}, 2)
		using.Go(func() { last[i].request = f.requestUntilRefused(ctx, s, begun) })
		using.Go(func() { last[i].stream = f.listenUntilEnded(ctx, s, begun) })
		<-begun
		<-begun
	}
	before()
	acknowledged := make([]time.Time, count)
	each(func(i int) {
		pass(time.Duration(i) * 10 * time.Millisecond) // not all at once, which would measure that
		if got := f.manage(ctx, i%len(f.roots), at, http.MethodDelete, keyTarget(subjects[i].ID), nil); got.status != http.StatusOK {
			t.Errorf("revoke: %d %s %v", got.status, got.body, got.err)
		}
		acknowledged[i] = time.Now()
	})
	using.Wait()
	samples := make([]sample, count)
	for i := range samples {
		samples[i] = sample{last[i].request.Sub(acknowledged[i]), last[i].stream.Sub(acknowledged[i])}
	}
	return samples
}

// sampleEnd is when the last request that was let through began, and when the
// stream ended.
type sampleEnd struct{ request, stream time.Time }

// requestUntilRefused uses the key at the first node until it is refused.
func (f *fleet) requestUntilRefused(ctx context.Context, s *subject, begun chan<- struct{}) (last time.Time) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		began := time.Now()
		if f.try(ctx, 0, s, false) {
			last = began
		} else if n > 0 {
			return last
		}
		if n == 0 {
			begun <- struct{}{}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Now()
		}
	}
}

// listenUntilEnded holds a stream at the first node until it ends.
func (f *fleet) listenUntilEnded(ctx context.Context, s *subject, begun chan<- struct{}) (ended time.Time) {
	nonce, arrived := f.recorder.expect()
	defer arrived()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.gateways[0].addr+eventPath, nil)
	if err == nil {
		r.Header.Set("Api-Token", s.Token)
		r.Header.Set(nonceHeader, nonce)
		var response *http.Response
		if response, err = (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r); err == nil {
			begun <- struct{}{}
			buffer := make([]byte, 512)
			for err == nil {
				_, err = response.Body.Read(buffer)
			}
			_ = response.Body.Close() // it has ended
			return time.Now()
		}
	}
	begun <- struct{}{}
	return time.Now()
}
