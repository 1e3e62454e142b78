package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// TestProfileInABrowser: a person sets up an authenticator and signs in with
// it, changes its password, and signs out everywhere; on a wide screen and on a
// narrow and dark one without scripts.
func TestProfileInABrowser(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]screen{"wide": wide, "narrow": {width: 360, height: 740, dark: true, noScript: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startDesk(t).tab(t, s)
			look := func(page string) {
				t.Helper()
				b.fits(page)
				if dir := os.Getenv("GATEHOUSE_PICTURES"); dir != "" {
					b.picture(filepath.Join(dir, page+"-"+name+".png"))
				}
				if !s.noScript {
					b.isAccessible(page)
				}
			}
			b.signIn(adaEmail, adaPassword)
			b.open("/dashboard/profile")
			look("profile")
			b.click("Set up an authenticator")
			b.at("/dashboard/profile/totp")
			look("totp")
			secret := strings.Join(strings.Fields(ask(b, textOf(".secret"))), "")
			code := func(at time.Time) string {
				c, err := totp.GenerateCode(secret, at)
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			b.fill("Code that the app shows", "000000")
			b.fill("Your password", "wrong")
			b.click("Set up")
			b.shows("This is not your password.")
			look("totp-wrong")
			b.fill("Code that the app shows", code(time.Now()))
			b.fill("Your password", adaPassword)
			b.click("Set up")
			b.shows("Keep your recovery codes")
			look("recovery")
			recovery := ask(b, textOf(".recovery li:nth-child(2)"))
			b.click("I have kept them")
			b.at("/dashboard/profile")
			look("profile-on")
			b.click("Sign out everywhere")
			b.shows("You are signed out everywhere.")

			b.fill("E-mail address", adaEmail)
			b.fill("Password", adaPassword)
			b.click("Sign in")
			b.shows("Enter your code")
			look("second-step")
			b.fill("Authenticator code", recovery)
			b.click("Sign in")
			b.at("/dashboard/keys")
			b.open("/dashboard/profile")
			b.shows("9 of your recovery codes")
			b.fill("Current password", adaPassword)
			b.fill("New password", "seven geese went south")
			b.fill("New password, once more", "seven geese went north")
			b.click("Change password")
			b.shows("This is not the new password that stands above it.")
			look("profile-wrong")
			b.fill("Current password", adaPassword)
			b.fill("New password", "seven geese went south")
			b.fill("New password, once more", "seven geese went south")
			b.click("Change password")
			b.shows("Your password is changed")
			b.click("Remove the authenticator")
			look("totp-remove")
			b.fill("Your password", "seven geese went south")
			b.fill("Authenticator code", code(time.Now().Add(30*time.Second)))
			b.click("Remove")
			b.shows("The authenticator is removed")
		})
	}
}
