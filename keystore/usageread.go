package keystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"gatehouse/policy"
)

const (
	// maxUsageRows is how many rows one answer has at the most.
	maxUsageRows = 10_000
	// askPatience bounds the making of an answer, and the waiting for its turn.
	askPatience = 20 * time.Second
)

// ErrTooMuchUsage is for a question whose answer would be too large, or for
// which too much would have to be read.
var ErrTooMuchUsage = errors.New("too much usage is asked for at once")

// UsageFilter says which counters of an account are wanted, and which of them
// are added up. Zero values of Key, Permission, Product, Route and Outcome want
// all.
type UsageFilter struct {
	Key        policy.KeyID
	Permission policy.Permission
	// Product is the resource of the permission; where any valid key will do, it
	// is what stands for a permission.
	Product string
	// Route is the pattern of a route, as in the configuration.
	Route   string
	Outcome string
	// From and To bound the time; To is not included. The step in which From
	// lies is.
	From, To time.Time
	Step     UsageStep
	// ByKey and so on tell keys, permissions, products and routes apart.
	// Otherwise those are empty in each Usage. Outcomes are always told apart.
	ByKey, ByPermission, ByProduct, ByRoute bool
}

// Usage is how many requests that began in the hour or day from At on had an
// outcome. The Route is "" also of requests that were counted before routes
// were, and only the beginning and a hash of one of more than 256 bytes.
type Usage struct {
	At         time.Time
	Key        policy.KeyID
	Permission policy.Permission
	Product    string
	Route      string
	Outcome    string
	Requests   int64
}

// Usage returns what is counted of the requests of the caller's account, in the
// order of time, key, permission, product, route and outcome, without steps that
// have none; or ErrTooMuchUsage. The last minute may be missing. Requests of
// keys that are gone count for the account as a whole alone. A caller that is
// limited to subaccounts is told of the keys that reach no others.
func (s *Store) Usage(ctx context.Context, by policy.Caller, f UsageFilter) ([]Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	rows, err := s.usageRows(ctx, by, f)
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	return rows, nil
}

func (s *Store) usageRows(ctx context.Context, by policy.Caller, f UsageFilter) ([]Usage, error) {
	if by.Account == nil {
		return nil, nil
	}
	giveBack, err := s.usage.turns.of(by.Account.ID).take(ctx)
	if err != nil {
		return nil, err
	}
	defer giveBack()
	keys, err := s.usageKeys(ctx, by, f)
	if err != nil {
		return nil, err
	}
	reader := s.newUsageReader(f, maxUsageHashes, maxUsageCounters)
	wanted, err := reader.wanted([]policy.AccountID{by.Account.ID}, keys...)
	if err != nil {
		return nil, err
	}
	rows := map[Usage]int64{}
	if err := reader.read(ctx, wanted, func(c usageCounter) error {
		rows[f.rowOf(c)] += c.requests
		if len(rows) > maxUsageRows {
			return ErrTooMuchUsage
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, s.trustAbsence(ctx, s.names.account(by.Account.ID))
	}
	return sortedUsage(rows), nil
}

// rowOf is the row that the counter is added to, without its Requests.
func (f *UsageFilter) rowOf(c usageCounter) Usage {
	row := Usage{At: c.at, Outcome: c.outcome}
	if f.ByKey {
		row.Key = c.key
	}
	if f.ByPermission {
		row.Permission = c.permission
	}
	if f.ByProduct {
		row.Product = productOf(c.permission)
	}
	if f.ByRoute {
		row.Route = c.route
	}
	return row
}

func sortedUsage(counted map[Usage]int64) []Usage {
	rows := make([]Usage, 0, len(counted))
	for row, requests := range counted {
		row.Requests = requests
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b Usage) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Permission, b.Permission), cmp.Compare(a.Product, b.Product),
			cmp.Compare(a.Route, b.Route), cmp.Compare(a.Outcome, b.Outcome))
	})
	return rows
}

// productOf is the resource of the permission. Where any valid key will do there
// is none, and it goes by the same name.
func productOf(p policy.Permission) string { return cmp.Or(p.Resource(), string(p)) }

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
	all, err := s.liveKeys(ctx, by.Account.ID, math.MaxInt)
	if err != nil {
		return nil, err
	}
	var keys []policy.KeyID
	for _, k := range all {
		if !limited || by.Key.Subaccounts.Covers(k.Subaccounts) {
			keys = append(keys, k.ID)
		}
	}
	return keys, nil
}

// liveKeys returns the keys of the account that are listed, in no order; or
// ErrTooMuchUsage, before it has read them, if there may be more than most.
func (s *Store) liveKeys(ctx context.Context, account policy.AccountID, most int) ([]policy.Key, error) {
	entries, err := s.index(ctx, account)
	if err != nil {
		return nil, err
	}
	if len(entries) > most {
		return nil, ErrTooMuchUsage
	}
	values, err := s.records(ctx, entries)
	if err != nil {
		return nil, err
	}
	keys := make([]policy.Key, 0, len(entries))
	for i, e := range entries {
		k, err := decodeIndexed(values[i].raw, e.tokenHash, account, policy.KeyID(e.id))
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !lapsed(&k.key, s.o.Now()) {
			keys = append(keys, k.key)
		}
	}
	return keys, nil
}
