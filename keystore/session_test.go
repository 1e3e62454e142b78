package keystore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// session begins a session of half an hour, and of twelve hours at the most.
func (n *node) session(u keystore.User, token string) {
	n.t.Helper()
	now := n.w.clock.Now()
	err := n.CreateSession(n.t.Context(), token, keystore.NewSession{
		User: u, ExpiresAt: now.Add(30 * time.Minute), EndsAt: now.Add(12 * time.Hour), Client: inside, Agent: "browser", Data: []byte("data"),
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) wantNoSession(token string) {
	n.t.Helper()
	if ss, err := n.FindSession(n.t.Context(), token); !errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrUnavailable) {
		n.t.Errorf("%s: got %+v, %v, want ErrNotFound", token, ss, err)
	}
}

func (n *node) wantSession(token string) *keystore.Session {
	n.t.Helper()
	ss, err := n.FindSession(n.t.Context(), token)
	if err != nil {
		n.t.Fatalf("%s: %v", token, err)
	}
	return ss
}

func TestSessionMayDoWhatItsAccountMay(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme := n.account("acme")
		u := n.user(acme, "ada@example.com")
		n.session(u, "token-1")
		ss := n.second().wantSession("token-1")
		if ss.User.ID != u.ID || ss.Client != inside || ss.Agent != "browser" || string(ss.Data) != "data" || !ss.CreatedAt.Equal(w.clock.Now()) {
			t.Errorf("got %+v", ss)
		}
		by := ss.Caller(inside, "request-1")
		k, token := n.key(by)
		n.works(token)
		if made := n.trail("acme", keystore.EventFilter{Key: k.ID}, 10)[0]; made.Actor != (policy.Actor{Kind: policy.ActorSession, ID: string(u.ID)}) {
			t.Errorf("the key was made by %+v", made.Actor)
		}
		n.account("acme", func(a *keystore.Account) { a.Permissions = []string{string(read), "account:apikeys:*"} })
		var excess *policy.Excess
		if _, _, err := n.Create(t.Context(), n.wantSession("token-1").Caller(inside, ""), newKey()); !errors.As(err, &excess) {
			t.Errorf("beyond the account: got %v", err)
		}
		for name, text := range dump(t, keystore.ClientOf(n.Store), w.options.Prefix) {
			if strings.Contains(name+text, "token-1") {
				t.Errorf("%s has the session's token: %s", name, text)
			}
		}
	})
}

func TestWhatEndsEverySession(t *testing.T) {
	for name, end := range map[string]func(n *node, by policy.Caller, u keystore.User) error{
		"another password": func(n *node, by policy.Caller, u keystore.User) error {
			return n.SetPassword(n.t.Context(), by, u.ID, passwordHash+"B", false)
		},
		"TOTP set up": func(n *node, by policy.Caller, u keystore.User) error {
			_, err := n.ChangeTOTP(n.t.Context(), by, n.proven(by, u.ID), "GEZDGNBVGY3TQOJQ", 0, nil)
			return err
		},
		"signed out everywhere": func(n *node, by policy.Caller, u keystore.User) error { return n.EndSessions(n.t.Context(), by, u.ID) },
		"disabled and enabled again": func(n *node, by policy.Caller, u keystore.User) error {
			_, err := n.UpdateUser(n.t.Context(), by, u.ID, keystore.UserChange{Disabled: ptr(true)})
			_, again := n.UpdateUser(n.t.Context(), by, u.ID, keystore.UserChange{Disabled: ptr(false)})
			return errors.Join(err, again)
		},
		"deleted": func(n *node, by policy.Caller, u keystore.User) error { return n.DeleteUser(n.t.Context(), by, u.ID) },
		"account deleted": func(n *node, _ policy.Caller, _ keystore.User) error {
			return n.DeleteAccount(n.t.Context(), policy.Caller{}, "acme")
		},
		"account suspended": func(n *node, _ policy.Caller, _ keystore.User) error {
			n.account("acme", func(a *keystore.Account) { a.Status = policy.Suspended })
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEachStore(t, func(t *testing.T, w *world) {
				n := w.node()
				acme := n.account("acme")
				u, other := n.user(acme, "ada@example.com"), n.user(n.account("zeta"), "zoe@example.com")
				n.session(u, "token-1")
				n.session(u, "token-2")
				n.session(other, "token-3")
				if err := end(n, acme, u); err != nil {
					t.Fatal(err)
				}
				for _, node := range []*node{n, n.second()} {
					node.wantNoSession("token-1")
					node.wantNoSession("token-2")
					node.wantSession("token-3")
				}
				// What is late cannot bring it back.
				if err := n.TouchSession(t.Context(), "token-1", []byte("late"), w.clock.Now().Add(time.Hour)); err != nil {
					t.Error(err)
				}
				n.wantNoSession("token-1")
				if name == "account suspended" {
					return // it may be active again
				}
				// Nor can a sign-in that began before.
				err := n.CreateSession(t.Context(), "token-4", keystore.NewSession{User: u, ExpiresAt: w.clock.Now().Add(time.Hour), EndsAt: w.clock.Now().Add(time.Hour)})
				if !errors.Is(err, keystore.ErrNotFound) {
					t.Errorf("a session of a sign-in that began before: got %v", err)
				}
			})
		})
	}
}

