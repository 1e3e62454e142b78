package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

func (n *node) export() []byte {
	n.t.Helper()
	var out bytes.Buffer
	done, err := n.Export(n.t.Context(), &out)
	if err != nil {
		n.t.Fatal(err)
	}
	info, err := keystore.CheckExport(bytes.NewReader(out.Bytes()))
	if err != nil || info.Exported != done {
		n.t.Fatalf("exported %+v, and read back %+v, %v", done, info, err)
	}
	return out.Bytes()
}

func (n *node) bringIn(export []byte, o keystore.ImportOptions) keystore.Imported {
	n.t.Helper()
	done, err := n.Import(n.t.Context(), bytes.NewReader(export), o)
	if err != nil {
		n.t.Fatalf("%v, after %v", err, done)
	}
	return done
}

func (n *node) all() map[string]string {
	n.t.Helper()
	return dump(n.t, keystore.ClientOf(n.Store), n.w.options.Prefix)
}

// moved are the records that a move takes along, by their names without the prefix.
func moved(all map[string]string, prefix string) map[string]string {
	kept := map[string]string{}
	for name, value := range all {
		name = strings.TrimPrefix(name, prefix)
		if name != "store" && !strings.HasSuffix(name, ":audit") && !strings.Contains(name, "session") && !strings.Contains(name, ":usage:") && !strings.HasSuffix(name, ":used") {
			kept[name] = value
		}
	}
	return kept
}

// fill makes accounts with keys and users of all kinds, and returns the tokens
// that work.
func (n *node) fill() (tokens []keystore.Token, by policy.Caller) {
	n.t.Helper()
	by = n.account("acme", func(a *keystore.Account) { a.Plan = "gold" })
	n.account("empty", func(a *keystore.Account) { a.Status, a.Subaccounts = policy.Suspended, nil })
	for i := range 60 {
		n.w.clock.Advance(time.Second)
		_, token := n.key(by, func(k *keystore.NewKey) {
			switch k.Name = fmt.Sprintf("key %d ä\"\\", i); i % 4 {
			case 1:
				k.Expiry = n.w.clock.In(time.Hour)
			case 2:
				k.Subaccounts, k.Addresses = []policy.SubaccountID{subA}, policy.OnlyAddresses(office, home)
			}
		})
		tokens = append(tokens, token)
	}
	old, replaced := n.key(by)
	_, next, err := n.Regenerate(n.t.Context(), by, old.ID, time.Hour)
	if err != nil {
		n.t.Fatal(err)
	}
	tokens = append(tokens, replaced, next)
	u := n.user(by, "ada@example.com")
	proven, err := n.UserForSignIn(n.t.Context(), by, u.ID)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.ChangeTOTP(n.t.Context(), by, proven, "JBSWY3DPEHPK3PXP", 5, []string{"a", "b"}); err != nil {
		n.t.Fatal(err)
	}
	_, err = n.CreateUser(n.t.Context(), by, keystore.NewUser{Email: "eve@example.com", Name: "Eve", Identity: keystore.Identity{Issuer: "https://id.example.com", Subject: "eve"}})
	if err != nil {
		n.t.Fatal(err)
	}
	return tokens, by
}

// onEachPair runs the test on two stores, from one kind to another.
func onEachPair(t *testing.T, test func(t *testing.T, from, to *world)) {
	t.Helper()
	for _, pair := range [][2]string{{"embedded", "redis"}, {"redis", "cluster"}, {"cluster", "embedded"}, {"embedded", "miniredis"}, {"json", "json"}} {
		t.Run(pair[0]+" to "+pair[1], func(t *testing.T) {
			t.Parallel()
			from, to := newWorld(t, pair[0]), newWorld(t, pair[1])
			to.clock = from.clock
			to.options.Now = from.clock.Now
			test(t, from, to)
		})
	}
}

