package keystore

import (
	"context"
	"errors"
	"fmt"

	"gatehouse/policy"
)

// DeleteUser deletes a user of the caller's account, or returns ErrNotFound.
// Its sessions are dead from then on, and its e-mail address is free.
func (s *Store) DeleteUser(ctx context.Context, by policy.Caller, id UserID) error {
	var gone User
	err := s.retry(func() error {
		now, stored, held, err := s.personAndUser(ctx, by, id)
		if err != nil {
			return err
		}
		gone = stored.user
		steps, err := s.removeUser(ctx, stored.user.Account, id)
		if err != nil {
			return err
		}
		return s.commit(ctx, change{
			guards: append(now.guards, held), steps: steps,
			event: s.eventOf(now.caller, UserDelete, stored.user.Account, now.accountUID).aboutUser(id, changesOf(userFields(&stored.user), nil)),
		})
	})
	if err == nil {
		err = s.releaseClaims(ctx, &gone)
	}
	if err != nil {
		return fmt.Errorf("delete user: %w", err)
	}
	return nil
}

// removeUser deletes the record first: nothing else of a user counts without it.
func (s *Store) removeUser(ctx context.Context, account policy.AccountID, id UserID) ([]step, error) {
	steps := []step{{Kind: stepDel, Key: s.names.user(account, id)}}
	sessions, err := s.sessionIndex(ctx, account, id)
	if err != nil {
		return nil, err
	}
	for _, e := range sessions {
		steps = append(steps, step{Kind: stepDel, Key: s.names.session(e.tokenHash)})
	}
	return append(steps,
		step{Kind: stepDel, Key: s.names.sessions(account, id)},
		step{Kind: stepHDel, Key: s.names.users(account), Field: string(id)}), nil
}

// releaseClaims frees the e-mail address and the identity of a user that is no
// more.
func (s *Store) releaseClaims(ctx context.Context, gone *User) error {
	err := s.releaseClaim(ctx, gone, s.names.email(gone.Email.hashHex()))
	if err == nil && gone.Identity.valid() {
		err = s.releaseClaim(ctx, gone, s.names.identity(gone.Identity.hashHex()))
	}
	return err
}

// releaseClaim frees what a user that is no more had a claim to. It is a change of
// its own, so that on a Cluster too it holds only what is still the user's;
// where it does not come to it, a claim without a record is free as well.
func (s *Store) releaseClaim(ctx context.Context, gone *User, name string) error {
	claim := guard{key: name, want: claimOf(gone.Account, gone.ID)}
	err := s.commit(ctx, change{guards: []guard{claim}, steps: []step{{Kind: stepDel, Key: claim.key}}})
	if errors.Is(err, errMoved) {
		return nil // it is another's
	}
	return err
}

// deleteUsers deletes the users of an account that is no more, and returns how
// many there were; or errMoved when there is an account of that id again.
func (s *Store) deleteUsers(ctx context.Context, account policy.AccountID) (int, error) {
	entries, err := s.userIndex(ctx, account)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		gone := s.remembered(ctx, account, e)
		steps, err := s.removeUser(ctx, account, UserID(e.id))
		if err != nil {
			return 0, err
		}
		if err := s.commit(ctx, change{guards: []guard{{key: s.names.account(account)}}, steps: steps}); err != nil {
			return 0, err
		}
		if err := s.releaseClaim(ctx, gone, s.names.email(e.tokenHash)); err != nil {
			return 0, err
		}
		if gone.Identity.valid() {
			if err := s.releaseClaim(ctx, gone, s.names.identity(gone.Identity.hashHex())); err != nil {
				return 0, err
			}
		}
	}
	return len(entries), nil
}

// remembered is a user who is about to be deleted with its account, as far as
// that can be read: where it cannot, its identity stays claimed by nobody, which
// is free as well.
func (s *Store) remembered(ctx context.Context, account policy.AccountID, e indexEntry) *User {
	stored, _, err := s.readUser(ctx, account, UserID(e.id))
	if err != nil {
		return &User{ID: UserID(e.id), Account: account}
	}
	return &stored.user
}
