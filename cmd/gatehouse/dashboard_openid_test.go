package main_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/dashboard/openid/openidtest"
)

// TestSignInAtAProviderInABrowser: the whole way, against the binary, and one
// that a reload of the configuration has brought.
func TestSignInAtAProviderInABrowser(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	base := "http://" + d.addr
	provider := openidtest.Start(t, time.Now)
	provider.Redirect = dashboard.RedirectURL(base, "sso")
	d.reload(t, func(s *settings) {
		s.Dashboard = `{url: "` + base + `", providers: [{name: sso, label: Example ID, issuer: "` + provider.URL + `", client_id: ` + openidtest.ClientID +
			`, client_secret: "` + openidtest.ClientSecret + `", account: acme}]}`
	})
	b := d.tab(t, wide)
	b.open("/dashboard/profile")
	b.at("/dashboard/sign-in")
	b.shows("Continue with Example ID")
	b.isAccessible("sign-in")
	if dir := os.Getenv("GATEHOUSE_PICTURES"); dir != "" {
		b.picture(filepath.Join(dir, "sign-in-provider.png"))
	}
	b.click("Continue with Example ID")
	b.at("/dashboard/profile")
	b.shows("Example ID")
	b.shows(adaEmail)
	b.click("Sign out everywhere")
	b.shows("You are signed out everywhere.")
	provider.Claims["sub"] = "somebody else"
	b.click("Continue with Example ID")
	b.shows("You are signed in at Example ID, and may not sign in here.")
}
