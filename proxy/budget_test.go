package proxy_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"gatehouse/keystore"
	"gatehouse/proxy"
)

// pot is what all nodes share: so many requests for each subject, and an outage.
type pot struct {
	mu         sync.Mutex
	left       int
	retryAfter time.Duration
	away       bool
	spent      map[string]int
	asked      int
	rates      map[keystore.Rate]bool
	badContext error // of a request that could not go on
}

func newPot(left int) *pot {
	return &pot{left: left, retryAfter: time.Second, spent: map[string]int{}, rates: map[keystore.Rate]bool{}}
}

func (p *pot) Spend(ctx context.Context, subject string, r keystore.Rate) (keystore.Spent, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	p.rates[r] = true
	if p.badContext = ctx.Err(); p.badContext != nil {
		return keystore.Spent{}, p.badContext
	}
	if p.away {
		return keystore.Spent{}, keystore.ErrUnavailable
	}
	if p.spent[subject] >= p.left {
		return keystore.Spent{RetryAfter: p.retryAfter}, nil
	}
	p.spent[subject]++
	return keystore.Spent{Allowed: true}, nil
}

func (p *pot) Left(_ context.Context, subject string, _ keystore.Rate) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return 0, keystore.ErrUnavailable
	}
	return p.left - p.spent[subject], nil
}

func (p *pot) change(f func(p *pot)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *pot) timesAsked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// sharingNode is a node whose keys have a rate of their own there and share the pot.
type sharingNode struct {
	*gate
	log      *lockedBuffer
	registry *prometheus.Registry
}

func newSharingNode(t *testing.T, p *pot, rate float64, burst int) *sharingNode {
	t.Helper()
	n := &sharingNode{log: &lockedBuffer{}, registry: prometheus.NewRegistry()}
	l := proxy.NewLimiter(proxy.LimiterOptions{Name: "key", Rate: rate, Burst: burst, Shared: proxy.NewSharedBudgets(p, n.registry, newLog(n.log))})
	t.Cleanup(l.Close)
	n.gate = limitGate(t, l, nil)
	return n
}

// shared is whether the node says that it shares budgets.
func (n *sharingNode) shared(t *testing.T) bool {
	t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Contains(text.String(), "\ngatehouse_shared_limits_available 1\n")
}

// passing asks so many times, and returns how many passed.
func (n *sharingNode) passing(t *testing.T, times int, token string) int {
	t.Helper()
	passed := 0
	for range times {
		reason, retryAfter := n.ask(t, token, someone)
		if reason == "allowed" {
			passed++
		} else if reason != "rate_limited" || retryAfter == "" {
			t.Fatalf("recorded %s with Retry-After %q", reason, retryAfter)
		}
	}
	return passed
}

func TestNodesShareTheBudgetOfAKey(t *testing.T) {
	t.Parallel()
	p := newPot(5)
	nodes := []*sharingNode{newSharingNode(t, p, 0.001, 5), newSharingNode(t, p, 0.001, 5)}
	passed := 0
	for i := range 20 {
		passed += nodes[i%2].passing(t, 1, good)
	}
	if passed != 5 {
		t.Errorf("%d requests passed on both nodes, want 5", passed)
	}
	if passed := nodes[1].passing(t, 10, tokenOf("good2")); passed != 5 {
		t.Errorf("of another key %d requests passed, want 5", passed)
	}
	if want := (keystore.Rate{PerSecond: 0.001, Burst: 5}); len(p.rates) != 1 || !p.rates[want] {
		t.Errorf("asked for %v, want %v", p.rates, want)
	}
}

// TestNodeHasItsOwnBudgetWhileTheSharedOneIsAway, and never none: what was
// spent before counts.
func TestNodeHasItsOwnBudgetWhileTheSharedOneIsAway(t *testing.T) {
	t.Parallel()
	p := newPot(100)
	n := newSharingNode(t, p, 0.001, 10)
	if passed := n.passing(t, 4, good); passed != 4 || !n.shared(t) {
		t.Fatalf("%d requests passed; shared: %v", passed, n.shared(t))
	}
	p.change(func(p *pot) { p.away = true })
	before := p.timesAsked()
	if passed := n.passing(t, 50, good); passed != 6 || n.shared(t) {
		t.Errorf("%d requests passed, want the 6 that were left; shared: %v", passed, n.shared(t))
	}
	if passed := n.passing(t, 50, tokenOf("good2")); passed != 10 {
		t.Errorf("of another key %d requests passed, want 10", passed)
	}
	if asked := p.timesAsked() - before; asked != 1 {
		t.Errorf("asked %d times within a moment, want once", asked)
	}
	for range 3 {
		n.clock.Advance(time.Second)
		n.passing(t, 2, tokenOf("good2"))
	}
	if text := n.log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `"level":"warn"`) {
		t.Errorf("logged %s", text)
	}
}

func TestBudgetIsSharedAgainWhenItIsBack(t *testing.T) {
	t.Parallel()
	p := newPot(3)
	n := newSharingNode(t, p, 0.001, 100)
	p.change(func(p *pot) { p.away = true })
	if passed := n.passing(t, 10, good); passed != 10 {
		t.Fatalf("%d requests passed, want 10 by the node's own budget", passed)
	}
	p.change(func(p *pot) { p.away = false })
	n.clock.Advance(999 * time.Millisecond)
	if passed := n.passing(t, 10, good); passed != 10 || p.timesAsked() != 1 {
		t.Errorf("%d passed, and it was asked %d times before a second was over", passed, p.timesAsked())
	}
	n.clock.Advance(time.Millisecond)
	if passed := n.passing(t, 10, good); passed != 3 || !n.shared(t) {
		t.Errorf("%d requests passed, want the 3 of all nodes; shared: %v", passed, n.shared(t))
	}
	if text := n.log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, `"level":"info"`) {
		t.Errorf("logged %s", text)
	}
}

