package keystore

import (
	"context"
	"errors"
	"fmt"

	"gatehouse/policy"
)

// standing is what a caller is at this moment, and the guards that hold it
// until the commit.
type standing struct {
	caller     policy.Caller
	accountUID string
	guards     []guard
}

// standing reads the caller's account, and its key or session, anew. They must
// still hold what the change needs: a request may have been long under way. It
// returns ErrNotFound for an account that is gone, ErrUnknownToken for a key that
// is gone, ErrCallerReplaced, ErrNoSession, and a *RefusedError for a caller that
// may not do it any more.
func (s *Store) standing(ctx context.Context, by policy.Caller, needs policy.Permission) (*standing, error) {
	now, err := s.standingAccount(ctx, by)
	switch {
	case err != nil || operates(by):
	case by.Key != nil:
		err = s.addKey(ctx, now, by, needs)
	default:
		err = s.addSession(ctx, now, by, needs)
	}
	if by.Key == nil && !operates(by) && errors.Is(err, ErrNotFound) {
		err = ErrNoSession
	}
	if err != nil {
		return nil, fmt.Errorf("caller: %w", err)
	}
	return now, nil
}

// standingAccount is what every caller must have.
func (s *Store) standingAccount(ctx context.Context, by policy.Caller) (*standing, error) {
	if by.Account == nil {
		return nil, ErrNotFound
	}
	account, raw, err := s.readAccount(ctx, by.Account.ID)
	if err != nil {
		return nil, fmt.Errorf("account: %w", err)
	}
	return &standing{
		caller:     policy.Caller{Account: &account.rules, Client: by.Client, Person: by.Person, Session: by.Session, RequestID: by.RequestID},
		accountUID: account.uid,
		guards:     []guard{{key: s.names.account(by.Account.ID), want: raw}},
	}, nil
}

// addKey is what the caller's key must still hold.
func (s *Store) addKey(ctx context.Context, now *standing, by policy.Caller, needs policy.Permission) error {
	key, held, err := s.readKey(ctx, by.Account.ID, by.Key.ID)
	if errors.Is(err, ErrNotFound) || (err == nil && key.accountUID != now.accountUID) {
		return ErrUnknownToken
	}
	if err != nil {
		return err
	}
	if key.key.Replaced() {
		return ErrCallerReplaced
	}
	now.caller.Key = &key.key
	now.guards = append(now.guards, held)
	usable := policy.Decide(policy.Request{At: s.o.Now(), Client: by.Client, Needs: needs}, &key.key, now.caller.Account)
	if !usable.Allowed() {
		return &RefusedError{Decision: usable}
	}
	return nil
}

// target reads the key that the caller wants to change, with the guard that
// holds it, and refuses the caller's own.
func (s *Store) target(ctx context.Context, by policy.Caller, id policy.KeyID, needs policy.Permission) (*standing, *storedKey, guard, error) {
	now, err := s.standing(ctx, by, needs)
	if err != nil {
		return nil, nil, guard{}, err
	}
	if by.Key != nil && by.Key.ID == id {
		return nil, nil, guard{}, ErrKeyInUse
	}
	key, held, err := s.readKey(ctx, by.Account.ID, id)
	if err == nil && key.accountUID != now.accountUID {
		err = ErrNotFound
	}
	if err != nil {
		return nil, nil, guard{}, err
	}
	return now, key, held, nil
}

// subaccounts: those that were named, or else all that the caller can access.
func (st *standing) subaccounts(named []policy.SubaccountID) policy.SubaccountSet {
	if len(named) == 0 {
		return st.caller.Inherit()
	}
	return policy.OnlySubaccounts(named...)
}

// checkAfter: what an update adds must be the caller's to give, and what it
// leaves must be held.
func (st *standing) checkAfter(before, after *policy.Key, d policy.Delegation) error {
	added := policy.Grant{
		Permissions: before.Permissions.Missing(after.Permissions),
		Subaccounts: policy.OnlySubaccounts(before.Subaccounts.Missing(after.Subaccounts)...),
		Addresses:   after.Addresses, Expiry: after.Expiry,
	}
	if err := st.caller.CheckGrant(added, d); err != nil {
		return err
	}
	if err := st.caller.CheckHolds(after, d); err != nil {
		return err
	}
	return reachesSomething(after.Subaccounts)
}

// reachesSomething refuses a key that could reach no subaccount at all: its
// empty list would read as "all of them".
func reachesSomething(s policy.SubaccountSet) error {
	if !s.All() && len(s.IDs()) == 0 {
		return &policy.Excess{AllSubaccounts: true}
	}
	return nil
}

// readKey finds a key of the account by its id. It returns the guard that
// holds it as it was read.
func (s *Store) readKey(ctx context.Context, account policy.AccountID, id policy.KeyID) (*storedKey, guard, error) {
	entry, err := s.indexEntryOf(ctx, account, id)
	if errors.Is(err, ErrNotFound) {
		// Nothing is read into an empty answer of an emptied store.
		if _, err := s.readRaw(ctx, s.names.account(account)); err != nil {
			return nil, guard{}, err
		}
	}
	if err != nil {
		return nil, guard{}, err
	}
	name := s.names.key(entry.tokenHash)
	raw, err := s.readRaw(ctx, name)
	if err != nil {
		return nil, guard{}, err
	}
	key, err := decodeIndexed(raw, entry.tokenHash, account, id)
	if err == nil {
		key.indexed = entry.created
	}
	if err == nil && lapsed(&key.key, s.o.Now()) {
		return nil, guard{}, ErrNotFound
	}
	return key, guard{key: name, want: raw}, err
}

// decodeIndexed decodes a record and checks that it is the one its index
// entry means. It returns ErrNotFound for no record.
func decodeIndexed(raw, tokenHash string, account policy.AccountID, id policy.KeyID) (*storedKey, error) {
	if raw == "" {
		return nil, ErrNotFound
	}
	key, err := decodeKey(raw, tokenHash)
	if err != nil {
		return nil, errors.Join(ErrUnavailable, err)
	}
	if key.key.Account != account || key.key.ID != id {
		return nil, fmt.Errorf("%w: %w of key %s: its index names another", ErrUnavailable, errRecord, id)
	}
	return key, nil
}
