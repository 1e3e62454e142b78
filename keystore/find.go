package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"gatehouse/policy"
)

// Find returns the key with the id, and its account, as a lookup of its token
// would, or ErrNotFound. Without an account it looks into all accounts, which
// takes a round trip for some hundred of them.
func (s *Store) Find(ctx context.Context, account policy.AccountID, id policy.KeyID) (Entry, error) {
	entry, err := s.find(ctx, account, id)
	if errors.Is(err, ErrUnknownToken) {
		err = ErrNotFound
	}
	if err != nil {
		return Entry{}, fmt.Errorf("find key: %w", err)
	}
	return entry, nil
}

func (s *Store) find(ctx context.Context, account policy.AccountID, id policy.KeyID) (Entry, error) {
	if account == "" {
		var err error
		if account, err = s.accountWith(ctx, id); err != nil {
			return Entry{}, err
		}
	}
	key, _, err := s.readKey(ctx, account, id)
	if err != nil {
		return Entry{}, err
	}
	owner, _, err := s.readAccount(ctx, account)
	return entryOf(&memory[storedKey]{record: key}, owner, s.o.Now(), FromStore, err)
}

// accountWith returns the account in whose index the key is.
func (s *Store) accountWith(ctx context.Context, id policy.KeyID) (policy.AccountID, error) {
	const portion = 500
	accounts, err := s.client.ZRange(ctx, s.names.accounts(), 0, -1).Result()
	if err != nil {
		return "", errors.Join(ErrUnavailable, err)
	}
	for part := range slices.Chunk(accounts, portion) {
		pipe := s.client.Pipeline()
		found := make([]*redis.SliceCmd, len(part))
		for i, account := range part {
			found[i] = pipe.HMGet(ctx, s.names.accountKeys(policy.AccountID(account)), fieldsOfID(string(id))...)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return "", errors.Join(ErrUnavailable, err)
		}
		for i, is := range found {
			if slices.ContainsFunc(is.Val(), func(v any) bool { return v != nil }) {
				return policy.AccountID(part[i]), nil
			}
		}
	}
	// Nothing is read into an empty answer of an emptied store.
	return "", errors.Join(ErrNotFound, s.Ready(ctx))
}
