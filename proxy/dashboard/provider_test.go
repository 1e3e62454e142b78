package dashboard_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/dashboard/openid"
	"gatehouse/proxy/dashboard/openid/openidtest"
)

const base = "https://dashboard.example.com"

// sso is a site whose people sign in at a provider.
type sso struct {
	*site
	at *openidtest.Provider
}

// startSSO serves a dashboard with the provider "sso", and with others.
func startSSO(t *testing.T, changes ...func(p *dashboard.Provider, o *openid.Options)) *sso {
	t.Helper()
	s := &sso{}
	s.site = start(t, func(made *site) {
		s.at = openidtest.Start(t, made.clock)
		s.at.Redirect = dashboard.RedirectURL(base, "sso")
		p, o := dashboard.Provider{Name: "sso", Label: "Acme <SSO>", Issuer: s.at.URL}, openid.Options{
			Name: "sso", Issuer: s.at.URL, ClientID: openidtest.ClientID, ClientSecret: openidtest.ClientSecret, RedirectURL: s.at.Redirect,
			Accounts: openid.Accounts{Fixed: "acme"}, Now: made.clock,
		}
		for _, change := range changes {
			change(&p, &o)
		}
		var err error
		p.OpenID, err = openid.New(o)
		made.must(err)
		made.providers = []dashboard.Provider{p}
	})
	return s
}

// begin clicks the button, signs in at the provider, and returns where that
// sends the browser.
func (s *sso) begin(path string) string {
	s.t.Helper()
	a := s.get(path)
	if a.status != http.StatusSeeOther || !strings.HasPrefix(a.header.Get("Location"), s.at.URL+"/authorize?") {
		s.t.Fatalf("the button leads to %d %q: %s", a.status, a.header.Get("Location"), a.body)
	}
	back, err := s.at.SignIn(s.t.Context(), a.header.Get("Location"))
	s.must(err)
	return strings.TrimPrefix(back.String(), base)
}

func (s *sso) signInThere() answer {
	s.t.Helper()
	return s.get(s.begin("/dashboard/sign-in/sso"))
}

// refusal is an answer that signs nobody in, and says that.
func (s *sso) refusal(a answer, text string) {
	s.t.Helper()
	s.wants(a, http.StatusUnauthorized, text, `role="alert"`)
	if strings.Contains(a.header.Get("Set-Cookie"), "__Host-gatehouse=") || s.signedIn() {
		s.t.Error("somebody is signed in")
	}
}

func TestSignInAtAProvider(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	s.wants(s.get("/dashboard/sign-in?next=%2Fdashboard%2Fprofile"), http.StatusOK,
		`href="/dashboard/sign-in/sso?next=%2fdashboard%2fprofile"`, "Continue with Acme &lt;SSO&gt;", `name="password"`)
	a := s.get("/dashboard/sign-in/sso?next=%2Fdashboard%2Fprofile")
	cookie := a.header.Get("Set-Cookie")
	for _, want := range []string{"__Host-gatehouse-openid=", "Path=/", "Max-Age=600", "HttpOnly", "Secure", "SameSite=Lax"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("the cookie is %s, want %s", cookie, want)
		}
	}
	asked, err := url.Parse(a.header.Get("Location"))
	s.must(err)
	q := asked.Query()
	if q.Get("code_challenge_method") != "S256" || len(q.Get("state")) < 43 || len(q.Get("nonce")) < 43 || q.Get("scope") != "openid email profile" {
		t.Errorf("asked %s", asked)
	}
	back, err := s.at.SignIn(t.Context(), asked.String())
	s.must(err)
	a = s.get(strings.TrimPrefix(back.String(), base))
	s.led(a, "/dashboard/profile")
	if cookies := strings.Join(a.header.Values("Set-Cookie"), "\n"); !strings.Contains(cookies, "__Host-gatehouse-openid=; Path=/; Max-Age=0") || !strings.Contains(cookies, "__Host-gatehouse=") {
		t.Errorf("the cookies are %s", cookies)
	}
	s.wants(s.get("/dashboard/profile"), http.StatusOK, userEmail, "Acme &lt;SSO&gt;")
	user, err := s.store.UserByEmail(t.Context(), userEmail)
	s.must(err)
	if user.User.ID != s.user.ID || user.User.Identity != (keystore.Identity{Issuer: s.at.URL, Subject: "subject-1"}) {
		t.Errorf("linked %+v", user.User)
	}
	events, _, err := s.store.AuditLog(t.Context(), "acme", keystore.EventFilter{Action: keystore.UserSignIn, Users: true}, "", 10)
	s.must(err)
	if len(events) != 1 || string(events[0].Changes[0].New) != `"provider sso"` || events[0].User != s.user.ID {
		t.Errorf("the trail has %+v", events)
	}
}

