package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

const (
	// leaseLength is for how long a lease is held by a process that has gone
	// without giving it back; one that is there renews it much more often.
	leaseLength = time.Minute
	leaseRenew  = 10 * time.Second
)

// ErrLeased says that another process is at it, or was less than a minute ago
// and has ended without a word.
var ErrLeased = errors.New("another process is at it, or broke off less than a minute ago")

// errLeaseLost: another process may have begun.
var errLeaseLost = errors.New("it is no longer certain that no other process is at it")

// leased does what one process at a time may do, on all nodes together. The
// context of do ends when the lease is lost, which a process that was stopped
// meanwhile learns late: with the guards, it commits nothing before it knows. On
// a Cluster there are none, as a change with one would no longer be of one slot.
// An embedded store is one process's own, and needs no lease.
func (s *Store) leased(ctx context.Context, name string, do func(context.Context, []guard) error) error {
	if s.embedded != nil {
		return do(ctx, nil)
	}
	holder := uuid.NewString()
	if err := s.setLease(ctx, name, "", holder); errors.Is(err, errMoved) {
		return ErrLeased
	} else if err != nil {
		return err
	}
	held, lost := context.WithCancelCause(ctx)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		s.renewLease(held, name, holder, leaseRenew, lost)
	}()
	lease := guard{key: name, want: holder}
	var guards []guard
	if _, cluster := s.committer.(*clusterCommitter); !cluster {
		guards = append(guards, lease)
	}
	err := do(held, guards)
	if cause := context.Cause(held); err != nil && cause != nil && ctx.Err() == nil {
		err = errors.Join(err, cause)
	}
	lost(nil)
	<-renewed
	free, cancel := context.WithTimeout(context.WithoutCancel(ctx), manageTimeout)
	defer cancel()
	_ = s.commit(free, change{guards: []guard{lease}, steps: []step{{Kind: stepDel, Key: name}}}) // otherwise it ends by itself
	return err
}

// renewLease renews the lease until ctx ends, and ends it by lost when that is
// no longer possible.
func (s *Store) renewLease(ctx context.Context, name, holder string, every time.Duration, lost context.CancelCauseFunc) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.setLease(ctx, name, holder, holder); err != nil && ctx.Err() == nil {
			lost(fmt.Errorf("%w: %w", errLeaseLost, err))
			return
		}
	}
}

// setLease is errMoved where it is not held by who is said to hold it. It ends
// by the clock of Redis: that of this machine may be wrong.
func (s *Store) setLease(ctx context.Context, name, from, to string) error {
	ctx, cancel := context.WithTimeout(ctx, manageTimeout)
	defer cancel()
	now, err := s.data.now(ctx)
	if err != nil {
		return errors.Join(ErrUnavailable, err)
	}
	return s.commit(ctx, change{
		guards: []guard{{key: name, want: from}},
		steps:  []step{{Kind: stepSet, Key: name, Value: to, Ends: now.Add(leaseLength).Unix()}},
	})
}
