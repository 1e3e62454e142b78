package keystore

import (
	"context"
	"errors"
	"fmt"
)

// Condition is what a store is and how its servers are, to somebody who looks at
// it from outside.
type Condition struct {
	State State
	// Cause is why nothing can be looked up; nil where it can.
	Cause  error
	Store  StoreStatus
	Health Health
}

// Inspect says what a store is, asks its servers how they are, and changes
// nothing. What it finds is no error. Whether a store is older only the nodes
// know that work with it.
func Inspect(ctx context.Context, o Options) (Condition, error) {
	o.ReadOnly = true
	s, err := newStore(o) //nolint:contextcheck // the file of an embedded store is opened to its end
	if err != nil {
		return Condition{}, fmt.Errorf("inspect store: %w", err)
	}
	if s.health.client != nil {
		s.health.check(ctx)
	}
	c := Condition{State: StateOK, Health: s.Health()}
	if err := s.disconnect(); err != nil {
		return Condition{}, fmt.Errorf("inspect store: %w", err)
	}
	c.Store, c.Cause = Status(ctx, o)
	switch missing := c.Store.Missing; {
	case c.Cause != nil:
		c.State = StateOf(c.Cause)
	case c.Store.Identity == "":
		c.State, c.Cause = StateEmptied, errors.Join(ErrUnavailable, ErrNoStore)
	case missing > 0 && (c.Store.Compact || missing < c.Store.Markers):
		c.State, c.Cause = StateEmptied, fmt.Errorf("%w: %d of %d markers are missing", ErrUnavailable, missing, c.Store.Markers)
	case !c.Store.Compact:
		c.State = StateLegacy
	}
	return c, nil
}
