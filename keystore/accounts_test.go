package keystore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

func TestAccountIsKeptAsItWasPut(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		begun := w.clock.Now()
		put := keystore.Account{
			ID: "acme.corp_1-x", Name: "Acme \"✓\" <Corp>", Status: policy.Suspended, Permissions: []string{"proxies:*", "serp:read"},
			Subaccounts: []policy.Subaccount{{ID: subB, Label: "EU scraping", Product: "proxies"}, {ID: subA, Label: "", Product: "serp"}},
		}
		want := put
		want.CreatedAt, want.UpdatedAt = begun, begun
		stored, created, err := n.PutAccount(t.Context(), policy.Caller{}, put)
		if err != nil || !created {
			t.Fatalf("put: created %v, %v", created, err)
		}
		got, err := n.GetAccount(t.Context(), put.ID)
		if diff := cmp.Diff([]keystore.Account{want, want}, []keystore.Account{stored, got}, same); diff != "" || err != nil {
			t.Errorf("stored, got: %v (-want +got):\n%s", err, diff)
		}
		rules, err := n.Rules(t.Context(), put.ID)
		wantRules := &policy.Account{ID: put.ID, Status: policy.Suspended, Permissions: policy.NewPermissionSet(read, write, other), Subaccounts: policy.OnlySubaccounts(subB, subA)}
		if diff := cmp.Diff(wantRules, rules, same); diff != "" || err != nil {
			t.Errorf("rules: %v (-want +got):\n%s", err, diff)
		}

		w.clock.Advance(time.Hour)
		again := keystore.Account{ID: put.ID, Name: "Renamed"}
		want = again
		want.CreatedAt, want.UpdatedAt, want.Status = begun, w.clock.Now(), policy.Suspended // one that is not given is kept
		stored, created, err = n.PutAccount(t.Context(), policy.Caller{}, again)
		if err != nil || created {
			t.Fatalf("put again: created %v, %v", created, err)
		}
		got, err = n.GetAccount(t.Context(), put.ID)
		if diff := cmp.Diff([]keystore.Account{want, want}, []keystore.Account{stored, got}, same); diff != "" || err != nil {
			t.Errorf("stored, got: %v (-want +got):\n%s", err, diff)
		}
		if rules, err := n.Rules(t.Context(), put.ID); err != nil || len(rules.Permissions) > 0 || len(rules.Subaccounts.IDs()) > 0 || rules.Subaccounts.All() {
			t.Errorf("an account that was given nothing has %+v, %v", rules, err)
		}
	})
}

func TestNewAccountIsActive(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		if a, _, err := w.node().PutAccount(t.Context(), policy.Caller{}, keystore.Account{ID: "acme"}); err != nil || a.Status != policy.Active {
			t.Errorf("got %q, %v", a.Status, err)
		}
	})
}

// A grant that the catalogue does not know (any more) stands for nothing; "*"
// and "resource:*" stand for what it holds now.
func TestGrantsAreResolvedAgainstThePresentCatalogue(t *testing.T) {
	w := newWorld(t, "miniredis")
	old := w.node()
	_, token := old.key(old.account("acme", func(a *keystore.Account) { a.Permissions = []string{"proxies:*", "serp:read"} }),
		func(k *keystore.NewKey) { k.Permissions = policy.NewPermissionSet(read) })
	catalogue, err := policy.NewCatalogue("proxies:read", "proxies:replace")
	if err != nil {
		t.Fatal(err)
	}
	now := w.node(func(o *keystore.Options) { o.Catalogue = catalogue })
	want := policy.NewPermissionSet("proxies:read", "proxies:replace")
	if diff := cmp.Diff(want, now.works(token).Account.Permissions, same); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAccountThatDoesNotExist(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		_, err := n.GetAccount(t.Context(), "nobody")
		wantErr(t, err, keystore.ErrNotFound)
		_, err = n.Rules(t.Context(), "nobody")
		wantErr(t, err, keystore.ErrNotFound)
		wantErr(t, n.DeleteAccount(t.Context(), policy.Caller{}, "nobody"), keystore.ErrNotFound)
		accounts, cursor, err := n.ListAccounts(t.Context(), "", 10)
		if len(accounts) > 0 || cursor != "" || err != nil {
			t.Errorf("list: %v, %q, %v", accounts, cursor, err)
		}
	})
}

