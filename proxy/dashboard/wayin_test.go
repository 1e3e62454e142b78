package dashboard_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"gatehouse/policy"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/dashboard/openid"
	"gatehouse/proxy/dashboard/openid/openidtest"
)

func TestWithoutPasswordsThereAreProvidersAlone(t *testing.T) {
	t.Parallel()
	s := startSSO(t, func(*dashboard.Provider, *openid.Options) {})
	s.noPasswords = true
	s.serve(s.providers)
	page := s.get("/dashboard/sign-in")
	s.wants(page, http.StatusOK, "Continue with")
	if strings.Contains(page.body, `name="password"`) {
		t.Error("the page asks for a password")
	}
	s.wants(s.post("/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {userPassword}}), http.StatusNotFound)
	s.led(s.signInThere(), "/dashboard/keys")
	page = s.get("/dashboard/profile")
	if strings.Contains(page.body, `type="password"`) || strings.Contains(page.body, "Set up an authenticator") {
		t.Error("the profile offers a password")
	}
	s.wants(s.get("/dashboard/profile/totp"), http.StatusNotFound)
}

// TestSessionsEndWithTheWayInTheyBeganBy: a provider that is no longer trusted,
// and passwords that no longer sign in, leave nobody signed in.
func TestSessionsEndWithTheWayInTheyBeganBy(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	byPassword, byProvider := s.newBrowser(), s.newBrowser()
	in := func(browser *http.Client) bool {
		s.browser = browser
		return s.signedIn()
	}
	s.browser = byPassword
	s.signIn()
	s.browser = byProvider
	s.led(s.signInThere(), "/dashboard/keys")
	renamed, moved := s.providers[0], s.providers[0]
	renamed.Name, moved.Issuer = "other", "https://id.example.com"
	of := func(accounts openid.Accounts) []dashboard.Provider {
		asker, err := openid.New(openid.Options{
			Name: "sso", Issuer: s.at.URL, ClientID: openidtest.ClientID, RedirectURL: s.at.Redirect, Accounts: accounts, Now: s.clock,
		})
		s.must(err)
		p := s.providers[0]
		p.OpenID = asker
		return []dashboard.Provider{p}
	}
	for _, c := range []struct {
		name               string
		providers          []dashboard.Provider
		noPasswords        bool
		password, provider bool
	}{
		{"as they began", s.providers, false, true, true},
		{"the provider is gone", nil, false, true, false},
		{"another has its place", []dashboard.Provider{renamed}, false, true, false},
		{"another has its name", []dashboard.Provider{moved}, false, true, false},
		{"no passwords", s.providers, true, false, true},
		{"its people are another account's", of(openid.Accounts{Fixed: "zeta"}), false, true, false},
		{"no domain is the account's", of(openid.Accounts{Domains: map[string]policy.AccountID{"example.com": "zeta"}}), false, true, false},
		{"a domain is", of(openid.Accounts{Domains: map[string]policy.AccountID{"example.com": "zeta", "example.org": "acme"}}), false, true, true},
		{"it says itself of which account they are", of(openid.Accounts{Claim: "tenant"}), false, true, true},
	} {
		s.noPasswords = c.noPasswords
		s.serve(c.providers)
		if p, o := in(byPassword), in(byProvider); p != c.password || o != c.provider {
			t.Errorf("%s: signed in with a password: %t, at the provider: %t", c.name, p, o)
		}
	}
}
