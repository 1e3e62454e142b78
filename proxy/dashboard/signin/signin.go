package signin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/password"
)

// signInTries is how often a sign-in is tried when the user or the account is
// changed while it goes on.
const signInTries = 3

// ticketTime is how long the code may come after the password.
const ticketTime = 5 * time.Minute

// CodeNeededError is ErrCodeNeeded, with what proves in place of the password
// that it was right: to this user, from the same address, for five minutes.
type CodeNeededError struct {
	Ticket string
	// Wrong: there was a code, which is wrong or was used before. Only who
	// shows a ticket is told.
	Wrong bool
}

func (*CodeNeededError) Error() string { return ErrCodeNeeded.Error() }

// Is makes it an ErrCodeNeeded.
func (*CodeNeededError) Is(target error) bool { return target == ErrCodeNeeded }

// GoString hides the ticket from %#v.
func (*CodeNeededError) GoString() string { return "code needed(redacted)" }

// SignIn begins a session for who proves to be a user. It returns ErrRefused
// for an unknown e-mail address, a wrong password or code, a code that was used
// before, a ticket that is not good, a disabled user and a suspended account,
// all alike and after the same work; *CodeNeededError; and *TooManyError. Every
// attempt counts.
func (a *Authenticator) SignIn(ctx context.Context, p Proof, from From) (begun Session, err error) {
	defer func() { a.counted(ByPassword, err) }()
	var ticket *seal
	if p.Ticket != "" {
		read, _ := readSeal(p.Ticket) // what cannot be read is nobody's
		ticket, p.Email = &read, read.payload
	}
	email, err := keystore.ParseEmail(p.Email)
	if err != nil {
		email = "" // nobody's, at the price of somebody's
	}
	if err := a.attempt(email, from); err != nil {
		return Session{}, err
	}
	if a.o.NoPasswords {
		return Session{}, ErrRefused
	}
	for range signInTries {
		user, err := a.signIn(ctx, email, proof{p, ticket}, from)
		if errors.Is(err, keystore.ErrConflict) {
			continue
		}
		if err != nil {
			return Session{}, err
		}
		return a.begin(ctx, user, from, "")
	}
	return Session{}, fmt.Errorf("sign in: %w", keystore.ErrConflict)
}

// methodOf is what the audit trail says of a sign-in with a password.
func methodOf(had, left keystore.Credentials) string {
	switch {
	case had.TOTPSecret == "":
		return "password"
	case len(left.Recovery) < len(had.Recovery):
		return "password and recovery code"
	}
	return "password and code"
}

// attempt counts an attempt against where it comes from, and then the e-mail
// address.
func (a *Authenticator) attempt(email keystore.Email, from From) error {
	now := a.o.Now()
	err := a.limits.from(from.Client, now)
	if err == nil {
		err = a.limits.to(string(email), from.Client, now)
	}
	return a.limited(from, err)
}

// limited logs a limit once until it lets something through again.
func (a *Authenticator) limited(from From, err error) error {
	var many *TooManyError
	if errors.As(err, &many) && many.first {
		a.o.Log.Warn("attempts to sign in limited", zap.String("gatehouse.limit", many.limit), zap.String("client.address", addressOf(from)),
			zap.String("gatehouse.request_id", from.RequestID))
	}
	return err
}

// busyPause is when to come back where too many passwords wait.
const busyPause = 5 * time.Second

// unhurried is the error of the hasher: *TooManyError where it is busy.
func (a *Authenticator) unhurried(from From, err error) error {
	if !errors.Is(err, password.ErrBusy) {
		a.busy.Store(false)
		return err
	}
	return a.limited(from, &TooManyError{RetryAfter: busyPause, limit: "hashing", first: a.busy.CompareAndSwap(false, true)})
}

// proof is a Proof whose ticket was read; nil where there is none.
type proof struct {
	Proof
	ticket *seal
}

