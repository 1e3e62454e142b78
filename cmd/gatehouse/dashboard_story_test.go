package main_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// from is a request of a client at that address, as the trusted proxy tells it.
func from(address string, r request) request {
	r.header = append(r.header[:len(r.header):len(r.header)], "X-Forwarded-For: "+address)
	return r
}

// TestFirstKey is the story of a customer: it signs in, makes a key in the
// dashboard, and the key opens exactly what was ticked, until it expires.
func TestFirstKey(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	b := d.tab(t, wide)
	b.signIn(adaEmail, adaPassword)
	b.click("Your profile and pages")
	b.run(chromedp.Click(`//div[@class="menu-list"]/a[.="API Keys"]`))
	b.at("/dashboard/keys")
	b.shows("You have no API key yet")
	b.run(chromedp.Click(`//a[contains(., "Create API Key")]`))
	b.at(newKeyPage)
	b.fill("Name", "Whitelist updater")
	b.click("This key expires")
	b.click("30 days")
	b.typeInto("address-entry", "198.51.100.0/24,")
	b.shows("Your own address is not in the list.")
	b.run(chromedp.Click(chromedp.CSS(`input[name=allowed_subaccounts][value="` + subA + `"]`)))
	b.run(chromedp.Click(chromedp.CSS(`input[value="datacenter_shared:read"]`)))
	b.run(chromedp.Click(chromedp.CSS(`input[value="datacenter_shared:write"]`)))
	b.click("Create key")
	b.shows("Copy your token")
	b.run(chromedp.Evaluate[chromedp.Void](`navigator.clipboard.writeText = async (text) => { document.body.dataset.copied = text; }`))
	b.click("Copy token")
	b.shows("Copied.")
	made := d.onlyKey(t)
	k := key{ID: made.ID, Token: script[string](b, `document.body.dataset.copied`)}
	b.click("Done")
	b.at("/dashboard/keys/" + k.ID)
	b.isAccessible("the page of the key")

	const allowed = "198.51.100.200"
	for _, row := range []struct {
		name   string
		asked  request
		status int
		code   string
	}{
		{"reading", from(allowed, get(k, proxyListOfA)), 200, ""},
		{"writing", from(allowed, get(k, whitelistOfA+"?type=add&ip=203.0.113.9")), 200, ""},
		{"deleting", from(allowed, get(k, whitelistOfA+"?type=remove&ip=203.0.113.9")), 403, "permission_denied"},
		{"another product", from(allowed, get(k, "/serp/v1/search")), 403, "permission_denied"},
		{"another subaccount", from(allowed, get(k, proxyListOfB)), 403, "subaccount_not_allowed"},
		{"another address", from("198.51.101.1", get(k, proxyListOfA)), 403, "ip_not_allowed"},
		{"managing keys", from(allowed, get(k, keysPath)), 403, "permission_denied"},
	} {
		before := d.backend.count()
		got := d.send(t, row.asked)
		if got.status != row.status || row.code != "" && !strings.Contains(got.body, `"error":"`+row.code+`"`) {
			t.Errorf("%s: got %d %s", row.name, got.status, got.body)
		}
		if reached := d.backend.count() - before; (reached == 1) != (row.status == http.StatusOK) {
			t.Errorf("%s: %d requests reached the backend", row.name, reached)
		}
	}

	// It expires to the second that the form says.
	ends := d.expiresSoon(t, b, k)
	eventually(t, patience, "the key expires", func() error {
		got := d.send(t, from(allowed, get(k, proxyListOfA)))
		if now := time.Now(); got.status == http.StatusOK && now.After(ends.Add(time.Second)) {
			t.Fatalf("it passes at %s, and expired at %s", now, ends)
		}
		return unless(strings.Contains(got.body, `"error":"key_expired"`), got.body)
	})
	b.open("/dashboard/keys")
	b.shows("Expired")
}

// expiresSoon has the form of the key say that it expires in some seconds, in
// more of them where the machine was too busy to send it before, and returns when.
func (d *desk) expiresSoon(t *testing.T, b *tab, k key) time.Time {
	t.Helper()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for ahead := 3 * time.Second; ahead < patience; ahead *= 2 {
		b.open("/dashboard/keys/" + k.ID + "/edit")
		ends := time.Now().Add(ahead).Truncate(time.Second)
		b.choose("expires_date", ends.In(berlin).Format("2006-01-02"))
		b.choose("expires_time", ends.In(berlin).Format("15:04:05"))
		b.click("Save changes")
		isStored := false
		eventually(t, patience, "the change is stored, or was too late", func() error {
			text := b.where()
			isStored = strings.Contains(text, "The key was changed.")
			return unless(isStored || strings.Contains(text, "future"), text)
		})
		if isStored {
			return ends
		}
	}
	t.Fatal("the form was never sent in time")
	return time.Time{}
}

// focusOn presses Tab until what the selector names has the focus.
func (b *tab) focusOn(selector string) {
	b.t.Helper()
	const most = 120
	for range most {
		if script[bool](b, fmt.Sprintf(`document.activeElement.matches(%q)`, selector)) {
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("the focus never comes to %s, on the page %s", selector, b.where())
}

// TestKeyByKeyboard: from the sign-in to the token and back, without a mouse.
func TestKeyByKeyboard(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	b := d.tab(t, wide)
	b.open("/dashboard/sign-in")
	b.focusOn("#email")
	b.press(adaEmail)
	b.focusOn("#password")
	b.press(adaPassword + "\r")
	b.at("/dashboard/keys")
	b.press(kb.Tab)
	if !script[bool](b, `document.activeElement.matches(".skip")`) {
		t.Error("the first stop is not the link to the content")
	}
	b.press("\r")
	b.focusOn("main a.button")
	b.press("\r")
	b.at(newKeyPage)
	b.focusOn("#name")
	b.press("By keyboard")
	b.focusOn("#expires")
	b.press(" ")
	b.focusOn(`[data-days="90"]`)
	b.press(" ")
	b.focusOn("#address-entry")
	b.press("203.0.113.0/24\r")
	b.focusOn(`input[name=allowed_subaccounts]`)
	b.press(" ")
	b.focusOn(`[data-all="read"]`)
	b.press(" ")
	b.focusOn(".form-end .button")
	b.press("\r")
	b.shows("Copy your token")
	b.run(chromedp.Evaluate[chromedp.Void](`navigator.clipboard.writeText = async () => {}`))
	b.focusOn(`[data-copy="token"]`)
	b.press("\r")
	b.shows("Copied.")
	b.focusOn("[data-done]")
	b.press("\r")
	k := d.onlyKey(t)
	b.at("/dashboard/keys/" + k.ID)
	if k.Name != "By keyboard" || len(k.Permissions) != 4 || len(k.Subaccounts) != 1 || len(k.IPs) != 1 || k.ExpiresAt == nil {
		t.Errorf("the key is %+v", k)
	}
	b.focusOn(".profile-menu summary")
	b.press("\r")
	b.focusOn(".profile-menu .menu-item")
	b.press("\r")
	b.shows("You are signed out.")
}
