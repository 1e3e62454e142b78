package keystore

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// trust returns nil when what was read under the name can be taken for the
// truth: the marker that was read with it says that the store is the one this
// process began with, and that it is not older than before. Otherwise it returns
// ErrUnavailable, or ErrUnknownToken for a record that this node knows to be
// deleted. In an emptied store every key would be unknown, and every customer
// locked out as if their keys were wrong; in an older one, revoked keys would
// work again.
func (s *Store) trust(name string, v value) error {
	if err := s.trustMarker(v); err != nil {
		return err
	}
	if !v.found && s.health.evicts() {
		return fmt.Errorf("%w: %w", ErrUnavailable, errEvicts)
	}
	if s.rollback.found() {
		if !v.found && !s.rollback.knowsRemoved(name) {
			return fmt.Errorf("%w: %w", ErrUnavailable, ErrOlder)
		}
		if v.found {
			return s.rollback.judge(name, v.raw, s.positionOf(v))
		}
	}
	return nil
}

// positionOf is where the store was when the value was read; the highest there is
// where nothing says so.
func (s *Store) positionOf(v value) uint64 {
	if position, ok := parseMarker(v.marker, s.identityNow()); ok {
		return position
	}
	return math.MaxUint64
}

// trustAbsence returns nil when what was not found under the name certainly is
// not there: the server that would hold it has not lost its data.
func (s *Store) trustAbsence(ctx context.Context, name string) error {
	if s.embedded != nil {
		return nil
	}
	marker, _ := s.markers.of(name)
	v, err := s.reader.get(ctx, marker)
	if err == nil {
		err = s.trustMarker(v)
	}
	if err != nil {
		return asUnavailable(err)
	}
	return nil
}

// trustMarker looks at the marker alone.
func (s *Store) trustMarker(v value) error {
	identity := s.identity.Load()
	switch {
	case s.embedded != nil:
		return nil // a file of this process alone
	case identity == nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, errNotReached)
	case s.unmarked.Load():
		return nil // an older gateway's store, which is only read
	}
	position, ok := parseMarker(v.marker, *identity)
	if !ok {
		return fmt.Errorf("%w: %w", ErrUnavailable, errEmptied)
	}
	if position < v.known {
		s.cameBackOlder(v.slot, position)
		return nil
	}
	s.markers.saw(v.slot, position)
	if s.rollback.found() {
		s.rollback.accepted(position >> countBits)
	}
	return nil
}

// cameBackOlder notes that a slot has lost changes.
func (s *Store) cameBackOlder(slot int, position uint64) {
	if !s.markers.reset(slot, position) {
		return // it is noted already
	}
	if !s.rollback.begin(slot, position) {
		return
	}
	s.o.Log.Error("the store came back older than it was: changes that were acknowledged are missing from it, and this node makes "+
		"its own again; management is refused until an operator runs 'gatehouse store accept'", errField(slot, position)...)
	s.keys.unverify()
	s.accounts.unverify()
	s.changed(Change{})
}

// asUnavailable makes sure that an error says what it says nothing about.
func asUnavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return errors.Join(ErrUnavailable, err)
}
