package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// errFound ends a search.
var errFound = errors.New("found")

// accountWith returns the account in whose index the key is.
func (s *Store) accountWith(ctx context.Context, id policy.KeyID) (policy.AccountID, error) {
	var account policy.AccountID
	err := s.eachAccounts(ctx, func(part []member) error {
		indexes := make([]string, len(part))
		for i, m := range part {
			indexes[i] = s.names.accountKeys(policy.AccountID(m.name))
		}
		found, err := s.indexedIn(ctx, indexes, id)
		if err != nil {
			return errors.Join(ErrUnavailable, err)
		}
		if i := slices.Index(found, true); i >= 0 {
			account = policy.AccountID(part[i].name)
			return errFound
		}
		return nil
	})
	switch {
	case errors.Is(err, errFound):
		return account, nil
	case err != nil:
		return "", err
	}
	if s.rollback.found() {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, ErrOlder) // it may be one of the changes that are missing
	}
	// Nothing is read into an empty answer of an emptied store.
	return "", errors.Join(ErrNotFound, s.trustAbsence(ctx, s.names.accounts()))
}
