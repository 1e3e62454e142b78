package keystore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"gatehouse/policy"
)

// Source says where a lookup's answer came from.
type Source string

// The sources of an answer.
const (
	FromStore Source = "found"
	FromCache Source = "cached"
	FromStale Source = "stale"
)

// Entry is what a lookup found: the key, its account as it is now, and where
// the answer came from. Key and Account are shared and must not be changed.
type Entry struct {
	Key     *policy.Key
	Account *policy.Account
	Source  Source
}

// Lookup finds the key of a token. It returns ErrUnknownToken only when the
// store itself said that there is no such key, and ErrUnavailable, within the
// store's timeout, whenever it could not say. It is the only read of the hot
// path.
func (s *Store) Lookup(ctx context.Context, t Token) (Entry, error) {
	return s.lookup(ctx, t, false)
}

// Reread is a Lookup that asks the store in any case, for the account as well:
// what it finds does not depend on whether changes were announced to this node.
func (s *Store) Reread(ctx context.Context, t Token) (Entry, error) {
	return s.lookup(ctx, t, true)
}

// lookup answers from the cache where it may; never, while the store answers,
// where the answer must be fresh.
func (s *Store) lookup(ctx context.Context, t Token, fresh bool) (Entry, error) {
	begun := s.o.Now()
	seen, known := s.keys.get(t.hash)
	if known && !fresh && s.o.Mode == Cached && seen.youngerThan(s.o.CacheTTL, begun) && s.keys.verified(seen) && s.Hears() {
		return s.complete(ctx, seen, begun, FromCache, false)
	}
	since := s.keys.begin()
	hash := t.hashHex()
	name := s.names.key(hash)
	v, err := s.reader.get(ctx, name)
	if err == nil {
		err = s.trust(name, v)
	}
	if errors.Is(err, ErrUnknownToken) {
		s.keys.forget(t.hash)
		return Entry{}, err
	}
	if err != nil {
		return s.stale(t.hash, begun, err)
	}
	if !v.found {
		if known {
			s.keys.forget(t.hash)
		}
		return Entry{}, ErrUnknownToken
	}
	if !known || seen.raw != v.raw {
		stored, err := decodeKey(v.raw, hash)
		if err != nil {
			return Entry{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		seen = &memory[storedKey]{record: stored, raw: v.raw}
		s.keys.confirm(seen, begun, since)
		s.keys.remember(t.hash, seen, since)
	} else {
		s.keys.confirm(seen, begun, since)
	}
	return s.complete(ctx, seen, begun, FromStore, fresh)
}

// stale answers from what was last read, where the operator allows that, and
// refuses otherwise. It asks the store for nothing more, and the cache once
// more: an invalidation that arrived while the store was asked counts. A store that answers,
// and is older, is not away: others may take rights away in it, which what was
// last read here does not know.
func (s *Store) stale(hash [sha256.Size]byte, now time.Time, cause error) (Entry, error) {
	seen, known := s.keys.get(hash)
	if known && seen.youngerThan(s.o.StaleIfUnavailable, now) && !errors.Is(cause, ErrOlder) {
		account, err := s.staleAccount(seen.record.key.Account, now, cause)
		return entryOf(seen, account, now, FromStale, err)
	}
	if errors.Is(cause, ErrUnavailable) {
		return Entry{}, cause
	}
	return Entry{}, fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

// complete adds the key's account.
func (s *Store) complete(ctx context.Context, k *memory[storedKey], now time.Time, source Source, fresh bool) (Entry, error) {
	account, err := s.accountOf(ctx, k.record.key.Account, fresh)
	return entryOf(k, account, now, source, err)
}

// entryOf: a key whose account is gone, or is another one that took over its
// id, and a replaced one whose grace is over, are as unknown as one that never
// was.
func entryOf(k *memory[storedKey], account *storedAccount, now time.Time, source Source, err error) (Entry, error) {
	if errors.Is(err, ErrNotFound) || (err == nil && (account.uid != k.record.accountUID || lapsed(&k.record.key, now))) {
		return Entry{}, ErrUnknownToken
	}
	if err != nil {
		return Entry{}, err
	}
	return Entry{Key: &k.record.key, Account: &account.rules, Source: source}, nil
}

// accountOf returns the account from the cache while the node is subscribed to
// changes, unless it must be fresh, and from the store otherwise. It returns
// ErrNotFound or ErrUnavailable.
func (s *Store) accountOf(ctx context.Context, id policy.AccountID, fresh bool) (*storedAccount, error) {
	begun := s.o.Now()
	seen, known := s.accounts.get(id)
	if known && !fresh && seen.youngerThan(accountTTL, begun) && s.accounts.verified(seen) && s.Hears() {
		return seen.record, nil
	}
	since := s.accounts.begin()
	name := s.names.account(id)
	v, err := s.reader.get(ctx, name)
	if err == nil {
		err = s.trust(name, v)
	}
	if errors.Is(err, ErrUnknownToken) || err == nil && !v.found {
		s.accounts.forget(id)
		return nil, ErrNotFound
	}
	if err != nil {
		return s.staleAccount(id, begun, err)
	}
	if !known || seen.raw != v.raw {
		stored, err := decodeAccount(v.raw, id, s.catalogue())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		seen = &memory[storedAccount]{record: stored, raw: v.raw}
		s.accounts.confirm(seen, begun, since)
		s.accounts.remember(id, seen, since)
	} else {
		s.accounts.confirm(seen, begun, since)
	}
	return seen.record, nil
}

// staleAccount returns the account as it was last read, where it is young
// enough or the operator allows that, and ErrUnavailable otherwise.
func (s *Store) staleAccount(id policy.AccountID, now time.Time, cause error) (*storedAccount, error) {
	seen, known := s.accounts.get(id)
	if known && !errors.Is(cause, ErrOlder) && (seen.youngerThan(s.o.StaleIfUnavailable, now) || seen.youngerThan(accountTTL, now) && s.accounts.verified(seen) && s.Hears()) {
		return seen.record, nil
	}
	return nil, fmt.Errorf("%w: account: %w", ErrUnavailable, cause)
}
