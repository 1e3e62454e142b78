package keystore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// Whatever Redis says instead of an answer, no key is unknown for it.
func TestErrorsAreNeverAnUnknownToken(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	for _, message := range []string{
		"LOADING Redis is loading the dataset in memory", "NOAUTH Authentication required.", "NOPERM this user has no permissions",
		"WRONGPASS invalid username-password pair", "MASTERDOWN Link with MASTER is down", "READONLY You can't write against a read only replica.",
		"CLUSTERDOWN The cluster is down", "MOVED 1234 127.0.0.1:1", "ERR something", "BUSY Redis is busy running a script", "OOM command not allowed",
	} {
		m.SetError(message)
		n.wantUnavailable(token)
		everythingIsUnavailable(t, n, person, k.ID)
		m.SetError("")
		n.works(token)
	}
}

// everythingIsUnavailable checks every method but Lookup.
func everythingIsUnavailable(t *testing.T, n *node, person policy.Caller, id policy.KeyID) {
	t.Helper()
	ctx := t.Context()
	for name, do := range map[string]func() error{
		"Ready":         func() error { return n.Ready(ctx) },
		"Create":        func() error { _, _, err := n.Create(ctx, person, newKey()); return err },
		"Get":           func() error { _, err := n.Get(ctx, person, id); return err },
		"List":          func() error { _, _, err := n.List(ctx, person, "", 10); return err },
		"Update":        func() error { _, _, err := n.Update(ctx, person, id, keystore.Update{}); return err },
		"Revoke":        func() error { _, err := n.Revoke(ctx, person, id); return err },
		"Regenerate":    func() error { _, _, err := n.Regenerate(ctx, person, id, 0); return err },
		"GetAccount":    func() error { _, err := n.GetAccount(ctx, "acme"); return err },
		"Rules":         func() error { _, err := n.Rules(ctx, "acme"); return err },
		"ListAccounts":  func() error { _, _, err := n.ListAccounts(ctx, "", 10); return err },
		"PutAccount":    func() error { _, _, err := n.PutAccount(ctx, policy.Caller{}, keystore.Account{ID: "new"}); return err },
		"DeleteAccount": func() error { return n.DeleteAccount(ctx, policy.Caller{}, "acme") },
	} {
		err := do()
		if !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrUnknownToken) {
			t.Errorf("%s: got %v, want ErrUnavailable", name, err)
		}
	}
}

func TestClosedServerIsUnavailableUntilItIsBack(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	m.Close()
	n.wantUnavailable(token)
	everythingIsUnavailable(t, n, person, k.ID)
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it works again", func() bool { _, err := n.Lookup(t.Context(), token); return err == nil })
}

func TestClosedStoreIsUnavailable(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		k, token := n.key(person)
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		n.wantUnavailable(token)
		everythingIsUnavailable(t, n, person, k.ID)
	})
}

// A connection that died while it was idle is no outage.
func TestDeadIdleConnectionsAreReplaced(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	_, token := n.key(n.account("acme"))
	for range 3 {
		m.Close()
		if err := m.Restart(); err != nil {
			t.Fatal(err)
		}
		n.works(token)
	}
}