// TestMoveToAnotherStore: everything is there and works, byte for byte, and a
// second import does nothing.
func TestMoveToAnotherStore(t *testing.T) {
	t.Parallel()
	onEachPair(t, func(t *testing.T, from, to *world) {
		a, b := from.node(), to.node()
		tokens, by := a.fill()
		export := a.export()
		for _, token := range tokens {
			if strings.Contains(string(export), token.Reveal()) {
				t.Fatal("a token is in the export")
			}
		}
		planned := b.bringIn(export, keystore.ImportOptions{DryRun: true})
		if len(moved(b.all(), to.options.Prefix)) != 0 {
			t.Errorf("a dry run has written %v", b.all())
		}
		done := b.bringIn(export, keystore.ImportOptions{})
		if diff := cmp.Diff(planned, done); diff != "" {
			t.Errorf("a dry run said otherwise (-said +done):\n%s", diff)
		}
		if done[keystore.ImportedAccount][keystore.ImportCreated] != 2 || done[keystore.ImportedKey][keystore.ImportCreated] != 62 || done[keystore.ImportedUser][keystore.ImportCreated] != 2 {
			t.Errorf("created %v", done)
		}
		if diff := cmp.Diff(moved(a.all(), from.options.Prefix), moved(b.all(), to.options.Prefix)); diff != "" {
			t.Errorf("not the same (-from +to):\n%s", diff)
		}
		for _, token := range tokens {
			if diff := cmp.Diff(a.works(token), b.works(token), same); diff != "" {
				t.Errorf("a key is another (-from +to):\n%s", diff)
			}
		}
		if eve, err := b.UserByIdentity(t.Context(), keystore.Identity{Issuer: "https://id.example.com", Subject: "eve"}); err != nil || eve.User.Email != "eve@example.com" {
			t.Errorf("who signs in at a provider is %+v, %v", eve, err)
		}
		if diff := cmp.Diff(a.list(by, 10), b.list(by, 10), same); diff != "" {
			t.Errorf("listed otherwise (-from +to):\n%s", diff)
		}
		before := b.all()
		again := b.bringIn(export, keystore.ImportOptions{Replace: true, BringBack: true})
		for kind, outcomes := range again {
			if len(outcomes) != 1 || outcomes[keystore.ImportUnchanged] == 0 {
				t.Errorf("a second import: %s %v", kind, outcomes)
			}
		}
		if diff := cmp.Diff(before, b.all()); diff != "" {
			t.Errorf("a second import has changed\n%s", diff)
		}
		// What was moved moves on, and is the same.
		if diff := cmp.Diff(sortedLines(export), sortedLines(b.export())); diff != "" {
			t.Errorf("exported from there (-first +second):\n%s", diff)
		}
	})
}

// sortedLines are the records of an export in an order of their own.
func sortedLines(export []byte) []string {
	lines := strings.Split(strings.TrimSpace(string(export)), "\n")
	return slices.Sorted(slices.Values(lines[1 : len(lines)-1]))
}

// TestWhatWasRemovedStaysRemoved, however often the same export is imported,
// unless it is asked for.
func TestWhatWasRemovedStaysRemoved(t *testing.T) {
	t.Parallel()
	onEachPair(t, func(t *testing.T, from, to *world) {
		a, b := from.node(), to.node()
		tokens, _ := a.fill()
		other := a.account("other")
		_, otherToken := a.key(other)
		otherUser := a.user(other, "bob@example.com")
		export := a.export()
		b.bringIn(export, keystore.ImportOptions{})
		rules, err := b.Rules(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		by := policy.Caller{Account: rules, Client: inside}
		revoked, regenerated := b.works(tokens[0]).Key.ID, b.works(tokens[4]).Key.ID
		if _, err := b.Revoke(t.Context(), by, revoked); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Regenerate(t.Context(), by, regenerated, 0); err != nil {
			t.Fatal(err)
		}
		ada, err := b.UserByEmail(t.Context(), "ada@example.com")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.DeleteUser(t.Context(), by, ada.User.ID), b.DeleteAccount(t.Context(), policy.Caller{}, "other")); err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{"key " + string(revoked): true, "key " + string(regenerated): true, "user " + string(ada.User.ID): true, "account other": true, "user " + string(otherUser.ID): true}
		for _, options := range []keystore.ImportOptions{{}, {Replace: true}, {DryRun: true}} {
			noted := map[string]bool{}
			options.Noted = func(n keystore.ImportNote) {
				if n.Outcome != keystore.ImportRemoved {
					t.Errorf("noted %+v", n)
				}
				if n.Account != "other" || n.Kind != keystore.ImportedKey {
					noted[string(n.Kind)+" "+n.ID] = true
				}
			}
			done := b.bringIn(export, options)
			if diff := cmp.Diff(want, noted); diff != "" || done[keystore.ImportedKey][keystore.ImportRemoved] != 3 {
				t.Errorf("%+v: %v (-want +noted):\n%s", options, done, diff)
			}
			b.wantUnknown(tokens[0])
			b.wantUnknown(tokens[4])
			b.wantUnknown(otherToken)
			if _, err := b.UserByEmail(t.Context(), "ada@example.com"); !errors.Is(err, keystore.ErrNotFound) {
				t.Errorf("the user is back: %v", err)
			}
		}
		b.bringIn(export, keystore.ImportOptions{BringBack: true})
		for _, token := range append(tokens, otherToken) {
			b.works(token)
		}
		if _, err := b.UserByEmail(t.Context(), "bob@example.com"); err != nil {
			t.Error(err)
		}
	})
}

