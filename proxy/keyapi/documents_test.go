package keyapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"gatehouse/proxy/keyapi"
)

// documents answers a request.
func documents(t *testing.T, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	d, err := keyapi.NewDocuments()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, "/", nil)
	r.RequestURI = target
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	out := httptest.NewRecorder()
	d.ServeHTTP(out, r)
	return out
}

func TestDescriptionIsServedAsJSON(t *testing.T) {
	t.Parallel()
	out := documents(t, http.MethodGet, "/v4/openapi.json")
	var d struct {
		OpenAPI string
		Paths   map[string]map[string]any
	}
	if err := json.Unmarshal(out.Body.Bytes(), &d); err != nil || out.Code != http.StatusOK || out.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("answered %d %v, %v", out.Code, out.Header(), err)
	}
	if d.OpenAPI != "3.1.0" || len(d.Paths) != 8 || d.Paths["/v4/account/api-keys"]["post"] == nil {
		t.Errorf("described are %s and %d paths", d.OpenAPI, len(d.Paths))
	}
	again := documents(t, http.MethodGet, "/v4/openapi.json", "If-None-Match", out.Header().Get("ETag"))
	if again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("answered %d to who has it", again.Code)
	}
}

// TestPageShowsEverythingAndAsksNobodyElse: no script, and nothing from another
// host.
func TestPageShowsEverythingAndAsksNobodyElse(t *testing.T) {
	t.Parallel()
	out := documents(t, http.MethodGet, "/docs")
	page := out.Body.String()
	for _, part := range []string{
		"/v4/account/api-keys/{id}/regenerate", "/v4/account/audit-log", "/v4/account/usage", "grace_period_seconds", "allowed_subaccounts", "account:apikeys:create", "updated_fields",
		"exceeds_your_access", "409", "array of string", "<em>required</em>", `<html lang="en">`,
	} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %s", part)
		}
	}
	for _, link := range regexp.MustCompile(`(?:src|href|action)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(link[1], "#") && link[1] != "/docs/style.css" && link[1] != "/v4/openapi.json" {
			t.Errorf("the page leads to %s", link[1])
		}
		if anchor, is := strings.CutPrefix(link[1], "#"); is && !strings.Contains(page, `id="`+anchor+`"`) {
			t.Errorf("the page leads to %s, and there is none", link[1])
		}
	}
	style := documents(t, http.MethodGet, "/docs/style.css")
	if strings.Contains(page, "<script") || strings.Contains(style.Body.String(), "url(") || strings.Contains(style.Body.String(), "@import") || style.Body.Len() == 0 {
		t.Error("the page asks for more")
	}
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Content-Type": "text/html; charset=utf-8",
	} {
		if got := out.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestEveryDocumentHasItsTarget, and its name in records.
func TestEveryDocumentHasItsTarget(t *testing.T) {
	t.Parallel()
	for _, target := range keyapi.DocumentTargets() {
		r := httptest.NewRequest(http.MethodHead, target, nil)
		if out := documents(t, http.MethodHead, target); out.Code != http.StatusOK || keyapi.DocumentPattern(r) != "GET "+target {
			t.Errorf("%s: answered %d, and is called %s", target, out.Code, keyapi.DocumentPattern(r))
		}
	}
	if out := documents(t, http.MethodGet, "/docs/page.html"); out.Code != http.StatusNotFound {
		t.Errorf("answered %d", out.Code)
	}
}
