package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// ranking is the question after accounts of the last month, changed.
func (n *node) ranking(changes ...func(*keystore.UsageRanking)) keystore.UsageRanking {
	now := n.w.clock.Now()
	r := keystore.UsageRanking{By: keystore.RankAccounts, Limit: 10}
	r.From, r.To, r.Step = now.Add(-30*24*time.Hour), now.Add(time.Hour), keystore.ByDay
	for _, change := range changes {
		change(&r)
	}
	return r
}

// ranked tells the answer, a line a row.
func ranked(n *node, changes ...func(*keystore.UsageRanking)) []string {
	n.t.Helper()
	rows, err := n.RankUsage(n.t.Context(), n.ranking(changes...))
	if err != nil {
		n.t.Fatal(err)
	}
	var lines []string
	for _, r := range rows {
		words := slices.DeleteFunc([]string{string(r.Account), r.Name, string(r.Key), r.Preview, string(r.Permission), r.Product, r.Route, r.Outcome}, func(s string) bool { return s == "" })
		lines = append(lines, strings.Join(append(words, fmt.Sprint(r.Requests)), "|"))
	}
	return lines
}

func rank(by keystore.UsageSubject) func(*keystore.UsageRanking) {
	return func(r *keystore.UsageRanking) { r.By = by }
}

// TestUsageIsRanked: by everything it is counted by, of all accounts and keys
// that there are, suspended ones too, and of no others.
func TestUsageIsRanked(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		w.noon()
		n := w.node()
		acme, zeta, gone := n.account("acme"), n.account("zeta"), n.account("gone")
		a, _ := n.key(acme)
		b, _ := n.key(acme, func(k *keystore.NewKey) { k.Name = "second" })
		revoked, _ := n.key(acme)
		z, _ := n.key(zeta)
		g, _ := n.key(gone)
		n.account("idle")
		n.counts("acme", a.ID, read, "allowed", getRoute, 3)
		n.counts("acme", b.ID, read, "rate_limited", getRoute, 2)
		n.counts("acme", b.ID, write, "allowed", setRoute, 3)
		n.counts("acme", revoked.ID, read, "allowed", getRoute, 9)
		n.counts("zeta", z.ID, other, "allowed", setRoute, 6)
		n.counts("zeta", z.ID, policy.AnyValidKey, "account_suspended", "GET /me", 1)
		n.counts("gone", g.ID, read, "allowed", getRoute, 50)
		n.flush()
		if _, err := n.Revoke(t.Context(), acme, revoked.ID); err != nil {
			t.Fatal(err)
		}
		if err := n.DeleteAccount(t.Context(), policy.Caller{}, "gone"); err != nil {
			t.Fatal(err)
		}
		n.account("zeta", func(a *keystore.Account) { a.Status = policy.Suspended })
		n.flush()
		keyA, keyB, keyZ := "acme|key|"+string(a.ID)+"|"+a.Preview, "acme|second|"+string(b.ID)+"|"+b.Preview, "zeta|key|"+string(z.ID)+"|"+z.Preview
		first := keyA
		if b.ID < a.ID {
			first = keyB
		}
		only := func(change func(*keystore.UsageRanking)) func(*keystore.UsageRanking) {
			return func(r *keystore.UsageRanking) { r.By = keystore.RankKeys; change(r) }
		}
		for name, test := range map[string]struct {
			change func(*keystore.UsageRanking)
			want   []string
		}{
			"accounts":        {rank(keystore.RankAccounts), []string{"acme|Account acme|17", "zeta|Account zeta|7"}},
			"keys":            {rank(keystore.RankKeys), []string{keyZ + "|7", keyB + "|5", keyA + "|3"}},
			"permissions":     {rank(keystore.RankPermissions), []string{string(read) + "|14", string(other) + "|6", string(write) + "|3", "any-valid-key|1"}},
			"products":        {rank(keystore.RankProducts), []string{"proxies|17", "serp|6", "any-valid-key|1"}},
			"routes":          {rank(keystore.RankRoutes), []string{getRoute + "|14", setRoute + "|9", "GET /me|1"}},
			"outcomes":        {rank(keystore.RankOutcomes), []string{"allowed|21", "rate_limited|2", "account_suspended|1"}},
			"the first":       {only(func(r *keystore.UsageRanking) { r.Limit = 1 }), []string{keyZ + "|7"}},
			"of an account":   {only(func(r *keystore.UsageRanking) { r.Account = "acme" }), []string{keyB + "|5", keyA + "|3"}},
			"of an idle one":  {only(func(r *keystore.UsageRanking) { r.Account = "idle" }), nil},
			"of a route":      {only(func(r *keystore.UsageRanking) { r.Route = setRoute }), []string{keyZ + "|6", keyB + "|3"}},
			"of a product":    {only(func(r *keystore.UsageRanking) { r.Product = "proxies" }), []string{keyB + "|5", keyA + "|3"}},
			"of an outcome":   {only(func(r *keystore.UsageRanking) { r.Outcome = "rate_limited" }), []string{keyB + "|2"}},
			"of a permission": {only(func(r *keystore.UsageRanking) { r.Permission = read }), []string{keyA + "|3", keyB + "|2"}},
			"as many, by id":  {only(func(r *keystore.UsageRanking) { r.Outcome, r.Account, r.Limit = "allowed", "acme", 1 }), []string{first + "|3"}},
			"of later":        {only(func(r *keystore.UsageRanking) { r.Step, r.From = keystore.ByHour, w.clock.Now().Add(time.Hour) }), nil},
			"of this hour":    {func(r *keystore.UsageRanking) { r.Step, r.From, r.Limit = keystore.ByHour, w.clock.Now(), 1 }, []string{"acme|Account acme|17"}},
		} {
			if diff := cmp.Diff(test.want, ranked(n, test.change)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		for _, id := range []policy.AccountID{"gone", "nobody"} {
			_, err := n.RankUsage(t.Context(), n.ranking(func(r *keystore.UsageRanking) { r.Account = id }))
			wantErr(t, err, keystore.ErrNotFound)
		}
	})
}

