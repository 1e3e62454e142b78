package keystore_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// onEachRedis runs the test on every kind of store that begins with text.
func onEachRedis(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	for _, kind := range []string{"miniredis", "redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind)
			w.text = true
			test(t, w)
		})
	}
}

// rewrite writes all that is there compact, and returns how many keys it was.
func (n *node) rewrite() int {
	n.t.Helper()
	keystore.UseCompact(n.Store)
	keys := 0
	if err := keystore.RewriteRecords(n.t.Context(), n.Store, func(done int) { keys = done }); err != nil {
		n.t.Fatal(err)
	}
	return keys
}

// hash returns the fields of one of an account's hashes.
func (n *node) hash(account policy.AccountID, which string) map[string]string {
	n.t.Helper()
	all, err := keystore.ClientOf(n.Store).HGetAll(n.t.Context(), n.w.options.Prefix+"account:{"+string(account)+"}:"+which).Result()
	if err != nil {
		n.t.Fatal(err)
	}
	return all
}

// isRaw reports whether the field is one of the compact form.
func isRaw(field string) bool { return len(field) == 16 }

// uuidBytes is the compact field of a key.
func uuidBytes(t *testing.T, id policy.KeyID) string {
	t.Helper()
	raw, err := hex.DecodeString(strings.ReplaceAll(string(id), "-", ""))
	if err != nil || len(raw) != 16 {
		t.Fatalf("%s: %v", id, err)
	}
	return string(raw)
}

// ttls says when each record goes away.
func (n *node) ttls() map[string]time.Duration {
	n.t.Helper()
	all := map[string]time.Duration{}
	for name := range n.records() {
		all[name] = keystore.ClientOf(n.Store).ExpireTime(n.t.Context(), name).Val()
	}
	return all
}

// TestRewritingKeepsEverything: keys work, are listed, exported, and go away as
// before; a second time there is nothing to do.
func TestRewritingKeepsEverything(t *testing.T) {
	onEachRedis(t, func(t *testing.T, w *world) {
		n := w.node()
		tokens, by := n.fill()
		for i, k := range n.list(by, 100) {
			n.Used(k.ID, "acme", w.clock.Now().Add(-time.Duration(i)*time.Minute))
		}
		n.flush()
		export, listed, ttls := n.export(), n.list(by, 7), n.ttls()
		entries := make(map[string]keystore.Entry)
		for _, token := range tokens {
			entries[token.Reveal()] = n.works(token)
		}
		if keys := n.rewrite(); keys != 62 {
			t.Errorf("it has looked at %d keys, of 62", keys)
		}
		for name, raw := range n.records() {
			if !strings.HasPrefix(raw, "\x02") {
				t.Errorf("%s is %s", name, raw)
			}
		}
		for _, which := range []string{"keys", "used"} {
			if got := n.hash("acme", which); len(got) != 62 {
				t.Errorf("%s has %d fields, of 62", which, len(got))
			} else if w.kind != "miniredis" {
				name := w.options.Prefix + "account:{acme}:" + which
				if how := keystore.ClientOf(n.Store).ObjectEncoding(t.Context(), name).Val(); how != "listpack" {
					t.Errorf("%s is a %s", name, how)
				}
			}
			for field := range n.hash("acme", which) {
				if !isRaw(field) {
					t.Errorf("%s still has %q", which, field)
				}
			}
		}
		other := w.node() // with empty caches
		for _, token := range tokens {
			want, cached, got := entries[token.Reveal()], n.works(token), other.works(token)
			if diff := cmp.Diff([]*policy.Key{want.Key, want.Key}, []*policy.Key{cached.Key, got.Key}, same); diff != "" {
				t.Errorf("a key is another (-before +after):\n%s", diff)
			}
		}
		if diff := cmp.Diff(listed, n.list(by, 7), same); diff != "" {
			t.Errorf("listed otherwise (-before +after):\n%s", diff)
		}
		if diff := cmp.Diff(sortedLines(export), sortedLines(n.export())); diff != "" {
			t.Errorf("exported otherwise (-before +after):\n%s", diff)
		}
		// miniredis remembers for how long, and not until when.
		if diff := cmp.Diff(ttls, n.ttls()); diff != "" && w.kind != "miniredis" {
			t.Errorf("kept otherwise (-before +after):\n%s", diff)
		}
		before := n.all()
		n.rewrite()
		if diff := cmp.Diff(before, n.all()); diff != "" {
			t.Errorf("a second time it has changed\n%s", diff)
		}
	})
}

