package keystore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

const passwordHash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// user creates a user of the caller's account.
func (n *node) user(by policy.Caller, email string) keystore.User {
	n.t.Helper()
	u, err := n.CreateUser(n.t.Context(), by, keystore.NewUser{Email: keystore.Email(email), Name: "Ada", PasswordHash: passwordHash})
	if err != nil {
		n.t.Fatal(err)
	}
	return u
}

// users returns the e-mail addresses of an account's users, page by page.
func (n *node) users(by policy.Caller, limit int) []string {
	n.t.Helper()
	var all []string
	for cursor := ""; ; {
		page, next, err := n.ListUsers(n.t.Context(), by, cursor, limit)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, u := range page {
			all = append(all, string(u.Email))
		}
		if next == "" {
			return all
		}
		cursor = next
	}
}

func (n *node) wantNoUser(email string) {
	n.t.Helper()
	if u, err := n.UserByEmail(n.t.Context(), keystore.Email(email)); !errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrUnavailable) {
		n.t.Errorf("%s: got %v, %v, want ErrNotFound", email, u, err)
	}
}

func TestUserIsFoundByEmailAndListed(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme, zeta := n.account("acme"), n.account("zeta")
		want := n.user(acme, "ada@example.com")
		w.clock.Advance(time.Second)
		n.user(acme, "bob@example.com")
		n.user(zeta, "zoe@example.com")

		found, err := n.second().UserByEmail(t.Context(), "ada@example.com")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, found.User); diff != "" || found.Account.ID != "acme" || found.Credentials.PasswordHash != passwordHash {
			t.Errorf("found %+v (-want +got):\n%s", found.User, diff)
		}
		got, err := n.GetUser(t.Context(), acme, want.ID)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
		for limit := 1; limit < 4; limit++ {
			if got := n.users(acme, limit); !slices.Equal(got, []string{"bob@example.com", "ada@example.com"}) {
				t.Errorf("pages of %d: listed %v", limit, got)
			}
		}
		if _, err := n.GetUser(t.Context(), zeta, want.ID); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("another account's user: got %v", err)
		}
		n.wantNoUser("carl@example.com")
	})
}

func TestEmailIsUniqueOverAllAccounts(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		callers := []policy.Caller{n.account("acme"), n.account("zeta")}
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = n.CreateUser(t.Context(), callers[i%2], keystore.NewUser{Email: "ada@example.com", Name: fmt.Sprint(i), PasswordHash: passwordHash})
			})
		}
		wg.Wait()
		made := 0
		for _, err := range errs {
			if err == nil {
				made++
			} else if !errors.Is(err, keystore.ErrEmailTaken) && !errors.Is(err, keystore.ErrConflict) {
				t.Errorf("got %v", err)
			}
		}
		if listed := append(n.users(callers[0], 10), n.users(callers[1], 10)...); made != 1 || len(listed) != 1 {
			t.Errorf("%d were made, and %v are listed, want one", made, listed)
		}
	})
}

func TestDeletedUserIsGoneAndItsEmailFree(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme, zeta := n.account("acme"), n.account("zeta")
		u := n.user(acme, "ada@example.com")
		n.session(u, "token-1")
		if err := n.DeleteUser(t.Context(), zeta, u.ID); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("by another account: got %v", err)
		}
		if err := n.DeleteUser(t.Context(), acme, u.ID); err != nil {
			t.Fatal(err)
		}
		n.wantNoUser("ada@example.com")
		n.wantNoSession("token-1")
		if err := n.DeleteUser(t.Context(), acme, u.ID); !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("again: got %v", err)
		}
		if left := n.leftOf("user", "session:", "email:"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		n.user(zeta, "ada@example.com")
	})
}

// leftOf returns the names in the store that have one of the words.
func (n *node) leftOf(words ...string) []string {
	n.t.Helper()
	var left []string
	for name := range dump(n.t, keystore.ClientOf(n.Store), n.w.options.Prefix) {
		if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(name, word) }) {
			left = append(left, name)
		}
	}
	return left
}

