// Package openid asks identity providers who somebody is: OpenID Connect, with
// the authorization code flow and PKCE. It knows no users and no sessions;
// package signin does.
package openid

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"gatehouse/policy"
)

// What asking a provider can end with.
var (
	// ErrUnavailable: the provider does not answer, or not as one does.
	ErrUnavailable = errors.New("the identity provider does not answer")
	// ErrDenied: the provider says that it did not sign the person in.
	ErrDenied = errors.New("the identity provider did not sign the person in")
	// ErrAnswer: what came back is no answer to what was asked, or is not the
	// provider's.
	ErrAnswer = errors.New("the answer of the identity provider is not valid")
	// ErrUnverified: the provider has not verified the person's e-mail address.
	ErrUnverified = errors.New("the e-mail address is not verified")
	// ErrNoAccount: nothing says whose user the person would be.
	ErrNoAccount = errors.New("the person belongs to no account")
)

const (
	// patience is how long one request to a provider may take.
	patience = 5 * time.Second
	// pause is how long a provider is left alone that did not answer, from the
	// moment when that was clear: longer than patience, so that one which hangs
	// has people wait for half the time at most.
	pause = 10 * time.Second
	// fresh is how long what a provider says of itself is believed.
	fresh = time.Hour
	// maxAnswer bounds what is read of one answer, in bytes.
	maxAnswer = 1 << 20
)

// Options is what a Provider is made of. All are needed but ClientSecret,
// Scopes, and Transport.
type Options struct {
	// Name is the provider's in the configuration and in paths.
	Name string
	// Issuer is the provider's identifier, as it spells it itself.
	Issuer                 string
	ClientID, ClientSecret string
	// Scopes are asked for beside openid, email and profile.
	Scopes []string
	// RedirectURL is where the provider sends people back to.
	RedirectURL string
	Accounts    Accounts
	// TrustEmail takes e-mail addresses that the provider has not verified.
	TrustEmail bool
	Transport  http.RoundTripper
	Now        func() time.Time
}

// Accounts says of which account a person is a user: one of its fields is set.
type Accounts struct {
	// Fixed is the account of everybody.
	Fixed policy.AccountID
	// Claim is the name of the claim that holds the account's id.
	Claim string
	// Domains are accounts by the domain of the e-mail address, in lower case.
	Domains map[string]policy.AccountID
}

// include reports whether somebody may be a user of the account.
func (a *Accounts) include(account policy.AccountID) bool {
	for _, of := range a.Domains {
		if of == account {
			return true
		}
	}
	return a.Claim != "" || a.Fixed == account
}

// Provider is an identity provider. It is asked nothing before somebody wants
// to sign in. It may be used concurrently.
type Provider struct {
	o      Options
	client *http.Client

	mu    sync.Mutex
	known *metadata // nil before the first try that succeeded
	last  *try      // nil before the first
}

// New makes a Provider. It contacts nobody.
func New(o Options) (*Provider, error) {
	if o.Name == "" || o.Issuer == "" || o.ClientID == "" || o.RedirectURL == "" || o.Now == nil {
		return nil, errors.New("new identity provider: an option is missing")
	}
	if o.Accounts.Fixed == "" && o.Accounts.Claim == "" && len(o.Accounts.Domains) == 0 {
		return nil, errors.New("new identity provider: nothing says of which account its people are")
	}
	if len(o.Accounts.Domains) > 0 && o.TrustEmail {
		return nil, errors.New("new identity provider: an address that nobody has verified must not decide about the account")
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	return &Provider{o: o, client: &http.Client{
		Transport: bounded{o.Transport}, Timeout: patience,
		// A provider answers where it says that it does: a secret follows nobody elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// VouchesFor reports whether its people may be users of the account. Where the
// provider says of which account they are, it may be any.
func (p *Provider) VouchesFor(account policy.AccountID) bool { return p.o.Accounts.include(account) }

// with has the libraries use the provider's client.
func (p *Provider) with(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, p.client)
}

// bounded cuts answers that are too long to be any.
type bounded struct{ base http.RoundTripper }

// RoundTrip sends the request.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	return answer, nil
}

// maxCause bounds what is repeated of what somebody else says went wrong.
const maxCause = 200

// brief is the error with as much of its text as a log is to have.
func brief(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) { // its text repeats the whole answer
		err = fmt.Errorf("the token endpoint says %q", refused.ErrorCode)
	}
	if text := err.Error(); len(text) > maxCause {
		return errors.New(text[:maxCause])
	}
	return err
}
