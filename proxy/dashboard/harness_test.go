package dashboard_test

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/password"
	"gatehouse/proxy/problem"
)

const (
	userEmail    = "ada@example.com"
	userPassword = "correct horse battery"
	subaccountA  = "5b0d9c6e-3f0a-4a57-9d0e-1c2f6a7b8c90"
	subaccountB  = "c7e1f2a4-8b6d-4c3e-a5f9-0d1e2b3c4d5f"
	clientIP     = "203.0.113.7"
)

// site is a dashboard with one account and one user, and a browser.
type site struct {
	t     *testing.T
	store *keystore.Store
	// wrap puts something between the pages and the store.
	wrap func(dashboard.Store) dashboard.Store
	// sessions puts something between the sign-ins and the store.
	sessions func(signin.SessionStore) signin.SessionStore
	server   *httptest.Server
	browser  *http.Client // follows no redirects
	now      *atomic.Int64
	user     keystore.User
	// refused is the reason of the last answer that was no success.
	refused   atomic.Pointer[problem.Problem]
	brand     dashboard.Brand
	account   keystore.Account
	people    *signin.Authenticator
	redis     *miniredis.Miniredis
	catalogue policy.Catalogue
	maxKeys   int
	change    func(*dashboard.Options)
	// providers are those of the sign-in page, and without passwords alone.
	providers   []dashboard.Provider
	noPasswords bool
	pages       atomic.Pointer[dashboard.Dashboard]
}

// open opens the store: the site's own, or another node's.
func (s *site) open() *keystore.Store {
	s.t.Helper()
	store, err := keystore.Open(s.t.Context(), keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{s.redis.Addr()}}, Prefix: "gatehouse:", Timeout: 10 * time.Second, Mode: keystore.Strict, Create: true,
		CacheTTL: 5 * time.Second, CacheEntries: 100, Catalogue: s.catalogue, TokenPrefix: "gk_", MaxKeys: s.maxKeys, Now: s.clock, Log: zap.NewNop(),
	})
	s.must(err)
	return store
}

func (s *site) pagesStore() dashboard.Store {
	if s.wrap == nil {
		return s.store
	}
	return s.wrap(s.store)
}

func (s *site) clock() time.Time { return time.Unix(s.now.Load(), 0).UTC() }

// start serves a dashboard; changes are made to it before.
func start(t *testing.T, changes ...func(*site)) *site {
	t.Helper()
	s := &site{t: t, now: new(atomic.Int64), maxKeys: 100, account: keystore.Account{
		ID: "acme", Name: "Acme", Status: policy.Active, Permissions: []string{"*"},
		Subaccounts: []policy.Subaccount{
			{ID: subaccountA, Label: "EU scraping", Product: "datacenter_shared"},
			{ID: subaccountB, Label: "US research", Product: "residential"},
		},
	}}
	s.now.Store(time.Now().Unix())
	for _, change := range changes {
		change(s)
	}
	catalogue, err := policy.NewCatalogue("datacenter_shared:read", "datacenter_shared:write", "datacenter_shared:delete", "residential:read", "residential:write")
	s.must(err)
	s.redis, s.catalogue = miniredis.RunT(t), catalogue
	s.redis.SetTime(s.clock())
	s.store = s.open()
	t.Cleanup(func() { _ = s.store.Close() })
	_, _, err = s.store.PutAccount(t.Context(), policy.Caller{}, s.account)
	s.must(err)
	hasher, err := password.NewHasher(password.Cost{MemoryKiB: 64, Passes: 1, Lanes: 1}, 4)
	s.must(err)
	s.user = s.addUser(hasher, userEmail, userPassword)
	s.serve(s.providers)
	s.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := dashboard.From{Client: netip.MustParseAddr(clientIP), RequestID: "request-1", Scheme: "https", Refuse: func(p *problem.Problem) { s.refused.Store(p) }}
		if err := s.pages.Load().Serve(w, r, from); err != nil { //nolint:contextcheck // the request has it
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
	}))
	t.Cleanup(s.server.Close)
	s.browser = s.newBrowser()
	return s
}

// serve makes the pages: anew, where there were some.
func (s *site) serve(providers []dashboard.Provider) {
	s.t.Helper()
	hasher, err := password.NewHasher(password.Cost{MemoryKiB: 64, Passes: 1, Lanes: 1}, 4)
	s.must(err)
	var sessions signin.SessionStore = s.store
	if s.sessions != nil {
		sessions = s.sessions(s.store)
	}
	s.people, err = signin.New(signin.Options{
		Users: s.store, Sessions: sessions, Passwords: hasher, Idle: 30 * time.Minute, Absolute: 12 * time.Hour, NoPasswords: s.noPasswords, Now: s.clock, Log: zap.NewNop(),
	})
	s.must(err)
	options := dashboard.Options{
		People: s.people, Store: s.pagesStore(), Catalogue: s.catalogue, Brand: s.brand, Now: s.clock, Log: zap.NewNop(),
		Products:  []contract.Product{{Name: "datacenter_shared", Label: "Shared datacenter"}, {Name: "residential", Label: "Residential"}},
		Providers: providers, NoPasswords: s.noPasswords,
	}
	if s.change != nil {
		s.change(&options)
	}
	pages, err := dashboard.New(options)
	s.must(err)
	s.pages.Store(pages)
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) newBrowser() *http.Client {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	s.must(err)
	return &http.Client{
		Transport: s.server.Client().Transport, Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (s *site) caller() policy.Caller {
	s.t.Helper()
	account, err := s.store.Rules(s.t.Context(), "acme")
	s.must(err)
	return policy.Caller{Account: account}
}

func (s *site) addUser(hasher *password.Hasher, email, chosen string) keystore.User {
	s.t.Helper()
	hash, err := hasher.Hash(s.t.Context(), chosen)
	s.must(err)
	user, err := s.store.CreateUser(s.t.Context(), s.caller(), keystore.NewUser{Email: keystore.Email(email), Name: "Ada", PasswordHash: hash})
	s.must(err)
	return user
}

// answer is what a browser got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (s *site) do(method, path string, form url.Values, header ...string) answer {
	s.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(context.Background(), method, s.server.URL+path, body)
	s.must(err)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := s.browser.Do(r)
	s.must(err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	s.must(err)
	return answer{status: res.StatusCode, header: res.Header, body: string(text)}
}

func (s *site) get(path string) answer { s.t.Helper(); return s.do("GET", path, nil) }

func (s *site) post(path string, form url.Values) answer {
	s.t.Helper()
	return s.do("POST", path, form)
}

// signIn signs the user in.
func (s *site) signIn() {
	s.t.Helper()
	a := s.post("/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {userPassword}})
	if a.status != http.StatusSeeOther || a.header.Get("Location") != "/dashboard/keys" {
		s.t.Fatalf("signing in got %d to %q: %s", a.status, a.header.Get("Location"), a.body)
	}
}
