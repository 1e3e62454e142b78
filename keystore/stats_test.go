package keystore_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// delays are what a node was told of how long changes took.
type delays struct {
	mu  sync.Mutex
	all []time.Duration
}

func (d *delays) add(one time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, one)
}

// next waits for more than the first n.
func (d *delays) next(t *testing.T, n int) []time.Duration {
	t.Helper()
	eventually(t, "a change is heard of", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.all) > n
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]time.Duration{}, d.all[n:]...)
}

// TestEveryNodeTellsHowLongAChangeTook, also the one that made it. A clock that
// is behind makes no negative time.
func TestEveryNodeTellsHowLongAChangeTook(t *testing.T) {
	w, _ := miniWorld(t)
	shifted := func(by time.Duration, d *delays) func(*keystore.Options) {
		return func(o *keystore.Options) {
			now := o.Now
			o.Now, o.Propagated = func() time.Time { return now().Add(by) }, d.add
		}
	}
	here, later, earlier := &delays{}, &delays{}, &delays{}
	n := w.node(shifted(0, here))
	w.node(shifted(3*time.Second, later)).hears()
	w.node(shifted(-3*time.Second, earlier)).hears()
	n.hears()
	person := n.account("acme")
	k, _ := n.key(person)
	n.update(person, k.ID, keystore.Update{Name: ptr("renamed")})
	for _, row := range []struct {
		name string
		of   *delays
		want time.Duration
	}{{"the node itself", here, 0}, {"a node whose clock says 3s later", later, 3 * time.Second}, {"a node whose clock is behind", earlier, 0}} {
		const changes = 3
		if got := row.of.next(t, changes-1); got[0] != row.want {
			t.Errorf("%s: told of %v, want %v", row.name, got[0], row.want)
		}
	}
}

// TestMessagesWithoutATimeAreHeardToo: who sends none is obeyed, and measured
// by nobody.
func TestMessagesWithoutATimeAreHeardToo(t *testing.T) {
	w, _ := miniWorld(t)
	told := &delays{}
	n := w.node(cached, func(o *keystore.Options) { o.Propagated = told.add })
	n.hears()
	person := n.account("acme")
	_, token := n.key(person)
	told.next(t, 1)
	for _, tail := range []string{"", "@", "@x"} {
		n.works(token)
		n.wantSource(token, keystore.FromCache)
		n.hearing(1, func() {
			err := keystore.ClientOf(n.Store).Publish(t.Context(), w.options.Prefix+"changed", strings.TrimPrefix(n.recordName(token), w.options.Prefix)+tail).Err()
			n.must(nil, nil, err)
		})
		n.wantSource(token, keystore.FromStore)
	}
	if got := told.next(t, 1); len(got) != 1 {
		t.Errorf("told of %v, want the two changes alone", got)
	}
}

