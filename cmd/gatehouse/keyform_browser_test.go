package main_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const newKeyPage = "/dashboard/keys/new"

// openForm opens the form of a new key for somebody who is signed in.
func (d *desk) openForm(t *testing.T, s screen) *tab {
	t.Helper()
	b := d.tab(t, s)
	b.signIn(adaEmail, adaPassword)
	b.open(newKeyPage)
	return b
}

// onlyKey is the one key that the account has.
func (d *desk) onlyKey(t *testing.T) managed {
	t.Helper()
	list := dataOf[[]managed](t, d.operate(t, http.MethodGet, "/accounts/acme/keys", nil))
	if len(list) != 1 {
		t.Fatalf("there are %d keys, want 1", len(list))
	}
	return list[0]
}

// chips are the addresses of the form, as it shows them.
func (b *tab) chips() []string {
	b.t.Helper()
	return script[[]string](b, `[...document.querySelectorAll(".address-chips .chip span")].map((s) => s.textContent)`)
}

// typeInto writes into what has the id, as a person does.
func (b *tab) typeInto(id, text string) {
	b.t.Helper()
	b.run(focus(chromedp.CSS("#"+id)), chromedp.KeyEvent(text))
}

// choose gives a date or time input its value, as its picker does.
func (b *tab) choose(id, value string) {
	b.t.Helper()
	b.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`(() => { const i = document.getElementById(%[1]q); i.value = %[2]q; i.dispatchEvent(new Event("input", {bubbles: true})); })()`, id, value)))
}

// TestCreateKeyInABrowser: every field, as somebody in Berlin fills it in.
func TestCreateKeyInABrowser(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	b := d.openForm(t, wide)
	b.isAccessible("the form")
	b.click("Create key")
	b.shows("A name is required.")
	b.isAccessible("the form with errors")
	if focused := script[string](b, `document.activeElement.id`); focused != "faults" {
		t.Errorf("the focus is on %q, want on the summary", focused)
	}
	b.fill("Name", "CI pipeline")
	b.click("This key expires")
	b.choose("expires_date", "2040-07-01")
	b.choose("expires_time", "12:00")
	b.shows("2040-07-01 10:00 in UTC")

	b.typeInto("address-entry", "198.51.100.9/24")
	b.shows("It is stored as 198.51.100.0/24.")
	b.typeInto("address-entry", "\r")
	b.shows("Your own address is not in the list.")
	b.typeInto("address-entry", "nonsense,")
	b.shows(`"nonsense" is not an IPv4 or IPv6 address or CIDR range.`)
	b.isAccessible("the form with a wrong address")
	b.click("Remove nonsense")
	b.click("Add my current address 203.0.113.7")
	eventually(t, patience, "the warning goes", func() error {
		return unless(!strings.Contains(b.text(), "Your own address is not in the list."), "it is there")
	})
	b.run(chromedp.Evaluate[chromedp.Void](`(() => { const data = new DataTransfer(); data.setData("text", "2001:db8::1\n2001:db8:1::/48, 198.51.100.0/24");
		document.getElementById("address-entry").dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true})); })()`))
	want := []string{"198.51.100.0/24", "203.0.113.7", "2001:db8::1", "2001:db8:1::/48"}
	eventually(t, patience, "the addresses are chips", func() error { return unless(slices.Equal(b.chips(), want), fmt.Sprint(b.chips())) })
	b.typeInto("address-entry", "192.0.2.1") // and not yet added

	b.run(chromedp.Click(chromedp.CSS(`input[name=allowed_subaccounts][value="` + subA + `"]`)))
	b.shows("1 of 2 ticked")
	b.click("Read All")
	b.click("Write All")
	b.click("Delete All")
	b.shows("11 of 18 permissions ticked.")
	b.click("Clear")
	b.shows("0 of 18 permissions ticked.")
	b.click("Read All")
	b.run(chromedp.Click(chromedp.CSS(`input[value="account:apikeys:read"]`)))
	b.click("Create key")
	b.shows("Copy your token")

	k := d.onlyKey(t)
	if noon := time.Date(2040, 7, 1, 10, 0, 0, 0, time.UTC).Unix(); k.Name != "CI pipeline" || k.ExpiresAt == nil || *k.ExpiresAt != noon {
		t.Errorf("it is %q until %v", k.Name, k.ExpiresAt)
	}
	if !slices.Equal(k.IPs, append(want, "192.0.2.1")) || !slices.Equal(k.Subaccounts, []string{subA}) {
		t.Errorf("it is for %v and %v", k.IPs, k.Subaccounts)
	}
	if got := []string{"account:apikeys:read", "datacenter_shared:read", "residential:read", "serp_api:read", "subaccount:read"}; !slices.Equal(k.Permissions, got) {
		t.Errorf("it may %v", k.Permissions)
	}
}