// TestKeysAreRankedExactly: as if the keys of every account had been read, for
// every limit, where many have as many requests, and accounts have requests of
// keys that are gone.
func TestKeysAreRankedExactly(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for range 5 {
		w, _ := miniWorld(t)
		n := w.node()
		var all []string
		for i := range 6 {
			account := policy.AccountID(fmt.Sprintf("a%d", (i*5+3)%7)) // in another order than they are made
			person := n.account(account)
			for range random.IntN(5) {
				k, _ := n.key(person)
				requests := random.IntN(6)
				n.counts(account, k.ID, read, "allowed", getRoute, requests)
				n.flush()
				if random.IntN(4) == 0 {
					if _, err := n.Revoke(t.Context(), person, k.ID); err != nil {
						t.Fatal(err)
					}
				} else if requests > 0 {
					all = append(all, fmt.Sprintf("%d|%s|key|%s|%s|%d", 9-requests, account, k.ID, k.Preview, requests))
				}
			}
		}
		slices.Sort(all)
		for i := range all {
			all[i] = all[i][2:]
		}
		for limit := 1; limit <= len(all)+1; limit++ {
			got := ranked(n, rank(keystore.RankKeys), func(r *keystore.UsageRanking) { r.Limit = limit })
			if diff := cmp.Diff(all[:min(limit, len(all))], got, cmp.Transformer("none", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
				t.Fatalf("seed %d, the first %d (-want +got):\n%s", seed, limit, diff)
			}
		}
	}
}

// TestATieBetweenAccountsIsByTheirIDs, also where the one that comes first has
// fewer requests in all, and is read last.
func TestATieBetweenAccountsIsByTheirIDs(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	for _, account := range []struct {
		id       policy.AccountID
		requests []int
	}{{"b", []int{3, 2}}, {"a", []int{3}}, {"c", []int{3}}} {
		person := n.account(account.id)
		for _, requests := range account.requests {
			k, _ := n.key(person)
			n.counts(account.id, k.ID, read, "allowed", getRoute, requests)
		}
	}
	n.flush()
	for limit, want := range []string{1: "a", 2: "ab", 3: "abc", 4: "abcb"} {
		if want == "" {
			continue
		}
		got := ""
		for _, line := range ranked(n, rank(keystore.RankKeys), func(r *keystore.UsageRanking) { r.Limit = limit }) {
			got += line[:1]
		}
		if got != want {
			t.Errorf("the first %d keys are of %q, want %q", limit, got, want)
		}
	}
}

// TestRankingReadsNoMoreThanItMust: no keys of accounts that cannot have one
// among the first, and no records of more keys than could be read.
func TestRankingReadsNoMoreThanItMust(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	for i, id := range []policy.AccountID{"big", "middle", "small"} {
		k, _ := n.key(n.account(id))
		n.counts(id, k.ID, read, "allowed", getRoute, 9-i)
	}
	n.flush()
	var read []string
	n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
		if name, ok := cmd.Args()[1].(string); ok && cmd.Name() == "hscan" && strings.HasSuffix(name, ":keys") {
			read = append(read, name)
		}
		return next()
	})
	if got := ranked(n, rank(keystore.RankKeys), func(r *keystore.UsageRanking) { r.Limit = 2 }); len(got) != 2 {
		t.Errorf("ranked are %q", got)
	}
	if prefix := w.options.Prefix; !slices.Equal(read, []string{prefix + "account:{big}:keys", prefix + "account:{middle}:keys"}) {
		t.Errorf("read were the keys of %q", read)
	}
	hours := func(r *keystore.UsageRanking) {
		r.By, r.Step, r.From, r.Limit = keystore.RankKeys, keystore.ByHour, w.clock.Now().Add(-31*24*time.Hour), 1
	}
	if got := ranked(n, hours); len(got) != 1 {
		t.Errorf("ranked are %q", got)
	}
	for i := range 4000 { // of which none has a record
		keystore.ClientOf(n.Store).HSet(t.Context(), w.options.Prefix+"account:{big}:keys", fmt.Sprint(i), "0:0")
	}
	_, err := n.RankUsage(t.Context(), n.ranking(hours))
	wantErr(t, err, keystore.ErrTooMuchUsage)
}

