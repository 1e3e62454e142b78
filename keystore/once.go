package keystore

import (
	"context"
	"fmt"
	"time"
)

// onceKept is for how long the store remembers that something was done.
const onceKept = 24 * time.Hour

// Once reports whether this is the first time in a day that the name is given,
// on any node. The name is at most 64 of [A-Za-z0-9-]. It returns
// ErrUnavailable when the store could not say; the name may be used up then.
func (s *Store) Once(ctx context.Context, name string) (bool, error) {
	if !isSubject(name) {
		return false, fmt.Errorf("%w: %w", ErrUnavailable, errSubject)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*s.o.Timeout)
	defer cancel()
	first, err := s.data.setIfAbsent(ctx, s.names.once(name), "1", onceKept)
	if err != nil {
		return false, fmt.Errorf("%w: once: %w", ErrUnavailable, err)
	}
	return first, nil
}

// Forget has Once not remember the name any more: what was to be done once was
// certainly not done. It returns ErrUnavailable when the name may still be known.
func (s *Store) Forget(ctx context.Context, name string) error {
	if !isSubject(name) {
		return fmt.Errorf("%w: %w", ErrUnavailable, errSubject)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*s.o.Timeout)
	defer cancel()
	if err := s.data.remove(ctx, s.names.once(name)); err != nil {
		return fmt.Errorf("%w: forget: %w", ErrUnavailable, err)
	}
	return nil
}
