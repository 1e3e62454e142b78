package signin

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

const (
	totpSecret = 20 // bytes: RFC 4226 §4 wants that many
	offerTime  = 30 * time.Minute
)

// Offer is a new secret for an authenticator. Nothing is set up by it.
type Offer struct {
	// Secret is what a person types, and URI what an authenticator scans.
	Secret, URI string
	// Sealed is the secret as the form brings it back: one that this user was
	// offered, in this session, so that nobody can make another user confirm a
	// secret of theirs.
	Sealed string
}

// String hides the secret from logs and errors.
func (Offer) String() string { return "offer(redacted)" }

// GoString hides the secret from %#v.
func (Offer) GoString() string { return "offer(redacted)" }

// OfferTOTP returns a secret for an authenticator that shows the issuer's name:
// the one of an earlier offer to this session while that is good, or a new one.
// It returns ErrHasTOTP.
func (a *Authenticator) OfferTOTP(ctx context.Context, ss *keystore.Session, from From, issuer, earlier string) (Offer, error) {
	u, err := a.self(ctx, ss, ss.Caller(from.Client, from.RequestID))
	if err != nil {
		return Offer{}, err
	}
	if u.Credentials.TOTPSecret != "" {
		return Offer{}, ErrHasTOTP
	}
	sealed, ok := readSeal(earlier)
	if !ok || !sealed.genuine(u, sealForOffer, ss.ID, a.o.Now()) {
		random := make([]byte, totpSecret)
		_, _ = rand.Read(random) // it never fails
		secret := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random)
		if sealed, err = newSeal(u, sealForOffer, secret, a.o.Now().Add(offerTime), ss.ID); err != nil {
			return Offer{}, fmt.Errorf("offer TOTP: %w", err)
		}
	}
	return Offer{Secret: sealed.payload, URI: otpauth(issuer, sealed.payload, u.User.Email), Sealed: sealed.String()}, nil
}

// otpauth is the URI by which authenticators take a secret over.
func otpauth(issuer, secret string, email keystore.Email) string {
	query := url.Values{"secret": {secret}, "issuer": {issuer}}
	return "otpauth://totp/" + url.PathEscape(issuer) + ":" + url.PathEscape(string(email)) + "?" + query.Encode()
}

// NewAuthenticator is an Offer as it was sealed, with a first code of its
// secret, and the password of who sets it up.
type NewAuthenticator struct{ Password, Sealed, Code string }

// String hides the secret from logs and errors.
func (NewAuthenticator) String() string { return "authenticator(redacted)" }

// GoString hides the secret from %#v.
func (NewAuthenticator) GoString() string { return "authenticator(redacted)" }

// EnableTOTP makes codes of the offered secret part of every sign-in of the
// user, who shows one of them, ends all its sessions and begins a new one. The
// recovery codes that it returns are known to nobody else. It returns
// ErrRefused for a wrong password, ErrWrongCode, ErrOfferOver, ErrHasTOTP, and
// keystore.ErrConflict; and ErrDone with the codes, but without a session.
func (a *Authenticator) EnableTOTP(ctx context.Context, ss *keystore.Session, from From, n NewAuthenticator) ([]string, Session, error) {
	by, u, err := a.again(ctx, ss, from, n.Password)
	if err != nil {
		return nil, Session{}, err
	}
	if u.Credentials.TOTPSecret != "" {
		return nil, Session{}, ErrHasTOTP
	}
	offer, ok := readSeal(n.Sealed)
	if !ok || !offer.genuine(u, sealForOffer, ss.ID, a.o.Now()) {
		return nil, Session{}, ErrOfferOver
	}
	step, ok := totpStep(offer.payload, n.Code, 0, a.o.Now())
	if !ok {
		return nil, Session{}, ErrWrongCode
	}
	codes, hashes := newRecovery()
	changed, err := a.o.Users.ChangeTOTP(ctx, by, u, offer.payload, step, hashes)
	if err != nil {
		return nil, Session{}, err
	}
	session, err := a.beginAnew(ctx, changed, from)
	return codes, session, err
}

// DisableTOTP does away with codes, for who shows the password and a last code
// of the authenticator or a recovery code, ends all sessions of the user and
// begins a new one. It returns ErrRefused for a wrong password, ErrWrongCode,
// keystore.ErrConflict, and ErrDone.
func (a *Authenticator) DisableTOTP(ctx context.Context, ss *keystore.Session, from From, current, code string) (Session, error) {
	by, u, err := a.again(ctx, ss, from, current)
	if err != nil {
		return Session{}, err
	}
	if _, ok := useCode(u.Credentials, code, a.o.Now()); !ok || u.Credentials.TOTPSecret == "" {
		return Session{}, ErrWrongCode
	}
	changed, err := a.o.Users.ChangeTOTP(ctx, by, u, "", 0, nil)
	if err != nil {
		return Session{}, err
	}
	return a.beginAnew(ctx, changed, from)
}

// self is the user of the session as it is now, or ErrNoSession when it may
// not go on.
func (a *Authenticator) self(ctx context.Context, ss *keystore.Session, by policy.Caller) (*keystore.SignInUser, error) {
	u, err := a.o.Users.UserForSignIn(ctx, by, ss.User.ID)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, ErrNoSession
	}
	if err != nil {
		return nil, err
	}
	if u.User.Epoch != ss.User.Epoch || u.User.Disabled {
		return nil, ErrNoSession
	}
	return u, nil
}
