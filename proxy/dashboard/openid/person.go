package openid

import (
	"context"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/oauth2"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// claims are what a provider says of a person.
type claims struct {
	Subject  string
	Email    string
	Verified bool
	Name     string
	all      map[string]any
}

// identify checks the ID token as OpenID Connect Core §3.1.3.7 says: issuer,
// audience, signature and expiry are the verifier's.
func (p *Provider) identify(ctx context.Context, m *metadata, a Attempt, raw string) (*claims, error) {
	token, err := m.verifier.Verify(p.with(ctx), raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, brief(err))
	}
	if a.Nonce == "" || subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(a.Nonce)) != 1 {
		return nil, fmt.Errorf("%w: nonce", ErrAnswer)
	}
	all := map[string]any{}
	if err := token.Claims(&all); err != nil {
		return nil, fmt.Errorf("%w: claims", ErrAnswer)
	}
	switch party, named := all["azp"]; {
	case named && party != p.o.ClientID, !named && len(token.Audience) > 1:
		return nil, fmt.Errorf("%w: azp", ErrAnswer)
	case !p.o.Now().Before(token.Expiry): // the verifier takes the very second of the expiry
		return nil, fmt.Errorf("%w: it has expired", ErrAnswer)
	case token.Subject == "":
		return nil, fmt.Errorf("%w: there is no subject", ErrAnswer)
	}
	who := &claims{Subject: token.Subject}
	who.take(all)
	return who, nil
}

// take adds claims to those that are known; what is known stays. Whether an
// address is verified is said by whoever names the address, and by nobody else.
func (c *claims) take(more map[string]any) {
	all := maps.Clone(more)
	maps.Copy(all, c.all)
	c.all = all
	if c.Email == "" {
		c.Email, _ = more["email"].(string)
		verified, _ := more["email_verified"].(bool)
		c.Verified = verified && c.Email != ""
	}
	c.Name, _ = all["name"].(string)
}

// ask asks the UserInfo endpoint for what the ID token leaves out: many
// providers name the e-mail address there alone.
func (p *Provider) ask(ctx context.Context, m *metadata, token *oauth2.Token, who *claims) error {
	endpoint := m.provider.UserInfoEndpoint()
	if endpoint == "" {
		return nil
	}
	if err := p.sameTrust(endpoint); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	info, err := m.provider.UserInfo(p.with(ctx), oauth2.StaticTokenSource(token))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, brief(err))
	}
	more := map[string]any{}
	if info.Subject != who.Subject || info.Claims(&more) != nil { // OpenID Connect Core §5.3.2
		return fmt.Errorf("%w: the UserInfo endpoint speaks of somebody else", ErrAnswer)
	}
	more["email_verified"] = info.EmailVerified // some spell it as a text there
	who.take(more)
	return nil
}

// lacks reports whether something is missing that is needed.
func (p *Provider) lacks(who *claims) bool {
	claim := p.o.Accounts.Claim
	_, named := who.all[claim]
	return who.Email == "" || claim != "" && !named
}

// person says of which account the person is.
func (p *Provider) person(who *claims) (Person, error) {
	switch {
	case p.o.TrustEmail:
	case who.Email == "":
		return Person{}, fmt.Errorf("%w: there is no e-mail address", ErrNoAccount)
	case !who.Verified:
		return Person{}, ErrUnverified
	}
	account := p.o.Accounts.Fixed
	switch {
	case p.o.Accounts.Claim != "":
		name, _ := who.all[p.o.Accounts.Claim].(string)
		account = policy.AccountID(name)
	case len(p.o.Accounts.Domains) > 0:
		email, err := keystore.ParseEmail(who.Email)
		if err != nil {
			return Person{}, ErrNoAccount
		}
		account = p.o.Accounts.Domains[string(email)[strings.LastIndex(string(email), "@")+1:]]
	}
	if !policy.ValidAccountID(string(account)) {
		return Person{}, ErrNoAccount
	}
	return Person{Identity: keystore.Identity{Issuer: p.o.Issuer, Subject: who.Subject}, Account: account, Email: who.Email, Name: who.Name}, nil
}

// reserved are claims that say something else than an account.
func reserved() []string {
	return []string{"iss", "sub", "aud", "exp", "iat", "nbf", "nonce", "azp", "acr", "amr", "auth_time", "at_hash", "c_hash", "jti", "email", "email_verified", "name"}
}

// IsAccountClaim reports whether a claim of that name can hold an account.
func IsAccountClaim(name string) bool { return name != "" && !slices.Contains(reserved(), name) }
