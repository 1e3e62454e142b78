package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"gatehouse/policy"
)

const (
	// rewriteScan is how many accounts are read by one command, and about how
	// many fields of a hash, unless Redis packs it, which then has at most 512.
	rewriteScan = 500
	// rewritePortion is how many records one change writes.
	rewritePortion = 50
)

var errNotCompact = errors.New("the store's format is text: nothing is to be rewritten")

// rewriteRecords writes every key's record, every entry of the accounts'
// indexes, and when keys were used, in the compact form, where they are not in
// it. It calls progress with how many keys it has looked at. It may run beside
// all traffic, as long as no node writes text any more: what changes while it
// is rewritten stays as it was changed. It may be broken off, and done again.
// It holds Redis for no longer than a change of 50 keys does.
func (s *Store) rewriteRecords(ctx context.Context, progress func(done int)) error {
	if !s.compact() {
		return errNotCompact
	}
	done := 0
	err := s.eachAccount(ctx, func(account policy.AccountID) error {
		keys, err := s.rewriteAccount(ctx, account)
		if err != nil {
			return fmt.Errorf("account %s: %w", account, err)
		}
		done += keys
		progress(done)
		return nil
	})
	if err != nil {
		return fmt.Errorf("rewrite records: %w", err)
	}
	return nil
}

// eachAccount calls f for every account there is from the beginning to the
// end, for some of them twice.
func (s *Store) eachAccount(ctx context.Context, f func(policy.AccountID) error) error {
	for cursor := uint64(0); ; {
		members, next, err := s.client.ZScan(ctx, s.names.accounts(), cursor, "", rewriteScan).Result()
		if err != nil {
			return errors.Join(ErrUnavailable, err)
		}
		for i := 0; i+1 < len(members); i += 2 { // each with its score
			if err := f(policy.AccountID(members[i])); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// rewriteAccount returns how many keys the account has.
func (s *Store) rewriteAccount(ctx context.Context, account policy.AccountID) (keys int, err error) {
	err = s.retry(func() error {
		keys = 0
		return s.rewriteHash(ctx, s.names.accountKeys(account), func(read []hashField) ([]rewritten, error) {
			keys += len(read)
			return s.rewriteKeys(ctx, read)
		})
	})
	if err != nil {
		return keys, fmt.Errorf("index: %w", err)
	}
	return keys, s.retry(func() error { return s.rewriteHash(ctx, s.names.used(account), rewriteUsed) })
}

// rewriteUsed spells when keys were last used under their compact fields.
func rewriteUsed(read []hashField) ([]rewritten, error) {
	all := make([]rewritten, len(read))
	for i, r := range read {
		all[i] = rewritten{r, hashField{fieldsOfID(idOfField(r.field))[0], r.value}}
	}
	return mergeTwice(all, func(a, b hashField) bool { return lastUsed([]string{a.value}) > lastUsed([]string{b.value}) }), nil
}

// rewriteKeys rewrites the records of the entries of an index, and returns the
// entries in the compact form, those without one as they are.
func (s *Store) rewriteKeys(ctx context.Context, read []hashField) ([]rewritten, error) {
	all := make([]rewritten, len(read))
	entries := make([]indexEntry, 0, len(read))
	for i, r := range read {
		all[i] = rewritten{r, r}
		e, err := parseIndex(r.field, r.value)
		if err != nil {
			return nil, errors.Join(ErrUnavailable, fmt.Errorf("index entry %s: %w", strconv.Quote(r.field), err))
		}
		entries = append(entries, e)
		if value, ok := e.compact(); ok {
			all[i].is = hashField{fieldsOfID(e.id)[0], value}
		}
	}
	for part := range slices.Chunk(entries, rewritePortion) {
		if err := s.rewritePart(ctx, part); err != nil {
			return nil, err
		}
	}
	return mergeTwice(all, func(a, _ hashField) bool { // see parseIndexes
		e, err := parseIndex(a.field, a.value)
		return err == nil && e.ends != 0
	}), nil
}

// rewritePart rewrites the records of some entries: as one change where they
// are on one server, and one by one where that is not so, or where one of them
// has changed meanwhile.
func (s *Store) rewritePart(ctx context.Context, entries []indexEntry) error {
	changes, err := s.recordChanges(ctx, entries)
	if err != nil || len(changes) == 0 {
		return err
	}
	if _, cluster := s.client.(*redis.ClusterClient); !cluster {
		var together change
		for _, c := range changes {
			together.guards, together.steps = append(together.guards, c.guards...), append(together.steps, c.steps...)
		}
		if err := s.commit(ctx, together); !errors.Is(err, errMoved) {
			return err
		}
	}
	for _, c := range changes {
		if err := s.commit(ctx, c); err != nil && !errors.Is(err, errMoved) {
			return err // what has changed was written compact by what changed it
		}
	}
	return nil
}

// recordChanges are the changes that rewrite the records which are not compact.
func (s *Store) recordChanges(ctx context.Context, entries []indexEntry) ([]change, error) {
	values, err := s.records(ctx, entries)
	if err != nil {
		return nil, err
	}
	var changes []change
	for i, e := range entries {
		if !values[i].found || isCompact(values[i].raw) {
			continue
		}
		k, err := decodeKey(values[i].raw, e.tokenHash)
		if err != nil {
			return nil, errors.Join(ErrUnavailable, err)
		}
		set, err := s.setKey(*k)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change{guards: []guard{{key: set.Key, want: values[i].raw}}, steps: []step{set}})
	}
	return changes, nil
}