// TestWhatIsThereIsKept: an import widens nothing, unless it is asked to replace.
func TestWhatIsThereIsKept(t *testing.T) {
	t.Parallel()
	onEachPair(t, func(t *testing.T, from, to *world) {
		a, b := from.node(), to.node()
		tokens, _ := a.fill()
		export := a.export()
		b.bringIn(export, keystore.ImportOptions{})
		rules, err := b.Rules(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		by := policy.Caller{Account: rules, Client: inside}
		off, id := false, b.works(tokens[0]).Key.ID
		if _, _, err := b.Update(t.Context(), by, id, keystore.Update{Active: &off}); err != nil {
			t.Fatal(err)
		}
		ada, err := b.UserByEmail(t.Context(), "ada@example.com")
		if err != nil {
			t.Fatal(err)
		}
		disabled := true
		if _, err := b.UpdateUser(t.Context(), by, ada.User.ID, keystore.UserChange{Disabled: &disabled}); err != nil {
			t.Fatal(err)
		}
		b.account("acme", func(a *keystore.Account) { a.Status, a.Permissions = policy.Suspended, []string{} })
		before := b.all()
		done := b.bringIn(export, keystore.ImportOptions{})
		for kind, of := range map[keystore.ImportKind]int{keystore.ImportedAccount: 1, keystore.ImportedKey: 1, keystore.ImportedUser: 1} {
			if done[kind][keystore.ImportKept] != of {
				t.Errorf("%s: %v, want %d kept", kind, done[kind], of)
			}
		}
		if diff := cmp.Diff(before, b.all()); diff != "" {
			t.Errorf("it was changed:\n%s", diff)
		}
		watch := b.second()
		if e := watch.works(tokens[0]); e.Key.Active || e.Account.Status != policy.Suspended {
			t.Fatalf("got %+v", e)
		}
		done = b.bringIn(export, keystore.ImportOptions{Replace: true})
		if done[keystore.ImportedAccount][keystore.ImportReplaced] != 1 || done[keystore.ImportedKey][keystore.ImportReplaced] != 1 || done[keystore.ImportedUser][keystore.ImportReplaced] != 1 {
			t.Errorf("replaced %v", done)
		}
		eventually(t, "another node hears of it", func() bool {
			e := watch.works(tokens[0])
			return e.Key.Active && e.Account.Status == policy.Active
		})
		now, err := b.UserByEmail(t.Context(), "ada@example.com")
		if err != nil || now.User.Disabled || now.User.Epoch <= ada.User.Epoch+1 {
			t.Errorf("the user is %+v, %v: sessions of before must be dead", now.User, err)
		}
	})
}

// TestOthersAreNotTakenOver: what has the same name and is another is left alone.
func TestOthersAreNotTakenOver(t *testing.T) {
	t.Parallel()
	onEachPair(t, func(t *testing.T, from, to *world) {
		a, b := from.node(), to.node()
		tokens, _ := a.fill()
		elsewhere := a.account("elsewhere")
		a.user(elsewhere, "carl@example.com")
		dan := keystore.NewUser{Email: "dan@example.com", Identity: keystore.Identity{Issuer: "https://id.example.com", Subject: "dan"}}
		if _, err := a.CreateUser(t.Context(), elsewhere, dan); err != nil {
			t.Fatal(err)
		}
		export := a.export()
		b.account("acme") // of the same id, and another
		third := b.account("third")
		b.user(third, "carl@example.com")
		known := keystore.NewUser{Email: "dan2@example.com", Identity: keystore.Identity{Issuer: "https://id.example.com", Subject: "dan"}}
		if _, err := b.CreateUser(t.Context(), third, known); err != nil {
			t.Fatal(err)
		}
		before := b.all()
		done := b.bringIn(export, keystore.ImportOptions{Replace: true, BringBack: true})
		if done[keystore.ImportedAccount][keystore.ImportConflict] != 1 || done[keystore.ImportedKey][keystore.ImportConflict] != 62 || done[keystore.ImportedUser][keystore.ImportConflict] != 3+1 {
			t.Errorf("got %v", done)
		}
		b.wantUnknown(tokens[0])
		after := b.all()
		for name, value := range before {
			if after[name] != value && !strings.HasSuffix(name, "accounts") {
				t.Errorf("%s was changed to %s", name, after[name])
			}
		}
		if carl, err := b.UserByEmail(t.Context(), "carl@example.com"); err != nil || carl.User.Account != "third" {
			t.Errorf("the address is %+v's, %v", carl, err)
		}
	})
}

// TestExpiredKeysAreNotBroughtBack, nor those whose grace is over.
func TestExpiredKeysAreNotBroughtBack(t *testing.T) {
	t.Parallel()
	from, to := newWorld(t, "embedded"), newWorld(t, "miniredis")
	to.clock, to.options.Now = from.clock, from.clock.Now
	a := from.node()
	tokens, _ := a.fill()
	export := a.export()
	from.clock.Advance(40 * 24 * time.Hour)
	done := to.node().bringIn(export, keystore.ImportOptions{Replace: true, BringBack: true})
	if done[keystore.ImportedKey][keystore.ImportExpired] != 15+1 || done[keystore.ImportedKey][keystore.ImportCreated] != len(tokens)-16 {
		t.Errorf("got %v", done)
	}
}

// TestBadExportChangesNothing: cut, altered, reordered or foreign, it is refused
// before anything is written.
func TestBadExportChangesNothing(t *testing.T) {
	t.Parallel()
	from, to := newWorld(t, "embedded"), newWorld(t, "miniredis")
	a, b := from.node(), to.node()
	a.fill()
	export := a.export()
	lines := bytes.SplitAfter(export, []byte("\n"))
	lines = lines[:len(lines)-1]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	bad := map[string][]byte{
		"empty": {}, "blank": []byte("\n"), "no end": join(lines[:len(lines)-1]...), "no header": join(lines[1:]...), "a line less": join(append(slices.Clone(lines[:5]), lines[6:]...)...),
		"a line more": join(append(append(slices.Clone(lines[:5]), lines[4]), lines[5:]...)...), "something behind": append(slices.Clone(export), "{}\n"...),
		"two": append(slices.Clone(export), export...), "two lines changed about": join(append(append(slices.Clone(lines[:4]), lines[5], lines[4]), lines[6:]...)...),
		"no last line break": export[:len(export)-1], "another format": bytes.Replace(export, []byte("gatehouse-export-1"), []byte("gatehouse-export-2"), 1),
		"an unknown member":     bytes.Replace(export, []byte(`{"key":{`), []byte(`{"key":{"x":1,`), 1),
		"an unknown line":       bytes.Replace(export, []byte(`{"key":`), []byte(`{"kye":`), 1),
		"a record of elsewhere": bytes.Replace(export, []byte(`"account":"acme"`), []byte(`"account":"emca"`), 1),
		"a binary":              {0, 1, 2, 255},
	}
	for range 300 {
		cut := rand.IntN(len(export))
		bad[fmt.Sprintf("cut at %d", cut)] = export[:cut]
		altered := slices.Clone(export)
		at := rand.IntN(len(altered))
		altered[at] ^= 1 << rand.IntN(8)
		bad[fmt.Sprintf("altered at %d: %q", at, altered[at])] = altered
	}
	before := b.all()
	for name, text := range bad {
		done, err := b.Import(t.Context(), bytes.NewReader(text), keystore.ImportOptions{Replace: true, BringBack: true})
		if !errors.Is(err, keystore.ErrBadExport) || len(done) != 0 {
			t.Errorf("%s: got %v, %v, want ErrBadExport", name, done, err)
		}
	}
	if diff := cmp.Diff(before, b.all()); diff != "" {
		t.Errorf("the store has changed:\n%s", diff)
	}
	other := to.node(func(o *keystore.Options) { o.TokenPrefix = "xx_" })
	if _, err := other.Import(t.Context(), bytes.NewReader(export), keystore.ImportOptions{}); !errors.Is(err, keystore.ErrOtherTokens) {
		t.Errorf("tokens that would not work: %v", err)
	}
}

// TestExportWhileInUse: whatever others do meanwhile, each export can be read,
// and holds every key that was acknowledged before it began and not touched
// since, with its account.
func TestExportWhileInUse(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		const writers = 4
		callers := make([]policy.Caller, writers)
		for i := range callers {
			callers[i] = n.account(policy.AccountID(fmt.Sprintf("account%d", i)))
		}
		var mu sync.Mutex
		untouched := map[policy.KeyID]string{} // acknowledged, and nobody will touch them
		var stopped atomic.Bool
		var all sync.WaitGroup
		for i, by := range callers {
			all.Go(func() {
				for step := 0; !stopped.Load(); step++ {
					k, _, err := n.Create(t.Context(), by, newKey())
					if err != nil {
						t.Errorf("create: %v", err)
						return
					}
					switch step % 4 {
					case 0:
						mu.Lock()
						untouched[k.ID] = string(by.Account.ID)
						mu.Unlock()
						continue
					case 1:
						_, err = n.Revoke(t.Context(), by, k.ID)
					case 2:
						_, _, err = n.Regenerate(t.Context(), by, k.ID, 0)
					case 3:
						n.account(by.Account.ID, func(a *keystore.Account) { a.Name = fmt.Sprint(i, step) })
					}
					if err != nil {
						t.Errorf("writer %d: %v", i, err)
						return
					}
				}
			})
		}
		for round := range 6 {
			eventually(t, "some keys", func() bool { mu.Lock(); defer mu.Unlock(); return len(untouched) > 8*(round+1) })
			mu.Lock()
			must := maps.Clone(untouched)
			mu.Unlock()
			export := string(n.export())
			for id, account := range must {
				if !strings.Contains(export, `"id":"`+string(id)+`","account":"`+account+`"`) {
					t.Errorf("round %d: key %s is missing", round, id)
				}
			}
		}
		stopped.Store(true)
		all.Wait()
	})
}

