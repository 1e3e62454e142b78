package openid_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard/openid"
	"gatehouse/proxy/dashboard/openid/openidtest"
)

const redirect = "https://dashboard.example.com/dashboard/sign-in/sso/callback"

// world is a client of a provider.
type world struct {
	t   *testing.T
	at  *openidtest.Provider
	o   openid.Options
	now time.Time
	*openid.Provider
	attempt openid.Attempt
	query   url.Values
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.Unix(1_790_000_000, 0)}
	clock := func() time.Time { return w.now }
	w.at = openidtest.Start(t, clock)
	w.at.Redirect = redirect
	w.o = openid.Options{
		Name: "sso", Issuer: w.at.URL, ClientID: openidtest.ClientID, ClientSecret: openidtest.ClientSecret, RedirectURL: redirect,
		Accounts: openid.Accounts{Fixed: "acme"}, Now: clock,
	}
	return w
}

// begin goes to the provider and comes back.
func (w *world) begin() {
	w.t.Helper()
	var err error
	if w.Provider == nil {
		if w.Provider, err = openid.New(w.o); err != nil {
			w.t.Fatal(err)
		}
	}
	to, attempt, err := w.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	back, err := w.at.SignIn(w.t.Context(), to)
	if err != nil {
		w.t.Fatal(err)
	}
	w.attempt, w.query = attempt, back.Query()
}

func (w *world) finish() (openid.Person, error) {
	w.t.Helper()
	return w.Finish(w.t.Context(), w.attempt, w.query)
}

// want signs in, and wants that person.
func (w *world) want(want openid.Person) {
	w.t.Helper()
	w.begin()
	got, err := w.finish()
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		w.t.Errorf("got %v (-want +got):\n%s", err, diff)
	}
}

func (w *world) ada() openid.Person {
	return openid.Person{Identity: keystore.Identity{Issuer: w.at.URL, Subject: "subject-1"}, Account: "acme", Email: "ada@example.com", Name: "Ada Lovelace"}
}

func TestProviderSaysWhoSomebodyIs(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(w *world, want *openid.Person){
		"of a fixed account": func(*world, *openid.Person) {},
		"of the account that a claim names": func(w *world, want *openid.Person) {
			w.o.Accounts, w.at.Claims["tenant"], want.Account = openid.Accounts{Claim: "tenant"}, "zeta", "zeta"
		},
		"of the account of the domain": func(w *world, want *openid.Person) {
			w.o.Accounts = openid.Accounts{Domains: map[string]policy.AccountID{"example.com": "dom", "mail.example.com": "other"}}
			w.at.Claims["email"], want.Email, want.Account = "Ada@EXAMPLE.com", "Ada@EXAMPLE.com", "dom"
		},
		"with the address at UserInfo alone": func(w *world, _ *openid.Person) {
			delete(w.at.Claims, "email")
			delete(w.at.Claims, "email_verified")
			w.at.Info = map[string]any{"email": "ada@example.com", "email_verified": "true"}
		},
		"with another address at UserInfo, which does not count": func(w *world, want *openid.Person) {
			w.o.Accounts, want.Account = openid.Accounts{Claim: "tenant"}, "zeta"
			w.at.Info = map[string]any{"tenant": "zeta", "email": "bob@example.com", "email_verified": false}
		},
		"of the account that UserInfo alone names": func(w *world, want *openid.Person) {
			w.o.Accounts, w.at.Info, want.Account = openid.Accounts{Claim: "tenant"}, map[string]any{"tenant": "zeta"}, "zeta"
		},
		"with an address that is trusted unverified": func(w *world, _ *openid.Person) {
			w.o.TrustEmail = true
			delete(w.at.Claims, "email_verified")
		},
		"with several audiences": func(w *world, _ *openid.Person) {
			w.at.Alter = func(c map[string]any) {
				c["aud"], c["azp"] = []string{"other", openidtest.ClientID}, openidtest.ClientID
			}
		},
		"without iss, where none is promised": func(w *world, _ *openid.Person) {
			w.at.Metadata = func(m map[string]any) { delete(m, "authorization_response_iss_parameter_supported") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			want := w.ada()
			change(w, &want)
			w.want(want)
		})
	}
}

