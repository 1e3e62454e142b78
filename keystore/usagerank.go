package keystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"gatehouse/policy"
)

// UsageSubject is what requests are ranked by.
type UsageSubject string

// The subjects.
const (
	RankAccounts    UsageSubject = "account"
	RankKeys        UsageSubject = "key"
	RankPermissions UsageSubject = "permission"
	RankProducts    UsageSubject = "product"
	RankRoutes      UsageSubject = "route"
	RankOutcomes    UsageSubject = "outcome"
)

// UsageSubjects returns all of them.
func UsageSubjects() []UsageSubject {
	return []UsageSubject{RankAccounts, RankKeys, RankPermissions, RankProducts, RankRoutes, RankOutcomes}
}

// UsageRanking says what is ranked, by the requests that the filter wants, whose
// Key, ByKey and so on say nothing here.
type UsageRanking struct {
	UsageFilter
	By UsageSubject
	// Account is the only one whose requests count; "" for those of all.
	Account policy.AccountID
	// Limit is how many rows are wanted at the most, 1 or more.
	Limit int
}

// RankedUsage is how many requests one subject had, with what names it: an
// account has a Name, a key an Account, Name and Preview, everything else only
// itself.
type RankedUsage struct {
	Account       policy.AccountID
	Key           policy.KeyID
	Name, Preview string
	Permission    policy.Permission
	Product       string
	Route         string
	Outcome       string
	Requests      int64
}

// before orders a ranking: the most requests first, and by name where there are
// as many. Of keys that is the id of the account, and then their own.
func (r RankedUsage) before(other RankedUsage) int {
	return cmp.Or(cmp.Compare(other.Requests, r.Requests), cmp.Compare(r.Account, other.Account), cmp.Compare(r.Key, other.Key),
		cmp.Compare(r.Permission, other.Permission), cmp.Compare(r.Product, other.Product), cmp.Compare(r.Route, other.Route), cmp.Compare(r.Outcome, other.Outcome))
}

// ErrUsageBusy says that another ranking is being made by this node.
var ErrUsageBusy = errors.New("another ranking is being made")

// RankUsage returns what had the most requests, in order, of the accounts and
// keys that there are: requests of suspended accounts count like all others,
// those of deleted ones for nothing, and those of keys that are gone for their
// account. The answer is exact, but that what is written meanwhile, and in the
// last minute, may be missing.
// It returns ErrNotFound when there is no such account, ErrTooMuchUsage, or
// ErrUsageBusy: there is one ranking at a time.
func (s *Store) RankUsage(ctx context.Context, r UsageRanking) ([]RankedUsage, error) {
	if !s.ranking.TryLock() {
		return nil, fmt.Errorf("rank usage: %w", ErrUsageBusy)
	}
	defer s.ranking.Unlock()
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	k := &ranker{usageReader: s.newUsageReader(r.UsageFilter, maxRankedHashes, maxRankedCounters), limit: max(r.Limit, 1)}
	rows, err := k.rank(ctx, r)
	if err == nil {
		err = s.Ready(ctx) // of an emptied or replaced store nothing is certain
	}
	if err != nil {
		return nil, fmt.Errorf("rank usage: %w", err)
	}
	return rows, nil
}

// ranker makes one ranking.
type ranker struct {
	*usageReader
	limit int
}

