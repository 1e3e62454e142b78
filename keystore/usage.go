package keystore

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatehouse/policy"
)

const (
	// usagePause is how long what is known of the use of keys waits to be
	// written: a key's use is written once in that time at the most.
	usagePause = time.Minute
	// usagePortion is how many keys one change writes, and usageCounters how many
	// counters of theirs, unless a single key has more. It is one script, for
	// which lookups wait.
	usagePortion  = 100
	usageCounters = 500
	// usagePatience bounds one writing of all of it.
	usagePatience = 20 * time.Second
)

// usage is how keys were used, as far as it is not written yet. What is lost of
// it is a minute of statistics, and nothing else.
type usage struct {
	keys  sync.Map // policy.KeyID → *keyUse
	turns *usageTurns

	mu   sync.Mutex
	gone map[policy.AccountID][]policy.KeyID // keys whose counters are to be removed
}

// keyUse is what was noted of a key. Its account never changes.
type keyUse struct {
	account policy.AccountID

	mu      sync.Mutex
	last    int64 // when it was last let through, in Unix seconds; 0 for nothing new
	since   int64 // when the first began that is counted, in Unix seconds
	counts  tally
	dropped bool // nobody will look at it any more
}

// CountedRequest is a request of a known key that has ended, and what it is
// counted by. There must be a bounded number of permissions, outcomes and
// routes, and no blank in the first two.
type CountedRequest struct {
	Key     policy.KeyID
	Account policy.AccountID
	// Permission is the one that its route needs.
	Permission policy.Permission
	// Outcome is how it ended: "allowed", or with what it was refused or failed.
	Outcome string
	// Route is the pattern of its route, as in the configuration.
	Route string
	// At is when it began.
	At time.Time
}

// counted is what requests of a key are counted by.
type counted struct {
	hour       int64 // since 1970
	permission policy.Permission
	outcome    string
	route      string // "": counted before routes were
}

// fewCounts is how many counters are looked at one by one. Their words are of
// the configuration and the code, and so are the same in memory, which is seen
// at once; a map would have to read all of them for each request.
const fewCounts = 8

// tally counts. Emptied, it keeps its room.
type tally struct {
	all    []count
	places map[counted]int // in all, from fewCounts on
}

type count struct {
	what     counted
	requests int64
}

// noted is what was taken of a key, to be written.
type noted struct {
	id          policy.KeyID
	last, since int64
	counts      []count
	// gone: the key is no more, and its requests count for its account alone.
	gone bool
}

// Used notes that a request with the key was let through. It does no I/O, and
// allocates nothing for a key that was used in the last minute.
func (s *Store) Used(key policy.KeyID, account policy.AccountID, at time.Time) {
	for {
		use := s.usage.of(key, account)
		use.mu.Lock()
		if !use.dropped {
			use.last = max(use.last, at.Unix())
			use.mu.Unlock()
			return
		}
		use.mu.Unlock()
	}
}

// Count counts a request. It does no I/O, takes the lock of its key alone, and
// allocates nothing for a request like one of the last minute.
func (s *Store) Count(r CountedRequest) {
	what := counted{hour: r.At.Unix() / secondsPerHour, permission: r.Permission, outcome: r.Outcome, route: r.Route}
	for {
		use := s.usage.of(r.Key, r.Account)
		use.mu.Lock()
		if !use.dropped {
			if len(use.counts.all) == 0 || r.At.Unix() < use.since {
				use.since = r.At.Unix()
			}
			use.counts.add(what)
			use.mu.Unlock()
			return
		}
		use.mu.Unlock()
	}
}

func (t *tally) add(what counted) {
	for i := range t.all[:min(len(t.all), fewCounts)] {
		if t.all[i].what == what {
			t.all[i].requests++
			return
		}
	}
	if i, known := t.places[what]; known {
		t.all[i].requests++
		return
	}
	if len(t.all) >= fewCounts {
		if t.places == nil {
			t.places = map[counted]int{}
		}
		t.places[what] = len(t.all)
	}
	t.all = append(t.all, count{what, 1})
}

// take empties the tally.
func (t *tally) take() []count {
	taken := slices.Clone(t.all)
	t.all = t.all[:0]
	clear(t.places)
	return taken
}

func (u *usage) of(key policy.KeyID, account policy.AccountID) *keyUse {
	known, ok := u.keys.Load(key)
	if !ok {
		known, _ = u.keys.LoadOrStore(key, &keyUse{account: account})
	}
	return known.(*keyUse)
}

// removed notes that keys were removed, so that their counters will be. Nobody
// who removes a key waits for that.
func (u *usage) removed(account policy.AccountID, keys ...policy.KeyID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone == nil {
		u.gone = map[policy.AccountID][]policy.KeyID{}
	}
	u.gone[account] = append(u.gone[account], keys...)
}

func (u *usage) takeRemoved() map[policy.AccountID][]policy.KeyID {
	u.mu.Lock()
	defer u.mu.Unlock()
	gone := u.gone
	u.gone = nil
	return gone
}

// writeUsage writes what was noted, until ctx ends, and once more then.
func (s *Store) writeUsage(ctx context.Context) {
	tick := time.NewTicker(usagePause)
	defer tick.Stop()
	for last := false; !last; {
		patience := usagePatience
		select {
		case <-ctx.Done():
			patience, last = manageTimeout, true
		case <-tick.C:
		}
		final, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		if err := s.flushUsage(final); err != nil {
			s.o.Log.Warn("the use of keys was not written", zap.Error(err))
		}
		cancel()
	}
}

