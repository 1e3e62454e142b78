package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// signedIn is a caller that is a user's session.
func (n *node) signedIn(person policy.Caller) policy.Caller {
	n.t.Helper()
	id := person.Account.ID
	n.session(n.user(person, string(id)+"@example.com"), "token-of-"+string(id))
	return n.wantSession("token-of-"+string(id)).Caller(inside, "request-1")
}

func noSession(err error) bool {
	return errors.Is(err, keystore.ErrNoSession) && !errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrUnavailable)
}

// overOrGone: of what was deleted, the target may be missed before the session.
func overOrGone(err error) bool { return noSession(err) || gone(err) }

func (n *node) disable(person, caller policy.Caller, disabled bool) {
	n.t.Helper()
	n.must(nil, nil, func() error {
		_, err := n.UpdateUser(n.t.Context(), person, keystore.UserID(caller.Person.ID), keystore.UserChange{Disabled: &disabled})
		return err
	}())
}

// signOuts are what can happen to a session between its request and its change.
var signOuts = []downfall{
	{"signed out", func(n *node, person, _ policy.Caller) {
		n.must(nil, nil, n.EndSession(n.t.Context(), "token-of-"+string(person.Account.ID)))
	}, noSession, false},
	{"signed out by another session", func(n *node, person, caller policy.Caller) {
		n.must(nil, nil, n.RevokeSession(n.t.Context(), person, keystore.UserID(caller.Person.ID), caller.Session))
	}, noSession, false},
	{"signed out everywhere", func(n *node, person, caller policy.Caller) {
		n.must(nil, nil, n.EndSessions(n.t.Context(), person, keystore.UserID(caller.Person.ID)))
	}, noSession, false},
	{"given another password", func(n *node, person, caller policy.Caller) {
		n.must(nil, nil, n.SetPassword(n.t.Context(), person, keystore.UserID(caller.Person.ID), passwordHash+"B", false))
	}, noSession, false},
	{"of a disabled user", func(n *node, person, caller policy.Caller) { n.disable(person, caller, true) }, noSession, false},
	{"of a user who was disabled and enabled again", func(n *node, person, caller policy.Caller) {
		n.disable(person, caller, true)
		n.disable(person, caller, false)
	}, noSession, false},
	{"of a deleted user", func(n *node, person, caller policy.Caller) {
		n.must(nil, nil, n.DeleteUser(n.t.Context(), person, keystore.UserID(caller.Person.ID)))
	}, overOrGone, false},
	{"of a suspended account", func(n *node, person, _ policy.Caller) {
		n.account(person.Account.ID, func(a *keystore.Account) { a.Status = policy.Suspended })
	}, noSession, false},
	{"of a deleted account", func(n *node, person, _ policy.Caller) { n.delete(person.Account.ID) }, overOrGone, true},
	{"of a deleted account whose id is used again", func(n *node, person, _ policy.Caller) {
		n.delete(person.Account.ID)
		n.account(person.Account.ID)
	}, overOrGone, true},
}

// losses are what an account can lose meanwhile, which its sessions have not then.
var losses = []downfall{
	{"of an account that may not manage keys any more", func(n *node, person, _ policy.Caller) {
		n.account(person.Account.ID, func(a *keystore.Account) {
			a.Permissions = []string{string(read), string(write), "account:apikeys:read"}
		})
	}, decided(policy.PermissionDenied), false},
}

// userOperations are what a session does to users.
var userOperations = []operation{
	{"rename itself", func(ctx context.Context, n *node, by policy.Caller, _ policy.KeyID) error {
		_, err := n.UpdateUser(ctx, by, keystore.UserID(by.Person.ID), keystore.UserChange{Name: ptr("Eve")})
		return err
	}, false},
	{"sign out everywhere", func(ctx context.Context, n *node, by policy.Caller, _ policy.KeyID) error {
		return n.EndSessions(ctx, by, keystore.UserID(by.Person.ID))
	}, false},
	{"create a user", func(ctx context.Context, n *node, by policy.Caller, _ policy.KeyID) error {
		_, err := n.CreateUser(ctx, by, keystore.NewUser{Email: keystore.Email(fmt.Sprintf("eve%d@example.com", falls.Add(1))), PasswordHash: passwordHash})
		return err
	}, false},
}

