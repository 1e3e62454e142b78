package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// downfall is what can happen to a caller between its lookup and its change.
type downfall struct {
	name string
	// happens is done by somebody else, on another node where there is one.
	happens func(n *node, person, caller policy.Caller)
	refused func(error) bool
	// fatal: the target dies with the caller.
	fatal bool
}

func decided(reason policy.Reason) func(error) bool {
	return func(err error) bool {
		var refused *keystore.RefusedError
		return errors.As(err, &refused) && refused.Decision.Reason == reason
	}
}

func excess(err error) bool {
	var e *policy.Excess
	return errors.As(err, &e)
}

func unknown(err error) bool { return errors.Is(err, keystore.ErrUnknownToken) }

// gone: of a deleted account, the one or the other thing is missed first.
func gone(err error) bool {
	return unknown(err) || errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrConflict)
}

func (n *node) must(_, _ any, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) update(by policy.Caller, id policy.KeyID, u keystore.Update) {
	n.t.Helper()
	n.must(n.Update(n.t.Context(), by, id, u))
}

func (n *node) delete(id policy.AccountID) {
	n.t.Helper()
	n.must(nil, nil, n.DeleteAccount(n.t.Context(), policy.Caller{}, id))
}

var downfalls = []downfall{
	{"revoked", func(n *node, person, caller policy.Caller) {
		_, err := n.Revoke(n.t.Context(), person, caller.Key.ID)
		n.must(nil, nil, err)
	}, unknown, false},
	{"regenerated", func(n *node, person, caller policy.Caller) {
		n.must(n.Regenerate(n.t.Context(), person, caller.Key.ID, 0))
	}, unknown, false},
	{"disabled", func(n *node, person, caller policy.Caller) {
		n.update(person, caller.Key.ID, keystore.Update{Active: ptr(false)})
	}, decided(policy.KeyDisabled), false},
	{"expired", func(n *node, person, caller policy.Caller) {
		n.update(person, caller.Key.ID, keystore.Update{Expiry: ptr(n.w.clock.In(0))})
	}, decided(policy.KeyExpired), false},
	{"bound to another address", func(n *node, person, caller policy.Caller) {
		n.update(person, caller.Key.ID, keystore.Update{Addresses: ptr(policy.OnlyAddresses(home))})
	}, decided(policy.IPNotAllowed), false},
	{"account suspended", func(n *node, person, _ policy.Caller) {
		n.account(person.Account.ID, func(a *keystore.Account) { a.Status = policy.Suspended })
	}, decided(policy.AccountSuspended), false},
	{"account deleted", func(n *node, person, _ policy.Caller) { n.delete(person.Account.ID) }, gone, true},
	{"account deleted and its id used again", func(n *node, person, _ policy.Caller) {
		n.delete(person.Account.ID)
		n.account(person.Account.ID)
	}, gone, true},
	{"less a permission it hands on", func(n *node, person, caller policy.Caller) {
		n.update(person, caller.Key.ID, keystore.Update{Permissions: ptr(policy.NewPermissionSet(
			read, policy.CreateKeys, policy.UpdateKeys, policy.DeleteKeys, policy.RegenerateKeys))})
	}, excess, false},
	{"less the permission to manage keys", func(n *node, person, caller policy.Caller) {
		n.update(person, caller.Key.ID, keystore.Update{Permissions: ptr(policy.NewPermissionSet(read, write))})
	}, decided(policy.PermissionDenied), false},
	{"limited to a subaccount", func(n *node, person, caller policy.Caller) {
		n.update(person, caller.Key.ID, keystore.Update{Subaccounts: &[]policy.SubaccountID{subA}})
	}, excess, false},
}

// operation is a change that a caller makes to a target.
type operation struct {
	name string
	do   func(ctx context.Context, n *node, by policy.Caller, target policy.KeyID) error
	// bounded: the caller must hold what the target holds.
	bounded bool
}

var operations = []operation{
	{"create", func(ctx context.Context, n *node, by policy.Caller, _ policy.KeyID) error {
		_, _, err := n.Create(ctx, by, newKey(func(k *keystore.NewKey) { k.Subaccounts = []policy.SubaccountID{subA, subB} }))
		return err
	}, true},
	{"update", func(ctx context.Context, n *node, by policy.Caller, target policy.KeyID) error {
		_, _, err := n.Update(ctx, by, target, keystore.Update{Name: ptr("changed")})
		return err
	}, true},
	{"revoke", func(ctx context.Context, n *node, by policy.Caller, target policy.KeyID) error {
		_, err := n.Revoke(ctx, by, target)
		return err
	}, false},
	{"regenerate", func(ctx context.Context, n *node, by policy.Caller, target policy.KeyID) error {
		_, _, err := n.Regenerate(ctx, by, target, 0)
		return err
	}, true},
}

// trace counts the commands that one change sends to Redis, and calls before
// each of them. It travels in the context.
type trace struct {
	sent   atomic.Int64
	before func(number int, command string)
}

type traceKey struct{}

func (n *node) traced() *node {
	n.hook(func(ctx context.Context, cmd redis.Cmder, next func() error) error {
		if tr, ok := ctx.Value(traceKey{}).(*trace); ok {
			tr.before(int(tr.sent.Add(1)), cmd.Name())
		}
		return next()
	})
	return n
}

func isScript(command string) bool { return command == "evalsha" || command == "eval" }

// isCommit reports whether the command is a script that is not a beat, which is
// sent twice a second beside all else.
func isCommit(cmd redis.Cmder) bool {
	const secondKey = 4
	args := cmd.Args()
	return isScript(cmd.Name()) && (len(args) <= secondKey || !strings.Contains(fmt.Sprint(args[secondKey]), "beat:"))
}