func TestDeletedAccountTakesItsKeysWithIt(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		acme, rival := n.account("acme"), n.account("rival")
		var tokens []keystore.Token
		var keys []policy.Key
		for range 20 {
			k, token := n.key(acme)
			tokens, keys = append(tokens, token), append(keys, k)
		}
		_, survivor := n.key(rival)
		n.works(tokens[0]) // it is in the caches now

		n.delete("acme")
		_, err := n.GetAccount(t.Context(), "acme")
		wantErr(t, err, keystore.ErrNotFound)
		for _, token := range tokens {
			n.wantUnknown(token)
		}
		n.works(survivor)
		if left := n.records(); len(left) != 1 {
			t.Errorf("%d key records are left, want that of the other account", len(left))
		}
		wantErr(t, n.DeleteAccount(t.Context(), policy.Caller{}, "acme"), keystore.ErrNotFound)

		acme = n.account("acme") // its id is used again
		for _, token := range tokens {
			n.wantUnknown(token)
		}
		_, err = n.Get(t.Context(), acme, keys[0].ID)
		wantErr(t, err, keystore.ErrNotFound)
		if listed := n.list(acme, 100); len(listed) != 0 {
			t.Errorf("the new account has the old one's keys: %v", listed)
		}
		_, token := n.key(acme)
		n.works(token)
	})
}

// More keys than are removed in one step.
func TestDeleteAccountWithManyKeys(t *testing.T) {
	for _, kind := range []string{"redis", "embedded"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind)
			n := w.node(func(o *keystore.Options) { o.MaxKeys = 2000 })
			tokens := n.many(n.account("acme"), 600)
			n.delete("acme")
			for _, token := range tokens {
				n.wantUnknown(token)
			}
			if left := n.records(); len(left) != 0 {
				t.Errorf("%d key records are left", len(left))
			}
		})
	}
}

// many creates keys, eight at a time.
func (n *node) many(by policy.Caller, count int) []keystore.Token {
	n.t.Helper()
	tokens := make([]keystore.Token, count)
	together(8, func(worker int) {
		for i := worker; i < count; i += 8 {
			_, token, err := n.Create(n.t.Context(), by, newKey(func(k *keystore.NewKey) { k.Name = fmt.Sprint(i) }))
			if err != nil {
				n.t.Errorf("create %d: %v", i, err)
				return
			}
			tokens[i] = token
		}
	})
	return tokens
}

// Deleting races putting, as two operators may: in the end the account is
// there, in the list as well, or it is nowhere. (On a Cluster the list is in
// another slot than the account, and an account that is put in that instant is
// listed again only when it is put once more.)
func TestDeleteRacingPutLeavesAnAccountInWholeOrNone(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		if w.kind == "cluster" {
			t.Skip("no guard spans slots")
		}
		n := w.node()
		other := n.second()
		for round := range 30 {
			id := policy.AccountID(fmt.Sprintf("acme%d", round))
			n.account(id)
			var deleted, put error
			together(2, func(i int) {
				if i == 0 {
					deleted = n.DeleteAccount(t.Context(), policy.Caller{}, id)
				} else {
					_, _, put = other.PutAccount(t.Context(), policy.Caller{}, keystore.Account{ID: id, Permissions: []string{"*"}})
				}
			})
			if deleted != nil || put != nil {
				t.Fatalf("delete: %v; put: %v", deleted, put)
			}
			_, err := n.GetAccount(t.Context(), id)
			listed := slices.ContainsFunc(n.accounts(100), func(a keystore.Account) bool { return a.ID == id })
			if (err == nil) != listed {
				t.Fatalf("get: %v, but listed: %v", err, listed)
			}
		}
	})
}

func (n *node) accounts(limit int) []keystore.Account {
	n.t.Helper()
	var all []keystore.Account
	cursor := ""
	for {
		page, next, err := n.ListAccounts(n.t.Context(), cursor, limit)
		if err != nil {
			n.t.Fatal(err)
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		cursor = next
	}
}

func TestConcurrentPutsOfOneAccountAgreeOnItsAge(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		nodes := []*node{n, n.second()}
		firsts := make(chan policy.AccountID, 16)
		together(8, func(i int) {
			_, created, err := nodes[i%2].PutAccount(t.Context(), policy.Caller{}, keystore.Account{ID: "acme", Name: fmt.Sprint(i)})
			if err != nil {
				t.Errorf("put: %v", err)
			}
			if created {
				firsts <- "acme"
			}
		})
		if len(firsts) != 1 {
			t.Errorf("%d of them say that they created the account", len(firsts))
		}
	})
}

// A key belongs to the account that it was made for, and not to one that has
// the same id. Here the account's own identity is changed under its keys.
func TestKeysOfAnEarlierAccountOfTheSameIDAreDead(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	target, _ := n.key(person)
	by := n.caller(token)
	name := w.options.Prefix + "account:{acme}"
	record, err := m.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	var fields struct {
		UID string `json:"uid"`
	}
	if err := json.Unmarshal([]byte(record), &fields); err != nil || fields.UID == "" {
		t.Fatalf("%s: %v", record, err)
	}
	_ = m.Set(name, strings.Replace(record, fields.UID, "another", 1))
	w.clock.Advance(keystore.AccountTTL)

	n.wantUnknown(token)
	for _, op := range operations {
		if err := op.do(t.Context(), n, by, target.ID); !unknown(err) {
			t.Errorf("%s by such a key: got %v", op.name, err)
		}
		if err := op.do(t.Context(), n, person, k.ID); op.name != "create" && !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("%s of such a key: got %v", op.name, err)
		}
	}
}
