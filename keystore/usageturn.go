package keystore

import (
	"context"
	"errors"
	"hash/fnv"

	"gatehouse/policy"
)

// turn is held by one at a time.
type turn chan struct{}

// take waits for the turn, and returns what gives it back; or ErrUnavailable
// where ctx ends before.
func (t turn) take(ctx context.Context) (giveBack func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, errors.Join(ErrUnavailable, ctx.Err())
	}
}

// usageTurns have questions about usage wait for each other, so that lookups
// need not wait for them: neither for Redis, which does one thing at a time, nor
// for a connection to it.
type usageTurns struct {
	// read is held while counters are read and added up: a portion at a time, so
	// that a small question does not wait for the whole of a large one.
	read turn
	// ask is held for a whole question. It is the same for all questions of an
	// account, so that who asks much waits for itself.
	ask [64]turn
}

func newUsageTurns() *usageTurns {
	t := &usageTurns{read: make(turn, 1)}
	for i := range t.ask {
		t.ask[i] = make(turn, 1)
	}
	return t
}

// of returns the turn to ask that the account has, with some others.
func (t *usageTurns) of(account policy.AccountID) turn {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(account)) // it never fails
	return t.ask[hash.Sum32()%uint32(len(t.ask))]
}
