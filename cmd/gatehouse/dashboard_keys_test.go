package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// deskWithKeys has keys of each kind; it returns those that are changed.
func deskWithKeys(t *testing.T) (d *desk, pipeline, exporter key) {
	t.Helper()
	d = startDesk(t)
	soon := time.Now().Add(48 * time.Hour).Unix()
	for i := range 26 {
		d.firstKey(t, "acme", newKey{Name: fmt.Sprintf("Worker %d", i), Permissions: []string{"serp_api:read"}})
	}
	exporter = d.firstKey(t, "acme", newKey{Name: "Exporter", Permissions: everything, ExpiresAt: &soon})
	pipeline = d.firstKey(t, "acme", newKey{
		Name: "CI pipeline", Permissions: []string{"datacenter_shared:read", "datacenter_shared:write", "residential:read"}, Subaccounts: []string{subA, subB},
		IPs: []string{"127.0.0.0/8", "203.0.113.0/24", "198.51.100.7", "2001:db8::/32"},
	})
	return d, pipeline, exporter
}

func TestKeyPagesSuitEverybody(t *testing.T) {
	t.Parallel()
	d, pipeline, exporter := deskWithKeys(t)
	for _, s := range []screen{{width: 820, height: 1000}, {width: 360, height: 740, dark: true}} { // TestEveryPage has the others
		b := d.tab(t, s)
		b.signIn(adaEmail, adaPassword)
		for _, path := range []string{"?page=2", "?q=nothing+like+this", "?state=soon", "/" + exporter.ID + "/disable", "/" + pipeline.ID + "/revoke"} {
			b.open("/dashboard/keys" + path)
			name := fmt.Sprintf("keys%s at %d, dark %t", path, s.width, s.dark)
			b.isAccessible(name)
			b.fits(name)
		}
		b.open("/dashboard/keys")
		b.click("Actions for CI pipeline")
		b.isAccessible("the menu of a key")
		b.fits("the menu of a key")
	}
}

// TestKeysAreFoundAndChangedInABrowser also on a telephone, and without JavaScript.
func TestKeysAreFoundAndChangedInABrowser(t *testing.T) {
	t.Parallel()
	for _, s := range []screen{wide, narrow, {width: 1280, height: 900, noScript: true}} {
		t.Run(fmt.Sprintf("%d wide, no script %t", s.width, s.noScript), func(t *testing.T) {
			t.Parallel()
			findAndChangeKeys(t, s)
		})
	}
}

func findAndChangeKeys(t *testing.T, s screen) {
	t.Helper()
	d, pipeline, exporter := deskWithKeys(t)
	b := d.tab(t, s)
	b.signIn(adaEmail, adaPassword)
	b.shows("1–25 of 28")
	b.click("Next")
	b.shows("26–28 of 28")
	b.fill("Search", "pipeline")
	b.click("Apply")
	b.shows("1 of 28 keys")

	b.click("Actions for CI pipeline")
	b.click("Disable…")
	b.click("Disable key")
	b.shows("The key is disabled.")
	d.refuses(t, get(pipeline, proxyListOfA), refusal{status: 401, code: "key_disabled", challenge: badToken})
	b.shows("1 of 28 keys") // the same list as before
	b.click("Actions for CI pipeline")
	b.click("Enable")
	b.shows("The key is enabled.")
	d.passes(t, get(pipeline, proxyListOfA))

	b.click("Actions for CI pipeline")
	b.click("Regenerate…")
	b.click("1 day")
	b.fill("Type", "ci pipeline")
	b.click("Regenerate key")
	b.shows("This is not the name of the key.")
	b.fill("Type", "CI pipeline")
	b.click("Regenerate key")
	b.shows("Copy your token")
	d.passes(t, get(pipeline, proxyListOfA)) // the old token, for its grace
	pipeline.Token = strings.TrimSpace(ask(b, textOf("#token")))
	d.passes(t, get(pipeline, proxyListOfA))

	b.leaves = true
	b.open("/dashboard/keys/" + exporter.ID + "/regenerate")
	b.fill("Type", "Exporter")
	b.click("Regenerate key")
	b.shows("Copy your token")
	d.refuses(t, get(exporter, proxyListOfA), refusal{status: 401, code: "invalid_token", challenge: badToken})
	exporter.Token = strings.TrimSpace(ask(b, textOf("#token")))
	d.passes(t, get(exporter, proxyListOfA))

	b.open("/dashboard/keys?q=Exporter")
	b.click("Actions for Exporter")
	b.click("Revoke…")
	b.fill("Type", "Exporter")
	b.click("Revoke key")
	b.shows("The key is revoked.")
	d.refuses(t, get(exporter, proxyListOfA), refusal{status: 401, code: "invalid_token", challenge: badToken})
}

// TestKeyMenuByKeyboard: it opens, closes and leads on without a mouse.
func TestKeyMenuByKeyboard(t *testing.T) {
	t.Parallel()
	d, _, _ := deskWithKeys(t)
	b := d.tab(t, wide)
	b.signIn(adaEmail, adaPassword)
	b.open("/dashboard/keys?q=pipeline")
	const focus = `document.activeElement.getAttribute("aria-label") || document.activeElement.textContent.trim()`
	b.run(chromedp.Focus(chromedp.CSS(".key-name a")))
	b.press(kb.Tab)
	if got := script[string](b, focus); got != "Actions for CI pipeline" {
		t.Fatalf("the focus is on %q", got)
	}
	b.press(kb.Enter)
	b.press(kb.Tab)
	if got := script[string](b, focus); got != "Edit" {
		t.Errorf("the focus is on %q", got)
	}
	b.press(kb.Escape)
	if got := script[string](b, focus); got != "Actions for CI pipeline" || script[bool](b, `document.querySelector(".row-menu").open`) {
		t.Errorf("after Escape the focus is on %q", got)
	}
	b.press(kb.Enter)
	for range 4 {
		b.press(kb.Tab)
	}
	b.press(kb.Enter)
	b.shows("Revoke CI pipeline?")
	b.at("/dashboard/keys/")
}
