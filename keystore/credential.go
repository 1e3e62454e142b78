package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gatehouse/policy"
)

// SignInUser is a user as it was read for a sign-in: what it has to prove, and
// the account that it would act for.
type SignInUser struct {
	User        User
	Credentials Credentials
	Account     *policy.Account

	stored storedUser
	guards []guard
}

// UserByEmail returns the user of the address, of any account, or ErrNotFound.
// It is for signing in alone.
func (s *Store) UserByEmail(ctx context.Context, e Email) (*SignInUser, error) {
	raw, err := s.readRaw(ctx, s.names.email(e.hashHex()))
	if err == nil && raw == "" {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("user by e-mail: %w", err)
	}
	found, err := s.claimed(ctx, e, raw)
	if err != nil {
		return nil, fmt.Errorf("user by e-mail: %w", err)
	}
	return found, nil
}

// UserForSignIn returns a user of the caller's account with its credentials,
// or ErrNotFound: for one who is signed in and has to prove it once more.
func (s *Store) UserForSignIn(ctx context.Context, by policy.Caller, id UserID) (*SignInUser, error) {
	now, stored, held, err := s.personAndUser(ctx, by, id)
	if err != nil {
		return nil, fmt.Errorf("user for sign-in: %w", err)
	}
	return &SignInUser{
		User: stored.user, Credentials: stored.credentials, Account: now.caller.Account, stored: *stored, guards: append(now.guards, held),
	}, nil
}

// SignIn is how a user has proven itself.
type SignIn struct {
	// Method is what the audit trail says: "password", or a provider's name.
	Method string
	// Left are the credentials that are left: a code that was used is used up.
	Left Credentials
	// Identity is what a provider vouches for, and the user's from then on.
	Identity Identity
}

// SignedIn notes that the user has proven itself with what was read. It returns
// ErrConflict, and has noted nothing, when user or account are not as they were
// read, so that of two who show the same code at the same time only one gets
// in; and ErrIdentityTaken.
func (s *Store) SignedIn(ctx context.Context, by policy.Caller, u *SignInUser, in SignIn) (User, error) {
	next := u.stored
	next.credentials = in.Left
	next.user.LastSignInAt = s.o.Now().UTC().Truncate(time.Second)
	guards, claim, err := s.identify(ctx, u, &next, in.Identity)
	if err != nil {
		return User{}, fmt.Errorf("note sign-in: %w", err)
	}
	raw, err := encodeUser(next)
	if err != nil {
		return User{}, err
	}
	err = s.commit(ctx, change{
		guards: guards, steps: append([]step{{Kind: stepSet, Key: s.names.user(next.user.Account, next.user.ID), Value: raw}}, claim...),
		event: s.eventOf(by, UserSignIn, next.user.Account, next.accountUID).
			aboutUser(next.user.ID, changesOf([]field{{"method", nil}}, []field{{"method", orNil(in.Method)}})),
	})
	if errors.Is(err, errMoved) {
		err = ErrConflict
	}
	if err != nil {
		return User{}, fmt.Errorf("note sign-in: %w", err)
	}
	return next.user, nil
}

// identify makes the identity the user's in next, and returns the guards and
// the step by which it is. A user has one for good.
func (s *Store) identify(ctx context.Context, u *SignInUser, next *storedUser, i Identity) ([]guard, []step, error) {
	guards := slices.Clone(u.guards)
	if i == (Identity{}) {
		return guards, nil, nil
	}
	if !i.valid() || u.User.Identity != (Identity{}) && u.User.Identity != i {
		return nil, nil, ErrIdentityTaken
	}
	held, claim, err := s.claimIdentity(ctx, i, &next.user)
	if err != nil {
		return nil, nil, err
	}
	next.user.Identity = i
	return append(guards, held), []step{claim}, nil
}

// SetPassword gives a user of the caller's account another password, whatever
// it was before, and ends all its sessions. It returns ErrNotFound.
func (s *Store) SetPassword(ctx context.Context, by policy.Caller, id UserID, hash string, mustChange bool) error {
	_, err := s.changeUser(ctx, by, id, UserPassword, func(u *storedUser) error {
		u.credentials.PasswordHash, u.user.MustChange, u.user.HasPassword = hash, mustChange, hash != ""
		u.user.Epoch++
		return nil
	})
	if err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	return nil
}