// TestIdentityStaysWhateverTheAddress: the subject is who it is, and an address
// that was given to somebody else is not.
func TestIdentityStaysWhateverTheAddress(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	s.led(s.signInThere(), "/dashboard/keys")
	s.browser = s.newBrowser()
	s.at.Claims["email"] = "ada.lovelace@example.com"
	s.led(s.signInThere(), "/dashboard/keys")
	s.wants(s.get("/dashboard/profile"), http.StatusOK, userEmail)
	s.browser = s.newBrowser()
	s.at.Claims["sub"], s.at.Claims["email"] = "subject-2", userEmail
	s.refusal(s.signInThere(), "may not sign in here")
}

// TestWhoIsNoUserIsRefused: and nothing of the provider's words is shown.
func TestWhoIsNoUserIsRefused(t *testing.T) {
	t.Parallel()
	yes := true
	for name, test := range map[string]struct {
		spoil func(s *sso)
		want  string
	}{
		"nobody":             {func(s *sso) { s.at.Claims["email"] = "bob@example.com" }, "may not sign in here"},
		"no address":         {func(s *sso) { delete(s.at.Claims, "email") }, "may not sign in here"},
		"unverified address": {func(s *sso) { s.at.Claims["email_verified"] = false }, "has not verified your e-mail address"},
		"disabled user": {func(s *sso) {
			_, err := s.store.UpdateUser(s.t.Context(), s.caller(), s.user.ID, keystore.UserChange{Disabled: &yes})
			s.must(err)
		}, "may not sign in here"},
		"suspended account": {func(s *sso) {
			s.account.Status = policy.Suspended
			_, _, err := s.store.PutAccount(s.t.Context(), policy.Caller{}, s.account)
			s.must(err)
		}, "may not sign in here"},
		"expired token": {func(s *sso) { s.at.Alter = func(c map[string]any) { c["exp"] = c["iat"].(int64) - 60 } }, "was not completed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSSO(t)
			test.spoil(s)
			s.refusal(s.signInThere(), test.want)
		})
	}
	t.Run("user of another account", func(t *testing.T) {
		t.Parallel()
		for _, create := range []bool{false, true} {
			s := startSSO(t, func(p *dashboard.Provider, o *openid.Options) {
				o.Accounts, p.Create = openid.Accounts{Fixed: "zeta"}, create
			})
			_, _, err := s.store.PutAccount(t.Context(), policy.Caller{}, keystore.Account{ID: "zeta", Name: "Zeta", Status: policy.Active, Permissions: []string{"*"}})
			s.must(err)
			s.refusal(s.signInThere(), "may not sign in here")
			if u, err := s.store.UserByEmail(t.Context(), userEmail); err != nil || u.User.Identity != (keystore.Identity{}) || u.User.Account != "acme" {
				t.Errorf("the user is %+v, %v", u.User, err)
			}
		}
	})
}

func TestUsersAreMadeWhereThatIsWanted(t *testing.T) {
	t.Parallel()
	s := startSSO(t, func(p *dashboard.Provider, _ *openid.Options) { p.Create = true })
	s.at.Claims["email"], s.at.Claims["name"] = "bob@example.com", "Bob\u202e\n <b>"+strings.Repeat("x", 200)
	s.led(s.signInThere(), "/dashboard/keys")
	u, err := s.store.UserByEmail(t.Context(), "bob@example.com")
	s.must(err)
	want := keystore.User{
		ID: u.User.ID, Account: "acme", Email: "bob@example.com", Name: "Bob <b>" + strings.Repeat("x", 93), Epoch: 1,
		CreatedAt: u.User.CreatedAt, LastSignInAt: s.clock(), Identity: keystore.Identity{Issuer: s.at.URL, Subject: "subject-1"},
	}
	if diff := cmp.Diff(want, u.User); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	page := s.get("/dashboard/profile")
	s.wants(page, http.StatusOK, "Bob &lt;b&gt;")
	if strings.Contains(page.body, `name="password"`) || strings.Contains(page.body, "Set up an authenticator") {
		t.Error("somebody without a password is asked for it")
	}
	s.led(s.get("/dashboard/profile/totp"), "/dashboard/profile")
	s.wants(s.post("/dashboard/sign-in", url.Values{"email": {"bob@example.com"}, "password": {""}}), http.StatusUnauthorized)
}

