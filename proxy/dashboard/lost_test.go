package dashboard_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/dashboard/signin"
)

// TestRefusedFormCanBeSentAgain as it is, with the browser's Back: what was
// certainly not created does not use it up.
func TestRefusedFormCanBeSentAgain(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) { s.maxKeys = 1 })
	s.signIn()
	old := s.made("old")
	form := s.newForm(nil)
	s.wants(s.post(newKeyPath, form), http.StatusConflict, "as many keys as it may have")
	_, err := s.store.Revoke(t.Context(), s.caller(), old.ID)
	s.must(err)
	a := s.post(newKeyPath, form)
	if a.status != http.StatusOK || tokenOn(a.body) == "" || len(s.keys()) != 1 {
		t.Errorf("sent again got %d with %d keys: %s", a.status, len(s.keys()), words(a.body))
	}
}

// lost is a store that does what it is asked to, and whose answers get lost.
type lost struct{ dashboard.Store }

func (l lost) Create(ctx context.Context, by policy.Caller, k keystore.NewKey) (policy.Key, keystore.Token, error) {
	_, _, err := l.Store.Create(ctx, by, k)
	return policy.Key{}, keystore.Token{}, lostAnswer(err)
}

func (l lost) Update(ctx context.Context, by policy.Caller, id policy.KeyID, u keystore.Update) (after, before policy.Key, err error) {
	_, _, err = l.Store.Update(ctx, by, id, u)
	return policy.Key{}, policy.Key{}, lostAnswer(err)
}

func (l lost) Revoke(ctx context.Context, by policy.Caller, id policy.KeyID) (time.Time, error) {
	_, err := l.Store.Revoke(ctx, by, id)
	return time.Time{}, lostAnswer(err)
}

func (l lost) Regenerate(ctx context.Context, by policy.Caller, id policy.KeyID, grace time.Duration) (policy.Key, keystore.Token, error) {
	_, _, err := l.Store.Regenerate(ctx, by, id, grace)
	return policy.Key{}, keystore.Token{}, lostAnswer(err)
}

func lostAnswer(err error) error {
	if err != nil {
		return err
	}
	return keystore.ErrUnavailable
}

// TestLostAnswersAreNoRefusals: what may have been done is not said to be unknown.
func TestLostAnswersAreNoRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) {
		s.wrap = func(store dashboard.Store) dashboard.Store { return lost{store} }
	})
	s.signIn()
	for action, says := range map[string]string{
		"disable": "may or may not have been changed", "enable": "may or may not have been changed",
		"regenerate": "may or may not have been regenerated", "revoke": "may or may not have been revoked",
	} {
		a := s.post(pathOf(s.made("CI pipeline"), action), url.Values{"name": {"CI pipeline"}, "grace": {"0"}})
		wants(t, action, words(a.body), says)
		wantsNone(t, action, words(a.body), "Nothing is known")
		if a.status != http.StatusServiceUnavailable {
			t.Errorf("%s got %d", action, a.status)
		}
	}
	k := s.made("Edited")
	form := shownForm(t, s.get(editPath(k)))
	form.Set("name", "Edited anew")
	s.wants(s.post(editPath(k), form), http.StatusServiceUnavailable, "may or may not have been changed")
}

// TestUsedUpFormSaysNothingOfAKey: its answer was lost, so nobody knows.
func TestUsedUpFormSaysNothingOfAKey(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) {
		s.wrap = func(store dashboard.Store) dashboard.Store { return lost{store} }
	})
	s.signIn()
	form := s.newForm(nil)
	s.wants(s.post(newKeyPath, form), http.StatusServiceUnavailable, "may or may not have been created")
	a := s.post(newKeyPath, form)
	s.wants(a, http.StatusConflict, "Already sent", "creates nothing a second time")
	wantsNone(t, "the page", a.body, "its key was created", "Nothing was created")
	if n := len(s.keys()); n != 1 {
		t.Errorf("there are %d keys", n)
	}
}

// oneSession is a store that begins one session, and cannot begin another.
type oneSession struct {
	signin.SessionStore
	begun bool
}

func (o *oneSession) CreateSession(ctx context.Context, token string, n keystore.NewSession) error {
	if o.begun {
		return keystore.ErrUnavailable
	}
	o.begun = true
	return o.SessionStore.CreateSession(ctx, token, n)
}

// startOnce is a site on which nobody can sign in a second time, until again is called.
func startOnce(t *testing.T) (s *site, again func()) {
	t.Helper()
	sessions := &oneSession{}
	s = start(t, func(s *site) {
		s.sessions = func(store signin.SessionStore) signin.SessionStore { sessions.SessionStore = store; return sessions }
	})
	s.signIn()
	return s, func() { sessions.begun = false }
}

// TestCodesAreShownWhateverComes: the authenticator is set up, and without
// them whoever loses it is locked out.
func TestCodesAreShownWhateverComes(t *testing.T) {
	t.Parallel()
	s, _ := startOnce(t)
	secret, offer := s.offered(s.get("/dashboard/profile/totp"))
	a := s.post("/dashboard/profile/totp", url.Values{"offer": {offer}, "password": {userPassword}, "code": {s.code(secret)}})
	s.wants(a, http.StatusOK, "only this once", "sign in again")
	if n := strings.Count(a.body, "<li>"); n != 10 {
		t.Errorf("%d codes are shown", n)
	}
	if s.signedIn() || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") || strings.Contains(a.body, userEmail) {
		t.Error("the page looks as if somebody was signed in")
	}
}

// TestWhatIsDoneIsSaidToBeDone, also where no session could follow it.
func TestWhatIsDoneIsSaidToBeDone(t *testing.T) {
	t.Parallel()
	s, again := startOnce(t)
	const chosen = "a new one with 7 geese"
	a := s.post("/dashboard/profile/password", url.Values{"current": {userPassword}, "password": {chosen}, "repeat": {chosen}})
	s.led(a, "/dashboard/sign-in?notice=password_changed_signed_out")
	s.wants(s.get(a.header.Get("Location")), http.StatusOK, "Your password is changed")
	again()
	s.led(s.post("/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {chosen}}), "/dashboard/keys")

	s, again = startOnce(t)
	again()
	_, recovery := s.withTOTP()
	a = s.post("/dashboard/profile/totp/remove", url.Values{"password": {userPassword}, "code": {recovery[0]}})
	s.led(a, "/dashboard/sign-in?notice=totp_removed_signed_out")
	s.wants(s.get(a.header.Get("Location")), http.StatusOK, "The authenticator is removed")
	again()
	s.signIn()
}
