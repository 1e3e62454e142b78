package signin

import (
	"context"
	"errors"
	"fmt"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/password"
)

// again asks somebody who is signed in for the password once more: a browser
// that was left open must not be enough. It counts against a limit of the user's
// own, which nobody uses up who is not signed in.
func (a *Authenticator) again(ctx context.Context, ss *keystore.Session, from From, current string) (policy.Caller, *keystore.SignInUser, error) {
	by := ss.Caller(from.Client, from.RequestID)
	if err := a.limits.users.take([]byte(ss.User.ID), a.o.Now()); err != nil {
		return by, nil, a.limited(from, err)
	}
	u, err := a.self(ctx, ss, by)
	if err != nil {
		return by, nil, err
	}
	matches, _, err := a.o.Passwords.Match(ctx, current, u.Credentials.PasswordHash)
	if err == nil && !matches {
		a.refused(u, from, errors.New("the current password is wrong"))
		err = ErrRefused
	}
	return by, u, a.unhurried(from, err)
}

// RecoveryLeft is how many recovery codes the user has that still work.
func (a *Authenticator) RecoveryLeft(ctx context.Context, ss *keystore.Session, from From) (int, error) {
	u, err := a.self(ctx, ss, ss.Caller(from.Client, from.RequestID))
	if err != nil {
		return 0, err
	}
	return len(u.Credentials.Recovery), nil
}

// ChangePassword gives the user another password, ends all its sessions, and
// begins a new one. It returns ErrRefused for a wrong current password,
// ErrSamePassword, the errors of password.Check, and keystore.ErrConflict when
// the password was changed by somebody else meanwhile. With ErrDone it is
// changed, and there is no session.
func (a *Authenticator) ChangePassword(ctx context.Context, ss *keystore.Session, from From, current, chosen string) (Session, error) {
	by, u, err := a.again(ctx, ss, from, current)
	if err != nil {
		return Session{}, err
	}
	if err := password.Check(chosen, string(u.User.Email)); err != nil {
		return Session{}, err
	}
	if chosen == current {
		return Session{}, ErrSamePassword
	}
	hash, err := a.o.Passwords.Hash(ctx, chosen)
	if err != nil {
		return Session{}, a.unhurried(from, err)
	}
	changed, err := a.o.Users.ChangePassword(ctx, by, u, hash)
	if err != nil {
		return Session{}, err
	}
	return a.beginAnew(ctx, changed, from)
}

// ErrDone says that a change was made and all sessions of the user have ended,
// but that no new one could begin: the user has to sign in again.
var ErrDone = errors.New("the change is made, but no session has begun")

// beginAnew begins a session in place of those that a change has ended. The
// change stands whatever comes of it: every error is ErrDone.
func (a *Authenticator) beginAnew(ctx context.Context, u keystore.User, from From) (Session, error) {
	s, err := a.begin(ctx, u, from, "")
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrDone, err)
	}
	return s, err
}