func TestSessionExpiresWhenIdleAndEndsInAnyCase(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		u := n.user(n.account("acme"), "ada@example.com")
		n.session(u, "token-1")
		n.session(u, "idle")
		touch := func(after time.Duration, data string) {
			t.Helper()
			w.clock.Advance(after)
			if err := n.TouchSession(t.Context(), "token-1", []byte(data), w.clock.Now().Add(30*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		touch(20*time.Second, "data") // too soon to be written
		if got := n.wantSession("token-1").ExpiresAt; !got.Equal(w.clock.Now().Add(30*time.Minute - 20*time.Second)) {
			t.Errorf("expires at %s", got)
		}
		touch(0, "changed") // written at once
		if got := n.wantSession("token-1"); string(got.Data) != "changed" || !got.ExpiresAt.Equal(w.clock.Now().Add(30*time.Minute)) {
			t.Errorf("got %+v", got)
		}
		touch(29*time.Minute, "changed")
		n.wantSession("idle")
		touch(time.Minute, "changed")
		n.wantNoSession("idle")
		for range 23 {
			touch(29*time.Minute, "changed")
		}
		if got := n.wantSession("token-1"); got.ExpiresAt.After(got.EndsAt) {
			t.Errorf("it expires at %s, after its end", got.ExpiresAt)
		}
		w.clock.Advance(12*time.Hour - 30*time.Minute - 20*time.Second - 23*29*time.Minute - time.Second)
		n.wantSession("token-1")
		w.clock.Advance(time.Second)
		n.wantNoSession("token-1")
	})
}

func TestSessionsAreListedAndRevokedOneByOne(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme, zeta := n.account("acme"), n.account("zeta")
		u, other := n.user(acme, "ada@example.com"), n.user(acme, "bob@example.com")
		for i := range 3 {
			n.session(u, fmt.Sprint("token-", i))
			w.clock.Advance(time.Second)
		}
		n.session(other, "token-9")
		listed, err := n.ListSessions(t.Context(), acme, u.ID)
		if err != nil || len(listed) != 3 || !listed[0].CreatedAt.After(listed[2].CreatedAt) {
			t.Fatalf("got %+v, %v", listed, err)
		}
		middle := listed[1].ID
		for what, err := range map[string]error{
			"by another account": n.RevokeSession(t.Context(), zeta, u.ID, middle),
			"of another user":    n.RevokeSession(t.Context(), acme, other.ID, middle),
			"unknown":            n.RevokeSession(t.Context(), acme, u.ID, "nonsense"),
		} {
			if !errors.Is(err, keystore.ErrNotFound) {
				t.Errorf("%s: got %v", what, err)
			}
		}
		if err := n.RevokeSession(t.Context(), acme, u.ID, middle); err != nil {
			t.Fatal(err)
		}
		n.wantNoSession("token-1")
		n.wantSession("token-0")
		if err := n.EndSession(t.Context(), "token-0"); err != nil {
			t.Fatal(err)
		}
		n.wantNoSession("token-0")
		if err := n.EndSession(t.Context(), "token-0"); err != nil {
			t.Errorf("again: %v", err)
		}
		listed, err = n.ListSessions(t.Context(), acme, u.ID)
		if err != nil || len(listed) != 1 {
			t.Errorf("got %+v, %v", listed, err)
		}
		n.wantSession("token-9")
	})
}