// TestInterruptedImportIsCompleted: broken off after any of its commands, and
// begun again, it comes to the same.
func TestInterruptedImportIsCompleted(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"miniredis", "redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			from := newWorld(t, "embedded")
			a := from.node()
			tokens, _ := a.fill()
			export := a.export()
			want := moved(a.all(), from.options.Prefix)
			breaks := 0
			for after := 1; ; after += 1 + after/2 {
				to := newWorld(t, kind)
				to.clock, to.options.Now = from.clock, from.clock.Now
				broken := to.node()
				var asked atomic.Int64
				lost := errors.New("the power is gone")
				broken.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
					if name := cmd.Name(); name != "subscribe" && name != "ping" && asked.Add(1) > int64(after) {
						return lost
					}
					return next()
				})
				_, err := broken.Import(t.Context(), bytes.NewReader(export), keystore.ImportOptions{})
				n := to.node()
				n.leaseEnds()
				n.bringIn(export, keystore.ImportOptions{})
				if diff := cmp.Diff(want, moved(n.all(), to.options.Prefix)); diff != "" {
					t.Fatalf("broken off after %d commands (-want +got):\n%s", after, diff)
				}
				n.works(tokens[0])
				if err == nil {
					break
				}
				breaks++
			}
			if breaks < 5 {
				t.Errorf("broken off %d times only", breaks)
			}
		})
	}
}

