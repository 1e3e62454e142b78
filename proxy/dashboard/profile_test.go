package dashboard_test

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"gatehouse/proxy/password"
)

const betterPassword = "a better one: 7 geese"

// signedIn reports whether the browser is signed in.
func (s *site) signedIn() bool {
	s.t.Helper()
	return s.get("/dashboard/profile").status == http.StatusOK
}

// hasher makes hashes as the site does.
func (s *site) hasher() *password.Hasher {
	s.t.Helper()
	h, err := password.NewHasher(password.Cost{MemoryKiB: 64, Passes: 1, Lanes: 1}, 4)
	s.must(err)
	return h
}

// mustChange gives the user a password that an operator chose.
func (s *site) mustChange() {
	s.t.Helper()
	hash, err := s.hasher().Hash(s.t.Context(), userPassword)
	s.must(err)
	s.must(s.store.SetPassword(s.t.Context(), s.caller(), s.user.ID, hash, true))
}

func (s *site) wants(a answer, status int, texts ...string) {
	s.t.Helper()
	if a.status != status {
		s.t.Errorf("answered %d to %q, want %d", a.status, a.header.Get("Location"), status)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			s.t.Errorf("the page has no %q: %s", text, a.body)
		}
	}
}

// led is an answer that leads to another page.
func (s *site) led(a answer, to string) {
	s.t.Helper()
	if a.status != http.StatusSeeOther || a.header.Get("Location") != to {
		s.t.Errorf("answered %d to %q, want to %q: %.200s", a.status, a.header.Get("Location"), to, a.body)
	}
}

func TestProfileShowsWhoIsSignedIn(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	s.wants(s.get("/dashboard/profile"), http.StatusOK, userEmail, ">Ada<", ">Acme<", "This browser", clientIP, "Set up an authenticator")
}

