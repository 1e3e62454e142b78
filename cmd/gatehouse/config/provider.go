package config

import (
	"gatehouse/policy"
	"gatehouse/proxy/dashboard/openid"
)

// IdentityProvider is an OpenID provider by which people may sign in to the
// dashboard. Exactly one of Account, AccountClaim and AccountByDomain is set.
type IdentityProvider struct {
	// Name is in the paths of the dashboard, and Label on the button.
	Name  string `yaml:"name"`
	Label string `yaml:"label"`
	// Issuer is its identifier, as it spells it itself.
	Issuer       string   `yaml:"issuer"`
	ClientID     string   `yaml:"client_id"`
	ClientSecret Secret   `yaml:"client_secret"`
	Scopes       []string `yaml:"scopes"`
	// Account is that of everybody who signs in there.
	Account string `yaml:"account"`
	// AccountClaim is the name of the claim that holds the account's id.
	AccountClaim string `yaml:"account_claim"`
	// AccountByDomain are accounts by the domain of the e-mail address.
	AccountByDomain map[string]string `yaml:"account_by_domain"`
	// CreateUsers makes users of people who are none yet.
	CreateUsers bool `yaml:"create_users"`
	// RequireVerifiedEmail refuses addresses that the provider has not verified.
	RequireVerifiedEmail bool `yaml:"require_verified_email"`
}

func (p *IdentityProvider) setDefaults() {
	*p = IdentityProvider{Scopes: []string{}, RequireVerifiedEmail: true}
}

// Accounts are the accounts of the provider's people.
func (p *IdentityProvider) Accounts() openid.Accounts {
	a := openid.Accounts{Fixed: policy.AccountID(p.Account), Claim: p.AccountClaim, Domains: map[string]policy.AccountID{}}
	for domain, account := range p.AccountByDomain {
		a.Domains[domain] = policy.AccountID(account)
	}
	return a
}
