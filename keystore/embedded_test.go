package keystore_test

import (
	"testing"

	"gatehouse/keystore"
)

// reopen closes the node and opens the store again, as another process would.
func (n *node) reopen(changes ...func(*keystore.Options)) *node {
	n.t.Helper()
	if err := n.Close(); err != nil {
		n.t.Fatal(err)
	}
	return n.w.node(changes...)
}

// everything is all that a store holds.
func (n *node) everything() map[string]string {
	n.t.Helper()
	return dump(n.t, keystore.ClientOf(n.Store), n.w.options.Prefix)
}

var _ = testing.Short
