package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// usageOf tells what the caller is told, a line a row.
func usageOf(n *node, by policy.Caller, changes ...func(*keystore.UsageFilter)) []string {
	n.t.Helper()
	now := n.w.clock.Now()
	f := keystore.UsageFilter{From: now.Add(-30 * 24 * time.Hour), To: now.Add(time.Hour), Step: keystore.ByDay}
	for _, change := range changes {
		change(&f)
	}
	rows, err := n.Usage(n.t.Context(), by, f)
	if err != nil {
		n.t.Fatal(err)
	}
	var lines []string
	for _, r := range rows {
		lines = append(lines, strings.TrimSpace(fmt.Sprint(r.At.Format("15h"), " ", r.Key, " ", r.Permission, " ", r.Outcome, " ", r.Requests)))
	}
	return lines
}

func ofKey(id policy.KeyID) func(*keystore.UsageFilter) {
	return func(f *keystore.UsageFilter) { f.Key = id }
}

// The routes of the tests, which have blanks as all routes.
const (
	getRoute = "GET /v4/account/{subaccount}/proxies/proxy-list"
	setRoute = "POST /v4/account/{subaccount}/proxies/proxy-list"
)

// count counts a request of getRoute.
func (n *node) count(key policy.KeyID, account policy.AccountID, permission policy.Permission, outcome string, at time.Time) {
	n.Count(keystore.CountedRequest{Key: key, Account: account, Permission: permission, Outcome: outcome, Route: getRoute, At: at})
}

func (n *node) flush() {
	n.t.Helper()
	if err := n.FlushUsage(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) usageKeys(account policy.AccountID) map[string]string {
	n.t.Helper()
	return dump(n.t, keystore.ClientOf(n.Store), n.w.options.Prefix+"account:{"+string(account)+"}:usage")
}

// noon sets the clock to the middle of a day, so that a test is not in two.
func (w *world) noon() time.Time {
	noon := w.clock.Now().Truncate(24 * time.Hour).Add(12 * time.Hour)
	w.clock.Advance(noon.Sub(w.clock.Now()))
	return noon
}

func TestRequestsAreCountedByHourAndDay(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		noon := w.noon()
		n := w.node()
		second := n.second() // two nodes add up
		person := n.account("acme")
		k, _ := n.key(person)
		idle, _ := n.key(person)
		count := func(n *node, permission policy.Permission, outcome string, at time.Time, times int) {
			for range times {
				n.count(k.ID, "acme", permission, outcome, at)
			}
		}
		count(n, read, "allowed", noon.Add(-2*time.Hour), 3)
		count(n, read, "allowed", noon, 4)
		count(second, read, "allowed", noon, 5)
		count(second, write, "permission_denied", noon, 1)
		for range 2 { // what was written once is not written again
			n.flush()
			second.flush()
		}
		byHour := func(f *keystore.UsageFilter) { f.Step, f.From = keystore.ByHour, noon.Add(-3*time.Hour) }
		id := string(k.ID)
		for name, test := range map[string]struct {
			change func(*keystore.UsageFilter)
			want   []string
		}{
			"by day":        {func(*keystore.UsageFilter) {}, []string{"00h   allowed 12", "00h   permission_denied 1"}},
			"by hour":       {byHour, []string{"10h   allowed 3", "12h   allowed 9", "12h   permission_denied 1"}},
			"by permission": {func(f *keystore.UsageFilter) { f.ByPermission = true }, []string{"00h  " + string(read) + " allowed 12", "00h  " + string(write) + " permission_denied 1"}},
			"by key":        {func(f *keystore.UsageFilter) { f.ByKey = true }, []string{"00h " + id + "  allowed 12", "00h " + id + "  permission_denied 1"}},
			"a permission":  {func(f *keystore.UsageFilter) { f.Permission = write }, []string{"00h   permission_denied 1"}},
			"an outcome":    {func(f *keystore.UsageFilter) { f.Outcome = "allowed" }, []string{"00h   allowed 12"}},
			"a key":         {ofKey(k.ID), []string{"00h   allowed 12", "00h   permission_denied 1"}},
			"an idle key":   {ofKey(idle.ID), nil},
			"no key":        {ofKey("all"), nil},
			"later hours":   {func(f *keystore.UsageFilter) { byHour(f); f.From = noon.Add(30 * time.Minute) }, []string{"12h   allowed 9", "12h   permission_denied 1"}},
			"earlier hours": {func(f *keystore.UsageFilter) { byHour(f); f.To = noon }, []string{"10h   allowed 3"}},
		} {
			if diff := cmp.Diff(test.want, usageOf(n, person, test.change)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		if got := usageOf(n, n.account("other")); got != nil {
			t.Errorf("another account is told %q", got)
		}
	})
}

// TestCountersGoAway: each hash of counters has an end, an hour's 31 days and a
// day's 400 days behind the last it counts.
func TestCountersGoAway(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		noon := w.noon()
		n := w.node()
		person := n.account("acme")
		k, _ := n.key(person)
		n.count(k.ID, "acme", read, "allowed", noon)
		n.count(k.ID, "acme", read, "allowed", noon.Add(-32*24*time.Hour)) // too old to be counted by hour
		n.flush()
		client := keystore.ClientOf(n.Store)
		dayOf := noon.Truncate(24 * time.Hour)
		month := time.Date(noon.Year(), noon.Month()+1, 1, 0, 0, 0, 0, time.UTC)
		for _, subject := range []string{string(k.ID), "all"} {
			base := w.options.Prefix + "account:{acme}:usage:" + subject + ":"
			for name, want := range map[string]time.Time{
				base + noon.Format("2006-01-02"): dayOf.Add(32 * 24 * time.Hour),
				base + noon.Format("2006-01"):    month.Add(400 * 24 * time.Hour),
			} {
				ttl, err := client.TTL(t.Context(), name).Result()
				if off := (ttl - time.Until(want)).Abs(); w.kind != "embedded" && (err != nil || off > 24*time.Hour+time.Minute) {
					t.Errorf("%s goes away in %v, %v; want %v", name, ttl, err, want.Sub(w.clock.Now()))
				}
			}
			if w.kind != "miniredis" && client.Exists(t.Context(), base+noon.Add(-32*24*time.Hour).Format("2006-01-02")).Val() != 0 {
				t.Error("hours of long ago were written")
			}
		}
		w.clock.Advance(400 * 24 * time.Hour)
		byHour := func(f *keystore.UsageFilter) { f.Step, f.From, f.To = keystore.ByHour, noon, noon.Add(time.Hour) }
		if got := usageOf(n, person, byHour); got != nil {
			t.Errorf("after 400 days the hour is %q", got)
		}
	})
}

