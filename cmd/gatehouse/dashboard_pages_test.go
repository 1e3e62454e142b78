package main_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

var pictures = flag.Bool("pictures", false, "rewrite the pictures in docs/dashboard")

// pictured are the pages whose pictures are in docs/dashboard.
var pictured = []string{"sign-in", "keys", "create", "errors", "token", "key", "edit", "regenerate", "revoke", "audit", "profile", "authenticator"}

// maxPage bounds what a page loads, all told, in bytes.
const maxPage = 150_000

// furnished is a desk with keys that have been used, for pages with something
// to show. It returns the one that has most of it.
func furnished(t *testing.T) (d *desk, main key) {
	t.Helper()
	d = startDesk(t)
	days := func(n int) *int64 {
		at := time.Now().Add(time.Duration(n) * 24 * time.Hour).Unix()
		return &at
	}
	d.firstKey(t, "acme", newKey{Name: "Old integration", Permissions: []string{"residential:read", "residential:write"}})
	d.firstKey(t, "acme", newKey{Name: "Data team notebook", Permissions: []string{"serp_api:read"}, Subaccounts: []string{subB}, ExpiresAt: days(4)})
	idle := d.firstKey(t, "acme", newKey{Name: "Reporting", Permissions: []string{"datacenter_shared:read", "account:usage:read"}, ExpiresAt: days(200)})
	d.operate(t, "DELETE", "/accounts/acme/keys/"+idle.ID, nil)
	d.firstKey(t, "acme", newKey{Name: "Deploy bot", Permissions: []string{"account:apikeys:create", "account:apikeys:read", "account:apikeys:regenerate"}, IPs: []string{"198.51.100.17"}})
	main = d.firstKey(t, "acme", newKey{
		Name: "CI pipeline", Permissions: []string{"datacenter_shared:read", "datacenter_shared:write", "residential:read"},
		Subaccounts: []string{subA, subB}, IPs: []string{"203.0.113.0/24", "2001:db8::/32"}, ExpiresAt: days(90),
	})
	store := d.store(t)
	now := time.Now()
	for hour := range 24 * 30 {
		at := now.Add(-time.Duration(hour) * time.Hour)
		for outcome, n := range map[string]int{"allowed": 40 + 25*(hour%7) + 10*(hour%24), "permission_denied": hour % 5, "rate_limited": (hour % 11) * 2, "upstream_timeout": hour % 3} {
			for range n {
				store.Count(keystore.CountedRequest{Key: policy.KeyID(main.ID), Account: "acme", Permission: "datacenter_shared:read", Outcome: outcome, At: at})
			}
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return d, main
}

// TestEveryPage is readable for everybody, on every screen, and loads little,
// from its own site alone. With -pictures it shows what they look like.
func TestEveryPage(t *testing.T) {
	t.Parallel()
	d, k := furnished(t)
	for _, s := range []struct {
		name string
		screen
	}{{"wide", wide}, {"wide-dark", screen{width: 1280, height: 900, dark: true}}, {"narrow", narrow}, {"narrow-dark", screen{width: 360, height: 740, dark: true}}} {
		t.Run(s.name, func(t *testing.T) {
			b := d.tab(t, s.screen)
			look := func(name string) {
				t.Helper()
				if s.name == "wide" || s.name == "narrow-dark" { // between them is all that axe looks at
					b.isAccessible(name)
				}
				b.fits(name)
				b.loadsLittle(name)
				if *pictures && slices.Contains(pictured, name) {
					b.picture(filepath.Join("..", "..", "docs", "dashboard", name+"-"+s.name+".png"))
				}
			}
			b.open("/dashboard/sign-in")
			look("sign-in")
			b.signIn(adaEmail, adaPassword)
			for _, page := range []struct{ name, path string }{
				{"keys", "/keys"},
				{"create", "/keys/new"},
				{"key", "/keys/" + k.ID},
				{"key-30-days", "/keys/" + k.ID + "?period=30d"},
				{"edit", "/keys/" + k.ID + "/edit"},
				{"disable", "/keys/" + k.ID + "/disable"},
				{"regenerate", "/keys/" + k.ID + "/regenerate"},
				{"revoke", "/keys/" + k.ID + "/revoke"},
				{"audit", "/audit"},
				{"profile", "/profile"},
				{"authenticator", "/profile/totp"},
				{"nothing", "/nothing"},
			} {
				b.open("/dashboard" + page.path)
				look(page.name)
			}
			b.open("/dashboard/keys/new")
			b.click("Create key")
			b.shows("A name is required.")
			look("errors")
			b.fill("Name", "Made on a "+s.name+" screen")
			b.click("Read All")
			b.click("Create key")
			b.shows("Copy your token")
			if *pictures {
				// What is shown to everybody is no token that works.
				b.run(chromedp.Evaluate[chromedp.Void](`for (const e of document.querySelectorAll("[data-secret]")) e.textContent = e.textContent.replace(/gk_\w{61}/, "gk_" + "x".repeat(61))`))
			}
			look("token")
			b.leaves = true
		})
	}
}

// loadsLittle checks what the page has loaded: so much, and from where.
func (b *tab) loadsLittle(name string) {
	b.t.Helper()
	type loaded struct {
		Name string
		Size int
	}
	total := 0
	for _, one := range script[[]loaded](b, `[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].map((e) => ({Name: e.name, Size: e.decodedBodySize}))`) {
		total += one.Size
		if !strings.HasPrefix(one.Name, b.base+"/") {
			b.t.Errorf("%s loads %s", name, one.Name)
		}
	}
	if total == 0 || total > maxPage {
		b.t.Errorf("%s loads %d bytes, of at most %d", name, total, maxPage)
	}
}

// TestPicturesAreThere for every page, wide and narrow, light and dark.
func TestPicturesAreThere(t *testing.T) {
	t.Parallel()
	for _, page := range pictured {
		for _, s := range []string{"wide", "wide-dark", "narrow", "narrow-dark"} {
			if _, err := os.Stat(filepath.Join("..", "..", "docs", "dashboard", fmt.Sprintf("%s-%s.png", page, s))); err != nil {
				t.Error(err)
			}
		}
	}
}
