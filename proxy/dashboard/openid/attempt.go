package openid

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// Attempt is a sign-in that has begun. Its browser keeps it until the provider
// has sent the person back, and nobody else knows it.
type Attempt struct {
	Provider string `json:"provider"`
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"` // of PKCE (RFC 7636)
}

// String hides the attempt from logs and errors.
func (Attempt) String() string { return "attempt(redacted)" }

// GoString hides the attempt from %#v.
func (Attempt) GoString() string { return "attempt(redacted)" }

// Begin returns the URL at the provider where the person signs in, and the
// attempt that the answer must belong to. It returns ErrUnavailable.
func (p *Provider) Begin(ctx context.Context) (string, Attempt, error) {
	m, err := p.learn(ctx)
	if err != nil {
		return "", Attempt{}, err
	}
	a := Attempt{Provider: p.o.Name, State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier()}
	return m.oauth.AuthCodeURL(a.State, oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)), a, nil
}

func random() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // it never fails
	return base64.RawURLEncoding.EncodeToString(raw)
}

// Person is somebody whom the provider vouches for.
type Person struct {
	Identity keystore.Identity
	Account  policy.AccountID
	// Email is "" where the provider has named none.
	Email, Name string
}

// Finish returns the person whom the provider has sent back with this query.
// It returns one of the errors of this package.
func (p *Provider) Finish(ctx context.Context, a Attempt, query url.Values) (Person, error) {
	m, err := p.learn(ctx)
	if err != nil {
		return Person{}, err
	}
	code, err := p.answer(m, a, query)
	if err != nil {
		return Person{}, err
	}
	token, err := m.oauth.Exchange(p.with(ctx), code, oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return Person{}, exchangeError(err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Person{}, fmt.Errorf("%w: there is no ID token", ErrAnswer)
	}
	who, err := p.identify(ctx, m, a, raw)
	if err != nil {
		return Person{}, err
	}
	if p.lacks(who) {
		if err := p.ask(ctx, m, token, who); err != nil {
			return Person{}, err
		}
	}
	return p.person(who)
}

// answer is the code of a query that answers this attempt, and no other
// (RFC 6749 §4.1.2, RFC 9207). A parameter that is there twice is none.
func (p *Provider) answer(m *metadata, a Attempt, query url.Values) (string, error) {
	for _, name := range []string{"state", "iss", "error", "code"} {
		if len(query[name]) > 1 {
			return "", fmt.Errorf("%w: %s is there twice", ErrAnswer, name)
		}
	}
	switch issuer := query.Get("iss"); {
	case a.Provider != p.o.Name:
		return "", fmt.Errorf("%w: another provider was asked", ErrAnswer)
	case a.State == "" || subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(a.State)) != 1:
		return "", fmt.Errorf("%w: state", ErrAnswer)
	case query.Has("iss") && issuer != p.o.Issuer || !query.Has("iss") && m.namesIssuer:
		return "", fmt.Errorf("%w: iss", ErrAnswer)
	case query.Has("error"):
		return "", fmt.Errorf("%w: %w", ErrDenied, brief(fmt.Errorf("it says %q", query.Get("error"))))
	case query.Get("code") == "":
		return "", fmt.Errorf("%w: there is no code", ErrAnswer)
	}
	return query.Get("code"), nil
}

// exchangeError tells a code that is not taken from a provider that is down.
func exchangeError(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response.StatusCode < 500 {
		return fmt.Errorf("%w: %w", ErrAnswer, brief(err))
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, brief(err))
}