func TestOldestSessionMakesRoom(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	acme := n.account("acme")
	u := n.user(acme, "ada@example.com")
	for i := range 52 {
		n.session(u, fmt.Sprint("token-", i))
		w.clock.Advance(time.Second)
	}
	n.wantNoSession("token-0")
	n.wantNoSession("token-1")
	n.wantSession("token-2")
	if listed, err := n.ListSessions(t.Context(), acme, u.ID); err != nil || len(listed) != 50 {
		t.Errorf("%d are listed, %v", len(listed), err)
	}
}

func TestWhatIsNoSessionTokenIsNotFound(t *testing.T) {
	w, _ := miniWorld(t)
	n := w.node()
	n.session(n.user(n.account("acme"), "ada@example.com"), "token-1")
	for _, token := range []string{"", "token-", "token-1 ", "TOKEN-1", strings.Repeat("x", 100_000), "\x00", "{acme}"} {
		n.wantNoSession(token)
	}
}

// TestDamagedUserAndSessionRecordsLetNobodyIn: a record is understood in whole
// or not at all.
func TestDamagedUserAndSessionRecordsLetNobodyIn(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	acme := n.account("acme")
	u := n.user(acme, "ada@example.com")
	n.session(u, "token-1")
	names := slices.DeleteFunc(m.Keys(), func(name string) bool {
		return !strings.Contains(name, "session:") && !strings.HasSuffix(name, "user:"+string(u.ID))
	})
	if len(names) != 2 {
		t.Fatalf("records are %v", names)
	}
	for _, name := range names {
		whole, err := m.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for what, damaged := range map[string]string{
			"cut": whole[:len(whole)-1], "a field more": strings.Replace(whole, `{"v":1`, `{"v":1,"x":1`, 1), "another version": strings.Replace(whole, `"v":1`, `"v":2`, 1),
			"a field less": strings.Replace(whole, `"v":1,`, ``, 1), "another account": strings.Replace(whole, `"account":"acme"`, `"account":"a/b"`, 1), "null": "null", "empty": "{}",
		} {
			if err := m.Set(name, damaged); err != nil {
				t.Fatal(err)
			}
			if ss, err := n.FindSession(t.Context(), "token-1"); !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("%s of %s: got %+v, %v", what, name, ss, err)
			}
		}
		if err := m.Set(name, whole); err != nil {
			t.Fatal(err)
		}
		n.wantSession("token-1")
	}
}

// TestSessionThatIsInNoIndexEndsToo: one that began while the index was read
// is not removed, and dead by its epoch.
func TestSessionThatIsInNoIndexEndsToo(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	acme := n.account("acme")
	u := n.user(acme, "ada@example.com")
	n.session(u, "token-1")
	for _, name := range m.Keys() {
		if strings.HasSuffix(name, ":sessions") {
			m.Del(name)
		}
	}
	n.wantSession("token-1")
	if err := n.EndSessions(t.Context(), acme, u.ID); err != nil {
		t.Fatal(err)
	}
	n.wantNoSession("token-1")
}
