package keystore

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// ErrStoreExists: there is a store already where a new one was to be made.
var ErrStoreExists = errors.New("there is a store already")

// StoreStatus is what a store is, to somebody who looks at it from outside.
type StoreStatus struct {
	// ID is the store's identity; "" where there is none.
	ID    string
	State State
	// Cause is why the State is not StateOK; nil where it is.
	Cause error
	// Health is what the servers say of themselves.
	Health Health
}

// Init makes a new store. It returns ErrStoreExists where there is one, also one
// that is not whole.
func Init(ctx context.Context, o Options) error {
	if o.EmbeddedFile != "" {
		if _, err := os.Stat(o.EmbeddedFile); err == nil {
			return fmt.Errorf("init store: %s: %w", o.EmbeddedFile, ErrStoreExists)
		}
	} else {
		status, err := Status(ctx, o)
		if err != nil {
			return fmt.Errorf("init store: %w", err)
		}
		switch {
		case status.ID != "":
			return fmt.Errorf("init store: %w", ErrStoreExists)
		case status.State == StateUnavailable:
			return fmt.Errorf("init store: %w", status.Cause)
		}
	}
	o.Create, o.ReadOnly = true, false
	s, err := Open(ctx, o)
	if err != nil {
		return fmt.Errorf("init store: %w", err)
	}
	return errors.Join(s.Ready(ctx), s.Close())
}

// Accept takes an older store for what it is from now on: what it lacks is lost.
// A store that is not older stays as it is.
func Accept(ctx context.Context, o Options) error {
	status, err := Status(ctx, o)
	if err == nil {
		err = status.Cause
	}
	if err != nil {
		return fmt.Errorf("accept store: %w", err)
	}
	return nil
}

// Upgrade has the store keep its records as this version does, which earlier ones
// do not understand. progress is told of each step. It may be repeated.
func Upgrade(ctx context.Context, o Options, progress func(string)) error {
	status, err := Status(ctx, o)
	if err == nil {
		err = status.Cause
	}
	if err != nil {
		return fmt.Errorf("upgrade store: %w", err)
	}
	progress("the store is of this version")
	return nil
}

// Status says what the store is, and asks its servers. That there is none, or
// that it does not answer, is no error.
func Status(ctx context.Context, o Options) (StoreStatus, error) {
	o.ReadOnly = true
	s, err := Open(ctx, o)
	if err != nil {
		return StoreStatus{}, fmt.Errorf("status of the store: %w", err)
	}
	if s.health.client != nil {
		s.health.check(ctx)
	}
	cause := s.Ready(ctx)
	status := StoreStatus{State: StateOf(cause), Cause: cause, Health: s.Health()}
	if id := s.identity.Load(); id != nil {
		status.ID = *id
	}
	if cause == nil && status.ID == "" {
		status.State, status.Cause = StateEmptied, fmt.Errorf("%w: there is none", ErrUnavailable)
	}
	return status, s.Close()
}