func TestUsersDieWithTheirAccount(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme := n.account("acme")
		u := n.user(acme, "ada@example.com")
		n.user(acme, "bob@example.com")
		n.session(u, "token-1")
		if err := n.DeleteAccount(t.Context(), policy.Caller{}, "acme"); err != nil {
			t.Fatal(err)
		}
		n.wantNoUser("ada@example.com")
		n.wantNoSession("token-1")
		if left := n.leftOf(":user", "session:", "email:"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		again := n.account("acme")
		if listed := n.users(again, 10); len(listed) > 0 {
			t.Errorf("the new account has %v", listed)
		}
		n.user(again, "ada@example.com")
		n.wantNoSession("token-1")
	})
}

func TestEveryChangeOfUsersIsInTheTrail(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme := n.account("acme")
		u := n.user(acme, "ada@example.com")
		signIn := func(token string) policy.Caller { // what follows ends the session
			now, err := n.GetUser(t.Context(), acme, u.ID)
			if err != nil {
				t.Fatal(err)
			}
			n.session(now, token)
			return n.wantSession(token).Caller(inside, "")
		}
		self := signIn("token-1")
		if err := n.SetPassword(t.Context(), self, u.ID, passwordHash+"B", false); err != nil {
			t.Fatal(err)
		}
		self = signIn("token-2")
		if _, err := n.ChangeTOTP(t.Context(), self, n.proven(self, u.ID), "GEZDGNBVGY3TQOJQ", 7, []string{"h1"}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.UpdateUser(t.Context(), acme, u.ID, keystore.UserChange{Name: ptr("Ada L."), Disabled: ptr(true)}); err != nil {
			t.Fatal(err)
		}
		found, err := n.UserByEmail(t.Context(), "ada@example.com")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.SignedIn(t.Context(), self, found, keystore.SignIn{Method: "password", Left: found.Credentials}); err != nil {
			t.Fatal(err)
		}
		if err := n.EndSessions(t.Context(), acme, u.ID); err != nil {
			t.Fatal(err)
		}
		if err := n.DeleteUser(t.Context(), acme, u.ID); err != nil {
			t.Fatal(err)
		}
		if seen := n.trail("acme", keystore.EventFilter{}, 100); len(seen) != 1 || seen[0].Action != keystore.AccountPut {
			t.Errorf("without asking for users: %v", tell(seen))
		}
		events := n.trail("acme", keystore.EventFilter{Users: true}, 100)
		want := []string{
			`user.delete | operator | done | email "ada@example.com"→null; name "Ada L."→null; must_change false→null; totp true→null; disabled true→null`,
			`user.sign_out | operator | done | `,
			`user.sign_in | session | done | method null→"password"`,
			`user.update | operator | done | name "Ada"→"Ada L."; disabled false→true`,
			`user.totp | session | done | totp false→true`,
			`user.password | session | done | `,
			`user.create | operator | done | email null→"ada@example.com"; name null→"Ada"; must_change null→false; totp null→false; disabled null→false`,
		}
		if diff := cmp.Diff(want, tell(events)[:len(want)]); diff != "" {
			t.Errorf("the trail (-want +got):\n%s", diff)
		}
		for _, e := range events[:len(want)] {
			if e.User != u.ID || e.Key != "" {
				t.Errorf("%s is about user %q and key %q", e.Action, e.User, e.Key)
			}
			if text := fmt.Sprint(e); strings.Contains(text, "argon2") || strings.Contains(text, "GEZDGNBV") || strings.Contains(text, "h1") {
				t.Errorf("an event has a secret: %s", text)
			}
		}
	})
}