func TestPasswordIsChangedOnTheProfile(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	elsewhere := s.browser
	s.browser = s.newBrowser()
	s.signIn()
	change := func(current, chosen, repeat string) answer {
		return s.post("/dashboard/profile/password", url.Values{"current": {current}, "password": {chosen}, "repeat": {repeat}})
	}
	for name, test := range map[string]struct{ current, chosen, repeat, want string }{
		"wrong current": {"wrong", betterPassword, betterPassword, `id="current-error">This is not your current password.`},
		"not repeated":  {userPassword, betterPassword, betterPassword + "x", `id="repeat-error"`},
		"too short":     {userPassword, "short", "short", `id="new-password-error">The password must have at least 12 characters.`},
		"the same":      {userPassword, userPassword, userPassword, `id="new-password-error">This is the password that you have.`},
		"common":        {userPassword, "password1234", "password1234", `id="new-password-error">The password is one of the commonest`},
	} {
		a := change(test.current, test.chosen, test.repeat)
		s.wants(a, http.StatusUnprocessableEntity, test.want, `role="alert"`, `aria-invalid="true"`)
		if strings.Contains(a.body, test.current) && test.current != "wrong" || strings.Contains(a.body, betterPassword) {
			t.Errorf("%s: a password is on the page", name)
		}
	}
	a := change(userPassword, betterPassword, betterPassword)
	s.led(a, "/dashboard/profile?notice=password_changed")
	if cookie := a.header.Get("Set-Cookie"); !strings.Contains(cookie, "__Host-gatehouse=") || !strings.Contains(cookie, "HttpOnly; Secure; SameSite=Lax") {
		t.Errorf("the new session's cookie is %q", cookie)
	}
	s.wants(s.get("/dashboard/profile?notice=password_changed"), http.StatusOK, "Your password is changed")
	s.browser = elsewhere
	if s.signedIn() {
		t.Error("still signed in elsewhere")
	}
	s.wants(s.post("/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {userPassword}}), http.StatusUnauthorized)
	s.led(s.post("/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {betterPassword}}), "/dashboard/keys")
}

// TestFirstPasswordComesBeforeEverything: whoever signs in with a password
// that was made for it sees nothing else.
func TestFirstPasswordComesBeforeEverything(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mustChange()
	s.signIn()
	for _, path := range []string{"/dashboard/keys", "/dashboard/profile", "/dashboard/profile/totp", "/dashboard/audit"} {
		if a := s.get(path); path != "/dashboard/audit" || a.status != http.StatusNotFound {
			s.led(a, "/dashboard/password")
		}
	}
	for _, path := range []string{"/dashboard/profile/password", "/dashboard/profile/totp", "/dashboard/profile/sign-out-everywhere"} {
		s.led(s.post(path, url.Values{"current": {userPassword}, "password": {betterPassword}, "repeat": {betterPassword}}), "/dashboard/password")
	}
	s.wants(s.get("/dashboard/password"), http.StatusOK, "Choose a password")
	choose := func(current, chosen string) answer {
		return s.post("/dashboard/password", url.Values{"current": {current}, "password": {chosen}, "repeat": {chosen}})
	}
	s.wants(choose("wrong", betterPassword), http.StatusUnprocessableEntity, `id="current-error"`, "Choose a password")
	s.led(choose(userPassword, betterPassword), "/dashboard/keys?notice=password_changed")
	s.wants(s.get("/dashboard/keys?notice=password_changed"), http.StatusOK, "Your password is changed")
	s.led(s.get("/dashboard/password"), "/dashboard/profile")
}

func TestPasswordNeedsASession(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.led(s.get("/dashboard/password"), "/dashboard/sign-in?next=%2Fdashboard%2Fpassword")
	for _, path := range []string{"/dashboard/password", "/dashboard/profile/password", "/dashboard/profile/totp", "/dashboard/profile/totp/remove", "/dashboard/profile/sign-out-everywhere", "/dashboard/profile/sessions/x/sign-out"} {
		s.led(s.post(path, url.Values{}), "/dashboard/sign-in?ended=1")
	}
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.do("POST", "/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {userPassword}},
		"User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0")
	other := s.browser
	s.browser = s.newBrowser()
	s.do("POST", "/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {userPassword}}, "User-Agent", `"><script>alert(1)</script>`)
	a := s.get("/dashboard/profile")
	s.wants(a, http.StatusOK, "Firefox on Linux", "An unknown browser", "&#34;&gt;&lt;script&gt;")
	if strings.Contains(a.body, "<script>alert") || strings.Count(a.body, "This browser") != 1 {
		t.Errorf("the list is %s", a.body)
	}
	ends := regexp.MustCompile(`/dashboard/profile/sessions/[0-9a-f-]+/sign-out`).FindAllString(a.body, -1)
	if len(ends) != 2 {
		t.Fatalf("listed %v", ends)
	}
	here := regexp.MustCompile(`(?s)This browser.*?(/dashboard/profile/sessions/[0-9a-f-]+/sign-out)`).FindStringSubmatch(a.body)[1]
	there := ends[1-slices.Index(ends, here)]
	s.led(s.post(there, url.Values{}), "/dashboard/profile?notice=session_ended")
	s.led(s.post(there, url.Values{}), "/dashboard/profile?notice=session_ended")
	s.led(s.post("/dashboard/profile/sessions/%3Cb%3E/sign-out", url.Values{}), "/dashboard/profile?notice=session_ended")
	mine := s.browser
	if s.browser = other; s.signedIn() {
		t.Error("the other is still signed in")
	}
	s.browser = mine
	if !s.signedIn() {
		t.Error("this one ended too")
	}
	s.led(s.post(here, url.Values{}), "/dashboard/sign-in?notice=signed_out")
	if s.signedIn() {
		t.Error("this one goes on")
	}
}

func TestBrowsersAreShownInWords(t *testing.T) {
	t.Parallel()
	s := start(t)
	for agent, want := range map[string]string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36":                        "Chrome on Windows",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36 Edg/129.0":              "Edge on Windows",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Safari/605.1.15":                  "Safari on a Mac",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/129.0 Mobile Safari/604.1":        "Chrome on an iPhone",
		"Mozilla/5.0 (Linux; Android 14; SM-S901B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0 Mobile Safari/537.36": "Samsung Internet on Android",
		"curl/8.9.1": "An unknown browser",
	} {
		s.do("POST", "/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {userPassword}}, "User-Agent", agent)
		if a := s.get("/dashboard/profile"); !strings.Contains(a.body, ">"+want+"<") {
			t.Errorf("%s is not %q: %s", agent, want, a.body)
		}
	}
}

// TestNobodyEndsASessionOfAnotherUser: neither of the account nor of another one.
func TestNobodyEndsASessionOfAnotherUser(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.addUser(s.hasher(), "bob@example.com", userPassword)
	s.signIn()
	here := regexp.MustCompile(`/dashboard/profile/sessions/[0-9a-f-]+/sign-out`).FindString(s.get("/dashboard/profile").body)
	ada := s.browser
	s.browser = s.newBrowser()
	s.post("/dashboard/sign-in", url.Values{"email": {"bob@example.com"}, "password": {userPassword}})
	s.post(here, url.Values{})
	if !s.signedIn() {
		t.Error("Bob is not signed in")
	}
	if s.browser = ada; !s.signedIn() {
		t.Error("Bob has signed Ada out")
	}
}

func TestSignOutEverywhere(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	other := s.browser
	s.browser = s.newBrowser()
	s.signIn()
	a := s.post("/dashboard/profile/sign-out-everywhere", url.Values{})
	s.led(a, "/dashboard/sign-in?notice=signed_out_everywhere")
	if a.header.Get("Clear-Site-Data") == "" || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("the browser keeps %q", a.header)
	}
	if s.signedIn() {
		t.Error("still signed in here")
	}
	if s.browser = other; s.signedIn() {
		t.Error("still signed in elsewhere")
	}
}

var (
	secretText = regexp.MustCompile(`(?s)<p class="secret mono"[^>]*>(.*?)</p>`)
	offerField = regexp.MustCompile(`name="offer" value="([^"]+)"`)
	tags       = regexp.MustCompile(`<[^>]*>|\s`)
)

// offered reads the page that offers a secret.
func (s *site) offered(a answer) (secret, offer string) {
	s.t.Helper()
	text, field := secretText.FindStringSubmatch(a.body), offerField.FindStringSubmatch(a.body)
	if text == nil || field == nil {
		s.t.Fatalf("no secret is offered: %d %s", a.status, a.body)
	}
	return tags.ReplaceAllString(text[1], ""), field[1]
}

func (s *site) code(secret string) string {
	s.t.Helper()
	code, err := totp.GenerateCode(secret, s.clock())
	s.must(err)
	return code
}

// withTOTP sets an authenticator up by the pages.
func (s *site) withTOTP() (secret string, recovery []string) {
	s.t.Helper()
	secret, offer := s.offered(s.get("/dashboard/profile/totp"))
	a := s.post("/dashboard/profile/totp", url.Values{"offer": {offer}, "password": {userPassword}, "code": {s.code(secret)}})
	s.wants(a, http.StatusOK, "only this once")
	for _, item := range regexp.MustCompile(`<li>([^<]+)</li>`).FindAllStringSubmatch(a.body, -1) {
		recovery = append(recovery, item[1])
	}
	if len(recovery) != 10 {
		s.t.Fatalf("shown are %v", recovery)
	}
	return secret, recovery
}

func TestAuthenticatorIsSetUpAndRemoved(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	page := s.get("/dashboard/profile/totp")
	s.wants(page, http.StatusOK, `<svg class="qr"`, "h7v1") // the edge of a finder pattern
	secret, offer := s.offered(page)
	for name, test := range map[string]struct{ offer, password, code, want string }{
		"wrong password": {offer, "wrong", s.code(secret), `id="password-error">This is not your password.`},
		"wrong code":     {offer, userPassword, "000000", `id="code-error"`},
		"no offer":       {"", userPassword, s.code(secret), "Scan the new QR code"},
	} {
		a := s.post("/dashboard/profile/totp", url.Values{"offer": {test.offer}, "password": {test.password}, "code": {test.code}})
		s.wants(a, http.StatusUnprocessableEntity, test.want, `role="alert"`)
		if again, _ := s.offered(a); (again == secret) != (test.offer != "") {
			t.Errorf("%s: the secret is kept: %t", name, again == secret)
		}
	}
	_, recovery := s.withTOTP()
	s.wants(s.get("/dashboard/profile"), http.StatusOK, "10 of your recovery codes", "Remove the authenticator")
	s.led(s.get("/dashboard/profile/totp"), "/dashboard/profile")
	s.led(s.post("/dashboard/profile/totp", url.Values{"offer": {offer}, "password": {userPassword}, "code": {s.code(secret)}}), "/dashboard/profile")

	remove := func(password, code string) answer {
		return s.post("/dashboard/profile/totp/remove", url.Values{"password": {password}, "code": {code}})
	}
	s.wants(s.get("/dashboard/profile/totp/remove"), http.StatusOK, "Remove your authenticator")
	s.wants(remove("wrong", recovery[0]), http.StatusUnprocessableEntity, `id="password-error"`)
	s.wants(remove(userPassword, "000000"), http.StatusUnprocessableEntity, `id="code-error"`, "or another recovery code")
	s.led(remove(userPassword, recovery[0]), "/dashboard/profile?notice=totp_removed")
	s.wants(s.get("/dashboard/profile?notice=totp_removed"), http.StatusOK, "The authenticator is removed", "Set up an authenticator")
	s.led(s.get("/dashboard/profile/totp/remove"), "/dashboard/profile")
}

// TestOfferOfAnotherUserIsNotConfirmed: whose secret it is, is not for the
// form to say.
func TestOfferOfAnotherUserIsNotConfirmed(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.addUser(s.hasher(), "bob@example.com", userPassword)
	s.post("/dashboard/sign-in", url.Values{"email": {"bob@example.com"}, "password": {userPassword}})
	secret, offer := s.offered(s.get("/dashboard/profile/totp"))
	s.browser = s.newBrowser()
	s.signIn()
	a := s.post("/dashboard/profile/totp", url.Values{"offer": {offer}, "password": {userPassword}, "code": {s.code(secret)}})
	s.wants(a, http.StatusUnprocessableEntity, "Scan the new QR code")
	if again, _ := s.offered(a); again == secret {
		t.Error("Ada is offered Bob's secret")
	}
}

// TestSecondStepAsksForTheCodeAlone: the password is typed once.
func TestSecondStepAsksForTheCodeAlone(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	secret, recovery := s.withTOTP()
	s.browser = s.newBrowser()
	ticketField := regexp.MustCompile(`name="ticket" value="([^"]+)"`)
	first := s.post("/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {userPassword}, "next": {"/dashboard/profile"}})
	s.wants(first, http.StatusOK, `name="code"`, userEmail, `name="next" value="/dashboard/profile"`)
	if strings.Contains(first.body, `name="password"`) || first.header.Get("Set-Cookie") != "" {
		t.Errorf("the second step is %s", first.body)
	}
	ticket := ticketField.FindStringSubmatch(first.body)[1]
	step := func(code string) answer {
		return s.post("/dashboard/sign-in", url.Values{"email": {userEmail}, "ticket": {ticket}, "code": {code}, "next": {"/dashboard/profile"}})
	}
	s.wants(step("000000"), http.StatusUnauthorized, "This code is wrong", `name="ticket"`)
	s.wants(step(""), http.StatusOK, `name="ticket"`)
	if s.signedIn() {
		t.Error("signed in without a code")
	}
	s.led(step(recovery[3]), "/dashboard/profile")
	s.wants(s.get("/dashboard/profile"), http.StatusOK, "9 of your recovery codes")
	s.pass(5 * time.Minute)
	a := step(s.code(secret))
	s.wants(a, http.StatusUnauthorized, "Begin again", `name="password"`)
}