// TestCountersDoNotOutliveTheirKeyOrAccount, also where they are written last.
func TestCountersDoNotOutliveTheirKeyOrAccount(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		k, _ := n.key(person)
		gone, _ := n.key(person)
		old, _ := n.key(person)
		for _, id := range []policy.KeyID{k.ID, gone.ID, old.ID} {
			n.count(id, "acme", read, "allowed", w.clock.Now())
		}
		n.flush()
		for _, id := range []policy.KeyID{gone.ID, old.ID} {
			n.count(id, "acme", read, "allowed", w.clock.Now())
		}
		if _, err := n.Revoke(t.Context(), person, gone.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := n.Regenerate(t.Context(), person, old.ID, 0); err != nil {
			t.Fatal(err)
		}
		if got := usageOf(n, person, ofKey(gone.ID)); got != nil {
			t.Errorf("of a revoked key is told %q", got)
		}
		n.flush()
		for name := range n.usageKeys("acme") {
			if strings.Contains(name, string(gone.ID)) || strings.Contains(name, string(old.ID)) {
				t.Errorf("%s has outlived its key", name)
			}
		}
		if got := usageOf(n, person); len(got) != 1 || !strings.HasSuffix(got[0], "allowed 3") {
			t.Errorf("the account is told %q, want what its keys did while they were there", got)
		}
		n.count(k.ID, "acme", read, "allowed", w.clock.Now())
		if err := n.DeleteAccount(t.Context(), person, "acme"); err != nil {
			t.Fatal(err)
		}
		n.flush()
		again := n.account("acme")
		n.count(k.ID, "acme", read, "allowed", w.clock.Now())
		n.flush()
		if left := n.usageKeys("acme"); len(left) != 0 {
			t.Errorf("the account has left %v", left)
		}
		if got := usageOf(n, again); got != nil {
			t.Errorf("the next account of the id is told %q", got)
		}
	})
}

// TestRevokedBetweenReadingAndWriting: a key that goes while its counters are
// being written takes them with it, and the others are written.
func TestRevokedBetweenReadingAndWriting(t *testing.T) {
	for _, kind := range []string{"miniredis", "redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, kind)
			n, elsewhere := w.node(), w.node()
			person := n.account("acme")
			k, _ := n.key(person)
			gone, _ := n.key(person)
			n.count(k.ID, "acme", read, "allowed", w.clock.Now())
			n.count(gone.ID, "acme", read, "allowed", w.clock.Now())
			revoked := false
			n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
				if isCommit(cmd) && !revoked {
					revoked = true
					if _, err := elsewhere.Revoke(t.Context(), person, gone.ID); err != nil { //nolint:contextcheck // it is another request
						t.Error(err)
					}
				}
				return next()
			})
			n.flush()
			elsewhere.flush()
			if got := usageOf(n, person); len(got) != 1 || !strings.HasSuffix(got[0], "allowed 1") {
				t.Errorf("told %q, want one request", got)
			}
			for name := range n.usageKeys("acme") {
				if strings.Contains(name, string(gone.ID)) {
					t.Errorf("%s has outlived its key", name)
				}
			}
		})
	}
}

