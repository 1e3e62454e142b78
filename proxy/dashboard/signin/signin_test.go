package signin_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard/signin"
)

func TestSignInBeginsASession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, err := w.SignIn(t.Context(), signin.Proof{Email: " ADA@example.com", Password: right}, home)
	if err != nil {
		t.Fatal(err)
	}
	ss := w.goesOn(s)
	if ss.User.ID != w.user.ID || ss.Client != home.Client || ss.Agent != "browser" || !ss.User.LastSignInAt.Equal(w.clock()) {
		t.Errorf("got %+v", ss)
	}
	by, err := w.Caller(ss, home)
	if err != nil || by.Account.ID != "acme" || by.Key != nil || by.Actor() != (policy.Actor{Kind: policy.ActorSession, ID: string(w.user.ID)}) {
		t.Errorf("the caller is %+v, %v", by, err)
	}
	if another := w.signIn(right, ""); another.Token == s.Token || len(s.Token) < 43 {
		t.Error("a token is short, or there twice")
	}
	if text := fmt.Sprintf("%v %+v %#v", s, s, s); strings.Contains(text, s.Token) {
		t.Errorf("printed %s", text)
	}
}

// TestRefusalsAreAlike: nobody learns which addresses are users', or why one
// is not let in.
func TestRefusalsAreAlike(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world, p *signin.Proof){
		"wrong password":      func(_ *world, p *signin.Proof) { p.Password += "x" },
		"no password":         func(_ *world, p *signin.Proof) { p.Password = "" },
		"unknown e-mail":      func(_ *world, p *signin.Proof) { p.Email = "bob@example.com" },
		"no e-mail":           func(_ *world, p *signin.Proof) { p.Email = "" },
		"malformed e-mail":    func(_ *world, p *signin.Proof) { p.Email = "x" },
		"account suspended":   func(w *world, _ *signin.Proof) { w.status(policy.Suspended) },
		"user disabled":       func(w *world, _ *signin.Proof) { w.disable() },
		"disabled, with TOTP": func(w *world, _ *signin.Proof) { w.withTOTP(); w.disable() },
		"user deleted": func(w *world, _ *signin.Proof) {
			if err := w.store.DeleteUser(w.t.Context(), w.by, w.user.ID); err != nil {
				w.t.Fatal(err)
			}
		},
		"account deleted": func(w *world, _ *signin.Proof) {
			if err := w.store.DeleteAccount(w.t.Context(), w.by, "acme"); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := signin.Proof{Email: email, Password: right}
			spoil(w, &p)
			if s, err := w.SignIn(t.Context(), p, home); err == nil || err != signin.ErrRefused { //nolint:errorlint // nothing may be wrapped around it
				t.Errorf("got %v, %v, want ErrRefused itself", s, err)
			}
			if log := w.log.String(); !strings.Contains(log, "sign-in refused") || strings.Contains(log, right) {
				t.Errorf("logged %s", log)
			}
		})
	}
}

func (w *world) disable() {
	w.t.Helper()
	yes := true
	if _, err := w.store.UpdateUser(w.t.Context(), w.by, w.user.ID, keystore.UserChange{Disabled: &yes}); err != nil {
		w.t.Fatal(err)
	}
}

// outage is a store that does not answer.
type outage struct{ signin.Users }

func (outage) UserByEmail(context.Context, keystore.Email) (*keystore.SignInUser, error) {
	return nil, keystore.ErrUnavailable
}

func TestOutageIsNoRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *signin.Options) { o.Users = outage{o.Users} })
	_, err := w.SignIn(t.Context(), signin.Proof{Email: email, Password: right}, home)
	if !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, signin.ErrRefused) {
		t.Errorf("got %v", err)
	}
}

