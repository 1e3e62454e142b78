// Package openidtest is an OpenID provider for tests: discovery, authorization
// code flow with PKCE, keys, and UserInfo. It is strict, and does wrong what a
// test tells it to.
package openidtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The client that the provider knows.
const (
	ClientID     = "gatehouse"
	ClientSecret = "hush: a secret of the client" //nolint:gosec // it is for tests alone
)

// Provider is a running provider. Its exported fields may be set before it is
// asked for the first time.
type Provider struct {
	URL string
	// Redirect is the one redirect URL that is registered.
	Redirect string
	// Claims are of the person who signs in; the provider adds what every ID
	// token has.
	Claims map[string]any
	// Info are claims of the person that the UserInfo endpoint alone has.
	Info map[string]any
	// Alter changes the claims of an ID token before it is signed.
	Alter func(claims map[string]any)
	// Sign spells the ID token in place of the provider's own signature.
	Sign func(claims map[string]any) string
	// Metadata changes what the provider says of itself.
	Metadata func(m map[string]any)
	// Shared is a symmetric key that is published with the others, nil for none.
	Shared []byte
	// Down: nothing is answered but 503.
	Down atomic.Bool
	// Discovered counts how often it was asked about itself.
	Discovered atomic.Int64
	// Exchanged counts how often it was shown a code.
	Exchanged atomic.Int64

	t     *testing.T
	now   func() time.Time
	key   *ecdsa.PrivateKey
	mu    sync.Mutex
	codes map[string]url.Values // the authorization requests, by code
}

// Start starts a provider that ends with the test.
func Start(t *testing.T, now func() time.Time) *Provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &Provider{t: t, now: now, key: key, codes: map[string]url.Values{}, Claims: map[string]any{
		"sub": "subject-1", "email": "ada@example.com", "email_verified": true, "name": "Ada Lovelace",
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.describe)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /userinfo", p.userInfo)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.Down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

func (p *Provider) describe(w http.ResponseWriter, _ *http.Request) {
	p.Discovered.Add(1)
	m := map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		"userinfo_endpoint": p.URL + "/userinfo", "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256", "HS256", "none"}, "code_challenge_methods_supported": []string{"S256"},
		"authorization_response_iss_parameter_supported": true,
	}
	if p.Metadata != nil {
		p.Metadata(m)
	}
	answer(w, http.StatusOK, m)
}

// authorize signs the person in at once, and sends it back.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case q.Get("client_id") != ClientID, q.Get("redirect_uri") != p.Redirect:
		http.Error(w, "this client is not known, or not there", http.StatusBadRequest)
		return
	case q.Get("response_type") != "code", q.Get("code_challenge_method") != "S256", len(q.Get("code_challenge")) != 43, q.Get("nonce") == "":
		http.Redirect(w, r, p.Redirect+"?"+url.Values{"error": {"invalid_request"}, "state": {q.Get("state")}, "iss": {p.URL}}.Encode(), http.StatusFound)
		return
	}
	code := rand.Text()
	p.mu.Lock()
	p.codes[code] = q
	p.mu.Unlock()
	http.Redirect(w, r, p.Redirect+"?"+url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.URL}}.Encode(), http.StatusFound)
}

// token takes a code once, from the client that asked for it.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.Exchanged.Add(1)
	id, secret, _ := r.BasicAuth()
	id, idErr := url.QueryUnescape(id) // RFC 6749 §2.3.1
	secret, secretErr := url.QueryUnescape(secret)
	if idErr != nil || secretErr != nil || id != ClientID || secret != ClientSecret {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	code := r.PostFormValue("code")
	p.mu.Lock()
	asked, known := p.codes[code]
	delete(p.codes, code)
	p.mu.Unlock()
	if !known || r.PostFormValue("grant_type") != "authorization_code" || r.PostFormValue("redirect_uri") != p.Redirect ||
		challengeOf(r.PostFormValue("code_verifier")) != asked.Get("code_challenge") {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"access_token": "access", "token_type": "Bearer", "expires_in": 60, "id_token": p.idToken(asked.Get("nonce")),
	})
}

func (p *Provider) idToken(nonce string) string {
	claims := maps.Clone(p.Claims)
	maps.Copy(claims, map[string]any{
		"iss": p.URL, "aud": ClientID, "iat": p.now().Unix(), "exp": p.now().Add(time.Minute).Unix(), "nonce": nonce,
	})
	if p.Alter != nil {
		p.Alter(claims)
	}
	if p.Sign != nil {
		return p.Sign(claims)
	}
	return p.Token(claims)
}

// Token is an ID token of those claims, with the provider's signature.
func (p *Provider) Token(claims map[string]any) string { return Signed(p.t, jose.ES256, p.key, claims) }

// Signed is an ID token of those claims.
func Signed(t *testing.T, alg jose.SignatureAlgorithm, key any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "one"))
	if err != nil {
		t.Error(err)
		return ""
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Error(err)
		return ""
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Error(err)
		return ""
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Error(err)
	}
	return text
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	keys := []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "one", Algorithm: "ES256", Use: "sig"}}
	if p.Shared != nil {
		keys = append(keys, jose.JSONWebKey{Key: p.Shared, KeyID: "one", Algorithm: "HS256", Use: "sig"})
	}
	answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: keys})
}

func (p *Provider) userInfo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer access" {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return
	}
	info := map[string]any{"sub": p.Claims["sub"]}
	maps.Copy(info, p.Info)
	answer(w, http.StatusOK, info)
}

// SignIn opens the URL at the provider, and returns where it sends the person.
func (p *Provider) SignIn(ctx context.Context, at string) (*url.URL, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusFound {
		return nil, fmt.Errorf("the provider answers %s", res.Status)
	}
	return res.Location()
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that has gone needs no answer
}