// TestWhatChangesWhileItIsRewrittenStaysChanged: a key that is revoked, disabled
// or replaced between the reading of its record and its writing.
func TestWhatChangesWhileItIsRewrittenStaysChanged(t *testing.T) {
	onEachRedis(t, func(t *testing.T, w *world) {
		n, second := w.node(), w.node()
		by := n.account("acme")
		revoked, revokedToken := n.key(by)
		disabled, disabledToken := n.key(by)
		replaced, replacedToken := n.key(by)
		_, keptToken := n.key(by)
		off, pending := false, true
		n.hook(func(ctx context.Context, cmd redis.Cmder, next func() error) error {
			if cmd.Name() == "evalsha" && pending {
				pending = false
				if _, err := second.Revoke(ctx, by, revoked.ID); err != nil {
					t.Error(err)
				}
				if _, _, err := second.Update(ctx, by, disabled.ID, keystore.Update{Active: &off}); err != nil {
					t.Error(err)
				}
				if _, _, err := second.Regenerate(ctx, by, replaced.ID, time.Hour); err != nil {
					t.Error(err)
				}
			}
			return next()
		})
		n.rewrite()
		third := w.node()
		third.wantUnknown(revokedToken)
		if third.works(disabledToken).Key.Active {
			t.Error("what was disabled is active again")
		}
		if !third.works(replacedToken).Key.Replaced() {
			t.Error("what was replaced is as before")
		}
		third.works(keptToken)
		n.rewrite() // what the second node, which wrote text, has left
		if keys := third.list(by, 10); len(keys) != 4 {
			t.Errorf("there are %d keys, want 4", len(keys))
		}
		for field, value := range n.hash("acme", "keys") {
			if !isRaw(field) || !strings.HasPrefix(value, "\x02") {
				t.Errorf("%q is %q", field, value)
			}
			if e, err := keystore.ParseIndex(field, value); err != nil || (e.ID == string(replaced.ID)) != (e.Ends != 0) {
				t.Errorf("%+v, %v", e, err)
			}
		}
	})
}

// TestBothFormsAreOneKey: an id that is there in both forms is listed once, found
// by either, and removed under both.
func TestBothFormsAreOneKey(t *testing.T) {
	onEachRedis(t, func(t *testing.T, w *world) {
		n := w.node()
		keystore.UseText(n.Store)
		by := n.account("acme")
		k, token := n.key(by)
		n.Used(k.ID, "acme", w.clock.Now())
		n.flush()
		keystore.UseCompact(n.Store)
		n.Used(k.ID, "acme", w.clock.Now().Add(time.Minute))
		n.flush()
		index := w.options.Prefix + "account:{acme}:keys"
		entry, err := keystore.ParseIndex(string(k.ID), n.hash("acme", "keys")[string(k.ID)])
		if err != nil {
			t.Fatal(err)
		}
		field, value, _ := keystore.CompactIndex(entry)
		if field != uuidBytes(t, k.ID) {
			t.Fatalf("the field is %q", field)
		}
		if err := keystore.ClientOf(n.Store).HSet(t.Context(), index, field, value).Err(); err != nil {
			t.Fatal(err)
		}
		if keys := n.list(by, 10); len(keys) != 1 || keys[0].LastUsedAt != w.clock.Now().Add(time.Minute) {
			t.Errorf("listed as %+v", keys)
		}
		if _, err := n.Find(t.Context(), "", k.ID); err != nil {
			t.Error(err)
		}
		n.rewrite()
		for _, which := range []string{"keys", "used"} {
			if got := n.hash("acme", which); len(got) != 1 {
				t.Errorf("%s: %q", which, got)
			}
		}
		keystore.UseText(n.Store)
		old, next, err := n.Regenerate(t.Context(), by, k.ID, time.Hour)
		if err != nil || len(n.hash("acme", "keys")) != 2 {
			t.Errorf("after it was replaced the index is %q, %v", n.hash("acme", "keys"), err)
		}
		n.works(next)
		for _, id := range []policy.KeyID{k.ID, old.ID} {
			if _, err := n.Revoke(t.Context(), by, id); err != nil {
				t.Error(err)
			}
		}
		n.wantUnknown(token)
		if keys, used := n.hash("acme", "keys"), n.hash("acme", "used"); len(keys)+len(used) != 0 {
			t.Errorf("left over: %q, %q", keys, used)
		}
	})
}