// TestTokenIsSeenOnce: it can be copied, leaving without a copy asks, and then
// neither a reload nor the ways back and forward show it again.
func TestTokenIsSeenOnce(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	b := d.openForm(t, wide)
	b.fill("Name", "CI pipeline")
	b.click("Read All")
	b.click("Create key")
	b.shows("Copy your token")
	b.isAccessible("the token")
	k := d.onlyKey(t)
	keyPage := "/dashboard/keys/" + k.ID
	b.at(keyPage)
	token := script[string](b, `document.getElementById("token").textContent`)
	if me := dataOf[whoami](t, d.passes(t, get(key{Token: token}, whoamiPath))); me.KeyID != k.ID {
		t.Errorf("the token is of %s", me.KeyID)
	}
	if line := script[string](b, `document.getElementById("curl").textContent`); line != "curl -i -H 'api-token: "+token+"' '"+b.base+whoamiPath+"'" {
		t.Errorf("the line is %s", line)
	}

	b.run(chromedp.Click(chromedp.CSS("h1"))) // Chromium asks for nobody who has not touched the page
	b.click("Done")
	eventually(t, patience, "leaving asks", func() error { return unless(len(b.asked()) == 1, fmt.Sprint(b.asked())) })
	if got := script[string](b, `document.getElementById("token").textContent`); got != token {
		t.Errorf("who stays sees %q", got)
	}
	// All browsers of the tests have one clipboard.
	b.run(chromedp.Evaluate[chromedp.Void](`navigator.clipboard.writeText = async (text) => { document.body.dataset.copied = text; }`))
	b.click("Copy token")
	b.shows("Copied. You can leave this page now.")
	if got := script[string](b, `document.body.dataset.copied`); got != token {
		t.Errorf("copied was %q", got)
	}
	b.click("Copy line")
	eventually(t, patience, "the line is copied", func() error {
		return unless(strings.HasPrefix(script[string](b, `document.body.dataset.copied`), "curl "), "it is not")
	})
	if kept := script[string](b, `JSON.stringify([localStorage, sessionStorage, history.state, location.href, document.cookie, document.referrer])`); strings.Contains(kept, token) {
		t.Errorf("the browser keeps %s", kept)
	}
	for _, step := range []struct {
		name string
		do   chromedp.Action[chromedp.Void]
		at   string
	}{
		{"a reload", chromedp.Reload(), keyPage},
		{"the way back", chromedp.NavigateBack(), newKeyPage},
		{"the way forward", chromedp.NavigateForward(), keyPage},
	} {
		b.run(step.do)
		b.at(step.at)
		if page := script[string](b, `document.documentElement.outerHTML`); strings.Contains(page, token) {
			t.Errorf("%s shows the token", step.name)
		}
	}
	if asked := b.asked(); len(asked) != 1 {
		t.Errorf("leaving with a copy asks: %v", asked)
	}
	if n := len(dataOf[[]managed](t, d.operate(t, http.MethodGet, "/accounts/acme/keys", nil))); n != 1 {
		t.Errorf("there are %d keys", n)
	}
}

// asked returns the dialogues that were opened so far.
func (b *tab) asked() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.dialogs)
}

// TestCreateKeyWithoutScript: the same form, in UTC and with lists.
func TestCreateKeyWithoutScript(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	b := d.openForm(t, screen{width: 1280, height: 900, noScript: true})
	b.typeInto("name", "Plain")
	b.typeInto("allowed_ips", "198.51.100.0/24\n")
	b.click("Add my current address 203.0.113.7")
	b.at(newKeyPage + "#restrictions")
	b.click("This key expires")
	b.click("30 days")
	b.at(newKeyPage + "#expiration")
	b.shows("Date and time are in UTC.")
	b.click("Read All")
	b.at(newKeyPage + "#grants")
	b.run(chromedp.Click(chromedp.CSS(".form-end button"))) // the first one of the form is there for Enter, and not to be seen
	b.shows("shown only this once")
	k := d.onlyKey(t)
	if k.Name != "Plain" || !slices.Equal(k.IPs, []string{"198.51.100.0/24", "203.0.113.7"}) || len(k.Permissions) != 4 {
		t.Errorf("it is %+v", k)
	}
	if days := float64(*k.ExpiresAt-k.CreatedAt) / 86400; days < 29.9 || days > 30.1 {
		t.Errorf("it expires after %v days", days)
	}
	b.run(chromedp.Reload())
	b.shows("Already sent")
	d.onlyKey(t)
}

// TestEnterSendsTheForm, with script and without: it presses none of the other buttons.
func TestEnterSendsTheForm(t *testing.T) {
	t.Parallel()
	for _, noScript := range []bool{false, true} {
		b := startDesk(t).openForm(t, screen{width: 1280, height: 900, noScript: noScript})
		b.typeInto("name", "By keyboard\r")
		b.shows("At least one permission is required.")
	}
}

// TestKeyFormFits a telephone, and can be read at night.
func TestKeyFormFits(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	for name, s := range map[string]screen{"narrow": narrow, "dark": {width: 1280, height: 900, dark: true}} {
		b := d.openForm(t, s)
		b.click("This key expires")
		b.typeInto("address-entry", "2001:db8:1111:2222:3333:4444:5555:6666 nonsense,")
		b.shows(`"nonsense" is not`)
		b.fits(name)
		b.isAccessible(name)
		b.click("Remove nonsense")
		b.typeInto("name", strings.Repeat("W", 100))
		b.click("Read All")
		b.click("Create key")
		b.shows("Copy your token")
		b.fits(name + ", the token")
		b.isAccessible(name + ", the token")
	}
}