func TestOneOfTwoSignInsWithWhatWasReadIsNoted(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme := n.account("acme")
		u := n.user(acme, "ada@example.com")
		if _, err := n.ChangeTOTP(t.Context(), acme, n.proven(acme, u.ID), "GEZDGNBVGY3TQOJQ", 7, []string{"h1", "h2"}); err != nil {
			t.Fatal(err)
		}
		first, err := n.UserByEmail(t.Context(), "ada@example.com")
		if err != nil {
			t.Fatal(err)
		}
		second, err := n.UserByEmail(t.Context(), "ada@example.com")
		if err != nil {
			t.Fatal(err)
		}
		left := first.Credentials
		left.TOTPStep, left.Recovery = 8, []string{"h2"}
		got, err := n.SignedIn(t.Context(), acme, first, keystore.SignIn{Method: "password", Left: left})
		if err != nil || !got.LastSignInAt.Equal(w.clock.Now()) {
			t.Fatalf("got %+v, %v", got, err)
		}
		if _, err := n.SignedIn(t.Context(), acme, second, keystore.SignIn{Method: "password", Left: left}); !errors.Is(err, keystore.ErrConflict) {
			t.Errorf("the second: got %v", err)
		}
		now, err := n.UserByEmail(t.Context(), "ada@example.com")
		if err != nil || now.Credentials.TOTPStep != 8 || !slices.Equal(now.Credentials.Recovery, []string{"h2"}) || !now.User.LastSignInAt.Equal(w.clock.Now()) {
			t.Errorf("stored %+v, %v", now.User, err)
		}
	})
}

// proven is the user as it was read when it proved itself.
func (n *node) proven(by policy.Caller, id keystore.UserID) *keystore.SignInUser {
	n.t.Helper()
	u, err := n.UserForSignIn(n.t.Context(), by, id)
	if err != nil {
		n.t.Fatal(err)
	}
	return u
}

// TestChangeOnTheStrengthOfWhatIsNoMoreIsRefused: an operator's reset that
// comes while a user changes its credentials stands.
func TestChangeOnTheStrengthOfWhatIsNoMoreIsRefused(t *testing.T) {
	for name, first := range map[string]func(n *node, by policy.Caller, u keystore.User) error{
		"password reset": func(n *node, by policy.Caller, u keystore.User) error {
			return n.SetPassword(n.t.Context(), by, u.ID, passwordHash+"R", true)
		},
		"signed out everywhere": func(n *node, by policy.Caller, u keystore.User) error { return n.EndSessions(n.t.Context(), by, u.ID) },
		"disabled and enabled again": func(n *node, by policy.Caller, u keystore.User) error {
			_, err := n.UpdateUser(n.t.Context(), by, u.ID, keystore.UserChange{Disabled: ptr(true)})
			_, again := n.UpdateUser(n.t.Context(), by, u.ID, keystore.UserChange{Disabled: ptr(false)})
			return errors.Join(err, again)
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEachStore(t, func(t *testing.T, w *world) {
				n := w.node()
				acme := n.account("acme")
				u := n.user(acme, "ada@example.com")
				proven := n.proven(acme, u.ID)
				if err := first(n, acme, u); err != nil {
					t.Fatal(err)
				}
				want := n.proven(acme, u.ID)
				if _, err := n.ChangePassword(t.Context(), acme, proven, passwordHash+"B"); !errors.Is(err, keystore.ErrConflict) {
					t.Errorf("password: got %v", err)
				}
				if _, err := n.ChangeTOTP(t.Context(), acme, proven, "GEZDGNBVGY3TQOJQ", 7, nil); !errors.Is(err, keystore.ErrConflict) {
					t.Errorf("TOTP: got %v", err)
				}
				if got := n.proven(acme, u.ID); got.Credentials.PasswordHash != want.Credentials.PasswordHash || got.Credentials.TOTPSecret != "" || got.User != want.User {
					t.Errorf("it was changed: %+v, want %+v", got.User, want.User)
				}
				after, err := n.ChangePassword(t.Context(), acme, want, passwordHash+"B")
				if err != nil || after.MustChange || after.Epoch != want.User.Epoch+1 {
					t.Errorf("on the strength of what is: %+v, %v", after, err)
				}
			})
		})
	}
}