func (k *ranker) rank(ctx context.Context, r UsageRanking) ([]RankedUsage, error) {
	accounts, err := k.accounts(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	rows, err := k.sums(ctx, accounts, r.By)
	if err != nil {
		return nil, err
	}
	switch r.By {
	case RankAccounts:
		return k.named(ctx, rows)
	case RankKeys:
		return k.keys(ctx, rows)
	case RankPermissions, RankProducts, RankRoutes, RankOutcomes:
	}
	return rows[:min(k.limit, len(rows))], nil
}

// accounts returns the accounts that there are, or the one.
func (k *ranker) accounts(ctx context.Context, only policy.AccountID) ([]policy.AccountID, error) {
	if only != "" {
		_, _, err := k.s.readAccount(ctx, only)
		return []policy.AccountID{only}, err
	}
	var there []policy.AccountID
	listed := 0
	return there, k.s.eachAccounts(ctx, func(part []member) error {
		if listed += len(part); k.mayRead(listed*len(k.buckets)) != nil {
			return ErrTooMuchUsage
		}
		names := make([]string, len(part))
		for i, m := range part {
			names[i] = k.s.names.account(policy.AccountID(m.name))
		}
		found, err := k.s.data.exist(ctx, names)
		if err != nil {
			return errors.Join(ErrUnavailable, err)
		}
		for i, m := range part {
			if found[i] { // else it was deleted, or never written to the end
				there = append(there, policy.AccountID(m.name))
			}
		}
		return nil
	})
}

// sums returns what the accounts as a whole had, in order: by themselves, also
// where keys are to be ranked, and otherwise by what is ranked.
func (k *ranker) sums(ctx context.Context, accounts []policy.AccountID, by UsageSubject) ([]RankedUsage, error) {
	wanted, err := k.wanted(accounts, everyKey)
	if err != nil {
		return nil, err
	}
	counted := map[RankedUsage]int64{}
	if err := k.read(ctx, wanted, func(c usageCounter) error {
		counted[by.of(c)] += c.requests
		return nil
	}); err != nil {
		return nil, err
	}
	rows := make([]RankedUsage, 0, len(counted))
	for row, requests := range counted {
		row.Requests = requests
		rows = append(rows, row)
	}
	slices.SortFunc(rows, RankedUsage.before)
	return rows, nil
}

// of is the row that the counter is added to, without its Requests.
func (by UsageSubject) of(c usageCounter) RankedUsage {
	switch by {
	case RankPermissions:
		return RankedUsage{Permission: c.permission}
	case RankProducts:
		return RankedUsage{Product: productOf(c.permission)}
	case RankRoutes:
		return RankedUsage{Route: c.route}
	case RankOutcomes:
		return RankedUsage{Outcome: c.outcome}
	case RankAccounts, RankKeys:
	}
	return RankedUsage{Account: c.account}
}

// named returns the first of the accounts that are still there, with their names.
func (k *ranker) named(ctx context.Context, accounts []RankedUsage) ([]RankedUsage, error) {
	var rows []RankedUsage
	for _, row := range accounts {
		if len(rows) == k.limit {
			break
		}
		stored, _, err := k.s.readAccount(ctx, row.Account)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		row.Name = stored.account.Name
		rows = append(rows, row)
	}
	return rows, nil
}

// keys returns the first of the keys of the accounts, which are in order. No key
// had more requests than its account, so that those of an account that comes
// behind the last row need not be read, nor those of any after it.
func (k *ranker) keys(ctx context.Context, accounts []RankedUsage) ([]RankedUsage, error) {
	var rows []RankedUsage
	for _, account := range accounts {
		if len(rows) == k.limit && rows[k.limit-1].before(account) < 0 {
			break
		}
		of, err := k.keysOf(ctx, account.Account)
		if err != nil {
			return nil, err
		}
		rows = append(rows, of...)
		slices.SortFunc(rows, RankedUsage.before)
		rows = rows[:min(k.limit, len(rows))]
	}
	return rows, nil
}

// keysOf returns the keys of the account that had requests.
func (k *ranker) keysOf(ctx context.Context, account policy.AccountID) ([]RankedUsage, error) {
	if err := k.take(1); err != nil { // the index
		return nil, err
	}
	keys, err := k.s.liveKeys(ctx, account, k.hashes/max(1, len(k.buckets)))
	if err != nil {
		return nil, err
	}
	ids := make([]policy.KeyID, len(keys))
	for i, key := range keys {
		ids[i] = key.ID
	}
	wanted, err := k.wanted([]policy.AccountID{account}, ids...)
	if err != nil {
		return nil, err
	}
	counted := map[policy.KeyID]int64{}
	if err := k.read(ctx, wanted, func(c usageCounter) error {
		counted[c.key] += c.requests
		return nil
	}); err != nil {
		return nil, err
	}
	rows := make([]RankedUsage, 0, len(counted))
	for _, key := range keys {
		if requests := counted[key.ID]; requests > 0 {
			rows = append(rows, RankedUsage{Account: account, Key: key.ID, Name: key.Name, Preview: key.Preview, Requests: requests})
		}
	}
	return rows, nil
}