// TestEveryOperationIsToldOf once, with how it ended.
func TestEveryOperationIsToldOf(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		type told struct {
			Action  keystore.Action
			Outcome keystore.Outcome
		}
		var all []told
		n := w.node(func(o *keystore.Options) {
			o.MaxKeys = 2
			o.Managed = func(a keystore.Action, outcome keystore.Outcome) { all = append(all, told{a, outcome}) }
		})
		ctx := t.Context()
		person := n.account("acme")
		k, token := n.key(person)
		weak, weakToken := n.key(person, func(k *keystore.NewKey) { k.Permissions = policy.NewPermissionSet(read, policy.RegenerateKeys) })
		email, err := keystore.ParseEmail("ada@example.com")
		n.must(nil, nil, err)
		user, err := n.CreateUser(ctx, person, keystore.NewUser{Email: email, Name: "Ada", PasswordHash: "hash"})
		n.must(nil, nil, err)
		self, other := n.caller(token), n.caller(weakToken)
		const gone = policy.KeyID("99999999-0000-4000-8000-000000000009")
		for _, row := range []struct {
			action  keystore.Action
			outcome keystore.Outcome
			do      func() error
		}{
			{keystore.KeyCreate, keystore.OutcomeRefused, func() error { _, _, err := n.Create(ctx, person, newKey()); return err }},
			{keystore.KeyUpdate, keystore.OutcomeDone, func() error { _, _, err := n.Update(ctx, person, k.ID, keystore.Update{Name: ptr("x")}); return err }},
			{keystore.KeyUpdate, keystore.OutcomeRefused, func() error {
				_, _, err := n.Update(ctx, self, k.ID, keystore.Update{Name: ptr("y")})
				return err
			}},
			{keystore.KeyRegenerate, keystore.OutcomeRefused, func() error {
				_, _, err := n.Regenerate(ctx, other, k.ID, 0)
				return err
			}},
			{keystore.KeyRevoke, keystore.OutcomeNotFound, func() error { _, err := n.Revoke(ctx, person, gone); return err }},
			{keystore.KeyRevoke, keystore.OutcomeDone, func() error { _, err := n.Revoke(ctx, person, weak.ID); return err }},
			{keystore.KeyRegenerate, keystore.OutcomeDone, func() error { _, _, err := n.Regenerate(ctx, person, k.ID, 0); return err }},
			{keystore.KeyCreate, keystore.OutcomeDone, func() error { _, _, err := n.Create(ctx, person, newKey()); return err }},
			{keystore.UserCreate, keystore.OutcomeRefused, func() error {
				_, err := n.CreateUser(ctx, person, keystore.NewUser{Email: email, Name: "Ada", PasswordHash: "hash"})
				return err
			}},
			{keystore.UserUpdate, keystore.OutcomeDone, func() error {
				_, err := n.UpdateUser(ctx, person, user.ID, keystore.UserChange{Name: ptr("Ada L.")})
				return err
			}},
			{keystore.UserPassword, keystore.OutcomeDone, func() error { return n.SetPassword(ctx, person, user.ID, "other", false) }},
			{keystore.UserTOTP, keystore.OutcomeDone, func() error {
				proven, err := n.UserForSignIn(ctx, person, user.ID)
				if err == nil {
					_, err = n.ChangeTOTP(ctx, person, proven, "secret", 1, nil)
				}
				return err
			}},
			{keystore.UserSignOut, keystore.OutcomeDone, func() error { return n.EndSessions(ctx, person, user.ID) }},
			{keystore.UserSignOut, keystore.OutcomeNotFound, func() error { return n.RevokeSession(ctx, person, user.ID, "x") }},
			{keystore.UserSignIn, keystore.OutcomeDone, func() error {
				found, err := n.UserByEmail(ctx, email)
				if err == nil {
					_, err = n.SignedIn(ctx, person, found, keystore.SignIn{Method: "password", Left: found.Credentials})
				}
				return err
			}},
			{keystore.UserDelete, keystore.OutcomeDone, func() error { return n.DeleteUser(ctx, person, user.ID) }},
			{keystore.UserDelete, keystore.OutcomeNotFound, func() error { return n.DeleteUser(ctx, person, user.ID) }},
			{keystore.AccountPut, keystore.OutcomeDone, func() error {
				_, _, err := n.PutAccount(ctx, policy.Caller{}, keystore.Account{ID: "acme", Permissions: []string{"*"}})
				return err
			}},
			{keystore.AccountDelete, keystore.OutcomeDone, func() error { return n.DeleteAccount(ctx, policy.Caller{}, "acme") }},
			{keystore.AccountDelete, keystore.OutcomeNotFound, func() error { return n.DeleteAccount(ctx, policy.Caller{}, "acme") }},
			{keystore.KeyCreate, keystore.OutcomeNotFound, func() error { _, _, err := n.Create(ctx, person, newKey()); return err }},
		} {
			all = nil
			err := row.do()
			if diff := cmp.Diff([]told{{row.action, row.outcome}}, all); diff != "" || (err == nil) != (row.outcome == keystore.OutcomeDone) {
				t.Errorf("%s with %v (-want +got):\n%s", row.action, err, diff)
			}
		}
	})
}

// TestOperationsAreUnavailableWithoutAStore, and nothing else.
func TestOperationsAreUnavailableWithoutAStore(t *testing.T) {
	w, m := miniWorld(t)
	outcomes := make(map[keystore.Action]keystore.Outcome)
	n := w.node(func(o *keystore.Options) {
		o.Managed = func(a keystore.Action, outcome keystore.Outcome) { outcomes[a] = outcome }
	})
	person := n.account("acme")
	k, _ := n.key(person)
	m.SetError("LOADING")
	_, _, _ = n.Create(t.Context(), person, newKey())
	_, _ = n.Revoke(t.Context(), person, k.ID)
	_, _, _ = n.PutAccount(t.Context(), policy.Caller{}, keystore.Account{ID: "acme", Permissions: []string{"*"}})
	_ = n.DeleteAccount(t.Context(), policy.Caller{}, "acme")
	for _, a := range []keystore.Action{keystore.KeyCreate, keystore.KeyRevoke, keystore.AccountPut, keystore.AccountDelete} {
		if outcomes[a] != keystore.OutcomeUnavailable {
			t.Errorf("%s ended %q, want %q", a, outcomes[a], keystore.OutcomeUnavailable)
		}
	}
}

// TestPoolOfConnections: an embedded store has none.
func TestPoolOfConnections(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		_, token := n.key(n.account("acme"))
		const lookups = 20
		for range lookups {
			n.works(token)
		}
		pool, has := n.Pool()
		if isRedis := w.options.EmbeddedFile == ""; has != isRedis {
			t.Fatalf("has a pool: %v, want %v", has, isRedis)
		}
		if has && (pool.Hits+pool.Misses < lookups || pool.Idle+pool.InUse < 1) {
			t.Errorf("after %d lookups: %+v", lookups, pool)
		}
	})
}