// flushUsage writes what was noted since the last time, forgets keys that were
// not used since then, and removes the counters of those that are gone.
func (s *Store) flushUsage(ctx context.Context) error {
	accounts := map[policy.AccountID]*usagePortions{}
	s.usage.keys.Range(func(id, value any) bool {
		use := value.(*keyUse)
		use.mu.Lock()
		defer use.mu.Unlock()
		if use.last == 0 && len(use.counts.all) == 0 {
			use.dropped = true
			s.usage.keys.Delete(id)
			return true
		}
		if accounts[use.account] == nil {
			accounts[use.account] = &usagePortions{}
		}
		accounts[use.account].add(id.(policy.KeyID), len(use.counts.all))
		return true
	})
	var failures error
	for account, portions := range accounts {
		for _, ids := range portions.all {
			failures = errors.Join(failures, s.keepUsage(ctx, account, ids))
		}
	}
	for account, ids := range s.usage.takeRemoved() {
		failures = errors.Join(failures, s.forgetUsage(ctx, account, nil, ids...))
	}
	return failures
}

// usagePortions are keys of an account, in portions of which each is written in
// one change.
type usagePortions struct {
	all      [][]policy.KeyID
	counters int // of the last of them
}

func (p *usagePortions) add(id policy.KeyID, counters int) {
	last := len(p.all) - 1
	if last < 0 || len(p.all[last]) == usagePortion || p.counters+counters > usageCounters {
		p.all, p.counters = append(p.all, nil), 0
		last++
	}
	p.all[last] = append(p.all[last], id)
	p.counters += counters
}

// keepUsage writes how keys were used. What is known of a key must not outlive
// it: of one that is gone, requests count for the account alone, if it is still
// the one that was there when they began. While the store cannot be read, what
// was noted is kept for the next time. Once it was sent it is forgotten, whatever
// the answer: it may have arrived, and must not count twice.
func (s *Store) keepUsage(ctx context.Context, account policy.AccountID, ids []policy.KeyID) error {
	var taken []noted
	for range commitTries {
		guards, made, exist, err := s.existing(ctx, account, ids)
		if err != nil {
			return err
		}
		if taken == nil {
			taken = s.usage.take(account, ids)
		}
		for i := range taken {
			taken[i].gone = !exist[taken[i].id]
		}
		taken = slices.DeleteFunc(taken, func(n noted) bool { return n.gone && (len(n.counts) == 0 || n.since <= made) })
		if len(taken) == 0 {
			return nil
		}
		if err := s.commit(ctx, change{guards: guards, steps: s.usageSteps(account, taken)}); !errors.Is(err, errMoved) {
			return err
		}
	}
	return nil // the account changes all the time: this minute is lost
}

// existing returns when the account was made, in Unix seconds, which of the keys
// it has, and the guards that hold it to that. One that is gone has none, and
// comes too late for every request.
func (s *Store) existing(ctx context.Context, account policy.AccountID, ids []policy.KeyID) (guards []guard, made int64, exist map[policy.KeyID]bool, err error) {
	fields, of := fieldsOfIDs(texts(ids))
	index, err := s.hashFields(ctx, s.names.accountKeys(account), fields)
	if err != nil {
		return nil, 0, nil, err
	}
	stored, raw, err := s.readAccount(ctx, account)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, math.MaxInt64, nil, nil
	case err != nil:
		return nil, 0, nil, err
	}
	guards = []guard{{key: s.names.account(account), want: raw}}
	exist = make(map[policy.KeyID]bool, len(ids))
	eachOf(of, index, func(i int, mine []string) {
		if at := slices.IndexFunc(mine, func(v string) bool { return v != "" }); at >= 0 {
			exist[ids[i]] = true
			guards = append(guards, guard{key: s.names.accountKeys(account), has: fieldsOfID(string(ids[i]))[at]})
		}
	})
	return guards, stored.account.CreatedAt.Unix(), exist, nil
}

// take empties what was noted of the keys.
func (u *usage) take(account policy.AccountID, ids []policy.KeyID) []noted {
	taken := make([]noted, 0, len(ids))
	for _, id := range ids {
		use := u.of(id, account)
		use.mu.Lock()
		n := noted{id: id, last: use.last, since: use.since, counts: use.counts.take()}
		use.last = 0
		use.mu.Unlock()
		taken = append(taken, n)
	}
	return taken
}

func texts(ids []policy.KeyID) []string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = string(id)
	}
	return all
}

// lastUsed is the last of the times that the fields of a key hold, in Unix
// seconds; 0 for none.
func lastUsed(values []string) int64 {
	var last int64
	for _, text := range values {
		if at, err := strconv.ParseInt(text, 10, 64); err == nil {
			last = max(last, at)
		}
	}
	return last
}

// addLastUsed adds to keys of the account when they were last used.
func (s *Store) addLastUsed(ctx context.Context, account policy.AccountID, keys []policy.Key) error {
	if len(keys) == 0 {
		return nil
	}
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = string(k.ID)
	}
	fields, of := fieldsOfIDs(ids)
	values, err := s.hashFields(ctx, s.names.used(account), fields)
	if err != nil {
		return err
	}
	eachOf(of, values, func(i int, mine []string) {
		if at := lastUsed(mine); at != 0 {
			keys[i].LastUsedAt = time.Unix(at, 0).UTC()
		}
	})
	return nil
}
