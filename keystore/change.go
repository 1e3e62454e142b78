package keystore

import (
	"crypto/sha256"

	"gatehouse/policy"
)

// Change says what may be different from now on: one key, one account and all
// its keys, or, as its zero value, anything.
type Change struct {
	token   *[sha256.Size]byte
	account policy.AccountID
}

// Concerns reports whether what a lookup of the token said, a key of the
// account, may be different now.
func (c Change) Concerns(t Token, account policy.AccountID) bool {
	switch {
	case c.token != nil:
		return *c.token == t.hash
	case c.account != "":
		return c.account == account
	}
	return true
}

// Hears reports whether the node is subscribed to the changes that other nodes
// make: every change that was published up to a second ago has arrived. While it
// is not, nothing is answered from a cache. When it is again, Options.Changed is
// called with the zero Change.
func (s *Store) Hears() bool {
	return s.embedded != nil || s.subscribed.Load() && s.hearing.hears(s.elapsed())
}

// changed is called behind the emptying of the caches, so that whoever looks
// again finds nothing older.
func (s *Store) changed(c Change) {
	if s.o.Changed != nil {
		s.o.Changed(c)
	}
}