// TestWhatIsNoAnswerIsRefused: each row is a sign-in that would succeed but for
// one thing.
func TestWhatIsNoAnswerIsRefused(t *testing.T) {
	t.Parallel()
	token := func(alter func(c map[string]any)) func(w *world) {
		return func(w *world) { w.at.Alter = alter; w.begin() }
	}
	answer := func(alter func(w *world)) func(w *world) {
		return func(w *world) { w.begin(); alter(w) }
	}
	for name, test := range map[string]struct {
		spoil func(w *world)
		want  error
	}{
		"another state":             {answer(func(w *world) { w.query.Set("state", "x"+w.query.Get("state")[1:]) }), openid.ErrAnswer},
		"no state":                  {answer(func(w *world) { w.query.Del("state") }), openid.ErrAnswer},
		"no state on either side":   {answer(func(w *world) { w.query.Del("state"); w.attempt.State = "" }), openid.ErrAnswer},
		"state twice":               {answer(func(w *world) { w.query.Add("state", w.query.Get("state")) }), openid.ErrAnswer},
		"code twice":                {answer(func(w *world) { w.query.Add("code", w.query.Get("code")) }), openid.ErrAnswer},
		"no code":                   {answer(func(w *world) { w.query.Del("code") }), openid.ErrAnswer},
		"another code":              {answer(func(w *world) { w.query.Set("code", "guessed") }), openid.ErrAnswer},
		"replayed code":             {answer(func(w *world) { _, _ = w.finish() }), openid.ErrAnswer},
		"iss of another provider":   {answer(func(w *world) { w.query.Set("iss", "https://evil.example") }), openid.ErrAnswer},
		"empty iss":                 {answer(func(w *world) { w.query.Set("iss", "") }), openid.ErrAnswer},
		"no iss, where promised":    {answer(func(w *world) { w.query.Del("iss") }), openid.ErrAnswer},
		"attempt of another one":    {answer(func(w *world) { w.attempt.Provider = "other" }), openid.ErrAnswer},
		"no PKCE verifier":          {answer(func(w *world) { w.attempt.Verifier = "" }), openid.ErrAnswer},
		"another PKCE verifier":     {answer(func(w *world) { w.attempt.Verifier = strings.Repeat("v", 43) }), openid.ErrAnswer},
		"another nonce":             {answer(func(w *world) { w.attempt.Nonce = "x" }), openid.ErrAnswer},
		"no nonce in the token":     {token(func(c map[string]any) { delete(c, "nonce") }), openid.ErrAnswer},
		"another audience":          {token(func(c map[string]any) { c["aud"] = "other" }), openid.ErrAnswer},
		"audiences without azp":     {token(func(c map[string]any) { c["aud"] = []string{"other", openidtest.ClientID} }), openid.ErrAnswer},
		"azp of another client":     {token(func(c map[string]any) { c["azp"] = "other" }), openid.ErrAnswer},
		"another issuer":            {token(func(c map[string]any) { c["iss"] = "https://evil.example" }), openid.ErrAnswer},
		"expired":                   {token(func(c map[string]any) { c["exp"] = c["iat"] }), openid.ErrAnswer},
		"not valid yet":             {token(func(c map[string]any) { c["nbf"] = c["iat"].(int64) + 3600 }), openid.ErrAnswer},
		"no subject":                {token(func(c map[string]any) { delete(c, "sub") }), openid.ErrAnswer},
		"unverified address":        {token(func(c map[string]any) { c["email_verified"] = false }), openid.ErrUnverified},
		"address said as a text":    {token(func(c map[string]any) { c["email_verified"] = "true" }), openid.ErrUnverified},
		"nothing about the address": {token(func(c map[string]any) { delete(c, "email_verified") }), openid.ErrUnverified},
		"denied": {answer(func(w *world) {
			w.query.Del("code")
			w.query.Set("error", "access_denied<script>")
		}), openid.ErrDenied},
		"denied, with another state": {answer(func(w *world) { w.query.Set("error", "access_denied"); w.query.Set("state", "x") }), openid.ErrAnswer},
		"no ID token":                {func(w *world) { w.at.Sign = func(map[string]any) string { return "" }; w.begin() }, openid.ErrAnswer},
		"alg none": {func(w *world) {
			w.at.Sign = func(c map[string]any) string { return unsigned(w.t, c) }
			w.begin()
		}, openid.ErrAnswer},
		"alg HS256 with the client's secret": {func(w *world) {
			w.at.Sign = func(c map[string]any) string {
				return openidtest.Signed(w.t, jose.HS256, []byte(openidtest.ClientSecret+"........"), c)
			}
			w.begin()
		}, openid.ErrAnswer},
		"alg HS256 with a key that is published": {func(w *world) {
			w.at.Shared = []byte("thirty-two bytes that all may see")
			w.at.Sign = func(c map[string]any) string { return openidtest.Signed(w.t, jose.HS256, w.at.Shared, c) }
			w.begin()
		}, openid.ErrAnswer},
		"key of another provider": {func(w *world) {
			other := start(w.t)
			w.at.Sign = func(c map[string]any) string { return other.at.Token(c) }
			w.begin()
		}, openid.ErrAnswer},
		"UserInfo of somebody else": {func(w *world) {
			delete(w.at.Claims, "email")
			w.at.Info = map[string]any{"sub": "subject-2", "email": "ada@example.com", "email_verified": true}
			w.begin()
		}, openid.ErrAnswer},
		"address that UserInfo calls unverified, whatever the ID token": {func(w *world) {
			delete(w.at.Claims, "email")
			w.at.Info = map[string]any{"email": "victim@example.com", "email_verified": false}
			w.begin()
		}, openid.ErrUnverified},
		"address of UserInfo that it says nothing about": {func(w *world) {
			delete(w.at.Claims, "email")
			w.at.Info = map[string]any{"email": "victim@example.com"}
			w.begin()
		}, openid.ErrUnverified},
		"unverified address that UserInfo calls verified, of somebody else": {func(w *world) {
			w.o.Accounts, w.at.Claims["email_verified"] = openid.Accounts{Claim: "tenant"}, false
			w.at.Info = map[string]any{"tenant": "acme", "email": "bob@example.com", "email_verified": true}
			w.begin()
		}, openid.ErrUnverified},
		"no account claim": {func(w *world) { w.o.Accounts = openid.Accounts{Claim: "tenant"}; w.begin() }, openid.ErrNoAccount},
		"an account claim that is no text": {func(w *world) {
			w.o.Accounts, w.at.Claims["tenant"] = openid.Accounts{Claim: "tenant"}, []string{"acme"}
			w.begin()
		}, openid.ErrNoAccount},
		"an account claim that is no id": {func(w *world) {
			w.o.Accounts, w.at.Claims["tenant"] = openid.Accounts{Claim: "tenant"}, "acme}:x"
			w.begin()
		}, openid.ErrNoAccount},
		"another domain": {func(w *world) {
			w.o.Accounts = openid.Accounts{Domains: map[string]policy.AccountID{"example.org": "acme", "com": "acme"}}
			w.begin()
		}, openid.ErrNoAccount},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			test.spoil(w)
			if who, err := w.finish(); !errors.Is(err, test.want) {
				t.Errorf("got %v, %v, want %v", who, err, test.want)
			} else if len(err.Error()) > 400 || strings.Contains(err.Error(), w.query.Get("code")) && w.query.Has("code") {
				t.Errorf("the error says too much: %v", err)
			}
		})
	}
}

