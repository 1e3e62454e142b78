package keystore

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"
)

const (
	// recentFor is for how long after a change a failover may take it away: a
	// replica that is further behind is not promoted, or is noticed otherwise.
	recentFor = 5 * time.Minute
	// trailPortion is how many entries of a trail are read at once, and maxTrail
	// in all.
	trailPortion = 500
	maxTrail     = 20 * trailPortion
)

// compareTrails looks for the latest changes of this node in the audit trails.
// The marker alone does not tell that they are missing where other changes have
// been counted in their place since: a master that took over without them takes
// those of others at once.
//
// Only what is missing behind something that is there counts: a trail loses its
// oldest entries with time, and all of them when it ends.
func (s *Store) compareTrails(ctx context.Context) {
	since := s.o.Now().Add(-min(recentFor, s.o.Audit.Age/2))
	for stream, changes := range s.rollback.recent(since) {
		there, older, err := s.eventsSince(ctx, stream, changes[0].at)
		if err != nil || ctx.Err() != nil {
			return // it is compared again after the next connection
		}
		missing, first := 0, uint64(0)
		for _, c := range changes {
			switch _, event := c.entry(); {
			case there[event]:
				older = true
			case older:
				if missing++; missing == 1 || c.position < first {
					first = c.position
				}
			}
		}
		if missing == 0 {
			continue
		}
		s.o.Log.Error("changes of this node are missing from the audit trail, though others have been made since: the store came back older",
			zap.Int("changes", missing))
		s.rollback.begin(changes[0].slot, first-1)
		s.keys.unverify()
		s.accounts.unverify()
		s.changed(Change{})
	}
}

// eventsSince returns the entries of a trail that were made since then, and
// whether there are older ones. All times are those of the gateways that made
// them: the clock of Redis, which gives entries their ids, may be another.
func (s *Store) eventsSince(ctx context.Context, stream string, since time.Time) (there map[string]bool, older bool, err error) {
	there = map[string]bool{}
	for from := "+"; len(there) < maxTrail; {
		entries, err := s.data.entries(ctx, stream, from, trailPortion)
		if err != nil {
			return nil, false, err
		}
		for _, e := range entries {
			there[e.event] = true
			from = "(" + e.id
			if event, err := decodeEvent(e.event); err == nil && event.event.At.Before(since.Add(-clockSlack)) {
				return there, true, nil
			}
		}
		if len(entries) < trailPortion {
			return there, false, nil
		}
	}
	return there, false, nil
}

// clockSlack is how far the clocks of gateways may differ.
const clockSlack = time.Minute

// entry is the trail of the change, and what it adds to it; "" for none.
func (c *ownChange) entry() (trail, event string) {
	for _, s := range c.change.steps {
		if s.Kind == stepXAdd || s.Kind == stepXOnce {
			return s.Key, s.Value
		}
	}
	return "", ""
}

// recent are the changes of this node since then that should be in their audit
// trails, by trail, the oldest first.
func (r *rollback) recent(since time.Time) map[string][]*ownChange {
	r.mu.Lock()
	defer r.mu.Unlock()
	recent := map[string][]*ownChange{}
	for _, c := range slices.Backward(r.own) {
		if c.at.Before(since) {
			break
		}
		if c.done || r.isLost(c.slot, c.position, c.era) {
			continue
		}
		if trail, _ := c.entry(); trail != "" {
			recent[trail] = append(recent[trail], c)
		}
	}
	for _, changes := range recent {
		slices.Reverse(changes)
	}
	return recent
}
