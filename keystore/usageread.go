package keystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/policy"
)

const (
	// maxUsageRows is how many rows one answer has at the most, maxUsageBuckets
	// how much is read for it.
	maxUsageRows    = 10_000
	maxUsageBuckets = 4_000
)

// ErrTooMuchUsage is for a question whose answer would be too large, or for
// which too much would have to be read.
var ErrTooMuchUsage = errors.New("too much usage is asked for at once")

// UsageFilter says which counters of an account are wanted, and which of them
// are added up. Zero values of Key, Permission and Outcome want all.
type UsageFilter struct {
	Key        policy.KeyID
	Permission policy.Permission
	Outcome    string
	// From and To bound the time; To is not included. The step in which From
	// lies is.
	From, To time.Time
	Step     UsageStep
	// ByKey and ByPermission tell keys and permissions apart. Otherwise those
	// are empty in each Usage. Outcomes are always told apart.
	ByKey, ByPermission bool
}

// Usage is how many requests that began in the hour or day from At on had an
// outcome.
type Usage struct {
	At         time.Time
	Key        policy.KeyID
	Permission policy.Permission
	Outcome    string
	Requests   int64
}

// Usage returns what is counted of the requests of the caller's account, in the
// order of time, key, permission and outcome, without steps that have none;
// or ErrTooMuchUsage. The last minute may be missing. Requests of keys that are
// gone count for the account as a whole alone. A caller that is limited to
// subaccounts is told of the keys that reach no others.
func (s *Store) Usage(ctx context.Context, by policy.Caller, f UsageFilter) ([]Usage, error) {
	if by.Account == nil {
		return nil, nil
	}
	account := by.Account.ID
	keys, err := s.usageKeys(ctx, by, f)
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	f.From = f.from(s.o.Now())
	if future := s.o.Now().Add(2 * day); f.To.After(future) {
		f.To = future
	}
	read := &usageReader{filter: f, rows: map[Usage]int64{}}
	for b := range buckets(f.From, f.To, f.Step) {
		for _, key := range keys {
			read.wanted = append(read.wanted, wantedBucket{key, b, s.names.usage(account, key, b)})
		}
		if len(read.wanted) > maxUsageBuckets {
			return nil, fmt.Errorf("read usage: %w", ErrTooMuchUsage)
		}
	}
	if err := read.all(ctx, s.client, s.usagePipeline()); err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	if len(read.rows) == 0 {
		return nil, s.Ready(ctx) // nothing is read into an empty answer of an emptied store
	}
	return read.sorted(), nil
}

// from is when the first step begins that is wanted and still kept.
func (f UsageFilter) from(now time.Time) time.Time {
	kept, length := UsageDays, day
	if f.Step == ByHour {
		kept, length = UsageHours, time.Hour
	}
	from := f.From.UTC()
	if oldest := now.UTC().Add(-kept); from.Before(oldest) {
		from = oldest
	}
	return from.Truncate(length)
}

// usageKeys returns the keys of which the caller is told: one that stands for
// all of them, where that will do.
func (s *Store) usageKeys(ctx context.Context, by policy.Caller, f UsageFilter) ([]policy.KeyID, error) {
	limited := by.Key != nil && !by.Key.Subaccounts.All()
	switch {
	case f.Key != "":
		k, _, err := s.readKey(ctx, by.Account.ID, f.Key)
		if errors.Is(err, ErrNotFound) || err == nil && limited && !by.Key.Subaccounts.Covers(k.key.Subaccounts) {
			return nil, nil
		}
		return []policy.KeyID{f.Key}, err
	case !f.ByKey && !limited:
		return []policy.KeyID{everyKey}, nil
	}
	entries, err := s.index(ctx, by.Account.ID)
	if err != nil {
		return nil, err
	}
	values, err := s.records(ctx, entries)
	if err != nil {
		return nil, err
	}
	var keys []policy.KeyID
	for i, e := range entries {
		k, err := decodeIndexed(values[i].raw, e.tokenHash, by.Account.ID, policy.KeyID(e.id))
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if lapsed(&k.key, s.o.Now()) || limited && !by.Key.Subaccounts.Covers(k.key.Subaccounts) {
			continue
		}
		keys = append(keys, k.key.ID)
	}
	return keys, nil
}

// wantedBucket is a bucket of a key, and its name.
type wantedBucket struct {
	key    policy.KeyID
	bucket bucket
	name   string
}

// usageReader adds up counters. A row is a Usage without its Requests.
type usageReader struct {
	filter UsageFilter
	wanted []wantedBucket
	rows   map[Usage]int64
}

func (u *usageReader) all(ctx context.Context, client redis.UniversalClient, atOnce int) error {
	for part := range slices.Chunk(u.wanted, atOnce) {
		pipe := client.Pipeline()
		found := make([]*redis.MapStringStringCmd, len(part))
		for i, w := range part {
			found[i] = pipe.HGetAll(ctx, w.name)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return errors.Join(ErrUnavailable, err)
		}
		for i, w := range part {
			if err := u.addAll(w, found[i].Val()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *usageReader) addAll(w wantedBucket, counters map[string]string) error {
	f := u.filter
	for field, value := range counters {
		at, permission, outcome, ok := w.bucket.parse(field)
		requests, err := strconv.ParseInt(value, 10, 64)
		if !ok || err != nil || at.Before(f.From) || !at.Before(f.To) ||
			f.Permission != "" && permission != f.Permission || f.Outcome != "" && outcome != f.Outcome {
			continue
		}
		row := Usage{At: at, Outcome: outcome}
		if f.ByKey {
			row.Key = w.key
		}
		if f.ByPermission {
			row.Permission = permission
		}
		u.rows[row] += requests
		if len(u.rows) > maxUsageRows {
			return ErrTooMuchUsage
		}
	}
	return nil
}

func (u *usageReader) sorted() []Usage {
	rows := make([]Usage, 0, len(u.rows))
	for row, requests := range u.rows {
		row.Requests = requests
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b Usage) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Permission, b.Permission), cmp.Compare(a.Outcome, b.Outcome))
	})
	return rows
}