// TestCodeThatWasUsedProvesNoChange: a code is used up by the one thing that it
// proves.
func TestCodeThatWasUsedProvesNoChange(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	acme := n.account("acme")
	u := n.user(acme, "ada@example.com")
	if _, err := n.ChangeTOTP(t.Context(), acme, n.proven(acme, u.ID), "GEZDGNBVGY3TQOJQ", 7, []string{"h1"}); err != nil {
		t.Fatal(err)
	}
	proven, signsIn := n.proven(acme, u.ID), n.proven(acme, u.ID)
	left := signsIn.Credentials
	left.TOTPStep = 8
	if _, err := n.SignedIn(t.Context(), acme, signsIn, keystore.SignIn{Method: "password", Left: left}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ChangeTOTP(t.Context(), acme, proven, "", 0, nil); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("got %v", err)
	}
}

func TestNoKeyManagesUsers(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	acme := n.account("acme")
	u := n.user(acme, "ada@example.com")
	_, token := n.key(acme)
	by := n.caller(token)
	_, createErr := n.CreateUser(t.Context(), by, keystore.NewUser{Email: "bob@example.com", PasswordHash: passwordHash})
	_, _, listErr := n.ListUsers(t.Context(), by, "", 10)
	_, getErr := n.GetUser(t.Context(), by, u.ID)
	_, sessionsErr := n.ListSessions(t.Context(), by, u.ID)
	_, changeErr := n.ChangePassword(t.Context(), by, n.proven(acme, u.ID), "x")
	_, totpErr := n.ChangeTOTP(t.Context(), by, n.proven(acme, u.ID), "", 0, nil)
	for what, err := range map[string]error{
		"create": createErr, "list": listErr, "get": getErr, "list sessions": sessionsErr, "delete": n.DeleteUser(t.Context(), by, u.ID),
		"password": n.SetPassword(t.Context(), by, u.ID, "x", false), "own password": changeErr, "totp": totpErr,
	} {
		var refused *keystore.RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestUsersAreThereAfterARestart(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.open()
	acme := n.account("acme")
	u := n.user(acme, "ada@example.com")
	n.session(u, "token-1")
	n.user(acme, "bob@example.com")
	if err := n.DeleteUser(t.Context(), acme, n.byEmail("bob@example.com").ID); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = w.node()
	if got := n.byEmail("ada@example.com"); got.ID != u.ID {
		t.Errorf("got %+v", got)
	}
	n.wantNoUser("bob@example.com")
	if _, err := n.FindSession(t.Context(), "token-1"); err != nil {
		t.Error(err)
	}
}

func (n *node) byEmail(email string) keystore.User {
	n.t.Helper()
	found, err := n.UserByEmail(n.t.Context(), keystore.Email(email))
	if err != nil {
		n.t.Fatal(err)
	}
	return found.User
}

func TestCredentialsDoNotPrint(t *testing.T) {
	t.Parallel()
	c := keystore.Credentials{PasswordHash: passwordHash, TOTPSecret: "GEZDGNBV"}
	found := keystore.SignInUser{Credentials: c}
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%+v", found), fmt.Sprintf("%+v", &found)} {
		if strings.Contains(text, "argon2id") || strings.Contains(text, "GEZDGNBV") {
			t.Errorf("printed %s", text)
		}
	}
}

func TestEmptiedStoreKnowsNothingOfUsers(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	u := n.user(n.account("acme"), "ada@example.com")
	n.session(u, "token-1")
	m.FlushAll()
	if _, err := n.UserByEmail(t.Context(), "ada@example.com"); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("user: got %v", err)
	}
	if _, err := n.FindSession(t.Context(), "token-1"); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("session: got %v", err)
	}
}
