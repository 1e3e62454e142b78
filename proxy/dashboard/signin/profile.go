package signin

import (
	"context"
	"errors"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/password"
)

// again asks somebody who is signed in for the password once more: a browser
// that was left open must not be enough. It counts like a sign-in.
func (a *Authenticator) again(ctx context.Context, ss *keystore.Session, from From, current string) (policy.Caller, *keystore.SignInUser, error) {
	by := ss.Caller(from.Client, from.RequestID)
	if err := a.attempt(ss.User.Email, from); err != nil {
		return by, nil, err
	}
	u, err := a.o.Users.UserForSignIn(ctx, by, ss.User.ID)
	if errors.Is(err, keystore.ErrNotFound) {
		return by, nil, ErrNoSession
	}
	if err != nil {
		return by, nil, err
	}
	if u.User.Epoch != ss.User.Epoch || u.User.Disabled {
		return by, nil, ErrNoSession
	}
	matches, _, err := a.o.Passwords.Match(ctx, current, u.Credentials.PasswordHash)
	if err == nil && !matches {
		a.refused(u, from, errors.New("the current password is wrong"))
		err = ErrRefused
	}
	return by, u, err
}

// ChangePassword gives the user another password, ends all its sessions, and
// begins a new one. It returns ErrRefused for a wrong current password,
// ErrSamePassword, and the errors of password.Check.
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
		return Session{}, err
	}
	if err := a.o.Users.SetPassword(ctx, by, u.User.ID, hash, false); err != nil {
		return Session{}, err
	}
	return a.beginAnew(ctx, by, u.User.ID, from)
}

// EnableTOTP makes codes of the secret part of every sign-in of the user, who
// shows one of them, ends all its sessions and begins a new one. The recovery
// codes that it returns are known to nobody else. It returns ErrRefused for a
// wrong password or code.
func (a *Authenticator) EnableTOTP(ctx context.Context, ss *keystore.Session, from From, t NewAuthenticator) ([]string, Session, error) {
	by, u, err := a.again(ctx, ss, from, t.Password)
	if err != nil {
		return nil, Session{}, err
	}
	if err := checkSecret(t.Secret); err != nil {
		return nil, Session{}, err
	}
	step, ok := totpStep(t.Secret, t.Code, 0, a.o.Now())
	if !ok {
		return nil, Session{}, ErrRefused
	}
	codes, hashes := newRecovery()
	if err := a.o.Users.SetTOTP(ctx, by, u.User.ID, t.Secret, step, hashes); err != nil {
		return nil, Session{}, err
	}
	session, err := a.beginAnew(ctx, by, u.User.ID, from)
	return codes, session, err
}

// NewAuthenticator is the secret of NewTOTP with a first code of it, and the
// password of who sets it up.
type NewAuthenticator struct{ Password, Secret, Code string }

// String hides the secret from logs and errors.
func (NewAuthenticator) String() string { return "authenticator(redacted)" }

// GoString hides the secret from %#v.
func (NewAuthenticator) GoString() string { return "authenticator(redacted)" }

// DisableTOTP does away with codes, ends all sessions of the user and begins a
// new one. It returns ErrRefused for a wrong password.
func (a *Authenticator) DisableTOTP(ctx context.Context, ss *keystore.Session, from From, current string) (Session, error) {
	by, u, err := a.again(ctx, ss, from, current)
	if err != nil {
		return Session{}, err
	}
	if err := a.o.Users.SetTOTP(ctx, by, u.User.ID, "", 0, nil); err != nil {
		return Session{}, err
	}
	return a.beginAnew(ctx, by, u.User.ID, from)
}

// beginAnew begins a session in place of those that a change has ended.
func (a *Authenticator) beginAnew(ctx context.Context, by policy.Caller, id keystore.UserID, from From) (Session, error) {
	u, err := a.o.Users.UserForSignIn(ctx, by, id)
	if err != nil {
		return Session{}, err
	}
	return a.begin(ctx, u.User, from)
}
