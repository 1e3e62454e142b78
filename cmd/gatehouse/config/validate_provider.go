package config

import (
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"gatehouse/policy"
	"gatehouse/proxy/dashboard/openid"
)

// providerName is a path segment that needs no escapes.
var providerName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func (v *validator) providers(p path, d Dashboard) {
	v.dashboardURL(p.key("url"), d)
	if !d.PasswordSignIn && len(d.Providers) == 0 {
		v.refuse(p.key("password_sign_in"), "is false, and there are no providers, so that nobody could sign in", "leave it true, or write providers")
	}
	names, issuers := map[string]bool{}, map[string]bool{}
	for i := range d.Providers {
		at, provider := p.key("providers").index(i), &d.Providers[i]
		v.identityProvider(at, provider)
		if names[provider.Name] {
			v.refuse(at.key("name"), v.shown(at.key("name"))+" is there twice", "give each provider a name of its own")
		}
		if issuers[provider.Issuer] {
			v.refuse(at.key("issuer"), v.shown(at.key("issuer"))+" is there twice", "write one provider for each issuer")
		}
		names[provider.Name], issuers[provider.Issuer] = true, true
	}
}

// dashboardURL is needed where providers send people back to it.
func (v *validator) dashboardURL(p path, d Dashboard) {
	const mend = "write the URL that people open, such as https://dashboard.example.com"
	if d.URL == "" {
		if len(d.Providers) > 0 {
			v.refuse(p, "is missing, and providers have to be told where people come back to", mend)
		}
		return
	}
	u, err := url.Parse(d.URL)
	switch {
	case err != nil || !isOrigin(d.URL) || !isTrusted(u):
		v.refuse(p, v.shown(p)+" is not the https URL of a host, and nothing behind it", mend)
	case d.Host != "" && u.Hostname() != d.Host:
		v.refuse(p, v.shown(p)+" is not on dashboard.host", "write https://"+d.Host)
	}
}

// isTrusted: what goes over the network in the clear is read by others.
func isTrusted(u *url.URL) bool {
	if u.Scheme == "https" {
		return true
	}
	address, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && address.IsLoopback())
}

func (v *validator) identityProvider(p path, provider *IdentityProvider) {
	if !providerName.MatchString(provider.Name) {
		v.refuse(p.key("name"), v.shown(p.key("name"))+" is no name of a provider", "write 1 to 32 characters of a-z, 0-9 and -, such as acme-sso")
	}
	if label := strings.TrimSpace(provider.Label); label == "" || len(label) > 60 {
		v.refuse(p.key("label"), "is missing or too long", "write what people call the provider, in at most 60 bytes, such as Acme SSO")
	}
	issuer, err := url.Parse(provider.Issuer)
	if err != nil || issuer.Host == "" || issuer.User != nil || issuer.RawQuery != "" || issuer.Fragment != "" || !isTrusted(issuer) {
		v.refuse(p.key("issuer"), v.shown(p.key("issuer"))+" is no issuer", "write its https URL exactly as the provider does in /.well-known/openid-configuration")
	}
	if provider.ClientID == "" {
		v.refuse(p.key("client_id"), "is missing", "write the one that the provider has given this gateway")
	}
	for i, scope := range provider.Scopes {
		if scope == "" || strings.ContainsAny(scope, " \"\\") {
			v.refuse(p.key("scopes").index(i), "is no scope", "write one scope an item")
		}
	}
	v.accounts(p, provider)
}

// accounts: exactly one setting says whose users the provider's people are.
func (v *validator) accounts(p path, provider *IdentityProvider) {
	given := 0
	for _, is := range []bool{provider.Account != "", provider.AccountClaim != "", len(provider.AccountByDomain) > 0} {
		if is {
			given++
		}
	}
	if given != 1 {
		v.refuse(p, "does not say in one way of which account its people are", "write exactly one of account, account_claim and account_by_domain")
	}
	if provider.Account != "" && !policy.ValidAccountID(provider.Account) {
		v.refuse(p.key("account"), v.shown(p.key("account"))+" is no id of an account", "write 1 to 64 characters of A-Z, a-z, 0-9, ., _ and -")
	}
	if provider.AccountClaim != "" && !openid.IsAccountClaim(provider.AccountClaim) {
		v.refuse(p.key("account_claim"), v.shown(p.key("account_claim"))+" says something else", "name a claim that the provider fills with ids of accounts")
	}
	for _, domain := range slices.Sorted(maps.Keys(provider.AccountByDomain)) {
		at := p.key("account_by_domain").key(domain)
		if !isHostName(domain) {
			v.refuse(at, "is no domain of e-mail addresses", "write it in lower case, such as example.com")
		}
		if !policy.ValidAccountID(provider.AccountByDomain[domain]) {
			v.refuse(at, v.shown(at)+" is no id of an account", "write 1 to 64 characters of A-Z, a-z, 0-9, ., _ and -")
		}
	}
	if len(provider.AccountByDomain) > 0 && !provider.RequireVerifiedEmail {
		v.refuse(p.key("require_verified_email"), "is false, so that anybody could claim an address of these domains", "leave it true, or use account or account_claim")
	}
}