func TestNoUserIsMadeForAnAccountThatIsNone(t *testing.T) {
	t.Parallel()
	s := startSSO(t, func(p *dashboard.Provider, o *openid.Options) {
		p.Create, o.Accounts = true, openid.Accounts{Claim: "tenant"}
	})
	s.at.Claims["email"], s.at.Claims["tenant"] = "bob@example.com", "nowhere"
	s.refusal(s.signInThere(), "may not sign in here")
}

// TestAttemptIsOfOneBrowserOnce: an answer counts for whoever asked, once, and
// at the provider that was asked.
func TestAttemptIsOfOneBrowserOnce(t *testing.T) {
	t.Parallel()
	const incomplete = "was not completed"
	t.Run("another browser", func(t *testing.T) {
		t.Parallel()
		s := startSSO(t)
		back := s.begin("/dashboard/sign-in/sso")
		s.browser = s.newBrowser()
		s.refusal(s.get(back), incomplete)
	})
	t.Run("another attempt of the browser", func(t *testing.T) {
		t.Parallel()
		s := startSSO(t)
		back := s.begin("/dashboard/sign-in/sso")
		s.begin("/dashboard/sign-in/sso")
		s.refusal(s.get(back), incomplete)
	})
	t.Run("replayed, by a browser that kept its cookie", func(t *testing.T) {
		t.Parallel()
		s := startSSO(t)
		back := s.begin("/dashboard/sign-in/sso")
		kept := s.attemptCookie()
		s.led(s.get(back), "/dashboard/keys")
		s.browser = s.newBrowser()
		s.refusal(s.do("GET", back, nil, "Cookie", kept), incomplete)
		if n := s.at.Exchanged.Load(); n != 1 {
			t.Errorf("the provider was shown the code %d times", n)
		}
	})
	t.Run("after a mistake", func(t *testing.T) {
		t.Parallel()
		s := startSSO(t)
		back := s.begin("/dashboard/sign-in/sso")
		s.refusal(s.get(strings.Replace(back, "state=", "state=x", 1)), incomplete)
		s.refusal(s.get(back), incomplete)
	})
	t.Run("two cookies", func(t *testing.T) {
		t.Parallel()
		s := startSSO(t)
		back := s.begin("/dashboard/sign-in/sso")
		s.refusal(s.do("GET", back, nil, "Cookie", "__Host-gatehouse-openid=AAAA"), incomplete)
	})
	t.Run("a cookie that is nonsense", func(t *testing.T) {
		t.Parallel()
		s := startSSO(t)
		s.refusal(s.do("GET", "/dashboard/sign-in/sso/callback?state=&code=x", nil, "Cookie", "__Host-gatehouse-openid=e30"), incomplete)
	})
	t.Run("the answer of another provider", func(t *testing.T) {
		t.Parallel()
		s := startSSO(t)
		evil := openidtest.Start(t, s.clock)
		back := s.begin("/dashboard/sign-in/sso")
		s.refusal(s.get(strings.Replace(back, url.QueryEscape(s.at.URL), url.QueryEscape(evil.URL), 1)), incomplete)
	})
}

// attemptCookie is the cookie of the attempt that the browser keeps.
func (s *sso) attemptCookie() string {
	s.t.Helper()
	at, err := url.Parse(s.server.URL)
	s.must(err)
	for _, c := range s.browser.Jar.Cookies(at) {
		if c.Name == "__Host-gatehouse-openid" {
			return c.Name + "=" + c.Value
		}
	}
	s.t.Fatal("the browser has no attempt")
	return ""
}