// TestRankingOfTooManyAccountsIsRefused, and never cut.
func TestRankingOfTooManyAccountsIsRefused(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	k, _ := n.key(n.account("acme"))
	n.counts("acme", k.ID, read, "allowed", getRoute, 1)
	n.flush()
	for i := range 4000 { // left behind by interrupted deletions
		keystore.ClientOf(n.Store).ZAdd(t.Context(), w.options.Prefix+"accounts", redis.Z{Score: 1, Member: fmt.Sprintf("a%d", i)})
	}
	hours := func(r *keystore.UsageRanking) { r.Step, r.From = keystore.ByHour, w.clock.Now().Add(-31*24*time.Hour) }
	for _, by := range keystore.UsageSubjects() {
		_, err := n.RankUsage(t.Context(), n.ranking(hours, rank(by)))
		wantErr(t, err, keystore.ErrTooMuchUsage)
		if got := ranked(n, rank(by)); len(got) != 1 {
			t.Errorf("ranked by days are %q", got)
		}
	}
}

// TestWhatIsLeftOfAnAccountIsNotRanked: its record goes first when it is deleted.
func TestWhatIsLeftOfAnAccountIsNotRanked(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	for _, id := range []policy.AccountID{"acme", "half"} {
		k, _ := n.key(n.account(id))
		n.counts(id, k.ID, read, "allowed", getRoute, 1)
	}
	n.flush()
	if err := keystore.ClientOf(n.Store).Del(t.Context(), w.options.Prefix+"account:{half}").Err(); err != nil {
		t.Fatal(err)
	}
	for _, by := range keystore.UsageSubjects() {
		if got := ranked(n, rank(by)); len(got) != 1 || !strings.HasSuffix(got[0], "|1") {
			t.Errorf("ranked are %q, want one request", got)
		}
	}
}

// TestOneRankingAtATime, and the next when that has ended, whichever way.
func TestOneRankingAtATime(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	begun, goOn := make(chan struct{}), make(chan error)
	n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
		if cmd.Name() == "zrange" {
			begun <- struct{}{}
			if err := <-goOn; err != nil {
				return err
			}
		}
		return next()
	})
	ended := make(chan error)
	for _, ends := range []error{nil, errors.New("away")} {
		go func() {
			_, err := n.RankUsage(t.Context(), n.ranking())
			ended <- err
		}()
		<-begun
		_, err := n.RankUsage(t.Context(), n.ranking())
		wantErr(t, err, keystore.ErrUsageBusy)
		goOn <- ends
		if err := <-ended; (err == nil) != (ends == nil) {
			t.Errorf("got %v, where the store said %v", err, ends)
		}
	}
}

// TestNothingIsRankedOfAStoreThatIsAway, or that was emptied.
func TestNothingIsRankedOfAStoreThatIsAway(t *testing.T) {
	for _, by := range keystore.UsageSubjects() {
		w, m := miniWorld(t)
		n := w.node()
		k, _ := n.key(n.account("acme"))
		n.counts("acme", k.ID, read, "allowed", getRoute, 1)
		n.flush()
		wanted := n.ranking(rank(by))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := n.RankUsage(ctx, wanted)
		wantErr(t, err, keystore.ErrUnavailable)
		for _, command := range []string{"zrange", "exists", "hgetall"} {
			var broken atomic.Bool
			broken.Store(true)
			n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
				if broken.Load() && cmd.Name() == command {
					return errors.New("away")
				}
				return next()
			})
			_, err := n.RankUsage(t.Context(), wanted)
			wantErr(t, err, keystore.ErrUnavailable)
			broken.Store(false)
		}
		if got := ranked(n, rank(by)); len(got) != 1 {
			t.Errorf("ranked are %q", got)
		}
		m.FlushAll()
		_, err = n.RankUsage(t.Context(), wanted)
		wantErr(t, err, keystore.ErrUnavailable)
	}
}
