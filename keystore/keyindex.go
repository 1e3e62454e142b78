package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gatehouse/policy"
)

// index returns the index of an account's keys, in no order. It is read in
// portions: an entry that is there from the beginning to the end is in it.
func (s *Store) index(ctx context.Context, account policy.AccountID) ([]indexEntry, error) {
	return s.indexAt(ctx, s.names.accountKeys(account))
}

func (s *Store) indexAt(ctx context.Context, name string) ([]indexEntry, error) {
	index := map[string]string{}
	err := s.data.scan(ctx, name, scanPortion, func(portion []hashField, _ bool) error {
		for _, f := range portion {
			index[f.field] = f.value
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(ErrUnavailable, err)
	}
	entries, err := parseIndexes(name, index)
	if err != nil {
		return nil, errors.Join(ErrUnavailable, err)
	}
	if len(entries) == 0 {
		return nil, s.Ready(ctx) // nothing is read into an empty answer of an emptied store
	}
	return entries, nil
}

// errUnknownEnd: an index has a key without a record, and nothing says that the
// key has ended. It may be that records were lost, or that the key has ended with
// a version that wrote no ends into indexes.
var errUnknownEnd = errors.New("its record is missing, and nothing says that it has ended: restore the store's data, or, " +
	"where nothing was lost, have gatehouse store upgrade drop what earlier versions have left")

// hasEnded reports whether the key of the entry is gone for good: that is known
// by its end, and never by a record that was not found, which may have been lost
// and may come back.
func (e indexEntry) hasEnded(now int64) bool { return ended(e.ends, now) }

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
		case !values[i].found && !e.hasEnded(now.Unix()):
			unknown++
		case !values[i].found:
			gone = append(gone, e)
		default:
			// An end that was not written to the end of a change is not believed.
			if k, err := decodeKey(values[i].raw, e.tokenHash); err == nil && goneForGood(&k.key, now) {
				gone = append(gone, e)
			}
		}
	}
	if unknown > 0 {
		s.o.Log.Warn("keys of an account are listed without a record, and count against its limit",
			zap.String("account", string(account)), zap.Int("keys", unknown), zap.Error(errUnknownEnd))
	}
	return s.dropEntries(ctx, account, gone)
}

// goneForGood reports whether a key has gone, whether or not the store has dropped
// its record yet.
func goneForGood(k *policy.Key, now time.Time) bool { return ended(endOf(k), now.Unix()) }

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
			if e.created < s.o.Now().Add(-orphanAge).UnixMilli() {
				gone = append(gone, e)
			}
			continue
		}
		k, err := decodeKey(values[i].raw, e.tokenHash)
		if err != nil || e.ends == endOf(&k.key) {
			continue // one that cannot be read is told of where it is used
		}
		e.ends = endOf(&k.key)
		entered := s.indexStep(account, e)
		err = s.commit(ctx, change{
			guards: []guard{{key: s.names.key(e.tokenHash), want: values[i].raw}},
			steps:  append([]step{entered}, s.otherForm(entered, e.id)...),
		})
		if err != nil && !errors.Is(err, errMoved) { // a change that came first has written it
			return fmt.Errorf("key %s: %w", e.id, err)
		}
	}
	_, err = s.dropEntries(ctx, account, gone)
	return err
}