func (a *Authenticator) signIn(ctx context.Context, email keystore.Email, p proof, from From) (keystore.User, error) {
	found, err := a.o.Users.UserByEmail(ctx, email)
	if err != nil && !errors.Is(err, keystore.ErrNotFound) {
		return keystore.User{}, err
	}
	if err != nil {
		found = &keystore.SignInUser{}
	}
	left, err := a.prove(ctx, found, p, from)
	if (err == nil || errors.Is(err, ErrCodeNeeded) || errors.Is(err, ErrWrongCode)) && (found.User.Disabled || found.Account.Status != policy.Active) {
		err = fmt.Errorf("%w: the user is disabled, or the account suspended", ErrRefused)
	}
	if errors.Is(err, ErrRefused) {
		a.refused(found, from, err)
		return keystore.User{}, ErrRefused
	}
	if errors.Is(err, ErrWrongCode) {
		a.refused(found, from, err)
		return keystore.User{}, &CodeNeededError{Ticket: p.Ticket, Wrong: true}
	}
	if err != nil {
		return keystore.User{}, err
	}
	return a.o.Users.SignedIn(ctx, personOf(found, from), found, keystore.SignIn{Method: methodOf(found.Credentials, left), Left: left})
}

// prove returns the credentials that are left when the proof was used: with
// the code used up, and with a hash of today's cost. A user without a password
// is nobody. It returns ErrRefused, ErrWrongCode and *CodeNeededError.
func (a *Authenticator) prove(ctx context.Context, u *keystore.SignInUser, p proof, from From) (keystore.Credentials, error) {
	left := u.Credentials
	if p.ticket != nil {
		return a.proveTicket(ctx, u, p, from)
	}
	matches, outdated, err := a.o.Passwords.Match(ctx, p.Password, left.PasswordHash)
	if err != nil {
		return left, fmt.Errorf("prove password: %w", a.unhurried(from, err))
	}
	if !matches {
		return left, fmt.Errorf("%w: the e-mail address or the password is wrong", ErrRefused)
	}
	if left.TOTPSecret != "" {
		if p.Code == "" {
			return left, a.askCode(u, from)
		}
		var ok bool
		if left, ok = useCode(left, p.Code, a.o.Now()); !ok {
			return left, fmt.Errorf("%w: the code is wrong, or was used before", ErrRefused)
		}
	}
	if outdated {
		if left.PasswordHash, err = a.o.Passwords.Hash(ctx, p.Password); err != nil {
			return left, a.unhurried(from, err)
		}
	}
	return left, nil
}

// askCode gives who has shown the right password a ticket.
func (a *Authenticator) askCode(u *keystore.SignInUser, from From) error {
	ticket, err := newSeal(u, sealForTicket, string(u.User.Email), a.o.Now().Add(ticketTime), addressOf(from))
	if err != nil {
		return fmt.Errorf("make ticket: %w", err)
	}
	return &CodeNeededError{Ticket: ticket.String()}
}

// proveTicket is prove for who has shown the password before. A ticket that is
// not good costs what a wrong password does, so that it tells nothing about
// whose address it names.
func (a *Authenticator) proveTicket(ctx context.Context, u *keystore.SignInUser, p proof, from From) (keystore.Credentials, error) {
	if !p.ticket.genuine(u, sealForTicket, addressOf(from), a.o.Now()) || u.Credentials.TOTPSecret == "" {
		if _, _, err := a.o.Passwords.Match(ctx, "", u.Credentials.PasswordHash); err != nil {
			return u.Credentials, fmt.Errorf("prove ticket: %w", a.unhurried(from, err))
		}
		return u.Credentials, fmt.Errorf("%w: the ticket is over, or was given to somebody else", ErrRefused)
	}
	if p.Code == "" {
		return u.Credentials, &CodeNeededError{Ticket: p.Ticket}
	}
	left, ok := useCode(u.Credentials, p.Code, a.o.Now())
	if !ok {
		return u.Credentials, ErrWrongCode
	}
	return left, nil
}

// refused logs why: the person is not told.
func (a *Authenticator) refused(u *keystore.SignInUser, from From, why error) {
	a.o.Log.Info("sign-in refused",
		zap.String("gatehouse.account", string(u.User.Account)), zap.String("gatehouse.user", string(u.User.ID)), zap.String("client.address", addressOf(from)),
		zap.String("gatehouse.request_id", from.RequestID), zap.Error(why))
}

func addressOf(from From) string {
	if !from.Client.IsValid() {
		return ""
	}
	return from.Client.String()
}
