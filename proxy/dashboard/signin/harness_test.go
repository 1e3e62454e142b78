package signin_test

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/pquerna/otp/totp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/password"
)

const (
	email  = "ada@example.com"
	right  = "kV9 mutton chop"
	better = "a better one: 7 geese"
)

var home = signin.From{Client: netip.MustParseAddr("203.0.113.9"), Agent: "browser", RequestID: "request-1"}

// world is an Authenticator on a real store, with one user.
type world struct {
	*signin.Authenticator
	t     *testing.T
	store *keystore.Store
	now   atomic.Int64
	by    policy.Caller // an operator
	user  keystore.User
	log   *bytes.Buffer
}

func (w *world) clock() time.Time        { return time.Unix(0, w.now.Load()).UTC() }
func (w *world) advance(d time.Duration) { w.now.Add(int64(d)) }

func hasher(t *testing.T, kib uint32) *password.Hasher {
	t.Helper()
	h, err := password.NewHasher(password.Cost{MemoryKiB: kib, Passes: 1, Lanes: 1}, 2)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newWorld(t *testing.T, changes ...func(*signin.Options)) *world {
	t.Helper()
	w := &world{t: t, log: &bytes.Buffer{}}
	w.now.Store(time.Now().Truncate(time.Second).UnixNano()) // what the session manager goes by
	catalogue, err := policy.NewCatalogue("serp_api:read")
	if err != nil {
		t.Fatal(err)
	}
	w.store, err = keystore.Open(t.Context(), keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{miniredis.RunT(t).Addr()}}, Prefix: "t:", Timeout: 10 * time.Second, Mode: keystore.Strict, Create: true,
		CacheEntries: 100, Catalogue: catalogue, TokenPrefix: "gk_", MaxKeys: 10, Now: w.clock, Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	passwords := hasher(t, 64)
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"})
	o := signin.Options{
		Users: w.store, Sessions: w.store, Passwords: passwords, Idle: 30 * time.Minute, Absolute: 12 * time.Hour,
		PerEmail: signin.Rate{PerSecond: 1, Burst: 1000}, PerAddress: signin.Rate{PerSecond: 1, Burst: 1000}, PerPair: signin.Rate{PerSecond: 1, Burst: 1000},
		PerUser: signin.Rate{PerSecond: 1, Burst: 1000},
		Now:     w.clock, Log: zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w.log)), zap.InfoLevel)),
	}
	for _, change := range changes {
		change(&o)
	}
	if w.Authenticator, err = signin.New(o); err != nil {
		t.Fatal(err)
	}
	w.status(policy.Active)
	rules, err := w.store.Rules(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	w.by = policy.Caller{Account: rules}
	hash, err := passwords.Hash(t.Context(), right)
	if err != nil {
		t.Fatal(err)
	}
	if w.user, err = w.store.CreateUser(t.Context(), w.by, keystore.NewUser{Email: email, Name: "Ada", PasswordHash: hash}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) status(s policy.Status) {
	w.t.Helper()
	_, _, err := w.store.PutAccount(w.t.Context(), policy.Caller{}, keystore.Account{ID: "acme", Name: "Acme", Status: s, Permissions: []string{"*"}})
	if err != nil {
		w.t.Fatal(err)
	}
}

// signIn is a sign-in that has to succeed.
func (w *world) signIn(password, code string) signin.Session {
	w.t.Helper()
	s, err := w.SignIn(w.t.Context(), signin.Proof{Email: email, Password: password, Code: code}, home)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// goesOn returns the session, which has to be found.
func (w *world) goesOn(s signin.Session) *keystore.Session {
	w.t.Helper()
	found, err := w.Find(w.t.Context(), s.Token)
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// code is what an authenticator with the secret shows.
func (w *world) code(secret string) string {
	w.t.Helper()
	code, err := totp.GenerateCode(secret, w.clock())
	if err != nil {
		w.t.Fatal(err)
	}
	return code
}

// withTOTP sets an authenticator up, and returns its secret and the recovery
// codes. The code of this moment is used.
func (w *world) withTOTP() (secret string, recovery []string) {
	w.t.Helper()
	ss := w.goesOn(w.signIn(right, ""))
	offer := w.offer(ss)
	recovery, _, err := w.EnableTOTP(w.t.Context(), ss, home, signin.NewAuthenticator{Password: right, Sealed: offer.Sealed, Code: w.code(offer.Secret)})
	if err != nil {
		w.t.Fatal(err)
	}
	return offer.Secret, recovery
}

// offer is a secret that the session is offered.
func (w *world) offer(ss *keystore.Session) signin.Offer {
	w.t.Helper()
	offer, err := w.OfferTOTP(w.t.Context(), ss, home, "Gate & house", "")
	if err != nil {
		w.t.Fatal(err)
	}
	return offer
}
