package dashboard_test

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/password"
)

var (
	asset  = regexp.MustCompile(`"(/dashboard/assets/[^"]+)"`)
	accent = regexp.MustCompile(`--accent:(#\w{6});--on-accent:(#\w{6});--accent-text:(#\w{6});--accent-soft:(#\w{6})`)
)

// assets are the files that the sign-in page names.
func (s *site) assets() map[string]answer {
	s.t.Helper()
	found := map[string]answer{}
	for _, match := range asset.FindAllStringSubmatch(s.get("/dashboard/sign-in").body, -1) {
		found[match[1][strings.LastIndex(match[1], "/")+1:]] = s.get(match[1])
	}
	return found
}

// ratio is the contrast of WCAG 2.2.
func ratio(t *testing.T, a, b string) float64 {
	t.Helper()
	luminance := func(s string) float64 {
		var part [3]uint8
		if _, err := fmt.Sscanf(s, "#%02x%02x%02x", &part[0], &part[1], &part[2]); err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			c := float64(part[i]) / 255
			if c <= 0.04045 {
				c /= 12.92
			} else {
				c = math.Pow((c+0.055)/1.055, 2.4)
			}
			sum += weight * c
		}
		return sum
	}
	x, y := luminance(a), luminance(b)
	return (math.Max(x, y) + 0.05) / (math.Min(x, y) + 0.05)
}

// TestEveryAccentCanBeRead on the grounds of css/base.css, in both schemes.
func TestEveryAccentCanBeRead(t *testing.T) {
	t.Parallel()
	for _, chosen := range []string{"", "#000000", "#ffffff", "#ffff00", "#ff0000", "#00ff00", "#0000ff", "#808080", "#777777", "#3451d1", "#f6f7f9"} {
		t.Run(chosen, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(s *site) { s.brand.Accent = chosen })
			sheet := s.assets()["app.css"]
			schemes := accent.FindAllStringSubmatch(sheet.body, -1)
			if len(schemes) != 2 {
				t.Fatalf("the style sheet begins %.300s", sheet.body)
			}
			for i, grounds := range [][]string{{"#ffffff", "#f6f7f9"}, {"#11141b", "#1b1f29"}} {
				fill, on, text, soft := schemes[i][1], schemes[i][2], schemes[i][3], schemes[i][4]
				if r := ratio(t, on, fill); r < 4.5 {
					t.Errorf("%s on the accent %s has a contrast of %.2f", on, fill, r)
				}
				for _, ground := range append(grounds, soft) {
					if r := ratio(t, text, ground); r < 4.5 {
						t.Errorf("%s on %s has a contrast of %.2f", text, ground, r)
					}
				}
			}
		})
	}
}

func TestBrandIsShown(t *testing.T) {
	t.Parallel()
	const logo = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`
	s := start(t, func(s *site) {
		s.brand = dashboard.Brand{Name: `Acme "Cloud" <b>`, Docs: "https://docs.example.com/?a=1&b=2", Logo: []byte(logo)}
	})
	body := s.get("/dashboard/sign-in").body
	for _, want := range []string{"<title>Sign in · Acme &#34;Cloud&#34; &lt;b&gt;</title>", `href="https://docs.example.com/?a=1&amp;b=2"`} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not in the page %s", want, body)
		}
	}
	served := s.assets()["logo"]
	if served.body != logo || served.header.Get("Content-Type") != "image/svg+xml" || !strings.Contains(served.header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("the logo is %q with %v", served.body, served.header)
	}
}

func TestBrandIsRefused(t *testing.T) {
	t.Parallel()
	hasher, err := password.NewHasher(password.Cost{MemoryKiB: 64, Passes: 1, Lanes: 1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	store := new(keystore.Store)
	people, err := signin.New(signin.Options{Users: store, Sessions: store, Passwords: hasher, Idle: time.Minute, Absolute: time.Hour, Now: time.Now, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	catalogue, err := policy.NewCatalogue("a:read")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []dashboard.Brand{
		{Name: strings.Repeat("a", 61)},
		{Accent: "red"},
		{Accent: "#fff"},
		{Accent: "#1234567"},
		{Accent: "#12345g"},
		{Accent: "#123456;}body{display:none"},
		{Docs: "javascript:alert(1)"},
		{Docs: "/docs"},
		{Docs: "data:text/html,x"},
		{Docs: "https://"},
		{Logo: []byte("GIF89a")},
		{Logo: []byte("<html>")},
		{Logo: append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 64<<10)...)},
	} {
		if _, err := dashboard.New(dashboard.Options{People: people, Store: store, Catalogue: catalogue, Brand: b, Now: time.Now, Log: zap.NewNop()}); err == nil {
			t.Errorf("%.80v is accepted", b)
		}
	}
}

func TestAssetsAreKeptForGoodAndPagesNotAtAll(t *testing.T) {
	t.Parallel()
	s := start(t)
	found := s.assets()
	if len(found) < 3 {
		t.Fatalf("the page names only %v", found)
	}
	for name, a := range found {
		if a.status != http.StatusOK || a.header.Get("Cache-Control") != "public, max-age=31536000, immutable" || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %d with %v", name, a.status, a.header)
		}
	}
	s.signIn()
	for _, path := range []string{"/dashboard/sign-in", "/dashboard/keys", "/dashboard/none", "/dashboard/assets/none/app.css"} {
		a := s.get(path)
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s has Cache-Control %q", path, got)
		}
		policy := a.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: its policy lacks %s", path, want)
			}
		}
		if strings.Contains(policy, "unsafe") || a.header.Get("X-Frame-Options") != "DENY" || a.header.Get("Referrer-Policy") == "" {
			t.Errorf("%s has %v", path, a.header)
		}
	}
}
