package keystore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"gatehouse/policy"
)

// What is read for one answer at the most: hashes, and counters in them. Of one
// account for the first pair, and of all for the second.
const (
	maxUsageHashes    = 4_000
	maxUsageCounters  = 1_000_000
	maxRankedHashes   = 100_000
	maxRankedCounters = 10_000_000
)

// usageReader reads the counters that a filter wants.
type usageReader struct {
	s       *Store
	filter  UsageFilter
	buckets []bucket
	// hashes and counters are how many may still be read.
	hashes, counters int
}

// usageCounter is a counter as it was read.
type usageCounter struct {
	account policy.AccountID
	key     policy.KeyID
	at      time.Time
	counted
	requests int64
}

func (s *Store) newUsageReader(f UsageFilter, hashes, counters int) *usageReader {
	now := s.o.Now()
	f.From, f.Route = f.from(now), usageRoute(f.Route)
	if future := now.Add(2 * day); f.To.After(future) {
		f.To = future
	}
	return &usageReader{s: s, filter: f, buckets: slices.Collect(buckets(f.From, f.To, f.Step)), hashes: hashes, counters: counters}
}

// mayRead returns ErrTooMuchUsage if so many hashes are too many.
func (u *usageReader) mayRead(hashes int) error {
	if hashes > u.hashes {
		return ErrTooMuchUsage
	}
	return nil
}

// take counts hashes that are about to be read, or returns ErrTooMuchUsage.
func (u *usageReader) take(hashes int) error {
	err := u.mayRead(hashes)
	if err == nil {
		u.hashes -= hashes
	}
	return err
}

// wantedBucket is a bucket of a key, and its name.
type wantedBucket struct {
	account policy.AccountID
	key     policy.KeyID
	bucket  bucket
	name    string
}

// wanted returns the buckets of the keys of each of the accounts, or
// ErrTooMuchUsage where they are more than may be read.
func (u *usageReader) wanted(accounts []policy.AccountID, keys ...policy.KeyID) ([]wantedBucket, error) {
	most := len(accounts) * len(keys) * len(u.buckets)
	if err := u.take(most); err != nil {
		return nil, err
	}
	all := make([]wantedBucket, 0, most)
	for _, account := range accounts {
		for _, key := range keys {
			for _, b := range u.buckets {
				all = append(all, wantedBucket{account, key, b, u.s.names.usage(account, key, b)})
			}
		}
	}
	return all, nil
}

// read calls add for each counter of the buckets that the filter wants, in no
// order, and returns what add returns; or ErrTooMuchUsage where there are too
// many of them.
func (u *usageReader) read(ctx context.Context, wanted []wantedBucket, add func(usageCounter) error) error {
	for part := range slices.Chunk(wanted, usagePipeline) {
		portions, err := u.portions(ctx, part)
		if err != nil {
			return err
		}
		for _, portion := range portions {
			if err := u.readPortion(ctx, portion, add); err != nil {
				return err
			}
		}
	}
	return nil
}

// portions are the buckets that there are, in portions of usageReadCounters; or
// ErrTooMuchUsage, before any of them is read.
func (u *usageReader) portions(ctx context.Context, part []wantedBucket) ([][]wantedBucket, error) {
	giveBack, err := u.s.usage.turns.read.take(ctx)
	if err != nil {
		return nil, err
	}
	defer giveBack()
	lengths, err := u.s.data.lengths(ctx, namesOf(part))
	if err != nil {
		return nil, errors.Join(ErrUnavailable, err)
	}
	var portions [][]wantedBucket
	all, room := 0, 0
	for i, w := range part {
		counters := lengths[i]
		if counters == 0 {
			continue
		}
		if all += counters; all > u.counters {
			return nil, ErrTooMuchUsage
		}
		if room -= counters; room < 0 {
			portions, room = append(portions, nil), usageReadCounters-counters
		}
		portions[len(portions)-1] = append(portions[len(portions)-1], w)
	}
	return portions, nil
}

// readPortion reads buckets by one pipeline, and adds them up before anybody
// else reads some: what is read and not yet added up is in memory.
func (u *usageReader) readPortion(ctx context.Context, portion []wantedBucket, add func(usageCounter) error) error {
	giveBack, err := u.s.usage.turns.read.take(ctx)
	if err != nil {
		return err
	}
	defer giveBack()
	found, err := u.s.data.hashes(ctx, namesOf(portion))
	if err != nil {
		return errors.Join(ErrUnavailable, err)
	}
	for i, w := range portion {
		if err := u.addAll(w, found[i], add); err != nil {
			return err
		}
	}
	return nil
}

func namesOf(buckets []wantedBucket) []string {
	names := make([]string, len(buckets))
	for i, b := range buckets {
		names[i] = b.name
	}
	return names
}

func (u *usageReader) addAll(w wantedBucket, counters map[string]string, add func(usageCounter) error) error {
	if u.counters -= len(counters); u.counters < 0 {
		return ErrTooMuchUsage
	}
	for field, value := range counters {
		at, c, ok := w.bucket.parse(field)
		requests, err := strconv.ParseInt(value, 10, 64)
		if !ok || err != nil || at.Before(u.filter.From) || !at.Before(u.filter.To) || !u.filter.wants(c) {
			continue
		}
		if err := add(usageCounter{w.account, w.key, at, c, requests}); err != nil {
			return err
		}
	}
	return nil
}

func (f *UsageFilter) wants(c counted) bool {
	return (f.Permission == "" || c.permission == f.Permission) && (f.Product == "" || productOf(c.permission) == f.Product) &&
		(f.Route == "" || c.route == f.Route) && (f.Outcome == "" || c.outcome == f.Outcome)
}