func unsigned(t *testing.T, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Error(err)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload) + "."
}

// TestProviderThatIsDownRecovers: it is asked when somebody wants to sign in,
// not more often than every ten seconds, and what it said before holds.
func TestProviderThatIsDownRecovers(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.at.Down.Store(true)
	var err error
	if w.Provider, err = openid.New(w.o); err != nil {
		t.Fatalf("a provider that is down: %v", err)
	}
	if _, _, err := w.Begin(t.Context()); !errors.Is(err, openid.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	w.at.Down.Store(false)
	if _, _, err := w.Begin(t.Context()); !errors.Is(err, openid.ErrUnavailable) || w.at.Discovered.Load() != 0 {
		t.Errorf("at once: got %v", err)
	}
	w.now = w.now.Add(10 * time.Second)
	w.want(w.ada())
	w.want(w.ada())
	if n := w.at.Discovered.Load(); n != 1 {
		t.Errorf("asked about itself %d times", n)
	}
	w.at.Down.Store(true)
	if _, _, err := w.Begin(t.Context()); err != nil {
		t.Errorf("what it said before does not hold: %v", err)
	}
	if _, err := w.finish(); !errors.Is(err, openid.ErrUnavailable) {
		t.Errorf("an answer while it is down: got %v", err)
	}
}

func TestProviderThatIsNotWhoItShouldBeIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(m map[string]any){
		"another issuer":          func(m map[string]any) { m["issuer"] = "https://evil.example" },
		"no keys":                 func(m map[string]any) { delete(m, "jwks_uri") },
		"an endpoint without TLS": func(m map[string]any) { m["token_endpoint"] = "ftp://127.0.0.1/token" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			w.at.Metadata = change
			p, err := openid.New(w.o)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := p.Begin(t.Context()); !errors.Is(err, openid.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestNothingFollowsARedirect: the client's secret goes where the provider said.
func TestNothingFollowsARedirect(t *testing.T) {
	t.Parallel()
	w := start(t)
	moved := http.RedirectHandler(w.at.URL+"/.well-known/openid-configuration", http.StatusTemporaryRedirect)
	w.o.Transport = transport(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host != "moved.example" {
			return http.DefaultTransport.RoundTrip(r)
		}
		return recorded(moved, r), nil
	})
	w.o.Issuer = "http://moved.example"
	p, err := openid.New(w.o)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Begin(t.Context()); !errors.Is(err, openid.ErrUnavailable) || w.at.Discovered.Load() != 0 {
		t.Errorf("got %v; the other place was asked %d times", err, w.at.Discovered.Load())
	}
}

func TestIncompleteOptionsAreRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(o *openid.Options){
		"no name": func(o *openid.Options) { o.Name = "" }, "no issuer": func(o *openid.Options) { o.Issuer = "" },
		"no account": func(o *openid.Options) { o.Accounts = openid.Accounts{} },
		"domains of anybody's word": func(o *openid.Options) {
			o.TrustEmail, o.Accounts = true, openid.Accounts{Domains: map[string]policy.AccountID{"example.com": "acme"}}
		},
	} {
		w := start(t)
		change(&w.o)
		if _, err := openid.New(w.o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
