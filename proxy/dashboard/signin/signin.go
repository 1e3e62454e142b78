package signin

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// signInTries is how often a sign-in is tried when the user or the account is
// changed while it goes on.
const signInTries = 3

// SignIn begins a session for who proves to be a user. It returns ErrRefused
// for an unknown e-mail address, a wrong password or code, a code that was used
// before, a disabled user and a suspended account, all alike and after the
// same work; ErrCodeNeeded; and *TooManyError. Every attempt counts.
func (a *Authenticator) SignIn(ctx context.Context, p Proof, from From) (Session, error) {
	email, err := keystore.ParseEmail(p.Email)
	if err != nil {
		email = "" // nobody's, at the price of somebody's
	}
	if err := a.attempt(email, from); err != nil {
		return Session{}, err
	}
	for range signInTries {
		user, err := a.signIn(ctx, email, p, from)
		if errors.Is(err, keystore.ErrConflict) {
			continue
		}
		if err != nil {
			return Session{}, err
		}
		return a.begin(ctx, user, from)
	}
	return Session{}, fmt.Errorf("sign in: %w", keystore.ErrConflict)
}

// attempt counts an attempt against the address, and then the e-mail address:
// who is over the one limit does not use up the other.
func (a *Authenticator) attempt(email keystore.Email, from From) error {
	now := a.o.Now()
	if err := a.addresses.take(nameOf(from.Client), now); err != nil {
		return err
	}
	return a.emails.take([]byte(email), now)
}

func (a *Authenticator) signIn(ctx context.Context, email keystore.Email, p Proof, from From) (keystore.User, error) {
	found, err := a.o.Users.UserByEmail(ctx, email)
	if err != nil && !errors.Is(err, keystore.ErrNotFound) {
		return keystore.User{}, err
	}
	if err != nil {
		found = &keystore.SignInUser{}
	}
	left, err := a.prove(ctx, found, p)
	if (err == nil || errors.Is(err, ErrCodeNeeded)) && (found.User.Disabled || found.Account.Status != policy.Active) {
		err = fmt.Errorf("%w: the user is disabled, or the account suspended", ErrRefused)
	}
	if errors.Is(err, ErrRefused) {
		a.refused(found, from, err)
		return keystore.User{}, ErrRefused
	}
	if err != nil {
		return keystore.User{}, err
	}
	by := policy.Caller{
		Account: found.Account, Client: from.Client, RequestID: from.RequestID,
		Person: policy.Actor{Kind: policy.ActorSession, ID: string(found.User.ID)},
	}
	return a.o.Users.SignedIn(ctx, by, found, left)
}

// prove returns the credentials that are left when the proof was used: with
// the code used up, and with a hash of today's cost. A user without a password
// is nobody. It returns ErrRefused and ErrCodeNeeded.
func (a *Authenticator) prove(ctx context.Context, u *keystore.SignInUser, p Proof) (keystore.Credentials, error) {
	left := u.Credentials
	matches, outdated, err := a.o.Passwords.Match(ctx, p.Password, left.PasswordHash)
	if err != nil {
		return left, fmt.Errorf("prove password: %w", err)
	}
	if !matches {
		return left, fmt.Errorf("%w: the e-mail address or the password is wrong", ErrRefused)
	}
	if left.TOTPSecret != "" {
		if p.Code == "" {
			return left, ErrCodeNeeded
		}
		var ok bool
		if left, ok = useCode(left, p.Code, a.o.Now()); !ok {
			return left, fmt.Errorf("%w: the code is wrong, or was used before", ErrRefused)
		}
	}
	if outdated {
		if left.PasswordHash, err = a.o.Passwords.Hash(ctx, p.Password); err != nil {
			return left, err
		}
	}
	return left, nil
}

// refused logs why: the person is not told.
func (a *Authenticator) refused(u *keystore.SignInUser, from From, why error) {
	a.o.Log.Info("sign-in refused",
		zap.String("account", string(u.User.Account)), zap.String("user", string(u.User.ID)), zap.String("client_address", addressOf(from)),
		zap.String("request_id", from.RequestID), zap.Error(why))
}

func addressOf(from From) string {
	if !from.Client.IsValid() {
		return ""
	}
	return from.Client.String()
}
