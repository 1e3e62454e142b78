package keystore_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

var (
	adaThere = keystore.Identity{Issuer: "https://id.example.com", Subject: "subject-1"}
	bobThere = keystore.Identity{Issuer: "https://id.example.com", Subject: "subject-2"}
)

// vouched notes a sign-in of the user of the address with that identity.
func (n *node) vouched(by policy.Caller, email keystore.Email, i keystore.Identity) error {
	n.t.Helper()
	u, err := n.UserByEmail(n.t.Context(), email)
	if err != nil {
		n.t.Fatal(err)
	}
	_, err = n.SignedIn(n.t.Context(), by, u, keystore.SignIn{Method: "provider sso", Left: u.Credentials, Identity: i})
	return err
}

func (n *node) wantIdentity(i keystore.Identity, id keystore.UserID) {
	n.t.Helper()
	u, err := n.UserByIdentity(n.t.Context(), i)
	switch {
	case id == "" && !errors.Is(err, keystore.ErrNotFound):
		n.t.Errorf("%v: got %v, %v, want nobody", i, u, err)
	case id != "" && (err != nil || u.User.ID != id || u.User.Identity != i):
		n.t.Errorf("%v: got %+v, %v, want %s", i, u, err, id)
	}
}

func TestUserIsFoundByItsIdentityFromTheFirstSignInOn(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme := n.account("acme")
		ada, bob := n.user(acme, "ada@example.com"), n.user(acme, "bob@example.com")
		n.wantIdentity(adaThere, "")
		if err := n.vouched(acme, "ada@example.com", adaThere); err != nil {
			t.Fatal(err)
		}
		n.second().wantIdentity(adaThere, ada.ID)
		n.wantIdentity(bobThere, "")
		n.wantIdentity(keystore.Identity{Issuer: adaThere.Issuer + "s", Subject: "ubject-1"}, "")
		n.wantIdentity(keystore.Identity{}, "")
		if err := n.vouched(acme, "ada@example.com", adaThere); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := n.vouched(acme, "ada@example.com", bobThere); !errors.Is(err, keystore.ErrIdentityTaken) {
			t.Errorf("a second identity of one user: got %v", err)
		}
		if err := n.vouched(acme, "bob@example.com", adaThere); !errors.Is(err, keystore.ErrIdentityTaken) {
			t.Errorf("an identity of two users: got %v", err)
		}
		if err := n.vouched(acme, "bob@example.com", keystore.Identity{Issuer: "x", Subject: strings.Repeat("x", 513)}); !errors.Is(err, keystore.ErrIdentityTaken) {
			t.Errorf("a subject that is too long: got %v", err)
		}
		if err := n.vouched(acme, "bob@example.com", keystore.Identity{}); err != nil {
			t.Errorf("none: %v", err)
		}
		if got, err := n.GetUser(t.Context(), acme, bob.ID); err != nil || got.Identity != (keystore.Identity{}) {
			t.Errorf("Bob is %+v, %v", got, err)
		}
	})
}

func TestUserIsMadeWithItsIdentity(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme := n.account("acme")
		made, err := n.CreateUser(t.Context(), acme, keystore.NewUser{Email: "ada@example.com", Identity: adaThere})
		if err != nil {
			t.Fatal(err)
		}
		found, err := n.UserByIdentity(t.Context(), adaThere)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(made, found.User); diff != "" || made.HasPassword {
			t.Errorf("found another (-made +found):\n%s", diff)
		}
		if _, err := n.CreateUser(t.Context(), acme, keystore.NewUser{Email: "bob@example.com", Identity: adaThere}); !errors.Is(err, keystore.ErrIdentityTaken) {
			t.Errorf("a second user of the identity: got %v", err)
		}
		n.wantNoUser("bob@example.com")
	})
}

func TestOneOfManyUsersGetsAnIdentity(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme := n.account("acme")
		emails := []keystore.Email{"a@example.com", "b@example.com", "c@example.com", "d@example.com"}
		for _, e := range emails {
			n.user(acme, string(e))
		}
		errs := make([]error, len(emails))
		var wg sync.WaitGroup
		for i, e := range emails {
			wg.Go(func() { errs[i] = n.vouched(acme, e, adaThere) })
		}
		wg.Wait()
		found, err := n.UserByIdentity(t.Context(), adaThere)
		if err != nil {
			t.Fatal(err)
		}
		in := 0
		for i, err := range errs {
			if err == nil {
				in++
				if found.User.Email != emails[i] && w.kind != "cluster" {
					t.Errorf("%s was noted, and the identity is %s's", emails[i], found.User.Email)
				}
			} else if !errors.Is(err, keystore.ErrIdentityTaken) && !errors.Is(err, keystore.ErrConflict) {
				t.Errorf("got %v", err)
			}
		}
		// On a Cluster the claim and the users are on different nodes, and who
		// comes at the same moment may note it too: it is the last one's.
		if in < 1 || in > 1 && w.kind != "cluster" {
			t.Errorf("%d users got it", in)
		}
	})
}

func TestIdentityIsFreeWhenItsUserIsNoMore(t *testing.T) {
	for name, end := range map[string]func(n *node, by policy.Caller, u keystore.User) error{
		"deleted": func(n *node, by policy.Caller, u keystore.User) error { return n.DeleteUser(n.t.Context(), by, u.ID) },
		"account deleted": func(n *node, by policy.Caller, _ keystore.User) error {
			return n.DeleteAccount(n.t.Context(), by, "acme")
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEachStore(t, func(t *testing.T, w *world) {
				n := w.node()
				acme := n.account("acme")
				u := n.user(acme, "ada@example.com")
				if err := n.vouched(acme, "ada@example.com", adaThere); err != nil {
					t.Fatal(err)
				}
				if err := end(n, acme, u); err != nil {
					t.Fatal(err)
				}
				n.wantIdentity(adaThere, "")
				if left := n.leftOf("identity:"); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				acme = n.account("acme")
				again := n.user(acme, "ada@example.com")
				if err := n.vouched(acme, "ada@example.com", adaThere); err != nil {
					t.Fatal(err)
				}
				n.wantIdentity(adaThere, again.ID)
			})
		})
	}
}

func TestIdentityIsThereAfterARestart(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.open()
	acme := n.account("acme")
	u := n.user(acme, "ada@example.com")
	if err := n.vouched(acme, "ada@example.com", adaThere); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	w.node().wantIdentity(adaThere, u.ID)
}
