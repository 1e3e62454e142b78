package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// post sends a form as a page of the dashboard does, with a session.
func (d *desk) post(t *testing.T, path, session string, form url.Values, header ...string) answer {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://"+d.addr+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if session != "" {
		r.AddCookie(&http.Cookie{Name: "__Host-gatehouse", Value: session})
	}
	return d.do(t, r)
}

// page asks for a page with a session.
func (d *desk) page(t *testing.T, path, session string) answer {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+d.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if session != "" {
		r.AddCookie(&http.Cookie{Name: "__Host-gatehouse", Value: session})
	}
	return d.do(t, r)
}

// signIn returns the cookie of a new session.
func (d *desk) signIn(t *testing.T, session string) *http.Cookie {
	t.Helper()
	got := d.post(t, "/dashboard/sign-in", session, url.Values{"email": {adaEmail}, "password": {adaPassword}})
	cookies := (&http.Response{Header: got.header}).Cookies()
	if got.status != http.StatusSeeOther || len(cookies) != 1 {
		t.Fatalf("signing in got %d with %v", got.status, cookies)
	}
	return cookies[0]
}

// TestSessionCookie: no page reads it, no other site sends it with a form, no
// plain connection carries it, and no other host may set it.
func TestSessionCookie(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	c := d.signIn(t, "")
	if c.Name != "__Host-gatehouse" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || len(c.Value) < 32 {
		t.Errorf("the cookie is %s; HttpOnly %v, Secure %v, SameSite %v, Path %q, Domain %q", c.Name, c.HttpOnly, c.Secure, c.SameSite, c.Path, c.Domain)
	}
	// A session that somebody else began is worth nothing after the sign-in.
	const planted = "Zm9yIHRoZSB2aWN0aW0gdG8gc2lnbiBpbiB3aXRoLi4u"
	if got := d.signIn(t, planted); got.Value == planted {
		t.Error("a session goes on with an id that the client chose")
	}
	if got := d.page(t, "/dashboard/keys", planted); got.status != http.StatusSeeOther {
		t.Errorf("the planted session got %d", got.status)
	}
	second := d.signIn(t, c.Value)
	if second.Value == c.Value {
		t.Error("a sign-in goes on with the session from before")
	}
	if got := d.page(t, "/dashboard/keys", c.Value); got.status != http.StatusSeeOther {
		t.Errorf("the session from before got %d", got.status)
	}
	if got := d.page(t, "/dashboard/keys", second.Value); got.status != http.StatusOK {
		t.Errorf("the new session got %d", got.status)
	}
	d.post(t, "/dashboard/sign-out", second.Value, url.Values{})
	if got := d.page(t, "/dashboard/keys", second.Value); got.status != http.StatusSeeOther {
		t.Errorf("the session that was signed out got %d", got.status)
	}
	for _, secret := range []string{c.Value, second.Value, adaPassword} {
		if said := d.stdout.String() + d.stderr.String(); strings.Contains(said, secret) {
			t.Errorf("a secret is in the log: %s", said)
		}
	}
}

// TestNoOtherSiteUsesTheSession for anything that changes something.
func TestNoOtherSiteUsesTheSession(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	session := d.signIn(t, "").Value
	k := d.firstKey(t, "acme", may("datacenter_shared:read"))
	before := d.page(t, "/dashboard/keys", session).body
	for _, path := range []string{
		"/keys/new", "/keys/" + k.ID + "/edit", "/keys/" + k.ID + "/disable", "/keys/" + k.ID + "/revoke", "/keys/" + k.ID + "/regenerate",
		"/profile/password", "/profile/totp", "/profile/sign-out-everywhere", "/sign-out", "/sign-in",
	} {
		for _, header := range [][]string{
			{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "", "Origin", "https://evil.example"}, {"Sec-Fetch-Site", "", "Origin", "null"},
		} {
			got := d.post(t, "/dashboard"+path, session, url.Values{"name": {k.Name}, "confirm": {k.Name}}, header...)
			if got.status != http.StatusForbidden {
				t.Errorf("%s with %q got %d", path, header, got.status)
			}
		}
	}
	if after := d.page(t, "/dashboard/keys", session); after.status != http.StatusOK || after.body != before {
		t.Errorf("afterwards the keys are %d %s", after.status, after.body)
	}
	d.passes(t, get(k, proxyListOfA))
}

// TestDashboardIsInNoFrame of another site, which could have a person click on
// what it does not see.
func TestDashboardIsInNoFrame(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!DOCTYPE html><title>x</title><p>before</p><iframe src="http://%s/dashboard/sign-in"></iframe><p>after</p>`, d.addr)
	}))
	t.Cleanup(evil.Close)
	b := openTab(t, evil.URL, wide)
	b.run(chromedp.Navigate(evil.URL))
	eventually(t, patience, "the frame is refused", func() error {
		for _, fault := range b.heard() {
			if strings.Contains(fault, "frame-ancestors") || strings.Contains(fault, "X-Frame-Options") {
				return nil
			}
		}
		return fmt.Errorf("the browser says %q", b.heard())
	})
	b.forgives()
}

// TestDashboardHasItsHost, and there is nothing else on it.
func TestDashboardHasItsHost(t *testing.T) {
	t.Parallel()
	d := startDesk(t, func(s *settings) { s.Dashboard = `{host: dashboard.example.com, api_url: "https://api.example.com"}` })
	k := d.firstKey(t, "acme", may("datacenter_shared:read"))
	at := func(host, path string) answer {
		r := get(k, path)
		r.host = host
		return d.send(t, r)
	}
	if got := at("dashboard.example.com", "/dashboard/sign-in"); got.status != http.StatusOK || !strings.Contains(got.body, "Sign in") {
		t.Errorf("the dashboard on its host got %d", got.status)
	}
	if got := at("dashboard.example.com", "/"); got.status != http.StatusSeeOther || got.header.Get("Location") != "/dashboard/keys" {
		t.Errorf("/ on its host got %d", got.status)
	}
	if got := at("api.example.com", "/dashboard/sign-in"); got.status != http.StatusNotFound {
		t.Errorf("the dashboard on another host got %d", got.status)
	}
	if got := at("dashboard.example.com", proxyListOfA); got.status != http.StatusNotFound || d.backend.count() != 0 {
		t.Errorf("a product on its host got %d, and the backend saw %d requests", got.status, d.backend.count())
	}
	if got := at("api.example.com", proxyListOfA); got.status != http.StatusOK {
		t.Errorf("a product on another host got %d", got.status)
	}
	// Off, it is nowhere, and nobody stays signed in.
	d.reload(t, func(s *settings) { s.Dashboard = "{enabled: false}" })
	for _, host := range []string{"dashboard.example.com", "api.example.com"} {
		if got := at(host, "/dashboard/sign-in"); got.status != http.StatusNotFound {
			t.Errorf("switched off, on %s, it got %d", host, got.status)
		}
	}
}
