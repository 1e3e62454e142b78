package keystore

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gatehouse/policy"
)

const (
	// usagePause is how long what is known of the use of keys waits to be
	// written: a key's use is written once in that time at the most.
	usagePause = time.Minute
	// usagePortion is how many keys one change writes.
	usagePortion = 500
)

// usage is when keys were last used, as far as it is not written yet. What is
// lost of it is a minute of statistics, and nothing else.
type usage struct {
	keys sync.Map // policy.KeyID → *keyUse
}

type keyUse struct {
	account policy.AccountID
	last    atomic.Int64 // Unix seconds
	written int64        // the flush's own
}

// Used notes that a request with the key was let through. It does no I/O, and
// allocates nothing for a key that was used in the last minute.
func (s *Store) Used(key policy.KeyID, account policy.AccountID, at time.Time) {
	known, ok := s.usage.keys.Load(key)
	if !ok {
		known, _ = s.usage.keys.LoadOrStore(key, &keyUse{account: account})
	}
	known.(*keyUse).last.Store(at.Unix())
}

// writeUsage writes what was noted, until ctx ends, and once more then.
func (s *Store) writeUsage(ctx context.Context) {
	tick := time.NewTicker(usagePause)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		final, cancel := context.WithTimeout(context.WithoutCancel(ctx), manageTimeout)
		if err := s.flushUsage(final); err != nil {
			s.o.Log.Warn("the last use of keys was not written", zap.Error(err))
		}
		cancel()
	}
}

// flushUsage writes what was noted since the last time, and forgets keys that
// were not used since then.
func (s *Store) flushUsage(ctx context.Context) error {
	accounts := map[policy.AccountID]map[string]int64{}
	s.usage.keys.Range(func(id, value any) bool {
		use := value.(*keyUse)
		last := use.last.Load()
		if last == use.written {
			s.usage.keys.Delete(id)
			return true
		}
		use.written = last
		if accounts[use.account] == nil {
			accounts[use.account] = map[string]int64{}
		}
		accounts[use.account][string(id.(policy.KeyID))] = last
		return true
	})
	var failures error
	for account, used := range accounts {
		for ids := range slices.Chunk(slices.Collect(maps.Keys(used)), usagePortion) {
			failures = errors.Join(failures, s.keepUsage(ctx, account, ids, used))
		}
	}
	return failures
}

// keepUsage writes when keys were used, where they still exist: what is known
// of a key must not outlive it.
func (s *Store) keepUsage(ctx context.Context, account policy.AccountID, ids []string, used map[string]int64) error {
	index, err := s.client.HMGet(ctx, s.names.accountKeys(account), ids...).Result()
	if err != nil {
		return err
	}
	raw, err := s.readRaw(ctx, s.names.account(account))
	if err != nil || raw == "" {
		return err
	}
	c := change{guards: []guard{{key: s.names.account(account), want: raw}}}
	for i, id := range ids {
		if index[i] != nil {
			c.steps = append(c.steps, step{Kind: stepHSet, Key: s.names.used(account), Field: id, Value: strconv.FormatInt(used[id], 10)})
		}
	}
	if len(c.steps) == 0 {
		return nil
	}
	if err := s.commit(ctx, c); !errors.Is(err, errMoved) {
		return err
	}
	return nil // the account has just changed: this minute is lost
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
	values, err := s.client.HMGet(ctx, s.names.used(account), ids...).Result()
	if err != nil {
		return errors.Join(ErrUnavailable, err)
	}
	for i := range keys {
		text, _ := values[i].(string)
		if at, err := strconv.ParseInt(text, 10, 64); err == nil {
			keys[i].LastUsedAt = time.Unix(at, 0).UTC()
		}
	}
	return nil
}
