package openid

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// metadata is what a provider says of itself.
type metadata struct {
	at       time.Time // when it said so
	provider *oidc.Provider
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
	// namesIssuer: the provider says in every answer whose it is (RFC 9207).
	namesIssuer bool
}

// try is one try to learn about a provider. What came of it is there when it
// has ended.
type try struct {
	ended chan struct{}
	at    time.Time // the end; zero while it goes on
	found *metadata
	err   error
}

// learn returns what the provider says of itself, asked at most once an hour.
// What it said last is believed until it says something else. Where it has said
// nothing yet, all wait for the same try, and no longer than their ctx.
func (p *Provider) learn(ctx context.Context) (*metadata, error) {
	known, t := p.recall(ctx)
	if known != nil {
		return known, nil
	}
	select {
	case <-t.ended:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	if t.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, brief(t.err))
	}
	return t.found, nil
}

// recall returns what is known, nil for nothing, and the last try. It begins
// one when it is time to.
func (p *Provider) recall(ctx context.Context) (*metadata, *try) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.o.Now()
	wanted := p.known == nil || now.Sub(p.known.at) >= fresh
	if wanted && p.last.allowsNext(now) {
		p.last = &try{ended: make(chan struct{})}
		// What others wait for does not end with this one's request, but with the
		// patience of the client.
		go p.run(context.WithoutCancel(ctx), p.last)
	}
	return p.known, p.last
}

// allowsNext reports whether another try may begin after this one.
func (t *try) allowsNext(now time.Time) bool {
	if t == nil {
		return true
	}
	return !t.at.IsZero() && (t.err == nil || now.Sub(t.at) >= pause)
}

// run carries the try out.
func (p *Provider) run(ctx context.Context, t *try) {
	found, err := p.discover(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	t.at, t.found, t.err = p.o.Now(), found, err
	if err == nil {
		found.at = t.at
		p.known = found
	}
	close(t.ended)
}

// discover asks the provider about itself (OpenID Connect Discovery §4).
func (p *Provider) discover(ctx context.Context) (*metadata, error) {
	provider, err := oidc.NewProvider(p.with(ctx), p.o.Issuer)
	if err != nil {
		return nil, err
	}
	var claims struct {
		JWKS        string   `json:"jwks_uri"`
		AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
		NamesIssuer bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := provider.Claims(&claims); err != nil {
		return nil, err
	}
	endpoint := provider.Endpoint()
	for _, to := range []string{endpoint.AuthURL, endpoint.TokenURL, claims.JWKS} {
		if err := p.sameTrust(to); err != nil {
			return nil, err
		}
	}
	endpoint.AuthStyle = authStyle(p.o.ClientSecret, claims.AuthMethods)
	return &metadata{
		provider: provider, namesIssuer: claims.NamesIssuer,
		oauth: oauth2.Config{
			ClientID: p.o.ClientID, ClientSecret: p.o.ClientSecret, Endpoint: endpoint, RedirectURL: p.o.RedirectURL,
			Scopes: append([]string{oidc.ScopeOpenID, "email", "profile"}, p.o.Scopes...),
		},
		// No "none", and nothing with a secret that both sides know.
		verifier: provider.Verifier(&oidc.Config{ClientID: p.o.ClientID, Now: p.o.Now, SupportedSigningAlgs: []string{
			oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
		}}),
	}, nil
}

// sameTrust refuses an endpoint in the clear of a provider that is not.
func (p *Provider) sameTrust(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return errors.New("an endpoint of the provider is missing")
	}
	issuer, err := url.Parse(p.o.Issuer)
	if err != nil || u.Scheme != "https" && u.Scheme != issuer.Scheme {
		return errors.New("an endpoint of the provider is not at an https URL")
	}
	return nil
}

// authStyle is how the client says who it is. It is never tried out: that
// would use up the code.
func authStyle(secret string, supported []string) oauth2.AuthStyle {
	if secret == "" || len(supported) > 0 && !slices.Contains(supported, "client_secret_basic") {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader // what OpenID Connect Core §9 presumes
}