// TestReadOnlyStoreBeginsNone: looking at an empty Redis leaves it empty.
func TestReadOnlyStoreBeginsNone(t *testing.T) {
	t.Parallel()
	w, m := miniWorld(t)
	n := w.node(func(o *keystore.Options) { o.ReadOnly = true })
	if _, err := n.Export(t.Context(), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "nothing was ever kept here") {
		t.Errorf("got %v", err)
	}
	from := newWorld(t, "embedded")
	a := from.node()
	a.fill()
	if done := n.bringIn(a.export(), keystore.ImportOptions{DryRun: true}); done[keystore.ImportedKey][keystore.ImportCreated] != 62 {
		t.Errorf("got %v", done)
	}
	if keys := m.Keys(); len(keys) != 0 {
		t.Errorf("it holds %v", keys)
	}
}

// TestExportOfAnEmptiedStoreIsNone, and one with a record that cannot be read.
func TestExportOfAnEmptiedStoreIsNone(t *testing.T) {
	t.Parallel()
	w, m := miniWorld(t)
	n := w.node()
	_, token := n.key(n.account("acme"))
	if err := m.Set(n.recordName(token), `{"v":9}`); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Export(t.Context(), &bytes.Buffer{}); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("a record that is not understood was left out: %v", err)
	}
	m.FlushAll()
	if _, err := n.Export(t.Context(), &bytes.Buffer{}); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