// TestLostAnswerCountsOnce, and what could not be sent is sent later.
func TestLostAnswerCountsOnce(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	k, _ := n.key(person)
	var broken atomic.Value // the connection that hears of changes is looked at too
	broken.Store("")
	n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
		if cmd.Name() == broken.Load() {
			return errors.New("not sent")
		}
		err := next()
		if broken.Load() == "answer" && isCommit(cmd) {
			return errors.New("answer lost")
		}
		return err
	})
	n.count(k.ID, "acme", read, "allowed", w.clock.Now())
	for _, what := range []string{"hmget", "answer"} {
		broken.Store(what)
		if err := n.FlushUsage(t.Context()); err == nil {
			t.Errorf("%s: got no error", what)
		}
	}
	broken.Store("")
	n.flush()
	if got := usageOf(n, person); len(got) != 1 || !strings.HasSuffix(got[0], "allowed 1") {
		t.Errorf("told %q, want one request", got)
	}
}

func TestCountersSurviveARestart(t *testing.T) {
	w := newWorld(t, "embedded")
	noon := w.noon()
	n := w.open()
	person := n.account("acme")
	k, _ := n.key(person)
	for range 3 {
		n.count(k.ID, "acme", read, "allowed", noon)
		n.flush()
	}
	n.count(k.ID, "acme", read, "allowed", noon)
	if err := n.Close(); err != nil { // writes what is left
		t.Fatal(err)
	}
	n = w.node()
	if got := usageOf(n, person, ofKey(k.ID)); len(got) != 1 || got[0] != "00h   allowed 4" {
		t.Errorf("told %q, want 4 requests", got)
	}
}

// TestALimitedKeyIsToldOfKeysWithinItsReach, however it asks.
func TestALimitedKeyIsToldOfKeysWithinItsReach(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		only := func(ids ...policy.SubaccountID) func(*keystore.NewKey) {
			return func(k *keystore.NewKey) { k.Subaccounts = ids }
		}
		within, token := n.key(person, only(subA))
		both, _ := n.key(person, only(subA, subB))
		all, _ := n.key(person)
		for _, k := range []policy.Key{within, both, all} {
			n.count(k.ID, "acme", read, "allowed", w.clock.Now())
		}
		n.flush()
		by := n.caller(token)
		for name, change := range map[string]func(*keystore.UsageFilter){
			"all": func(*keystore.UsageFilter) {}, "by key": func(f *keystore.UsageFilter) { f.ByKey = true }, "itself": ofKey(within.ID),
		} {
			if got := usageOf(n, by, change); len(got) != 1 || !strings.HasSuffix(got[0], " 1") {
				t.Errorf("%s: told %q, want one request", name, got)
			}
		}
		for _, other := range []policy.Key{both, all} {
			if got := usageOf(n, by, ofKey(other.ID)); got != nil {
				t.Errorf("told %q of a key that reaches more", got)
			}
		}
	})
}

// TestUsageOfAThousandKeys: they are counted in a flush, and what would be too much is refused.
func TestUsageOfAThousandKeys(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	for range 1000 {
		k, _ := n.key(person)
		n.count(k.ID, "acme", read, "allowed", w.clock.Now())
	}
	n.flush()
	byKey := func(f *keystore.UsageFilter) { f.ByKey, f.From = true, w.clock.Now() }
	if got := usageOf(n, person, byKey); len(got) != 1000 {
		t.Errorf("%d rows, want 1000", len(got))
	}
	if got := usageOf(n, person); len(got) != 1 || !strings.HasSuffix(got[0], "allowed 1000") {
		t.Errorf("told %q, want 1000 requests", got)
	}
	now := w.clock.Now()
	_, err := n.Usage(t.Context(), person, keystore.UsageFilter{From: now.Add(-31 * 24 * time.Hour), To: now, Step: keystore.ByHour, ByKey: true})
	wantErr(t, err, keystore.ErrTooMuchUsage)
}

// TestLapsedCountersLeaveTheJournal when it is rewritten, so that it does not
// grow for ever.
func TestLapsedCountersLeaveTheJournal(t *testing.T) {
	w := newWorld(t, "embedded")
	noon := w.noon()
	n := w.node()
	person := n.account("acme")
	k, _ := n.key(person)
	has := func() bool {
		content, err := os.ReadFile(w.options.EmbeddedFile)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(content), ":"+noon.Format(time.DateOnly))
	}
	n.count(k.ID, "acme", read, "allowed", noon)
	n.flush()
	if !has() {
		t.Fatal("the counter is not in the journal")
	}
	w.clock.Advance(33 * 24 * time.Hour)
	keystore.Sweep(n.Store)
	n.count(k.ID, "acme", read, "allowed", w.clock.Now())
	n.flush()
	if has() {
		t.Error("the counter is still in the journal")
	}
	if got := usageOf(n, person, func(f *keystore.UsageFilter) { f.From = noon }); len(got) != 2 {
		t.Errorf("told %q, want two days", got)
	}
}
