package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"gatehouse/policy"
)

// attachTimeout bounds what a gateway reads or writes of all markers, and
// makeTimeout what a person waits for: a Cluster has 16,384, and each of them may
// wait for the disk.
const (
	attachTimeout = commitTimeout
	makeTimeout   = time.Minute
)

// bind learns the identity of the store this process works with. It returns
// ErrUnavailable with ErrNoStore for one that was never made: a store that is
// merely empty must not look like a new one.
func (s *Store) bind(ctx context.Context) error {
	if s.identity.Load() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	identity, err := s.attach(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if s.identity.CompareAndSwap(nil, &identity) {
		s.wasBound()
	}
	return nil
}

// attach returns the identity of the store, and makes one where it may.
func (s *Store) attach(ctx context.Context) (string, error) {
	if s.embedded != nil {
		return s.attachEmbedded(ctx)
	}
	identity, err := s.client.Get(ctx, s.names.store()).Result()
	if err := notNil(err); err != nil {
		return "", err
	}
	switch {
	case identity == "" && s.o.ReadOnly:
		return "", nil // "" is the identity of no store
	case identity == "" && s.o.Create:
		return s.begin(ctx)
	case identity == "":
		return "", ErrNoStore
	}
	format, err := s.client.Get(ctx, s.names.format()).Result()
	if err := notNil(err); err != nil {
		return "", err
	}
	switch {
	case format == "" && s.o.ReadOnly:
		s.unmarked.Store(true)
		return identity, nil
	case format == "":
		return identity, s.adopt(ctx, identity)
	}
	return identity, s.format.set(format)
}

// attachEmbedded returns the identity of the store in its file, which gets one
// when it is begun.
func (s *Store) attachEmbedded(ctx context.Context) (string, error) {
	s.format.isCompact.Store(true) // no older gateway shares it
	v, err := s.reader.get(ctx, s.names.store())
	if err != nil || v.found || s.o.ReadOnly {
		return v.raw, err
	}
	fresh := uuid.NewString()
	err = s.committer.commit(ctx, change{
		guards: []guard{{key: s.names.store()}}, steps: []step{{Kind: stepSet, Key: s.names.store(), Value: fresh}},
	})
	return fresh, err
}

// wasBound: in a store that was bound to nothing, nothing is to be vouched for.
func (s *Store) wasBound() {
	if s.identityNow() == "" {
		s.unmarked.Store(true)
	}
}

// begin makes a new store: markers first, and its identity last, so that a store
// that is half made is none. It returns ErrStoreExists when there is one, or a
// part of one: a shard that lost its data must not be taken for a new store.
func (s *Store) begin(ctx context.Context) (string, error) {
	fresh := uuid.NewString()
	free, err := s.makeAlone(ctx, fresh, makeTimeout)
	if err != nil {
		return "", err
	}
	defer free()
	if identity, err := s.client.Get(ctx, s.names.store()).Result(); identity != "" || notNil(err) != nil {
		return identity, errors.Join(ErrStoreExists, notNil(err))
	}
	found, err := s.readMarkers(ctx)
	if err != nil {
		return "", err
	}
	for _, value := range found {
		if value != "" && !strings.HasSuffix(value, ":1:0") {
			return "", fmt.Errorf("%w: a part of it is there, with changes: restore the rest, or empty all servers", ErrStoreExists)
		}
	}
	err = s.eachMarker(ctx, func(pipe redis.Pipeliner, name string) { pipe.Set(ctx, name, markerValue(fresh, 1<<countBits), 0) })
	if err != nil {
		return "", err
	}
	pipe := s.client.Pipeline()
	pipe.Set(ctx, s.names.format(), formatCompact, 0)
	pipe.Set(ctx, s.names.store(), fresh, 0)
	if _, err := pipe.Exec(ctx); err != nil {
		return "", err
	}
	s.o.Log.Warn("a new store was made", zap.String("store", fresh))
	return fresh, s.format.set(formatCompact)
}

// adopt adds markers to a store of an older gateway, once: where a marker says
// that there were changes, they were there before, and some are missing.
func (s *Store) adopt(ctx context.Context, identity string) error {
	free, err := s.makeAlone(ctx, identity, attachTimeout)
	if err != nil {
		return err
	}
	defer free()
	found, err := s.readMarkers(ctx)
	if err != nil {
		return err
	}
	for _, value := range found {
		if at, ok := parseMarker(value, identity); value != "" && (!ok || at != 1<<countBits) {
			return errEmptied
		}
	}
	err = s.eachMarker(ctx, func(pipe redis.Pipeliner, name string) { pipe.SetNX(ctx, name, markerValue(identity, 1<<countBits), 0) })
	if err != nil {
		return err
	}
	if err := s.client.SetNX(ctx, s.names.format(), formatJSON, 0).Err(); err != nil {
		return err
	}
	s.o.Log.Info("the store was made by an older gateway, and has markers now", zap.String("store", identity))
	return s.format.set(formatJSON)
}

// makeAlone keeps others from making the same store meanwhile, which takes so long
// at the most. One that is killed keeps them from it for twice that.
func (s *Store) makeAlone(ctx context.Context, by string, most time.Duration) (free func(), err error) {
	name := s.names.inStoresSlot("making")
	first, err := s.client.SetNX(ctx, name, by, 2*most).Result()
	if err != nil {
		return nil, err
	}
	if !first {
		return nil, errors.New("another node is making the store at the moment")
	}
	return func() { _ = s.client.Del(context.WithoutCancel(ctx), name).Err() }, nil // it ends by itself
}

// readMarkers returns the value of every marker, "" for those that are missing.
func (s *Store) readMarkers(ctx context.Context) ([]string, error) {
	found := make([]*redis.StringCmd, 0, s.markers.count())
	err := s.eachMarker(ctx, func(pipe redis.Pipeliner, name string) { found = append(found, pipe.Get(ctx, name)) })
	if err := notNil(err); err != nil {
		return nil, err
	}
	values := make([]string, len(found))
	for i, cmd := range found {
		if err := notNil(cmd.Err()); err != nil {
			return nil, err
		}
		values[i] = cmd.Val()
	}
	return values, nil
}

// eachMarker asks something of every marker, in portions.
func (s *Store) eachMarker(ctx context.Context, ask func(pipe redis.Pipeliner, name string)) error {
	const portion = 1024
	for first := 0; first < s.markers.count(); first += portion {
		pipe := s.client.Pipeline()
		for slot := first; slot < min(first+portion, s.markers.count()); slot++ {
			ask(pipe, s.markers.name(slot))
		}
		if _, err := pipe.Exec(ctx); notNil(err) != nil {
			return err
		}
	}
	return nil
}

// Init makes a store where there is none. It returns ErrStoreExists when there
// is one, or a part of one.
func Init(ctx context.Context, o Options) error {
	o.Create = true
	s, err := newStore(o) //nolint:contextcheck // the file of an embedded store is opened to its end
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	defer func() { _ = s.disconnect() }()
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	if s.embedded != nil {
		if _, err := s.attachEmbedded(ctx); err != nil {
			return fmt.Errorf("make store: %w", err)
		}
		return nil
	}
	if _, err := s.begin(ctx); err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	return nil
}

// Accept accepts the store as it is, though it has lost changes that were
// acknowledged: nodes go on with it, and management with them.
func Accept(ctx context.Context, o Options) error {
	if o.EmbeddedFile != "" {
		if err := acceptEmbedded(o); err != nil { //nolint:contextcheck // the file is opened to its end
			return fmt.Errorf("accept store: %w", err)
		}
		return nil
	}
	s, err := newStore(o) //nolint:contextcheck // the file of an embedded store is opened to its end
	if err != nil {
		return fmt.Errorf("accept store: %w", err)
	}
	defer func() { _ = s.disconnect() }()
	if err := s.bind(ctx); err != nil {
		return fmt.Errorf("accept store: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	found, err := s.readMarkers(ctx)
	if err != nil {
		return fmt.Errorf("accept store: %w", errors.Join(ErrUnavailable, err))
	}
	var highest uint64
	for slot, value := range found {
		at, ok := parseMarker(value, s.identityNow())
		if !ok {
			return fmt.Errorf("accept store: slot %d: %w: %w", slot, ErrUnavailable, errEmptied)
		}
		highest = max(highest, at>>countBits)
	}
	// A change that is counted meanwhile is counted in the old generation, and
	// the marker set over it: the new generation is higher either way.
	err = s.eachMarker(ctx, func(pipe redis.Pipeliner, name string) {
		pipe.Set(ctx, name, markerValue(s.identityNow(), (highest+1)<<countBits), 0)
	})
	if err != nil {
		return fmt.Errorf("accept store: %w", errors.Join(ErrUnavailable, err))
	}
	return nil
}

// Upgrade has records be written in the newest format from now on, which older
// gateways do not read: none may work with the store any more.
func Upgrade(ctx context.Context, o Options, progress func(done int)) error {
	s, err := newStore(o) //nolint:contextcheck // the file of an embedded store is opened to its end
	if err != nil {
		return fmt.Errorf("upgrade store: %w", err)
	}
	defer func() { _ = s.disconnect() }()
	if s.embedded != nil {
		return nil
	}
	if err := s.bind(ctx); err != nil {
		return fmt.Errorf("upgrade store: %w", err)
	}
	if err := s.client.Set(ctx, s.names.format(), formatCompact, 0).Err(); err != nil {
		return fmt.Errorf("upgrade store: %w", errors.Join(ErrUnavailable, err))
	}
	if err := s.format.set(formatCompact); err != nil {
		return err
	}
	if err := s.rewriteRecords(ctx, progress); err != nil {
		return fmt.Errorf("upgrade store: %w", err)
	}
	err = s.eachAccount(ctx, func(account policy.AccountID) error { return s.settleIndex(ctx, account) })
	if err != nil {
		return fmt.Errorf("upgrade store: %w", err)
	}
	return nil
}

// StoreStatus says what a store is.
type StoreStatus struct {
	// Identity names it; "" where there is none.
	Identity string
	// Compact: records are written in the format that older gateways do not read.
	Compact bool
	// Markers is how many there should be, Missing how many are not.
	Markers, Missing int
	// Generation is how often an operator has accepted it, and once more; Changes
	// is how many were made since.
	Generation, Changes uint64
}

// Status says what the store is, and changes nothing.
func Status(ctx context.Context, o Options) (StoreStatus, error) {
	o.ReadOnly = true
	s, err := newStore(o) //nolint:contextcheck // the file of an embedded store is opened to its end
	if err != nil {
		return StoreStatus{}, fmt.Errorf("status of store: %w", err)
	}
	defer func() { _ = s.disconnect() }()
	if s.embedded != nil {
		return StoreStatus{Identity: s.o.EmbeddedFile, Compact: true}, nil
	}
	if err := s.bind(ctx); err != nil {
		return StoreStatus{}, fmt.Errorf("status of store: %w", err)
	}
	status := StoreStatus{Identity: s.identityNow(), Compact: s.compact(), Markers: s.markers.count()}
	found, err := s.readMarkers(ctx)
	if err != nil {
		return StoreStatus{}, fmt.Errorf("status of store: %w", errors.Join(ErrUnavailable, err))
	}
	for _, value := range found {
		at, ok := parseMarker(value, s.identityNow())
		if !ok {
			status.Missing++
			continue
		}
		status.Generation = max(status.Generation, at>>countBits)
		status.Changes += at & (1<<countBits - 1)
	}
	return status, nil
}
