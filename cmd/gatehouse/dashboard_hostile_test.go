package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
)

// hostileNames would run a script where a page shows them unescaped: as text, in
// an attribute with any quotes, in a URL, a script, a style or a template.
func hostileNames() []string {
	return []string{
		`<script>alert(1)</script>`,
		`"><script>alert(1)</script>`,
		`'><script>alert(1)</script>`,
		`</title><script>alert(1)</script>`,
		`</textarea><script>alert(1)</script>`,
		`</script><script>alert(1)</script>`,
		`</style><script>alert(1)</script>`,
		`--><script>alert(1)</script>`,
		`]]><script>alert(1)</script>`,
		`<img src=x onerror=alert(1)>`,
		`"><img src=x onerror=alert(1)>`,
		`' onmouseover=alert(1) autofocus onfocus=alert(1) x='`,
		`" onmouseover=alert(1) autofocus onfocus=alert(1) x="`,
		`x onfocus=alert(1) autofocus tabindex=1`,
		"` onfocus=alert(1) autofocus x=`",
		`<svg onload=alert(1)>`,
		`<svg><script>alert(1)</script></svg>`,
		`<svg><animate onbegin=alert(1) attributeName=x dur=1s>`,
		`<math><mtext><img src=x onerror=alert(1)></mtext></math>`,
		`<body onload=alert(1)>`,
		`<details open ontoggle=alert(1)>`,
		`<video><source onerror=alert(1)></video>`,
		`<iframe srcdoc="<script>parent.alert(1)</script>"></iframe>`,
		`<a href="javascript:alert(1)" autofocus>key</a>`,
		`javascript:alert(1)//`,
		`data:text/html,<script>alert(1)</script>`,
		`<base href="https://evil.example/">`,
		`<meta http-equiv="refresh" content="0;url=https://evil.example/">`,
		`<form action="https://evil.example/"><button autofocus>Go</button></form>`,
		`<link rel=stylesheet href="https://evil.example/x.css">`,
		`{{.}}{{template "layout" .}}${alert(1)}#{alert(1)}`,
		`&lt;script&gt;alert(1)&lt;/script&gt;`,
		`\x3cscript\x3ealert(1)\x3c/script\x3e`,
	}
}

// notOurs counts what no page of ours has: handlers in attributes, scripts and
// styles in the page, frames, and links that are scripts.
const notOurs = `[...document.querySelectorAll("*")].filter((e) =>
	[...e.attributes].some((a) => a.name.startsWith("on") || a.name === "style" || a.name === "srcdoc" || /^\s*(javascript|data):/i.test(a.value) && ["href", "src", "action", "formaction"].includes(a.name))
	|| ["BASE", "IFRAME", "OBJECT", "EMBED", "STYLE", "MATH", "VIDEO", "ANIMATE"].includes(e.tagName.toUpperCase())
	|| e.tagName === "SCRIPT" && !e.src.startsWith(location.origin + "/dashboard/assets/")
	|| e.tagName === "META" && e.httpEquiv
	|| ["A", "FORM", "LINK"].includes(e.tagName) && !new URL(e.getAttribute(e.tagName === "FORM" ? "action" : "href") ?? "", location.href).href.startsWith(location.origin)
).map((e) => e.outerHTML.slice(0, 200))`

// isOurs checks that the page has nothing in it that a name smuggled in.
func (b *tab) isOurs(path string) {
	b.t.Helper()
	for _, foreign := range script[[]string](b, notOurs) {
		b.t.Errorf("%s has in it %s", path, foreign)
	}
	for _, fault := range b.heard() {
		b.t.Errorf("%s: %s", path, fault)
	}
	b.forgives()
}

// shown opens a page and checks it.
func (b *tab) shown(path string) {
	b.t.Helper()
	b.open(path)
	b.isOurs(path)
}

// TestNoNameRuns as a script: of a key, a subaccount or a user, on any page.
func TestNoNameRuns(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	hostile := account{Name: hostileNames()[0], Permissions: []string{"*"}}
	for i, name := range hostileNames() {
		hostile.Subaccounts = append(hostile.Subaccounts, subaccount{fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012d", i), name, "datacenter_shared"})
	}
	d.putAccount(t, "acme", hostile)
	var keys []key
	for i, name := range hostileNames() {
		keys = append(keys, d.firstKey(t, "acme", newKey{Name: name, Permissions: []string{"datacenter_shared:read"}, Subaccounts: []string{hostile.Subaccounts[i].ID}}))
	}
	b := d.tab(t, wide)
	b.signIn(adaEmail, adaPassword)
	for _, path := range []string{"/keys", "/keys/new", "/audit", "/profile", "/none"} {
		b.shown("/dashboard" + path)
	}
	for i, k := range keys {
		// The questions show a name in one and the same way.
		for _, page := range []string{"", "/edit", []string{"/regenerate", "/revoke", "/disable"}[i%3]} {
			b.shown("/dashboard/keys/" + k.ID + page)
		}
	}
	for list := range slices.Chunk(hostileNames(), 3) {
		all := strings.Join(list, " ")
		b.shown("/dashboard/keys?" + url.Values{"q": {all}, "state": {all}, "product": {all}, "page": {all}, "notice": {all}}.Encode())
		b.shown("/dashboard/audit?" + url.Values{"key": {all}, "action": {all}, "outcome": {all}, "from": {all}}.Encode())
		b.shown("/dashboard/sign-in?" + url.Values{"next": {all}, "notice": {all}}.Encode())
	}
}

// TestNoNameOfAUserRuns on the pages that show it: its own, and the audit log.
func TestNoNameOfAUserRuns(t *testing.T) {
	t.Parallel()
	d := startDesk(t)
	b := d.tab(t, wide)
	for i, name := range hostileNames() {
		email := fmt.Sprintf("user%d@example.com", i)
		d.addUser(t, "acme", email, name, adaPassword)
		got := d.post(t, "/dashboard/sign-in", "", url.Values{"email": {email}, "password": {adaPassword}}, "X-Forwarded-For", fmt.Sprintf("203.0.113.%d", i))
		cookies := (&http.Response{Header: got.header}).Cookies()
		if len(cookies) != 1 {
			t.Fatalf("signing in got %d %s", got.status, got.body)
		}
		b.run(call(network.SetCookie, network.SetCookieParams{Name: cookies[0].Name, Value: cookies[0].Value, URL: b.base, Path: "/", Secure: new(true)}))
		b.shown("/dashboard/keys")
		b.shown("/dashboard/profile")
	}
	b.shown("/dashboard/audit")
}
