package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
)

const someKey = "6f1e0000-0000-4000-8000-000000000001"

// slowly has four at once, and never gets another during a test.
var slowly = keystore.Rate{PerSecond: 0.001, Burst: 4}

// onEachSharedStore is onEachStore without the one that one node has for itself.
func onEachSharedStore(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	for _, kind := range []string{"miniredis", "redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, kind))
		})
	}
}

func (n *node) spend(subject string, r keystore.Rate) keystore.Spent {
	n.t.Helper()
	spent, err := n.Spend(n.t.Context(), subject, r)
	if err != nil {
		n.t.Fatal(err)
	}
	return spent
}

// TestLookingAtABudgetSpendsNothing.
func TestLookingAtABudgetSpendsNothing(t *testing.T) {
	t.Parallel()
	onEachSharedStore(t, func(t *testing.T, w *world) {
		n := w.node()
		for want := slowly.Burst; want >= 0; want-- {
			for range 3 {
				if left, err := n.Left(t.Context(), someKey, slowly); err != nil || left != want {
					t.Fatalf("%d are left, %v, want %d", left, err, want)
				}
			}
			n.spend(someKey, slowly)
		}
	})
}

func TestBudgetIsOneForAllNodes(t *testing.T) {
	t.Parallel()
	onEachSharedStore(t, func(t *testing.T, w *world) {
		nodes := []*node{w.node(), w.node()}
		for i := range slowly.Burst {
			if got := nodes[i%2].spend(someKey, slowly); !got.Allowed || got.Remaining != slowly.Burst-1-i || got.RetryAfter != 0 {
				t.Errorf("request %d: %+v", i, got)
			}
		}
		for _, n := range nodes {
			got := n.spend(someKey, slowly)
			if got.Allowed || got.Remaining != 0 || got.RetryAfter > 1000*time.Second || got.RetryAfter < 900*time.Second {
				t.Errorf("past the budget: %+v, want to wait for nearly 1000s", got)
			}
		}
		if got := nodes[0].spend(someKey+"-0123456789abcdef", slowly); !got.Allowed {
			t.Errorf("another subject: %+v", got)
		}
	})
}

// TestBudgetsFillUp at their rate, by the clock of Redis.
func TestBudgetsFillUp(t *testing.T) {
	t.Parallel()
	onEachSharedStore(t, func(t *testing.T, w *world) {
		n := w.node()
		fast := keystore.Rate{PerSecond: 3, Burst: 1}
		n.spend(someKey, fast)
		if got := n.spend(someKey, fast); got.Allowed || got.RetryAfter <= 0 || got.RetryAfter > 334*time.Millisecond {
			t.Errorf("at once: %+v", got)
		}
		eventually(t, "the budget has another one", func() bool { return n.spend(someKey, fast).Allowed })
	})
}

// TestBudgetsAreKeptUnderThePrefix, for no longer than they are needed, and
// nothing else is.
func TestBudgetsAreKeptUnderThePrefix(t *testing.T) {
	t.Parallel()
	onEachSharedStore(t, func(t *testing.T, w *world) {
		n := w.node()
		n.spend(someKey, slowly)
		client := keystore.ClientOf(n.Store)
		name := w.options.Prefix + "budget:" + someKey
		if ttl := client.TTL(t.Context(), name).Val(); ttl <= 0 || ttl > 1001*time.Second {
			t.Errorf("%s goes away after %v", name, ttl)
		}
		if all := dump(t, client, "rate:"); len(all) != 0 && w.kind == "miniredis" {
			t.Errorf("there are %v", all)
		}
	})
}

func TestSubjectsOfBudgetsAreShortAndPlain(t *testing.T) {
	t.Parallel()
	n := newWorld(t, "miniredis").node()
	if got := n.spend(strings.Repeat("a", 64), slowly); !got.Allowed {
		t.Errorf("64 characters: %+v", got)
	}
	for _, subject := range []string{"", strings.Repeat("a", 65), "a b", "a:b", "{a}", "a\n", "ä", "*"} {
		if got, err := n.Spend(t.Context(), subject, slowly); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%q: %+v, %v", subject, got, err)
		}
	}
	if got, err := n.Spend(t.Context(), someKey, keystore.Rate{Burst: 1}); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("no rate: %+v, %v", got, err)
	}
}

