package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"gatehouse/policy"
)

// Account is a customer as an operator provisions it. Permissions are grants:
// permissions of the catalogue, "resource:*" or "*".
type Account struct {
	ID          policy.AccountID
	Name        string
	Status      policy.Status
	Permissions []string
	Subaccounts []policy.Subaccount
	// Plan names the rate of the account's keys, "" for none. The store does not
	// know which plans there are.
	Plan      string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// commitTries is how often a change is tried when others come first.
const commitTries = 10

// deletePortion is how many keys of a deleted account are removed in one step.
const deletePortion = 500

// PutAccount creates the account, or replaces all of it but its id, its time
// of creation and its keys. Without a status it keeps the one it has; a new one
// is active. It returns what is stored, and whether it is new.
// When it returns, every key of the account is bound by the new state.
func (s *Store) PutAccount(ctx context.Context, by policy.Caller, a Account) (stored Account, created bool, err error) {
	for range commitTries {
		stored, created, err = s.putAccount(ctx, by, a)
		if !errors.Is(err, errMoved) {
			return stored, created, s.managed(AccountPut, err)
		}
	}
	return Account{}, false, s.managed(AccountPut, fmt.Errorf("put account %s: %w", a.ID, ErrConflict))
}

func (s *Store) putAccount(ctx context.Context, by policy.Caller, a Account) (Account, bool, error) {
	name := s.names.account(a.ID)
	old, err := s.readRaw(ctx, name)
	if err != nil {
		return Account{}, false, fmt.Errorf("put account %s: %w", a.ID, err)
	}
	if old == "" {
		// What an interrupted deletion has left is not the new account's.
		if _, err := s.deleteKeys(ctx, a.ID); err != nil {
			return Account{}, false, fmt.Errorf("put account %s: %w", a.ID, err)
		}
		if _, err := s.deleteUsers(ctx, a.ID); err != nil {
			return Account{}, false, fmt.Errorf("put account %s: %w", a.ID, err)
		}
	}
	now := s.o.Now().UTC().Truncate(time.Second)
	a.CreatedAt, a.UpdatedAt = now, now
	next := storedAccount{account: a, uid: uuid.NewString()}
	var replaced *Account
	if old != "" {
		before, err := decodeAccount(old, a.ID, s.catalogue())
		if err != nil {
			return Account{}, false, fmt.Errorf("put account %s: %w", a.ID, errors.Join(ErrUnavailable, err))
		}
		replaced = &before.account
		next.uid, next.account.CreatedAt = before.uid, before.account.CreatedAt
		if a.Status == "" {
			next.account.Status = before.account.Status
		}
	}
	if next.account.Status == "" {
		next.account.Status = policy.Active
	}
	raw, err := encodeAccount(next)
	if err != nil {
		return Account{}, false, err
	}
	score := strconv.FormatInt(s.o.Now().UnixMilli(), 10)
	steps := []step{
		{Kind: stepZAdd, Key: s.names.accounts(), Field: string(a.ID), Value: score},
		{Kind: stepSet, Key: name, Value: raw},
		s.publishAccount(a.ID),
	}
	if old != "" { // it may be suspended: that works while memory is full
		steps = append([]step{{Kind: stepRoom, Key: s.names.besideAccounts("room")}}, steps...)
	}
	err = s.commit(ctx, change{
		guards: []guard{{key: name, want: old}},
		steps:  steps, narrows: old != "" && next.account.Status == policy.Suspended,
		event:  s.eventOf(by, AccountPut, a.ID, next.uid).about("", changesOf(accountFields(replaced), accountFields(&next.account))),
	})
	return next.account, old == "", err
}

// GetAccount returns the account, or ErrNotFound.
func (s *Store) GetAccount(ctx context.Context, id policy.AccountID) (Account, error) {
	stored, _, err := s.readAccount(ctx, id)
	if err != nil {
		return Account{}, fmt.Errorf("get account %s: %w", id, err)
	}
	return stored.account, nil
}

// Rules returns the account as the rules know it, as it is now, or ErrNotFound.
func (s *Store) Rules(ctx context.Context, id policy.AccountID) (*policy.Account, error) {
	stored, _, err := s.readAccount(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("get account %s: %w", id, err)
	}
	return &stored.rules, nil
}

// DeleteAccount deletes the account, all its keys and all its users, or returns
// ErrNotFound. Its keys and sessions are dead from the first step on; an interrupted deletion is
// completed by another.
func (s *Store) DeleteAccount(ctx context.Context, by policy.Caller, id policy.AccountID) error {
	return s.managed(AccountDelete, s.deleteAccount(ctx, by, id))
}

func (s *Store) deleteAccount(ctx context.Context, by policy.Caller, id policy.AccountID) error {
	name := s.names.account(id)
	var raw string
	err := s.retry(func() (err error) {
		if raw, err = s.readRaw(ctx, name); err != nil || raw == "" {
			return err
		}
		// One that cannot be read must be possible to delete.
		uid, before := "", []field(nil)
		if stored, err := decodeAccount(raw, id, s.catalogue()); err == nil {
			uid, before = stored.uid, accountFields(&stored.account)
		}
		return s.commit(ctx, change{
			guards: []guard{{key: name, want: raw}}, steps: []step{{Kind: stepDel, Key: name}, s.publishAccount(id)},
			event: s.eventOf(by, AccountDelete, id, uid).about("", changesOf(before, nil)),
		})
	})
	if err != nil {
		return fmt.Errorf("delete account %s: %w", id, err)
	}
	left, err := s.deleteKeys(ctx, id)
	users := 0
	if err == nil {
		users, err = s.deleteUsers(ctx, id)
	}
	if err != nil && !errors.Is(err, errMoved) {
		return fmt.Errorf("delete account %s: %w", id, err)
	}
	if raw == "" && err == nil && left+users == 0 {
		return fmt.Errorf("delete account %s: %w", id, ErrNotFound)
	}
	err = s.commit(ctx, change{
		guards: []guard{{key: name}}, // one that was put again meanwhile stays listed
		steps: []step{
			{Kind: stepZRem, Key: s.names.accounts(), Field: string(id)},
			{Kind: stepDel, Key: s.names.used(id)},
		},
	})
	if err != nil && !errors.Is(err, errMoved) {
		return fmt.Errorf("delete account %s: %w", id, err)
	}
	return nil
}

// deleteKeys deletes the keys of an account that is no more, and all that was
// counted, and returns how many keys there were; or errMoved when there is an
// account of that id again. It reads and removes a portion at a time.
func (s *Store) deleteKeys(ctx context.Context, id policy.AccountID) (int, error) {
	noAccount := []guard{{key: s.names.account(id)}}
	if err := s.forgetUsage(ctx, id, noAccount, everyKey); err != nil {
		return 0, err
	}
	for deleted := 0; ; {
		entries, err := s.someOfIndex(ctx, id, deletePortion)
		if err != nil || len(entries) == 0 {
			return deleted, err
		}
		for portion := range slices.Chunk(entries, deletePortion) {
			if err := s.deletePortionOf(ctx, id, noAccount, portion); err != nil {
				return 0, err
			}
		}
		deleted += len(entries)
	}
}

func (s *Store) deletePortionOf(ctx context.Context, id policy.AccountID, guards []guard, portion []indexEntry) error {
	ids := make([]policy.KeyID, len(portion))
	c := change{guards: guards}
	for i, e := range portion {
		ids[i] = policy.KeyID(e.id)
		c.steps = append(c.steps, step{Kind: stepDel, Key: s.names.key(e.tokenHash)})
		for _, field := range fieldsOfID(e.id) {
			c.steps = append(c.steps, step{Kind: stepHDel, Key: s.names.accountKeys(id), Field: field})
		}
		c.steps = append(c.steps, s.publishKey(e.tokenHash))
	}
	if err := s.forgetUsage(ctx, id, guards, ids...); err != nil {
		return err
	}
	return s.commit(ctx, c)
}

// readAccount returns the account as it is now and the bytes it is stored as,
// for a guard; ErrNotFound when there is none.
func (s *Store) readAccount(ctx context.Context, id policy.AccountID) (*storedAccount, string, error) {
	raw, err := s.readRaw(ctx, s.names.account(id))
	if err != nil {
		return nil, "", err
	}
	if raw == "" {
		return nil, "", ErrNotFound
	}
	stored, err := decodeAccount(raw, id, s.catalogue())
	if err != nil {
		return nil, "", errors.Join(ErrUnavailable, err)
	}
	return stored, raw, nil
}

// readRaw returns what is stored under key now, "" for nothing. In an emptied
// store nothing is certain, not even that.
func (s *Store) readRaw(ctx context.Context, key string) (string, error) {
	v, err := s.reader.get(ctx, key)
	if err != nil {
		return "", errors.Join(ErrUnavailable, err)
	}
	if err := s.trust(key, v); errors.Is(err, ErrUnknownToken) {
		return "", nil // this node knows that it was deleted
	} else if err != nil {
		return "", err
	}
	return v.raw, nil
}