// A session that is over at any moment before its change is committed changes
// nothing, like a key that has come to its end: TestCallerMustStillStandAtTheCommit.
func TestSessionMustStillStandAtTheCommit(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node().traced()
		elsewhere := n.second()
		cases := 0
		// Every operation takes the same way: all of them on the store that is
		// quick, and on the others one for each cause, in turn.
		some := func(all []operation, turn int) []operation {
			if w.kind == "miniredis" {
				return all
			}
			return all[turn%len(all) : turn%len(all)+1]
		}
		for i, fall := range append(signOuts, losses...) {
			for _, op := range some(operations, i) {
				cases += fallsAtEveryMoment(n, elsewhere, (*node).signedIn, fall, op)
			}
		}
		for i, fall := range signOuts {
			for _, op := range some(userOperations, i) {
				cases += fallsAtEveryMoment(n, elsewhere, (*node).signedIn, fall, op)
			}
		}
		t.Logf("%d cases", cases)
	})
}

// A session whose time is up by the clock alone changes nothing either.
func TestSessionWhoseTimeIsUpChangesNothing(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		target, _ := n.key(person)
		by := n.signedIn(person)
		w.clock.Advance(30*time.Minute - time.Second)
		if err := operations[1].do(t.Context(), n, by, target.ID); err != nil {
			t.Fatalf("in its last second: %v", err)
		}
		w.clock.Advance(time.Second)
		for _, op := range append(operations, userOperations...) {
			if err := op.do(t.Context(), n, by, target.ID); !noSession(err) {
				t.Errorf("%s: got %v", op.name, err)
			}
		}
	})
}

// Whoever is no operator and shows no session of its own is refused.
func TestPersonWithoutItsSessionChangesNothing(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		target, _ := n.key(person)
		other := n.signedIn(n.account("zeta"))
		for name, change := range map[string]func(by *policy.Caller){
			"no session":             func(by *policy.Caller) { by.Session = "" },
			"a session that is none": func(by *policy.Caller) { by.Session = "nonsense" },
			"another's session":      func(by *policy.Caller) { by.Session = other.Session },
			"another user":           func(by *policy.Caller) { by.Person.ID = other.Person.ID },
			"no user":                func(by *policy.Caller) { by.Person.ID = "" },
			"another account":        func(by *policy.Caller) { by.Account = other.Account },
			"of no account":          func(by *policy.Caller) { by.Account = nil },
			"operator in a session":  func(by *policy.Caller) { by.Person.Kind = policy.ActorOperator; by.Person.ID = "" },
			"of an unknown kind":     func(by *policy.Caller) { by.Person.Kind = "robot"; by.Session = "" },
			"a key that is none":     func(by *policy.Caller) { by.Person.Kind = policy.ActorKey; by.Session = "" },
			"about to sign in":       func(by *policy.Caller) { by.Person.ID, by.Session = "", "" },
		} {
			by := n.wantSession(n.sessionToken(person)).Caller(inside, "")
			change(&by)
			for _, op := range append(operations, userOperations...) {
				if err := op.do(t.Context(), n, by, target.ID); !noSession(err) {
					t.Errorf("%s: %s: got %v", name, op.name, err)
				}
			}
		}
	})
}

// sessionToken is the token of a session of the account's one user.
func (n *node) sessionToken(person policy.Caller) string {
	n.t.Helper()
	users, _, err := n.ListUsers(n.t.Context(), person, "", 1)
	n.must(nil, nil, err)
	if len(users) == 0 {
		n.signedIn(person)
	}
	return "token-of-" + string(person.Account.ID)
}

// TestUserIsHeldBesideItsSession: a session that began while the index was read
// is in it still when its user has signed out everywhere, and ends by the epoch.
func TestUserIsHeldBesideItsSession(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node().traced()
	fall := downfall{"of a later epoch", func(_ *node, person, caller policy.Caller) {
		name := w.options.Prefix + "account:{" + string(person.Account.ID) + "}:user:" + caller.Person.ID
		was, err := m.Get(name)
		n.must(nil, nil, err)
		n.must(nil, nil, m.Set(name, strings.Replace(was, `"epoch":1`, `"epoch":2`, 1)))
	}, noSession, false}
	for _, op := range operations {
		fallsAtEveryMoment(n, n, (*node).signedIn, fall, op)
	}
}
