package main_test

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/password"
)

const (
	adaEmail    = "ada@example.com"
	adaPassword = "correct horse battery staple"
)

// desk is a gateway with an account and a user who can sign in.
type desk struct {
	*gateway
	backend *backend
	redis   *redisServer
}

func startDesk(t *testing.T, changes ...func(*settings)) *desk {
	t.Helper()
	d := &desk{backend: startBackend(t, answerOK), redis: startRedis(t)}
	// The race detector looks at the same pages in proxy/dashboard.
	s := settings{Plain: true, Store: d.redis.yaml(), Datacenter: d.backend.addr, Residential: d.backend.addr, ClientAddress: "{trusted_proxies: [127.0.0.1/32]}"}
	for _, change := range changes {
		change(&s)
	}
	d.gateway = startGateway(t, s)
	d.putAccount(t, "acme", acme())
	d.addUser(t, "acme", adaEmail, "Ada Lovelace", adaPassword)
	return d
}

// store opens the desk's store as another node does.
func (d *desk) store(t *testing.T) *keystore.Store {
	t.Helper()
	var products []policy.Permission
	for _, p := range everything {
		if !strings.HasPrefix(p, "account:") {
			products = append(products, policy.Permission(p))
		}
	}
	catalogue, err := policy.NewCatalogue(products...)
	if err != nil {
		t.Fatal(err)
	}
	store, err := keystore.Open(t.Context(), keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{d.redis.addr()}}, Prefix: "gatehouse:", Timeout: patience, Mode: keystore.Strict, Create: true, CacheTTL: time.Second,
		CacheEntries: 10, Catalogue: catalogue, TokenPrefix: "gk_", MaxKeys: 10, Now: time.Now, Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// addUser makes a user who has chosen the password already: an operator cannot.
func (d *desk) addUser(t *testing.T, account policy.AccountID, email, name, chosen string) {
	t.Helper()
	store := d.store(t)
	defer func() { _ = store.Close() }()
	hasher, err := password.NewHasher(password.DefaultCost(), 1)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := hasher.Hash(t.Context(), chosen)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := store.Rules(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.CreateUser(t.Context(), policy.Caller{Account: rules}, keystore.NewUser{Email: keystore.Email(email), Name: name, PasswordHash: hash}); err != nil {
		t.Fatal(err)
	}
}

// open opens a tab of the dashboard, in a browser with that address.
func (d *desk) tab(t *testing.T, s screen) *tab {
	t.Helper()
	b := openTab(t, "http://"+d.addr, s)
	b.comesFrom("203.0.113.7")
	return b
}

func TestSignInInABrowser(t *testing.T) {
	t.Parallel()
	b := startDesk(t).tab(t, wide)
	b.open("/dashboard/keys")
	b.at("/dashboard/sign-in")
	b.isAccessible("sign-in")
	b.signIn(adaEmail, adaPassword)
	b.isAccessible("keys")
	b.click("Your profile and pages")
	b.isAccessible("the profile menu")
	b.click("Sign out")
	b.at("/dashboard/sign-in")
	b.shows("You are signed out.")
}

// TestDescriptionIsAPageForEverybody: /docs in a browser, wide and narrow.
func TestDescriptionIsAPageForEverybody(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{Store: `embedded: {file: "` + t.TempDir() + `/keys.jsonl"}`})
	for _, s := range []screen{wide, narrow, {width: 1280, height: 900, dark: true}} {
		b := openTab(t, "http://"+g.addr, s)
		b.open("/docs")
		b.shows("api-keys")
		b.isAccessible("docs")
		b.fits("docs")
	}
}
