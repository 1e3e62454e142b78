package dashboard_test

import (
	"html"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"gatehouse/proxy/dashboard"
)

// TestTokenPage: the token is there once and whole, and nowhere else.
func TestTokenPage(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	a := s.post(newKeyPath, s.newForm(url.Values{"name": {"<b>CI</b>"}, "allowed_ips": {"198.51.100.0/24"}}))
	token := tokenShown.FindString(a.body)
	key := s.keys()[0]
	path := "/dashboard/keys/" + string(key.ID)
	if token == "" || strings.Count(a.body, token) != 2 {
		t.Errorf("the token %q is %d times in the page, want itself and the line", token, strings.Count(a.body, token))
	}
	for _, want := range []string{`data-key-page="` + path + `"`, `href="` + path + `" data-done`, "shown only this once", "&lt;b&gt;CI&lt;/b&gt;", clientIP + "</span>, is none of them"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the page has no %q: %s", want, a.body)
		}
	}
	for name, values := range a.header {
		if strings.Contains(strings.Join(values, " "), token) {
			t.Errorf("the token is in the header %s", name)
		}
	}
	for _, page := range []string{newKeyPath, path, path + "/edit", "/dashboard/keys"} {
		if b := s.get(page); strings.Contains(b.body, token) {
			t.Errorf("the token is in %s", page)
		}
	}
	if b := s.post(newKeyPath, s.newForm(nil)); strings.Contains(b.body, "is none of them") {
		t.Error("a key for any address cannot be used from here")
	}
}

// TestCurlLine is one command with three words of its own, wherever the API is.
func TestCurlLine(t *testing.T) {
	t.Parallel()
	for api, want := range map[string]string{
		"":                              "",
		"https://api.example.com":       "https://api.example.com/v4/account/whoami",
		"https://api.example.com/":      "https://api.example.com/v4/account/whoami",
		`https://a';touch "$(id)"; #'b`: `https://a';touch "$(id)"; #'b/v4/account/whoami`,
	} {
		s := start(t, func(s *site) { s.change = func(o *dashboard.Options) { o.API = api } })
		s.signIn()
		a := s.post(newKeyPath, s.newForm(nil))
		if a.status != http.StatusOK {
			t.Fatalf("got %d", a.status)
		}
		token := tokenShown.FindString(a.body)
		_, rest, _ := strings.Cut(a.body, `<code id="curl"`)
		_, rest, _ = strings.Cut(rest, ">")
		line, _, _ := strings.Cut(rest, "</code>")
		if want == "" {
			want = s.server.URL + "/v4/account/whoami"
		}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", `curl() { printf '%s\n' "$@"; }; `+html.UnescapeString(line)).Output()
		s.must(err)
		if got := string(out); got != "-i\n-H\napi-token: "+token+"\n"+want+"\n" {
			t.Errorf("a shell reads %q as %q", html.UnescapeString(line), got)
		}
	}
}