// A caller that comes to its end at any moment before its change is committed
// is refused, and nothing changes: what counts is what is true at the commit,
// not at the lookup. The moments are those before each command that the change
// sends to Redis.
func TestCallerMustStillStandAtTheCommit(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node().traced()
		elsewhere := n.second()
		cases := 0
		for _, fall := range downfalls {
			for _, op := range operations {
				if !op.bounded && fall.refused(&policy.Excess{}) {
					continue // revoking needs nothing that this takes away
				}
				cases += fallsAtEveryMoment(n, elsewhere, (*node).callingKey, fall, op)
			}
		}
		t.Logf("%d cases", cases)
	})
}

// callingKey is a caller that is a key of its own.
func (n *node) callingKey(person policy.Caller) policy.Caller {
	n.t.Helper()
	_, token := n.key(person)
	return n.caller(token)
}

// fallsAtEveryMoment returns how many moments there were.
func fallsAtEveryMoment(n, elsewhere *node, who func(*node, policy.Caller) policy.Caller, fall downfall, op operation) int {
	n.t.Helper()
	moment := 1
	for fallsBefore(n, elsewhere, who, moment, fall, op) {
		moment++
	}
	return moment
}

var falls atomic.Int64

// fallsBefore returns false when the change was committed before that moment.
func fallsBefore(n, elsewhere *node, who func(*node, policy.Caller) policy.Caller, moment int, fall downfall, op operation) bool {
	t := n.t
	t.Helper()
	person := n.account(policy.AccountID(fmt.Sprintf("acme%d", falls.Add(1))))
	target, targetToken := n.key(person)
	by := who(n, person)
	had := len(n.list(person, 100))
	fallen, scripts := false, 0
	tr := &trace{before: func(number int, command string) {
		if isScript(command) {
			scripts++
		}
		if number != moment {
			return
		}
		fallen = true
		fall.happens(elsewhere, person, by)
	}}
	err := op.do(context.WithValue(t.Context(), traceKey{}, tr), n, by, target.ID)
	what := fmt.Sprintf("%s by one that is %s before command %d", op.name, fall.name, moment)
	switch {
	case !fallen:
		if err != nil {
			t.Errorf("%s, undisturbed: %v", op.name, err)
		}
		return false
	case n.w.kind == "cluster" && scripts > 1:
		return false // a Cluster has read some of the guards by then, and goes by that
	case !fall.refused(err):
		t.Errorf("%s: got %v", what, err)
	case fall.fatal:
		elsewhere.wantUnknown(targetToken)
	default:
		if diff := cmp.Diff(target, *elsewhere.works(targetToken).Key, same); diff != "" {
			t.Errorf("%s: the target has changed (-want +got):\n%s", what, diff)
		}
		if left := elsewhere.list(person, 100); len(left) > had {
			t.Errorf("%s: it has left a key: %v", what, left)
		}
	}
	return true
}

// The same with a caller whose time is up by the clock alone.
func TestCallerWhoseTimeIsUpIsRefused(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		target, _ := n.key(person)
		_, token := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(time.Minute) })
		by := n.caller(token)
		w.clock.Advance(time.Minute - time.Second)
		if err := operations[1].do(t.Context(), n, by, target.ID); err != nil {
			t.Fatalf("in its last second: %v", err)
		}
		w.clock.Advance(time.Second)
		for _, op := range operations {
			if err := op.do(t.Context(), n, by, target.ID); !decided(policy.KeyExpired)(err) {
				t.Errorf("%s: got %v", op.name, err)
			}
		}
	})
}

// What binds a key binds it with the next lookup, whoever asks.
func TestAccountBindsItsKeysAtOnce(t *testing.T) {
	rows := []struct {
		name   string
		change func(*keystore.Account)
		want   policy.Reason
	}{
		{"nothing changes", func(*keystore.Account) {}, policy.Allowed},
		{"permission lost", func(a *keystore.Account) { a.Permissions = []string{"proxies:read", "serp:*", "account:apikeys:*"} }, policy.PermissionDenied},
		{"permission kept by its resource", func(a *keystore.Account) { a.Permissions = []string{"proxies:*"} }, policy.Allowed},
		{"subaccount lost", func(a *keystore.Account) { a.Subaccounts = a.Subaccounts[1:] }, policy.SubaccountNotAllowed},
		{"suspended", func(a *keystore.Account) { a.Status = policy.Suspended }, policy.AccountSuspended},
		{"a status that is none", func(a *keystore.Account) { a.Status = "paused" }, policy.AccountSuspended},
	}
	onEachStore(t, func(t *testing.T, w *world) {
		for _, mode := range []keystore.Mode{keystore.Strict, keystore.Cached} {
			n := w.open(func(o *keystore.Options) { o.Mode = mode })
			_, token := n.key(n.account("acme"))
			for _, row := range rows {
				n.account("acme")
				n.works(token)
				n.account("acme", row.change)
				e := n.works(token)
				got := policy.Decide(policy.Request{At: w.clock.Now(), Client: inside, Subaccount: subA, Needs: write}, e.Key, e.Account)
				if got.Reason != row.want {
					t.Errorf("%s, %s: got %q, want %q", mode, row.name, got.Reason, row.want)
				}
			}
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A caller without an account is nobody.
func TestNobodyCanDoAnything(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		k, _ := n.key(n.account("acme"))
		for _, op := range operations {
			if err := op.do(t.Context(), n, policy.Caller{}, k.ID); !errors.Is(err, keystore.ErrNotFound) {
				t.Errorf("%s: got %v", op.name, err)
			}
		}
		if keys, _, err := n.List(t.Context(), policy.Caller{}, "", 10); len(keys) > 0 {
			t.Errorf("list: got %v, %v", keys, err)
		}
	})
}
