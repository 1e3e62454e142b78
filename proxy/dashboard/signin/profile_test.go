package signin_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/password"
)

func (w *world) over(what string, s signin.Session) {
	w.t.Helper()
	if _, err := w.Find(w.t.Context(), s.Token); !errors.Is(err, signin.ErrNoSession) {
		w.t.Errorf("%s: got %v, want ErrNoSession", what, err)
	}
}

func TestChangedPasswordEndsAllSessionsButItsOwnNewOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	here, elsewhere := w.signIn(right, ""), w.signIn(right, "")
	ss := w.goesOn(here)
	for name, test := range map[string]struct {
		current, chosen string
		want            error
	}{
		"wrong current": {"wrong", better, signin.ErrRefused}, "too short": {right, "short", password.ErrTooShort},
		"the same": {right, right, signin.ErrSamePassword}, "common": {right, "password1234", password.ErrCommon},
	} {
		if _, err := w.ChangePassword(t.Context(), ss, home, test.current, test.chosen); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	w.goesOn(elsewhere)
	fresh, err := w.ChangePassword(t.Context(), ss, home, right, better)
	if err != nil {
		t.Fatal(err)
	}
	w.goesOn(fresh)
	w.over("this one", here)
	w.over("elsewhere", elsewhere)
	if _, err := w.SignIn(t.Context(), signin.Proof{Email: email, Password: right}, home); !errors.Is(err, signin.ErrRefused) {
		t.Errorf("the old password: got %v", err)
	}
	w.signIn(better, "")
	if u, err := w.store.UserByEmail(t.Context(), email); err != nil || !u.User.HasPassword {
		t.Errorf("stored %+v, %v", u, err)
	}
	if _, err := w.ChangePassword(t.Context(), ss, home, better, right); !errors.Is(err, signin.ErrNoSession) {
		t.Errorf("by a session that is over: got %v", err)
	}
}

func TestFirstPasswordMustBeChangedBeforeAnythingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hash, err := hasher(t, 64).Hash(t.Context(), right)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.SetPassword(t.Context(), w.by, w.user.ID, hash, true); err != nil {
		t.Fatal(err)
	}
	ss := w.goesOn(w.signIn(right, ""))
	if by, err := w.Caller(ss, home); !errors.Is(err, signin.ErrMustChange) || by.Account != nil {
		t.Errorf("got %+v, %v", by, err)
	}
	fresh, err := w.ChangePassword(t.Context(), ss, home, right, better)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Caller(w.goesOn(fresh), home); err != nil {
		t.Error(err)
	}
}

// slow is a store in which something happens after a user was read to be changed.
type slow struct {
	signin.Users
	meanwhile func()
}

func (s *slow) ChangePassword(ctx context.Context, by policy.Caller, proven *keystore.SignInUser, hash string) (keystore.User, error) {
	s.meanwhile()
	return s.Users.ChangePassword(ctx, by, proven, hash)
}

// TestOperatorsResetStands: a password that its owner, or a thief, changes at
// the same moment does not overwrite it.
func TestOperatorsResetStands(t *testing.T) {
	t.Parallel()
	var users *slow
	w := newWorld(t, func(o *signin.Options) {
		users = &slow{Users: o.Users}
		o.Users = users
	})
	ss := w.goesOn(w.signIn(right, ""))
	reset := "what the operator chose"
	users.meanwhile = func() {
		hash, err := hasher(t, 64).Hash(t.Context(), reset)
		if err == nil {
			err = w.store.SetPassword(t.Context(), w.by, w.user.ID, hash, true)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := w.ChangePassword(t.Context(), ss, home, right, better); !errors.Is(err, signin.ErrNoSession) {
		t.Errorf("got %v", err)
	}
	w.signIn(reset, "")
}

func TestSigningOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all []signin.Session
	for range 4 {
		all = append(all, w.signIn(right, ""))
	}
	if err := w.SignOut(t.Context(), all[0].Token); err != nil {
		t.Fatal(err)
	}
	w.over("signed out", all[0])
	ss := w.goesOn(all[1])
	listed, err := w.Sessions(t.Context(), ss, home)
	if err != nil || len(listed) != 3 {
		t.Fatalf("%d are listed, %v", len(listed), err)
	}
	if err := w.Revoke(t.Context(), ss, home, w.goesOn(all[2]).ID); err != nil {
		t.Fatal(err)
	}
	w.over("revoked", all[2])
	if err := w.Revoke(t.Context(), ss, home, "nonsense"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	w.goesOn(all[3])
	if err := w.SignOutEverywhere(t.Context(), ss, home); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		w.over("everywhere", s)
	}
}

func TestSessionEndsWhenIdleAndInAnyCase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	used, idle := w.signIn(right, ""), w.signIn(right, "")
	for range 24 {
		w.advance(29 * time.Minute)
		w.goesOn(used)
	}
	w.over("idle", idle)
	w.advance(25 * time.Minute) // twelve hours and one minute
	w.over("old", used)
}

// TestManagerKeepsValuesOfSessionsThatGoOn: what pages keep in a session is
// there with the next request, and a session that has ended stays so although a
// request that began before writes to it.
func TestManagerKeepsValuesOfSessionsThatGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.signIn(right, "")
	var end func()
	handler := w.Manager().LoadAndSave(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if flash := w.Manager().PopString(r.Context(), "flash"); flash != "" {
			_, _ = out.Write([]byte(flash))
			return
		}
		if end != nil {
			end()
		}
		w.Manager().Put(r.Context(), "flash", "<saved>")
	}))
	ask := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.AddCookie(&http.Cookie{Name: "__Host-gatehouse", Value: s.Token})
		out := httptest.NewRecorder()
		handler.ServeHTTP(out, r)
		if out.Code != http.StatusOK {
			t.Errorf("answered %d %s", out.Code, out.Body)
		}
		return out
	}
	cookie := ask().Header().Get("Set-Cookie")
	for _, want := range []string{"__Host-gatehouse=" + s.Token + ";", "Path=/", "HttpOnly", "Secure", "SameSite=Lax"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("the cookie is %s, want %s", cookie, want)
		}
	}
	if strings.Contains(cookie, "Domain") || ask().Body.String() != "<saved>" {
		t.Errorf("the value was not kept, or the cookie has a domain: %s", cookie)
	}
	w.goesOn(s)
	end = func() {
		if err := w.store.SetPassword(t.Context(), w.by, w.user.ID, "$", false); err != nil {
			t.Error(err)
		}
	}
	ask()
	w.over("written to late", s)
}

// TestTokenOfSomebodyElseIsNeverTakenOver: a session has a new token whatever
// the request came with.
func TestTokenOfSomebodyElseIsNeverTakenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	attacker := w.signIn(right, "")
	for _, planted := range []string{attacker.Token, "planted", ""} {
		ctx, err := w.Manager().Load(t.Context(), planted)
		if err != nil {
			t.Fatal(err)
		}
		s, err := w.SignIn(ctx, signin.Proof{Email: email, Password: right}, home)
		if err != nil || s.Token == planted || s.Token == attacker.Token {
			t.Errorf("%q: got the token that was there, or %v", planted, err)
		}
	}
	w.over("planted", signin.Session{Token: "planted"})
}

func TestSuspendedAccountsSessionsAreNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.signIn(right, "")
	w.status(policy.Suspended)
	w.over("suspended", s)
}