// TestLargeAccountIsRewritten: one whose index Redis does not pack.
func TestLargeAccountIsRewritten(t *testing.T) {
	w := newWorld(t, "json")
	n := w.node()
	by := n.account("acme")
	const keys = 700
	tokens := make([]keystore.Token, keys)
	for i := range tokens {
		_, tokens[i] = n.key(by, func(k *keystore.NewKey) { k.Name = fmt.Sprint(i) })
	}
	if got := n.rewrite(); got < keys {
		t.Errorf("it has looked at %d keys", got)
	}
	for field := range n.hash("acme", "keys") {
		if !isRaw(field) {
			t.Fatalf("the index still has %q", field)
		}
	}
	if got := n.list(by, 100); len(got) != keys {
		t.Errorf("%d keys are listed", len(got))
	}
	for _, token := range tokens {
		n.works(token)
	}
}

// TestExportIsTheSameInEitherForm, so that every release can read it, and what
// is imported takes the form of the store.
func TestExportIsTheSameInEitherForm(t *testing.T) {
	text, compact, back := newWorld(t, "json"), newWorld(t, "redis"), newWorld(t, "json")
	compact.clock, back.clock = text.clock, text.clock
	compact.options.Now, back.options.Now = text.clock.Now, text.clock.Now
	a, b, c := text.node(), compact.node(), back.node()
	tokens, _ := a.fill()
	first := a.export()
	b.bringIn(first, keystore.ImportOptions{})
	second := b.export()
	if diff := cmp.Diff(sortedLines(first), sortedLines(second)); diff != "" {
		t.Errorf("(-text +compact)\n%s", diff)
	}
	for name, raw := range b.records() {
		if !strings.HasPrefix(raw, "\x02") {
			t.Errorf("%s is %s", name, raw)
		}
	}
	c.bringIn(second, keystore.ImportOptions{})
	if diff := cmp.Diff(moved(a.all(), text.options.Prefix), moved(c.all(), back.options.Prefix)); diff != "" {
		t.Errorf("there and back it is another (-before +after):\n%s", diff)
	}
	for _, token := range tokens {
		if diff := cmp.Diff(a.works(token).Key, b.works(token).Key, same); diff != "" {
			t.Errorf("a key is another (-text +compact):\n%s", diff)
		}
	}
}

// TestNothingIsRewrittenInAStoreOfText, which earlier gateways share.
func TestNothingIsRewrittenInAStoreOfText(t *testing.T) {
	w, _ := miniWorld(t)
	w.text = true
	n := w.node()
	n.fill()
	before := n.all()
	if err := keystore.RewriteRecords(t.Context(), n.Store, func(int) {}); err == nil {
		t.Error("no error")
	}
	if diff := cmp.Diff(before, n.all()); diff != "" {
		t.Error(diff)
	}
}
