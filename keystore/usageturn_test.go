package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// pipelines is called for each pipeline, and calls next to have it done.
type pipelines func(cmds []redis.Cmder, next func() error) error

func (pipelines) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (p pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return p(cmds, func() error { return next(ctx, cmds) })
	}
}

// hours fills a bucket of hours of the account for each of the days before now,
// with that many counters.
func (n *node) hours(account policy.AccountID, days, counters int) {
	n.t.Helper()
	for day := range days {
		name := fmt.Sprintf("%saccount:{%s}:usage:all:%s", n.w.options.Prefix, account, n.w.clock.Now().AddDate(0, 0, -day).Format(time.DateOnly))
		fields := make([]any, 0, 2*counters)
		for i := range counters {
			fields = append(fields, fmt.Sprintf("%d %s allowed GET /%d", i%24, read, i), 1)
		}
		if err := keystore.ClientOf(n.Store).HSet(n.t.Context(), name, fields...).Err(); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) lastMonth() keystore.UsageFilter {
	now := n.w.clock.Now()
	return keystore.UsageFilter{From: now.Add(-30 * 24 * time.Hour), To: now.Add(time.Hour), Step: keystore.ByHour}
}

// TestUsageIsReadInPortions: Redis answers a pipeline in one go, and lookups wait
// for that, so it is for so many counters and no more.
func TestUsageIsReadInPortions(t *testing.T) {
	w, _ := miniWorld(t)
	w.noon()
	n := w.node()
	person := n.account("acme")
	n.hours("acme", 10, 1800)
	most, all := 0, 0
	keystore.ClientOf(n.Store).AddHook(pipelines(func(cmds []redis.Cmder, next func() error) error {
		err := next()
		counters := 0
		for _, cmd := range cmds {
			if hash, ok := cmd.(*redis.MapStringStringCmd); ok {
				counters += len(hash.Val())
			}
		}
		most, all = max(most, counters), all+counters
		return err
	}))
	rows, err := n.Usage(t.Context(), person, n.lastMonth())
	if err != nil || len(rows) < 200 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if ranking, err := n.RankUsage(t.Context(), keystore.UsageRanking{UsageFilter: n.lastMonth(), By: keystore.RankAccounts}); err != nil || len(ranking) != 1 {
		t.Fatalf("ranked are %v, %v", ranking, err)
	}
	if all != 2*18000 || most < 3600 || most > 5000 {
		t.Errorf("%d counters were read, and up to %d at once", all, most)
	}
}

// TestTooMuchUsageIsNotRead: it is refused before any of it comes.
func TestTooMuchUsageIsNotRead(t *testing.T) {
	w, _ := miniWorld(t)
	w.noon()
	n := w.node()
	person := n.account("acme")
	n.hours("acme", 3, 10)
	keystore.ClientOf(n.Store).AddHook(pipelines(func(cmds []redis.Cmder, next func() error) error {
		err := next()
		for _, cmd := range cmds {
			switch answer := cmd.(type) {
			case *redis.IntCmd:
				answer.SetVal(answer.Val() * 1_000_000)
			case *redis.MapStringStringCmd:
				t.Errorf("it sends %v", cmd.Args())
			}
		}
		return err
	}))
	_, err := n.Usage(t.Context(), person, n.lastMonth())
	wantErr(t, err, keystore.ErrTooMuchUsage)
}

// TestQuestionsAboutUsageWaitForEachOther: counters are read for one of them at
// a time, and an account has one question at a time, so that neither Redis nor
// the connections to it are all theirs.
func TestQuestionsAboutUsageWaitForEachOther(t *testing.T) {
	w, _ := miniWorld(t)
	w.noon()
	n := w.node()
	acme, zeta := n.account("acme"), n.account("zeta")
	n.key(acme)
	n.key(zeta)
	n.hours("acme", 2, 10)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var held, more atomic.Bool
	keystore.ClientOf(n.Store).AddHook(pipelines(func(_ []redis.Cmder, next func() error) error {
		if held.CompareAndSwap(false, true) {
			close(begun)
			<-goOn
		} else {
			more.Store(true)
		}
		return next()
	}))
	first := make(chan error)
	go func() {
		_, err := n.Usage(t.Context(), acme, n.lastMonth())
		first <- err
	}()
	<-begun
	var asked atomic.Int64
	ctx, giveUp := context.WithCancel(t.Context())
	n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
		err := next()
		if asked.Add(1); cmd.Name() == "mget" {
			giveUp()
		}
		return err
	})
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	byKey := n.lastMonth()
	byKey.ByKey = true
	if _, err := n.Usage(short, acme, byKey); !errors.Is(err, keystore.ErrUnavailable) || asked.Load() != 0 {
		t.Errorf("a second question of the account has asked %d times, and got %v", asked.Load(), err)
	}
	if _, err := n.Usage(ctx, zeta, byKey); !errors.Is(err, keystore.ErrUnavailable) || asked.Load() == 0 {
		t.Errorf("one of another account has asked %d times, and got %v", asked.Load(), err)
	}
	ranked, cancelRanking := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelRanking()
	if _, err := n.RankUsage(ranked, keystore.UsageRanking{UsageFilter: n.lastMonth(), By: keystore.RankRoutes, Account: "zeta"}); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("a ranking got %v", err)
	}
	if more.Load() {
		t.Error("counters were read for two")
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if rows, err := n.Usage(t.Context(), acme, n.lastMonth()); err != nil || len(rows) == 0 {
		t.Errorf("then: %d rows, %v", len(rows), err)
	}
}

// TestNobodyWaitsForUsageWithoutEnd, behind a store that answers slowly.
func TestNobodyWaitsForUsageWithoutEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newWorld(t, "embedded").node()
		person := n.account("acme")
		n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
			if cmd.Name() == "hlen" {
				<-time.After(time.Hour)
			}
			return next()
		})
		first := make(chan struct{})
		go func() {
			defer close(first)
			_, _ = n.Usage(t.Context(), person, n.lastMonth()) // the second matters
		}()
		synctest.Wait()
		begun := time.Now()
		_, err := n.Usage(t.Context(), person, n.lastMonth())
		wantErr(t, err, keystore.ErrUnavailable)
		if waited := time.Since(begun); waited != 20*time.Second {
			t.Errorf("it has waited %s", waited)
		}
		<-first
	})
}
