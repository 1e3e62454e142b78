package keystore

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"gatehouse/policy"
)

// index returns the index of an account's keys, in no order. It is read in
// portions: an entry that is there from the beginning to the end is in it.
func (s *Store) index(ctx context.Context, account policy.AccountID) ([]indexEntry, error) {
	return s.indexAt(ctx, s.names.accountKeys(account))
}

func (s *Store) indexAt(ctx context.Context, name string) ([]indexEntry, error) {
	fields := map[string]string{}
	err := s.data.scan(ctx, name, func(field, value string) error {
		fields[field] = value
		return nil
	})
	var entries []indexEntry
	if err == nil {
		entries, err = parseIndexes(name, fields)
	}
	if err != nil {
		return nil, errors.Join(ErrUnavailable, fmt.Errorf("index %s: %w", name, err))
	}
	if len(entries) == 0 {
		return nil, s.trustAbsence(ctx, name)
	}
	return entries, nil
}

// indexEntryOf returns the entry of a key of the account, or ErrNotFound, which
// says nothing of an emptied store.
func (s *Store) indexEntryOf(ctx context.Context, account policy.AccountID, id policy.KeyID) (indexEntry, error) {
	return s.indexEntryAt(ctx, s.names.accountKeys(account), string(id))
}

func (s *Store) indexEntryAt(ctx context.Context, name, id string) (indexEntry, error) {
	found, err := s.indexEntriesAt(ctx, name, []string{id})
	switch {
	case err != nil:
		return indexEntry{}, err
	case found[0] == nil && s.rollback.found():
		return indexEntry{}, fmt.Errorf("%w: %w", ErrUnavailable, ErrOlder) // it may be one of the changes that are missing
	case found[0] == nil:
		return indexEntry{}, ErrNotFound
	}
	return *found[0], nil
}

// indexEntriesOf returns the entry of each of the keys of the account, nil for
// one that has none.
func (s *Store) indexEntriesOf(ctx context.Context, account policy.AccountID, ids []policy.KeyID) ([]*indexEntry, error) {
	fields := make([]string, len(ids))
	for i, id := range ids {
		fields[i] = string(id)
	}
	return s.indexEntriesAt(ctx, s.names.accountKeys(account), fields)
}

func (s *Store) indexEntriesAt(ctx context.Context, name string, ids []string) ([]*indexEntry, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	fields, of := fieldsOfIDs(ids)
	values, err := s.hashFields(ctx, name, fields)
	if err != nil {
		return nil, err
	}
	entries := make([]*indexEntry, len(ids))
	var damaged error
	eachOf(of, values, func(i int, mine []string) {
		e, found, err := entryOfFields(ids[i], mine)
		if damaged = errors.Join(damaged, err); found {
			entries[i] = &e
		}
	})
	if damaged != nil {
		return nil, errors.Join(ErrUnavailable, fmt.Errorf("index %s: %w", name, damaged))
	}
	return entries, nil
}

// indexedIn reports which of the indexes, by their names, have the key.
func (s *Store) indexedIn(ctx context.Context, indexes []string, id policy.KeyID) ([]bool, error) {
	found := make([]bool, len(indexes))
	for _, field := range fieldsOfID(string(id)) {
		has, err := s.data.having(ctx, indexes, field)
		if err != nil {
			return nil, err
		}
		for i := range has {
			found[i] = found[i] || has[i]
		}
	}
	return found, nil
}

// indexed is the guard that holds a key in the index of its account, in the form
// of the store.
func (s *Store) indexed(account policy.AccountID, id policy.KeyID) guard {
	return guard{key: s.names.accountKeys(account), has: s.usedField(string(id))}
}

// errUnknownEnd: an index has a key without a record, and nothing says that the
// key has ended. It may be that records were lost, or that the key was made, or
// has ended, with a version that wrote no ends into indexes.
var errUnknownEnd = errors.New("its record is missing, and nothing says that it has ended")

// hasEnded reports whether the key of the entry is gone for good: that is known
// by its end, and never by a record that was not found, which may have been lost
// and may come back.
func (e indexEntry) hasEnded(now int64) bool { return e.ends != 0 && e.ends <= now }

// prune drops the index entries of keys that are gone for good, so that they
// do not count against the account's limit. It reports whether there were any.
// Entries without a record of which no end is known are kept, and count.
func (s *Store) prune(ctx context.Context, account policy.AccountID) (bool, error) {
	entries, err := s.index(ctx, account)
	if err != nil {
		return false, err
	}
	values, err := s.records(ctx, entries)
	if err != nil {
		return false, err
	}
	now := s.o.Now()
	var gone []indexEntry
	unknown := 0
	for i, e := range entries {
		switch {
		case values[i].found:
			// An end that was not written to the end of a change is not believed.
			if k, err := decodeKey(values[i].raw, e.tokenHash); err == nil && e.hasEnded(now.Unix()) && goneForGood(&k.key, now) {
				gone = append(gone, e)
			}
		case e.hasEnded(now.Unix()):
			gone = append(gone, e)
		default:
			unknown++
		}
	}
	if unknown > 0 {
		s.o.Log.Warn("keys of an account are listed without a record, and count against its limit: an upgrade of the store drops them",
			zap.String("account", string(account)), zap.Int("keys", unknown), zap.Error(errUnknownEnd))
	}
	return s.dropEntries(ctx, account, gone)
}

// dropEntries removes index entries of keys that are gone, and what was counted
// of these. It reports whether there were any.
func (s *Store) dropEntries(ctx context.Context, account policy.AccountID, gone []indexEntry) (bool, error) {
	if len(gone) == 0 {
		return false, nil
	}
	var drop change
	var dropped []policy.KeyID
	for _, e := range gone {
		dropped = append(dropped, policy.KeyID(e.id))
		drop.steps = append(drop.steps, s.unindexSteps(account, e.id)...)
	}
	if err := s.commit(ctx, drop); err != nil {
		return false, err
	}
	s.usage.removed(account, dropped...)
	return true, nil
}

// settleIndex writes the ends of keys into the index of an account, where a
// version before this one has not, and drops the entries of keys without a record
// of which no end is known. An operator asks for it, who knows that nothing of the
// store was lost and that no older version writes to it: see Upgrade.
func (s *Store) settleIndex(ctx context.Context, account policy.AccountID) error {
	entries, err := s.index(ctx, account)
	if err != nil {
		return err
	}
	values, err := s.records(ctx, entries)
	if err != nil {
		return err
	}
	var gone []indexEntry
	for i, e := range entries {
		if !values[i].found {
			// Its record may have been written between the two readings.
			if raw, err := s.readRaw(ctx, s.names.key(e.tokenHash)); err != nil {
				return err
			} else if raw == "" && e.created < s.o.Now().Add(-orphanAge).UnixMilli() {
				gone = append(gone, e)
			}
			continue
		}
		k, err := decodeKey(values[i].raw, e.tokenHash)
		if err != nil || e.ends == endOf(&k.key) {
			continue // one that cannot be read is said where it is used
		}
		e.ends = endOf(&k.key)
		err = s.commit(ctx, change{
			guards: []guard{s.indexed(account, policy.KeyID(e.id)), {key: s.names.key(e.tokenHash), want: values[i].raw}},
			steps:  []step{s.indexStep(account, e)},
		})
		if err != nil && !errors.Is(err, errMoved) { // a change that came first has written it
			return err
		}
	}
	_, err = s.dropEntries(ctx, account, gone)
	return err
}