// ChangePassword gives the user the password that it has chosen itself, ends
// all its sessions and returns the user as it is then. It returns ErrNotFound,
// and ErrConflict when the credentials are not those that were read any more.
func (s *Store) ChangePassword(ctx context.Context, by policy.Caller, proven *SignInUser, hash string) (User, error) {
	after, err := s.changeUser(ctx, by, proven.User.ID, UserPassword, func(u *storedUser) error {
		if err := u.succeed(proven); err != nil {
			return err
		}
		u.credentials.PasswordHash, u.user.MustChange, u.user.HasPassword = hash, false, hash != ""
		return nil
	})
	if err != nil {
		return User{}, fmt.Errorf("change password: %w", err)
	}
	return after, nil
}

// ChangeTOTP makes codes of the secret part of every sign-in, with recovery
// codes that replace them once each; "" and none do away with it. The time step
// is that of a code that was shown for it, and is not taken again. It ends all
// sessions, and returns what ChangePassword does.
func (s *Store) ChangeTOTP(ctx context.Context, by policy.Caller, proven *SignInUser, secret string, step int64, recovery []string) (User, error) {
	after, err := s.changeUser(ctx, by, proven.User.ID, UserTOTP, func(u *storedUser) error {
		if err := u.succeed(proven); err != nil {
			return err
		}
		if was := proven.Credentials; u.credentials.TOTPStep != was.TOTPStep || !slices.Equal(u.credentials.Recovery, was.Recovery) {
			return ErrConflict // the code that proved it was used elsewhere
		}
		u.credentials.TOTPSecret, u.credentials.TOTPStep, u.credentials.Recovery = secret, step, recovery
		u.user.TOTP = secret != ""
		return nil
	})
	if err != nil {
		return User{}, fmt.Errorf("change TOTP: %w", err)
	}
	return after, nil
}

// succeed ends the sessions of a user who was changed on the strength of what
// was read; or returns ErrConflict, when an operator or another session of the
// user came first.
func (u *storedUser) succeed(proven *SignInUser) error {
	if u.user.Epoch != proven.User.Epoch || u.user.ID != proven.User.ID || u.accountUID != proven.stored.accountUID {
		return ErrConflict
	}
	u.user.Epoch++
	return nil
}

// EndSessions signs a user of the caller's account out everywhere, or returns
// ErrNotFound.
func (s *Store) EndSessions(ctx context.Context, by policy.Caller, id UserID) error {
	_, err := s.changeUser(ctx, by, id, UserSignOut, func(u *storedUser) error {
		u.user.Epoch++
		return nil
	})
	if err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	return nil
}

// changeUser changes a user in one commit and returns it as it is then. What
// becomes of its sessions is a matter of the epoch; their records are removed
// behind that.
func (s *Store) changeUser(ctx context.Context, by policy.Caller, id UserID, action Action, alter func(*storedUser) error) (User, error) {
	var after User
	err := s.retry(func() error {
		now, stored, held, err := s.personAndUser(ctx, by, id)
		if err != nil {
			return err
		}
		before := *stored
		if err := alter(stored); err != nil {
			return err
		}
		after = stored.user
		raw, err := encodeUser(*stored)
		if err != nil || raw == held.want {
			return err
		}
		steps := []step{{Kind: stepSet, Key: held.key, Value: raw}}
		if stored.user.Epoch != before.user.Epoch {
			ended, err := s.sessionIndex(ctx, before.user.Account, id)
			if err != nil {
				return err
			}
			for _, e := range ended {
				steps = append(steps, s.removeSession(before.user.Account, id, e)...)
			}
		}
		return s.commit(ctx, change{
			guards: append(now.guards, held), steps: steps,
			event: s.eventOf(now.caller, action, before.user.Account, now.accountUID).
				aboutUser(id, changesOf(userFields(&before.user), userFields(&after))),
		})
	})
	return after, err
}
