package dashboard_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestSignInAndOut(t *testing.T) {
	t.Parallel()
	s := start(t)
	if a := s.get("/dashboard/keys"); a.status != http.StatusSeeOther || a.header.Get("Location") != "/dashboard/sign-in?next=%2Fdashboard%2Fkeys" {
		t.Errorf("without a session got %d to %q", a.status, a.header.Get("Location"))
	}
	if a := s.post("/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {"wrong"}}); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "is wrong") {
		t.Errorf("a wrong password got %d", a.status)
	}
	s.signIn()
	if a := s.get("/dashboard/keys"); a.status != http.StatusOK || !strings.Contains(a.body, userEmail) {
		t.Errorf("signed in got %d", a.status)
	}
	if a := s.post("/dashboard/sign-out", url.Values{}); a.status != http.StatusSeeOther {
		t.Errorf("signing out got %d", a.status)
	}
	if a := s.get("/dashboard/keys"); a.status != http.StatusSeeOther {
		t.Errorf("signed out got %d", a.status)
	}
}

// TestWhatIsNoTokenAsksTheStoreNothing: anybody can send cookies.
func TestWhatIsNoTokenAsksTheStoreNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	before := s.redis.CommandCount()
	for _, token := range []string{"x", strings.Repeat("A", 42), strings.Repeat("A", 44), strings.Repeat(".", 43), strings.Repeat("B", 43)} {
		if a := s.do("GET", "/dashboard/keys", nil, "Cookie", "__Host-gatehouse="+token); a.status != http.StatusSeeOther {
			t.Errorf("%s got %d", token, a.status)
		}
	}
	if n := s.redis.CommandCount() - before; n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
}

// TestAgentsOfAnyBytesMaySignIn: the list of sessions shows what is text of it.
func TestAgentsOfAnyBytesMaySignIn(t *testing.T) {
	t.Parallel()
	for name, agent := range map[string]string{"latin-1": "Caf\xe9/1.0", "cut inside a letter": strings.Repeat("a", 255) + "é"} {
		s := start(t)
		if a := s.do("POST", "/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {userPassword}}, "User-Agent", agent); a.status != http.StatusSeeOther {
			t.Errorf("%s: got %d", name, a.status)
		}
	}
}

// TestAnotherSiteChangesNothing: neither with the cookie nor without it.
func TestAnotherSiteChangesNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "", "Origin", "https://evil.example"}, {"Sec-Fetch-Site", "", "Origin", "null"}} {
		if a := s.do("POST", "/dashboard/sign-out", url.Values{}, header...); a.status != http.StatusForbidden {
			t.Errorf("%q got %d", header, a.status)
		}
	}
	if a := s.get("/dashboard/keys"); a.status != http.StatusOK {
		t.Errorf("afterwards got %d", a.status)
	}
}