// A store that was not there when the process began is refused until it is.
func TestStoreThatStartsLater(t *testing.T) {
	w, m := miniWorld(t)
	first := w.node()
	_, token := first.key(first.account("acme"))
	m.Close()
	late := w.node()
	late.wantUnavailable(token)
	if err := late.Ready(t.Context()); err == nil {
		t.Error("ready without a store")
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready", func() bool { return late.Ready(t.Context()) == nil })
	late.works(token)
}

// In an emptied store every key would be unknown, and every customer locked
// out as if their keys were wrong.
func TestEmptiedStoreIsUnavailable(t *testing.T) {
	empty := map[string]func(t *testing.T, w *world, m *miniredis.Miniredis){
		"flushed": func(_ *testing.T, _ *world, m *miniredis.Miniredis) { m.FlushAll() },
		"flushed and begun anew by another process": func(_ *testing.T, w *world, m *miniredis.Miniredis) {
			m.FlushAll()
			w.node().account("stranger")
		},
		"less everything of ours": func(_ *testing.T, w *world, m *miniredis.Miniredis) {
			m.Del(w.options.Prefix + "store")
			m.Del(w.options.Prefix + "marker")
			for _, name := range m.Keys() {
				if strings.HasPrefix(name, w.options.Prefix+"key:") || strings.Contains(name, "account") {
					m.Del(name)
				}
			}
		},
	}
	for name, do := range empty {
		for _, mode := range []keystore.Mode{keystore.Strict, keystore.Cached} {
			t.Run(fmt.Sprintf("%s, %s", name, mode), func(t *testing.T) {
				w, m := miniWorld(t)
				n := w.node(func(o *keystore.Options) { o.Mode = mode; o.CacheTTL = time.Nanosecond })
				person := n.account("acme")
				k, token := n.key(person)
				n.works(token)
				w.clock.Advance(time.Minute)
				do(t, w, m)
				n.wantUnavailable(token)
				everythingIsUnavailable(t, n, person, k.ID)
			})
		}
	}
}

// A Redis that answers with other keys' values, as one did whose client had
// lost count of its replies, opens nothing and locks nobody out.
func TestShiftedRepliesAreUnavailable(t *testing.T) {
	w, m := miniWorld(t)
	w.options.CacheEntries = 1 // next to no memory of what was right
	n := w.node()
	acme, rival := n.account("acme"), n.account("rival")
	_, token := n.key(acme)
	_, rivalToken := n.key(rival)
	right := map[string]string{}
	for _, name := range m.Keys() {
		if value, err := m.Get(name); err == nil {
			right[name] = value
		}
	}
	swap := func(one, two string) {
		_ = m.Set(w.options.Prefix+one, right[w.options.Prefix+two])
		_ = m.Set(w.options.Prefix+two, right[w.options.Prefix+one])
	}
	keyOf := func(token keystore.Token) string { return strings.TrimPrefix(n.recordName(token), w.options.Prefix) }

	swap(keyOf(token), keyOf(rivalToken))
	fresh := w.node()
	fresh.wantUnavailable(token)
	fresh.wantUnavailable(rivalToken)
	swap(keyOf(token), keyOf(token))
	swap(keyOf(rivalToken), keyOf(rivalToken))

	swap("account:{acme}", "account:{rival}")
	fresh = w.node()
	fresh.wantUnavailable(token)
	fresh.wantUnavailable(rivalToken)
	if rules, err := fresh.Rules(t.Context(), "acme"); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("rules of another account: got %+v, %v", rules, err)
	}
}

// The records that a reader must not understand: each is a good one with one
// thing wrong.
func badRecords(good string) map[string]string {
	bad := map[string]string{
		"no JSON": "x", "cut off": good[:len(good)-1], "something behind it": good + "{}", "an array": "[" + good + "]", "null": "null", "nothing in it": "{}", "empty": " ",
		"a field too many":     strings.Replace(good, "{", `{"allowed_methods":["GET"],`, 1),
		"a field twice":        strings.Replace(good, "{", `{"v":1,`, 1),
		"a field in capitals":  strings.Replace(good, `"v":`, `"V":`, 1),
		"an earlier version":   strings.Replace(good, `"v":1`, `"v":0`, 1),
		"a later version":      strings.Replace(good, `"v":1`, `"v":2`, 1),
		"a version in letters": strings.Replace(good, `"v":1`, `"v":"1"`, 1),
		"not UTF-8":            strings.Replace(good, `"name":"`, "\"name\":\"\xff", 1),
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(good), &fields); err != nil {
		panic(err)
	}
	for name, value := range fields {
		without := make(map[string]json.RawMessage, len(fields))
		for other, v := range fields {
			if other != name {
				without[other] = v
			}
		}
		raw, _ := json.Marshal(without)
		bad["without "+name] = string(raw)
		bad["null for "+name] = strings.Replace(good, fmt.Sprintf("%q:%s", name, value), fmt.Sprintf("%q:null", name), 1)
	}
	for name, raw := range bad {
		if raw == good {
			panic(name + " is good")
		}
	}
	return bad
}

func TestRecordThatIsNotUnderstoodOpensNothing(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	keystore.UseText(n.Store) // compact records have tests of their own
	k, token := n.key(person, func(k *keystore.NewKey) {
		k.Subaccounts, k.Addresses, k.Expiry = []policy.SubaccountID{subA}, policy.OnlyAddresses(office), w.clock.In(time.Hour)
	})
	name := n.recordName(token)
	good, err := m.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := badRecords(good)
	bad["of another token"] = strings.Replace(good, name[len(name)-64:], strings.Repeat("0", 64), 1)
	bad["limited and unlimited subaccounts"] = strings.Replace(good, `"all_subaccounts":false`, `"all_subaccounts":true`, 1)
	bad["limited and unlimited addresses"] = strings.Replace(good, `"any_address":false`, `"any_address":true`, 1)
	bad["limited and unlimited lifetime"] = strings.Replace(good, `"never_expires":false`, `"never_expires":true`, 1)
	bad["no address"] = strings.Replace(good, "203.0.113.0/24", "everywhere", 1)
	bad["no subaccount"] = strings.Replace(good, string(subA), "all", 1)
	for what, raw := range bad {
		if raw == good {
			t.Fatalf("%s: the record is good", what)
		}
		_ = m.Set(name, raw)
		n.wantUnavailable(token)
		if _, err := n.Get(t.Context(), person, k.ID); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("get, %s: got %v", what, err)
		}
		if _, _, err := n.List(t.Context(), person, "", 10); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("list, %s: got %v", what, err)
		}
		if _, err := n.Revoke(t.Context(), person, k.ID); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("revoke, %s: got %v", what, err)
		}
	}
	_ = m.Set(name, good)
	n.works(token)
}