// TestRefusalOfAllNodesCostsThisOneNothing: a client that waits as it was told
// is let through.
func TestRefusalOfAllNodesCostsThisOneNothing(t *testing.T) {
	t.Parallel()
	p := newPot(0)
	p.retryAfter = 9 * time.Second
	n := newSharingNode(t, p, 0.1, 1)
	if reason, retryAfter := n.ask(t, good, someone); reason != "rate_limited" || retryAfter != "9" {
		t.Fatalf("recorded %s, Retry-After %s", reason, retryAfter)
	}
	p.change(func(p *pot) { p.left = 1 })
	n.clock.Advance(9 * time.Second)
	if reason, _ := n.ask(t, good, someone); reason != "allowed" {
		t.Errorf("after the time it was told to wait: recorded %s", reason)
	}
}

// TestWhoHasNothingLeftIsNotAskedFor: a flood of requests of one key is no flood
// for the store.
func TestWhoHasNothingLeftIsNotAskedFor(t *testing.T) {
	t.Parallel()
	t.Run("on this node", func(t *testing.T) {
		t.Parallel()
		p := newPot(100)
		n := newSharingNode(t, p, 0.001, 3)
		if passed := n.passing(t, 100, good); passed != 3 || p.timesAsked() != 3 {
			t.Errorf("%d passed, and it was asked %d times; want 3 and 3", passed, p.timesAsked())
		}
	})
	t.Run("on all nodes", func(t *testing.T) {
		t.Parallel()
		p := newPot(3)
		p.retryAfter = 2500 * time.Millisecond
		n := newSharingNode(t, p, 10, 100)
		if passed := n.passing(t, 50, good); passed != 3 || p.timesAsked() != 4 {
			t.Errorf("%d passed, and it was asked %d times; want 3 and 4", passed, p.timesAsked())
		}
		n.clock.Advance(1500 * time.Millisecond)
		if _, retryAfter := n.ask(t, good, someone); retryAfter != "1" {
			t.Errorf("Retry-After %s, want what is left of it", retryAfter)
		}
		n.clock.Advance(time.Second)
		n.passing(t, 50, good)
		if p.timesAsked() != 5 {
			t.Errorf("asked %d times, want once more", p.timesAsked())
		}
	})
}

// TestClientThatGoesAwayIsNoOutage.
func TestClientThatGoesAwayIsNoOutage(t *testing.T) {
	t.Parallel()
	p := newPot(100)
	n := newSharingNode(t, p, 10, 100)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n.serve(t, listRequest(good).WithContext(ctx))
	if !n.shared(t) || p.badContext != nil {
		t.Errorf("shared: %v, asked with %v", n.shared(t), p.badContext)
	}
}

// TestOneAsksWhenThePauseIsOver, and the others do not wait for it.
func TestOneAsksWhenThePauseIsOver(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan error)
	var asking atomic.Int64
	slow := budgetsFunc(func(context.Context, string, keystore.Rate) (keystore.Spent, error) {
		defer asking.Add(-1)
		if n := asking.Add(1); n > 1 {
			t.Errorf("%d ask at a time", n)
			return keystore.Spent{}, errors.New("away")
		}
		asked <- struct{}{}
		return keystore.Spent{}, <-answer
	})
	l := proxy.NewLimiter(proxy.LimiterOptions{Name: "key", Rate: 1, Burst: 1000, Shared: proxy.NewSharedBudgets(slow, prometheus.NewRegistry(), newLog(&lockedBuffer{}))})
	t.Cleanup(l.Close)
	g := limitGate(t, l, nil)
	var first sync.WaitGroup
	for round := range 3 {
		first.Go(func() { g.gateway.ServeHTTP(httptest.NewRecorder(), listRequest(good)) })
		<-asked
		if round > 0 {
			for range 20 {
				if reason, _ := g.ask(t, good, someone); reason != "allowed" {
					t.Errorf("recorded %s", reason)
				}
			}
		}
		answer <- errors.New("away")
		first.Wait()
		g.records.next(t)
		g.clock.Advance(time.Second)
	}
}

type budgetsFunc func(ctx context.Context, subject string, r keystore.Rate) (keystore.Spent, error)

func (f budgetsFunc) Spend(ctx context.Context, subject string, r keystore.Rate) (keystore.Spent, error) {
	return f(ctx, subject, r)
}

func (budgetsFunc) Left(context.Context, string, keystore.Rate) (int, error) {
	return 0, keystore.ErrUnavailable
}

// TestSharedBudgetsOfLimitsAreApart: names are short and plain, whatever a
// route is called, and the same on every node.
func TestSharedBudgetsOfLimitsAreApart(t *testing.T) {
	t.Parallel()
	p := newPot(1)
	for range 2 { // nodes
		b := proxy.NewSharedBudgets(p, prometheus.NewRegistry(), newLog(&lockedBuffer{}))
		for _, apart := range []string{"", "route GET /a/{subaccount}/", "route " + strings.Repeat("ä", 1000)} {
			l := proxy.NewLimiter(proxy.LimiterOptions{Name: "route", Rate: 1, Burst: 10, Shared: b, Apart: apart})
			t.Cleanup(l.Close)
			limitGate(t, l, nil).ask(t, good, someone)
		}
	}
	if len(p.spent) != 3 || p.asked != 6 {
		t.Errorf("spent %v in %d requests, want 3 budgets in 6", p.spent, p.asked)
	}
	for subject := range p.spent {
		if len(subject) > 36+1+16 || strings.Trim(strings.TrimPrefix(subject, "good"), "-0123456789abcdef") != "" {
			t.Errorf("a budget is called %q", subject)
		}
	}
}