func TestEmbeddedStoreSharesNoBudgets(t *testing.T) {
	t.Parallel()
	n := newWorld(t, "embedded").node()
	if got, err := n.Spend(t.Context(), someKey, slowly); !errors.Is(err, keystore.ErrUnavailable) || got.Allowed {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestManySpendersShareRoundTrips, and each gets its own answer.
func TestManySpendersShareRoundTrips(t *testing.T) {
	t.Parallel()
	onEachSharedStore(t, func(t *testing.T, w *world) {
		const spenders, subjects = 300, 3
		n := w.node()
		n.spend("warm", slowly) // the script is there
		var trips atomic.Int64
		release := make(chan struct{})
		n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
			if cmd.Name() == "evalsha" && strings.Contains(fmt.Sprint(cmd.Args()...), "budget:") {
				trips.Add(1)
				<-release // until all others have queued up
			}
			return next()
		})
		var allowed [subjects]atomic.Int64
		var done sync.WaitGroup
		for i := range spenders {
			done.Go(func() {
				spent, err := n.Spend(t.Context(), fmt.Sprint("subject-", i%subjects), slowly)
				if err != nil {
					t.Error(err)
				}
				if spent.Allowed {
					allowed[i%subjects].Add(1)
				}
			})
		}
		eventually(t, "all others queue", func() bool { return keystore.SpendersWaiting(n.Store)+int(trips.Load()) == spenders })
		close(release)
		done.Wait()
		for i := range allowed {
			if got := allowed[i].Load(); got != int64(slowly.Burst) {
				t.Errorf("subject %d: %d were allowed, want %d", i, got, slowly.Burst)
			}
		}
		if got := trips.Load(); got > 2*subjects { // on a Cluster two for each master
			t.Errorf("it took %d round trips", got)
		}
	})
}

func TestBudgetsOfAHangingRedisAreUnavailableInTime(t *testing.T) {
	w, server := ownRedis(t)
	n := w.node()
	n.spend(someKey, slowly)
	server.signal(syscall.SIGSTOP)
	begun := time.Now()
	got, err := n.Spend(t.Context(), someKey, slowly)
	if took := time.Since(begun); !errors.Is(err, keystore.ErrUnavailable) || got.Allowed || took > patience+slack {
		t.Errorf("%+v, %v after %v, want ErrUnavailable after about %v", got, err, took, patience)
	}
	// However many wait at a time, nobody waits for more than one timeout.
	took := make([]time.Duration, 100)
	together(len(took), func(i int) {
		begun := time.Now()
		_, err := n.Spend(t.Context(), someKey, slowly)
		took[i] = time.Since(begun)
		if !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	})
	if longest := slices.Max(took); longest > patience+slack {
		t.Errorf("the longest took %v, want at most about %v", longest, patience)
	}
	server.signal(syscall.SIGCONT)
	eventually(t, "the budgets are back", func() bool {
		_, err := n.Spend(t.Context(), someKey, slowly)
		return err == nil
	})
}

// TestBudgetsSurviveTheirScript: a server that has forgotten the script, as
// after a restart, is given it again.
func TestBudgetsSurviveTheirScript(t *testing.T) {
	t.Parallel()
	w, mini := miniWorld(t)
	n := w.node()
	n.spend(someKey, slowly)
	flush := redis.NewClient(&redis.Options{Addr: mini.Addr(), Protocol: 2})
	t.Cleanup(func() { _ = flush.Close() })
	if err := flush.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if got := n.spend(someKey, slowly); !got.Allowed || got.Remaining != slowly.Burst-2 {
		t.Errorf("after the script was flushed: %+v", got)
	}
}