// TestEveryAttemptIsCountedOnce, as what it ended with.
func TestEveryAttemptIsCountedOnce(t *testing.T) {
	t.Parallel()
	var counted []signin.Outcome
	count := func(o *signin.Options) {
		o.PerEmail = signin.Rate{PerSecond: .1, Burst: 6}
		o.Counted = func(m signin.Method, outcome signin.Outcome) {
			if m != signin.ByPassword {
				t.Errorf("counted for the method %q", m)
			}
			counted = append(counted, outcome)
		}
	}
	w := newWorld(t, count)
	attempt := func(p signin.Proof) { _, _ = w.SignIn(t.Context(), p, home) }
	w.withTOTP() // signs in
	_, err := w.SignIn(t.Context(), signin.Proof{Email: email, Password: right}, home)
	var needed *signin.CodeNeededError
	if !errors.As(err, &needed) {
		t.Fatalf("got %v, want a code to be needed", err)
	}
	attempt(signin.Proof{Ticket: needed.Ticket, Code: "no code"})
	attempt(signin.Proof{Email: email, Password: "wrong"})
	attempt(signin.Proof{Email: "nobody@example.com", Password: right})
	for range 5 {
		attempt(signin.Proof{Email: "nobody@example.com", Password: right})
	}
	attempt(signin.Proof{Email: "nobody@example.com", Password: right})
	want := []signin.Outcome{
		signin.OutcomeOK, signin.OutcomeCodeNeeded, signin.OutcomeRefused, signin.OutcomeRefused, signin.OutcomeRefused,
		signin.OutcomeRefused, signin.OutcomeRefused, signin.OutcomeRefused, signin.OutcomeRefused, signin.OutcomeRefused, signin.OutcomeLimited,
	}
	if !slices.Equal(counted, want) {
		t.Errorf("counted %v, want %v", counted, want)
	}
	counted = nil
	away := newWorld(t, count, func(o *signin.Options) { o.Users = outage{o.Users} })
	_, _ = away.SignIn(t.Context(), signin.Proof{Email: email, Password: right}, home)
	if !slices.Equal(counted, []signin.Outcome{signin.OutcomeUnavailable}) {
		t.Errorf("while the store is away: counted %v", counted)
	}
}

func TestHashIsMadeAgainAtAnotherCost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *signin.Options) { o.Passwords = hasher(t, 128) })
	w.signIn(right, "")
	u, err := w.store.UserByEmail(t.Context(), email)
	if err != nil || !strings.Contains(u.Credentials.PasswordHash, "m=128,") {
		t.Errorf("stored is another cost: %v", err)
	}
	w.signIn(right, "")
}

func TestAttemptsAreLimitedByEmailAndByAddress(t *testing.T) {
	t.Parallel()
	limited := func(o *signin.Options) {
		o.PerEmail, o.PerAddress = signin.Rate{PerSecond: .1, Burst: 3}, signin.Rate{PerSecond: .1, Burst: 5}
	}
	try := func(w *world, email, address string) error {
		_, err := w.SignIn(t.Context(), signin.Proof{Email: email, Password: "wrong"}, signin.From{Client: netip.MustParseAddr(address)})
		return err
	}
	wantTooMany := func(t *testing.T, err error) {
		t.Helper()
		var tooMany *signin.TooManyError
		if !errors.As(err, &tooMany) || tooMany.RetryAfter <= 0 || tooMany.RetryAfter > 10*time.Second {
			t.Errorf("got %v", err)
		}
	}
	t.Run("by e-mail, whoever's it is", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{email, "nobody@example.com"} {
			w := newWorld(t, limited)
			for i := range 3 {
				if err := try(w, name, fmt.Sprintf("203.0.113.%d", i)); !errors.Is(err, signin.ErrRefused) {
					t.Errorf("got %v", err)
				}
			}
			wantTooMany(t, try(w, name, "203.0.113.7"))
			wantTooMany(t, try(w, strings.ToUpper(name), "203.0.113.8"))
			_, err := w.SignIn(t.Context(), signin.Proof{Email: name, Password: right}, signin.From{Client: netip.MustParseAddr("203.0.113.9")})
			wantTooMany(t, err)
			w.advance(10 * time.Second)
			if err := try(w, name, "203.0.113.7"); !errors.Is(err, signin.ErrRefused) {
				t.Errorf("later: got %v", err)
			}
		}
	})
	t.Run("by address", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, limited)
		for i := range 5 {
			if err := try(w, fmt.Sprintf("u%d@example.com", i), fmt.Sprintf("2001:db8::%d", i)); !errors.Is(err, signin.ErrRefused) {
				t.Errorf("got %v", err)
			}
		}
		wantTooMany(t, try(w, email, "2001:db8::ffff"))
		if err := try(w, email, "2001:db8:0:1::1"); !errors.Is(err, signin.ErrRefused) {
			t.Errorf("another network: got %v", err)
		}
	})
}

func TestCodeIsAskedForAndWorksOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, _ := w.withTOTP()
	try := func(password, code string) error {
		_, err := w.SignIn(t.Context(), signin.Proof{Email: email, Password: password, Code: code}, home)
		return err
	}
	if err := try(right, ""); !errors.Is(err, signin.ErrCodeNeeded) {
		t.Errorf("without a code: got %v", err)
	}
	if err := try("wrong", ""); !errors.Is(err, signin.ErrRefused) || errors.Is(err, signin.ErrCodeNeeded) {
		t.Errorf("without code and password: got %v", err)
	}
	setUpWith := w.code(secret)
	if err := try(right, setUpWith); !errors.Is(err, signin.ErrRefused) {
		t.Errorf("the code that it was set up with: got %v", err)
	}
	w.advance(30 * time.Second)
	now := w.code(secret)
	if err := try("wrong", now); !errors.Is(err, signin.ErrRefused) {
		t.Errorf("a wrong password: got %v", err)
	}
	w.signIn(right, now[:3]+" "+now[3:])
	if err := try(right, now); !errors.Is(err, signin.ErrRefused) {
		t.Errorf("the same code again: got %v", err)
	}
	if err := try(right, setUpWith); !errors.Is(err, signin.ErrRefused) {
		t.Errorf("an earlier code of the window: got %v", err)
	}
	w.advance(30 * time.Second)
	late := w.code(secret)
	w.advance(30 * time.Second)
	w.signIn(right, late) // a clock that is half a minute slow
	w.advance(30 * time.Second)
	tooLate := w.code(secret)
	w.advance(61 * time.Second)
	for _, code := range []string{tooLate, "000000", "12345", strings.Repeat("1", 1000), "      "} {
		if err := try(right, code); !errors.Is(err, signin.ErrRefused) {
			t.Errorf("%.10s: got %v", code, err)
		}
	}
}

func TestOneOfManyWithTheSameCodeGetsIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, recovery := w.withTOTP()
	w.advance(30 * time.Second)
	for _, code := range []string{w.code(secret), recovery[0]} {
		var in atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := w.SignIn(t.Context(), signin.Proof{Email: email, Password: right, Code: code}, home)
				switch {
				case err == nil:
					in.Add(1)
				case !errors.Is(err, signin.ErrRefused) && !errors.Is(err, keystore.ErrConflict):
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if in.Load() != 1 {
			t.Errorf("%d got in with one code", in.Load())
		}
	}
}

func TestRecoveryCodesWorkOnceEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, recovery := w.withTOTP()
	if len(recovery) != 10 {
		t.Fatalf("%d codes", len(recovery))
	}
	w.signIn(right, recovery[3])
	if _, err := w.SignIn(t.Context(), signin.Proof{Email: email, Password: right, Code: recovery[3]}, home); !errors.Is(err, signin.ErrRefused) {
		t.Errorf("again: got %v", err)
	}
	w.signIn(right, strings.ToUpper(strings.ReplaceAll(recovery[4], "-", "")))
	u, err := w.store.UserByEmail(t.Context(), email)
	if err != nil || len(u.Credentials.Recovery) != 8 {
		t.Errorf("%d are left, %v", len(u.Credentials.Recovery), err)
	}
	for _, kept := range u.Credentials.Recovery {
		for _, code := range recovery {
			if strings.Contains(kept, code) {
				t.Error("a recovery code is stored as it is")
			}
		}
	}
}

// TestUnknownEmailCostsAsMuchAsAWrongPassword: the shortest of several is what
// the work itself takes. Without the work it would be a hundredth; a busy machine
// is allowed for.
func TestUnknownEmailCostsAsMuchAsAWrongPassword(t *testing.T) {
	w := newWorld(t, func(o *signin.Options) { o.Passwords = hasher(t, 64<<10) })
	hash, err := hasher(t, 64<<10).Hash(t.Context(), right)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.SetPassword(t.Context(), w.by, w.user.ID, hash, false); err != nil {
		t.Fatal(err)
	}
	took := func(email string) time.Duration {
		shortest := time.Hour
		for range 5 {
			begun := time.Now()
			if _, err := w.SignIn(t.Context(), signin.Proof{Email: email, Password: "wrong"}, home); !errors.Is(err, signin.ErrRefused) {
				t.Fatal(err)
			}
			shortest = min(shortest, time.Since(begun))
		}
		return shortest
	}
	known := took(email)
	for _, unknown := range []string{"bob@example.com", "malformed"} {
		if got := took(unknown); got < known/16 {
			t.Errorf("%s took %s, a wrong password %s", unknown, got, known)
		}
	}
}
