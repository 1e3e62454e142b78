package keystore_test

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

func TestListIsNewestFirstInPagesOfAnySize(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		if keys, cursor, err := n.List(t.Context(), person, "", 10); len(keys) != 0 || cursor != "" || err != nil {
			t.Errorf("of no keys: %v, %q, %v", keys, cursor, err)
		}
		var made []policy.KeyID
		for range 7 {
			k, _ := n.key(person)
			made = append(made, k.ID)
			w.clock.Advance(time.Millisecond) // in one second, and still in order
		}
		slices.Reverse(made)
		for limit := 1; limit <= 8; limit++ {
			var got []policy.KeyID
			for _, k := range n.list(person, limit) {
				got = append(got, k.ID)
			}
			if !slices.Equal(got, made) {
				t.Errorf("pages of %d: got %v, want %v", limit, got, made)
			}
		}
		page, cursor, err := n.List(t.Context(), person, "", 7)
		if len(page) != 7 || cursor != "" || err != nil {
			t.Errorf("the last page says that there is another: %d keys, %q, %v", len(page), cursor, err)
		}
	})
}

func TestListOf10000KeysIsComplete(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		// A server in this process, under the race detector, and the many scripts
		// of a Cluster are slow; what they do is the same for a thousand.
		count := 1000
		if w.kind == "redis" {
			count = 10_000
		}
		n := w.node(func(o *keystore.Options) { o.MaxKeys = count })
		person := n.account("acme")
		n.many(person, count)
		seen := map[string]int{}
		keys := n.list(person, 1000)
		for _, k := range keys {
			seen[k.Name]++
		}
		if len(keys) != count || len(seen) != count {
			t.Errorf("%d keys, %d different ones, want %d", len(keys), len(seen), count)
		}
		if !slices.IsSortedFunc(keys, func(a, b policy.Key) int { return cmp.Compare(b.CreatedAt.Unix(), a.CreatedAt.Unix()) }) {
			t.Error("they are not in order")
		}
	})
}

// Keys that come and go between two pages neither hide a key that stays nor
// show it twice, also when all were created in the same second.
func TestPagesAreStableWhileKeysComeAndGo(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		var stay, leave []policy.KeyID
		for i := range 30 {
			k, _ := n.key(person)
			if i%3 == 0 {
				leave = append(leave, k.ID)
			} else {
				stay = append(stay, k.ID)
			}
		}
		var got []policy.KeyID
		for cursor := ""; ; {
			page, next, err := n.List(t.Context(), person, cursor, 4)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range page {
				got = append(got, k.ID)
			}
			if next == "" {
				break
			}
			cursor = next
			n.key(person)
			going := []policy.KeyID{page[len(page)-1].ID} // the cursor's own, too
			if len(leave) > 0 {
				going = append(going, leave[0])
			}
			for _, gone := range going {
				if !slices.Contains(leave, gone) {
					continue
				}
				if _, err := n.Revoke(t.Context(), person, gone); err != nil {
					t.Fatal(err)
				}
				leave = slices.DeleteFunc(leave, func(id policy.KeyID) bool { return id == gone })
			}
		}
		for _, id := range stay {
			if times := len(slices.DeleteFunc(slices.Clone(got), func(other policy.KeyID) bool { return other != id })); times != 1 {
				t.Errorf("%s was listed %d times", id, times)
			}
		}
	})
}

func TestAccountsAreListedInPages(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		var want []policy.AccountID
		for i := range 9 {
			id := policy.AccountID(fmt.Sprintf("acme%d", i))
			n.account(id)
			want = append(want, id)
			w.clock.Advance(time.Millisecond)
		}
		n.account("acme3") // changed, and no younger for it
		slices.Reverse(want)
		for limit := 1; limit <= 10; limit++ {
			var got []policy.AccountID
			for _, a := range n.accounts(limit) {
				got = append(got, a.ID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages of %d: got %v, want %v", limit, got, want)
			}
		}
	})
}

func TestBadCursorIsRefused(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		k, _ := n.key(person)
		n.key(person)
		encode := base64.RawURLEncoding.EncodeToString
		for _, cursor := range []string{
			"x", "!", "====", string(k.ID), encode([]byte("1")), encode([]byte(":")), encode([]byte("1:")), encode([]byte("x:" + k.ID)),
			encode([]byte("99999999999999999999:" + k.ID)), " " + encode([]byte("1:"+k.ID)), encode([]byte("1:"+k.ID)) + "=",
		} {
			_, _, err := n.List(t.Context(), person, cursor, 10)
			wantErr(t, err, keystore.ErrBadCursor)
			_, _, err = n.ListAccounts(t.Context(), cursor, 10)
			wantErr(t, err, keystore.ErrBadCursor)
		}
		// A cursor of another account shows nothing of it.
		_, cursor, err := n.List(t.Context(), person, "", 1)
		if err != nil || cursor == "" {
			t.Fatalf("%q, %v", cursor, err)
		}
		if keys, _, err := n.List(t.Context(), n.account("rival"), cursor, 10); err != nil || len(keys) != 0 {
			t.Errorf("another account's cursor: %v, %v", keys, err)
		}
	})
}

// An expired key stays in the store, where it answers that it has expired, for
// 30 days; one without an expiry stays for ever.
func TestExpiredKeysAreKeptForTheirRetention(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		expiring, expiringToken := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(time.Hour) })
		_, foreverToken := n.key(person)
		kept := time.Hour + 30*24*time.Hour
		n.wantKept(expiringToken, kept)
		n.wantKept(foreverToken, 0)

		n.update(person, expiring.ID, keystore.Update{Expiry: ptr(w.clock.In(2 * time.Hour))})
		n.wantKept(expiringToken, kept+time.Hour)
		n.update(person, expiring.ID, keystore.Update{Name: ptr("renamed")})
		n.wantKept(expiringToken, kept+time.Hour)
		n.update(person, expiring.ID, keystore.Update{Expiry: ptr(policy.NeverExpires())})
		n.wantKept(expiringToken, 0)
		n.update(person, expiring.ID, keystore.Update{Expiry: ptr(w.clock.In(-time.Hour))})
		n.wantKept(expiringToken, 30*24*time.Hour-time.Hour)

		next, nextToken, err := n.Regenerate(t.Context(), person, expiring.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		n.wantKept(nextToken, 30*24*time.Hour-time.Hour)
		e := n.works(nextToken)
		if got := policy.Decide(policy.Request{At: w.clock.Now(), Client: inside, Needs: read}, e.Key, e.Account).Reason; got != policy.KeyExpired {
			t.Errorf("got %q", got)
		}
		if keys := n.list(person, 10); !slices.ContainsFunc(keys, func(k policy.Key) bool { return k.ID == next.ID }) {
			t.Error("the expired key is not listed")
		}
	})
}

// wantKept checks for how long the token's record is kept, 0 for ever. It
// knows by itself what the record is called.
func (n *node) wantKept(token keystore.Token, want time.Duration) {
	n.t.Helper()
	got, err := keystore.ClientOf(n.Store).TTL(n.t.Context(), n.recordName(token)).Result()
	if err != nil {
		n.t.Fatal(err)
	}
	if want == 0 {
		want = -1 // what Redis calls for ever
	}
	if slack := want - got; slack < 0 || slack > time.Minute {
		n.t.Errorf("the record is kept for %v, want %v", got, want)
	}
}