// TestMixUpOfProvidersIsRefused: an answer to what was asked of one provider
// is none of another one.
func TestMixUpOfProvidersIsRefused(t *testing.T) {
	t.Parallel()
	var second *openidtest.Provider
	s := startSSO(t)
	second = openidtest.Start(t, s.clock)
	second.Redirect = dashboard.RedirectURL(base, "second")
	other, err := openid.New(openid.Options{
		Name: "second", Issuer: second.URL, ClientID: openidtest.ClientID, ClientSecret: openidtest.ClientSecret, RedirectURL: second.Redirect,
		Accounts: openid.Accounts{Fixed: "acme"}, Now: s.clock,
	})
	s.must(err)
	s.serve(append(s.providers, dashboard.Provider{Name: "second", Label: "Second", Issuer: second.URL, OpenID: other}))
	back := s.begin("/dashboard/sign-in/sso")
	s.refusal(s.get(strings.Replace(back, "/sso/", "/second/", 1)), "Signing in by Second was not completed")
}

func TestProviderSaysNothingInItsOwnWords(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	back, err := url.Parse(s.begin("/dashboard/sign-in/sso"))
	s.must(err)
	q := back.Query()
	q.Set("error", "access_denied")
	q.Set("error_description", "Call 555-1234 <script>")
	a := s.get(back.Path + "?" + q.Encode())
	s.refusal(a, "Acme &lt;SSO&gt; did not sign you in.")
	if strings.Contains(a.body, "555-1234") {
		t.Errorf("the page says %s", a.body)
	}
}

func TestProviderThatIsDownKeepsNobodyFromPasswords(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	s.at.Down.Store(true)
	s.wants(s.get("/dashboard/sign-in/sso"), http.StatusBadGateway, "does not answer at the moment", `name="password"`)
	s.signIn()
	s.at.Down.Store(false)
	s.pass(10 * time.Second)
	s.browser = s.newBrowser()
	s.led(s.signInThere(), "/dashboard/keys")
	s.wants(s.get("/dashboard/sign-in/unknown"), http.StatusNotFound)
	s.wants(s.get("/dashboard/sign-in/unknown/callback"), http.StatusNotFound)
}

// TestNextPageIsOneOfOurs: whatever the cookie says.
func TestNextPageIsOneOfOurs(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	for _, next := range []string{"https://evil.example/", "//evil.example", "/dashboard/keys?" + strings.Repeat("x", 2000)} {
		back := s.begin("/dashboard/sign-in/sso?next=" + url.QueryEscape(next))
		s.led(s.get(back), "/dashboard/keys")
	}
}

func TestAnswersCountAsAttempts(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	for range 30 {
		s.get("/dashboard/sign-in/sso/callback?code=x&state=y")
	}
	a := s.get("/dashboard/sign-in/sso/callback?code=x&state=y")
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d", a.status)
	}
}

// TestLeavingForAProviderCounts: it may have a provider asked.
func TestLeavingForAProviderCounts(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	for range 30 {
		s.get("/dashboard/sign-in/sso")
	}
	if a := s.get("/dashboard/sign-in/sso"); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d", a.status)
	}
}

// TestAnswersToNothingLeaveNothingInTheStore: anybody can make such a cookie.
func TestAnswersToNothingLeaveNothingInTheStore(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	cookie := "__Host-gatehouse-openid=" + base64.RawURLEncoding.EncodeToString([]byte(`{"attempt":{"provider":"sso","state":"abc","nonce":"","verifier":""},"next":""}`))
	for _, query := range []string{"", "?code=x", "?state=abd&code=x", "?state=abc&state=abc&code=x"} {
		s.refusal(s.do("GET", "/dashboard/sign-in/sso/callback"+query, nil, "Cookie", cookie), "was not completed")
	}
	for _, key := range s.redis.Keys() {
		if strings.Contains(key, "openid-") {
			t.Errorf("the store has %s", key)
		}
	}
}

// TestPasswordToBeChangedIsAMatterOfThePassword: who is vouched for is not
// asked for a password that somebody else chose, and who shows that is.
func TestPasswordToBeChangedIsAMatterOfThePassword(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	s.mustChange()
	s.led(s.signInThere(), "/dashboard/keys")
	s.wants(s.get("/dashboard/keys"), http.StatusOK)
	s.browser = s.newBrowser()
	s.signIn()
	s.led(s.get("/dashboard/keys"), "/dashboard/password")
}

// TestSecondStepIsTheProvidersBusiness: its own, which it may have asked for.
func TestSecondStepIsTheProvidersBusiness(t *testing.T) {
	t.Parallel()
	s := startSSO(t)
	s.signIn()
	s.withTOTP()
	s.browser = s.newBrowser()
	s.led(s.signInThere(), "/dashboard/keys")
}