func TestAccountRecordThatIsNotUnderstoodOpensNothing(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	_, token := n.key(person)
	name := w.options.Prefix + "account:{acme}"
	good, err := m.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := badRecords(good)
	bad["of another account"] = strings.Replace(good, `"id":"acme"`, `"id":"rival"`, 1)
	bad["no subaccount"] = strings.Replace(good, string(subA), "all", 1)
	bad["a subaccount's field too many"] = strings.Replace(good, `"label":"A"`, `"label":"A","limit":1`, 1)
	for what, raw := range bad {
		if raw == good {
			t.Fatalf("%s: the record is good", what)
		}
		_ = m.Set(name, raw)
		w.clock.Advance(keystore.AccountTTL)
		n.wantUnavailable(token)
		if _, err := n.Rules(t.Context(), "acme"); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("rules, %s: got %v", what, err)
		}
		if _, _, err := n.Create(t.Context(), person, newKey()); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("create, %s: got %v", what, err)
		}
	}
	_ = m.Set(name, good)
	w.clock.Advance(keystore.AccountTTL)
	n.works(token)
}

// An index that names another key's record is not believed.
func TestIndexThatNamesAnotherKey(t *testing.T) {
	w, m := miniWorld(t)
	w.text = true
	n := w.node()
	acme, rival := n.account("acme"), n.account("rival")
	k, _ := n.key(acme)
	_, rivalToken := n.key(rival)
	hash := strings.TrimPrefix(n.recordName(rivalToken), w.options.Prefix+"key:")
	m.HSet(w.options.Prefix+"account:{acme}:keys", string(k.ID), hash+":1780000000")
	for name, do := range map[string]func() error{
		"get":    func() error { _, err := n.Get(t.Context(), acme, k.ID); return err },
		"list":   func() error { _, _, err := n.List(t.Context(), acme, "", 10); return err },
		"revoke": func() error { _, err := n.Revoke(t.Context(), acme, k.ID); return err },
		"take":   func() error { _, _, err := n.Regenerate(t.Context(), acme, k.ID, 0); return err },
	} {
		if err := do(); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	n.works(rivalToken)
}

// A change whose answer is lost may have happened, so it is never sent again.
func TestChangeWhoseAnswerIsLostIsNotRepeated(t *testing.T) {
	for _, kind := range []string{"redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, kind)
			n := w.node()
			person := n.account("acme")
			n.key(person)
			var scripts int
			lose := hook(func(ctx context.Context, cmd redis.Cmder, next func() error) error {
				err := next()
				if isCommit(cmd) && len(cmd.Args()) > 5 {
					scripts++
					return io.EOF
				}
				return err
			})
			eachMaster(t, keystore.ClientOf(n.Store), func(_ context.Context, c *redis.Client) error { c.AddHook(lose); return nil })
			_, _, err := n.Create(t.Context(), person, newKey())
			if !errors.Is(err, keystore.ErrUnavailable) || scripts != 1 {
				t.Errorf("sent %d times, got %v", scripts, err)
			}
		})
	}
}

// A live request is judged by what the store has, whatever was announced and
// however long entries of the cache last.
func TestRereadGoesPastTheCache(t *testing.T) {
	for _, kind := range []string{"redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, kind)
			w.options.Mode, w.options.CacheTTL = keystore.Cached, time.Hour
			n := w.node()
			person := n.account("acme")
			_, token := n.key(person)
			client := keystore.ClientOf(n.Store)
			eventually(t, "the key is cached", func() bool {
				e, err := n.Lookup(t.Context(), token)
				return err == nil && e.Source == keystore.FromCache
			})
			if e, err := n.Reread(t.Context(), token); err != nil || e.Source != keystore.FromStore {
				t.Errorf("got %v %v, want it from the store", e.Source, err)
			}
			if err := client.Del(t.Context(), w.options.Prefix+"account:{acme}").Err(); err != nil {
				t.Fatal(err)
			}
			if _, err := n.Reread(t.Context(), token); !errors.Is(err, keystore.ErrUnknownToken) {
				t.Errorf("the account is gone, and its key got %v", err)
			}
		})
	}
}
