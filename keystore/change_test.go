package keystore_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// news is what a node was told of.
type news struct {
	mu   sync.Mutex
	told []keystore.Change
}

// add leaves out the zero change, which concerns everybody: a subscription begins
// with it, whenever that is.
func (n *news) add(c keystore.Change) {
	if c == (keystore.Change{}) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, c)
}

// concern reports whether one of them concerns the token.
func (n *news) concern(t keystore.Token, account policy.AccountID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.told, func(c keystore.Change) bool { return c.Concerns(t, account) })
}

func (n *news) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = nil
}

// TestEveryNodeIsToldOfEveryChange that concerns a key, and of no other.
func TestEveryNodeIsToldOfEveryChange(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		// What is told of later must not be mistaken for news of this.
		before := w.open()
		person := before.account("acme")
		before.account("other")
		_, bystander := before.key(person)
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}

		here, there := &news{}, &news{}
		n := w.node(func(o *keystore.Options) { o.Changed = here.add })
		nodes := []*news{here}
		if w.options.EmbeddedFile == "" {
			w.node(func(o *keystore.Options) { o.Changed = there.add }).hears()
			nodes = append(nodes, there)
		}
		for name, change := range map[string]func(k policy.Key) error{
			"update": func(k policy.Key) error {
				_, _, err := n.Update(t.Context(), person, k.ID, keystore.Update{Name: ptr("renamed")})
				return err
			},
			"revoke": func(k policy.Key) error {
				_, err := n.Revoke(t.Context(), person, k.ID)
				return err
			},
			"regenerate": func(k policy.Key) error {
				_, _, err := n.Regenerate(t.Context(), person, k.ID, 0)
				return err
			},
			"regenerate with grace": func(k policy.Key) error {
				_, _, err := n.Regenerate(t.Context(), person, k.ID, time.Hour)
				return err
			},
		} {
			k, token := n.key(person)
			for _, node := range nodes {
				eventually(t, "the key's creation is heard of", func() bool { return node.concern(token, "acme") })
				node.forget()
			}
			if err := change(k); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for i, node := range nodes {
				eventually(t, name+" is heard of", func() bool { return node.concern(token, "acme") })
				if node.concern(bystander, "acme") {
					t.Errorf("%s: node %d was told that another key has changed", name, i)
				}
			}
		}
		for _, node := range nodes {
			node.forget()
		}
		n.account("acme")
		for i, node := range nodes {
			eventually(t, "the account's change is heard of", func() bool { return node.concern(bystander, "acme") })
			if node.concern(bystander, "other") {
				t.Errorf("node %d was told that another account has changed", i)
			}
		}
	})
}

// TestCatalogueCanBeReplaced: what an account's "*" stands for is what the
// catalogue holds now.
func TestCatalogueCanBeReplaced(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme", func(a *keystore.Account) { a.Permissions = []string{"*"} })
		_, token := n.key(person)
		if n.works(token).Account.Permissions.Has("parrot:read") {
			t.Fatal("there are parrots already")
		}
		next, err := policy.NewCatalogue("parrot:read")
		if err != nil {
			t.Fatal(err)
		}
		n.SetCatalogue(next)
		if !n.works(token).Account.Permissions.Has("parrot:read") {
			t.Error("the account does not have what the new catalogue holds")
		}
		n.SetCatalogue(w.options.Catalogue)
		if n.works(token).Account.Permissions.Has("parrot:read") {
			t.Error("the account still has what the catalogue holds no more")
		}
	})
}
