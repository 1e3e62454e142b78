package keystore

import (
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/policy"
)

// Outcome is how a management operation ended, in few words.
type Outcome string

// The outcomes of management operations.
const (
	OutcomeDone        Outcome = "done"
	OutcomeRefused     Outcome = "refused" // the caller may not, or not so
	OutcomeNotFound    Outcome = "not_found"
	OutcomeConflict    Outcome = "conflict"
	OutcomeUnavailable Outcome = "unavailable"
)

// Outcomes returns every outcome.
func Outcomes() []Outcome {
	return []Outcome{OutcomeDone, OutcomeRefused, OutcomeNotFound, OutcomeConflict, OutcomeUnavailable}
}

// managed tells how an operation of whatever face of the program ended, and
// returns its error.
func (s *Store) managed(action Action, err error) error {
	if s.o.Managed != nil {
		s.o.Managed(action, outcomeOf(err))
	}
	return err
}

// outcomeOf: what has no name is the store's own trouble, as everywhere.
func outcomeOf(err error) Outcome {
	var excess *policy.Excess
	var refused *RefusedError
	switch {
	case err == nil:
		return OutcomeDone
	case errors.Is(err, ErrUnavailable):
		return OutcomeUnavailable
	case errors.Is(err, ErrNotFound):
		return OutcomeNotFound
	case errors.Is(err, ErrConflict) || errors.Is(err, errMoved):
		return OutcomeConflict
	case errors.As(err, &excess), errors.As(err, &refused), errors.Is(err, ErrUnknownToken), errors.Is(err, ErrKeyInUse),
		errors.Is(err, ErrKeyLimit), errors.Is(err, ErrUserLimit), errors.Is(err, ErrEmailTaken), errors.Is(err, ErrIdentityTaken),
		errors.Is(err, ErrReplaced), errors.Is(err, ErrExpired), errors.Is(err, ErrCallerReplaced), errors.Is(err, ErrNoSession):
		return OutcomeRefused
	}
	return OutcomeUnavailable
}

// Pool is what is known of the connections to Redis. Counts are since the start.
type Pool struct {
	// Idle and InUse are connections that are open now, without that of the
	// subscription.
	Idle, InUse int
	// Hits and Misses are commands that found a free connection, or did not;
	// Timeouts are those that got none in time, Stale the connections that were
	// thrown away.
	Hits, Misses, Timeouts, Stale uint32
	// Waited is the time spent waiting for a free connection.
	Waited time.Duration
}

// Pool returns what is known of the connections, those of lookups and all
// others together; false for an embedded store,
// which has none.
func (s *Store) Pool() (Pool, bool) {
	if s.embedded != nil {
		return Pool{}, false
	}
	if s.lookups == s.client {
		return poolOf(s.client), true
	}
	lookups, others := poolOf(s.lookups), poolOf(s.client)
	return Pool{
		Idle: lookups.Idle + others.Idle, InUse: lookups.InUse + others.InUse,
		Hits: lookups.Hits + others.Hits, Misses: lookups.Misses + others.Misses,
		Timeouts: lookups.Timeouts + others.Timeouts, Stale: lookups.Stale + others.Stale, Waited: lookups.Waited + others.Waited,
	}, true
}

func poolOf(client redis.UniversalClient) Pool {
	p := client.PoolStats()
	return Pool{
		Idle: int(p.IdleConns), InUse: max(0, int(p.TotalConns)-int(p.IdleConns)),
		Hits: p.Hits, Misses: p.Misses, Timeouts: p.Timeouts, Stale: p.StaleConns, Waited: time.Duration(p.WaitDurationNs),
	}
}
