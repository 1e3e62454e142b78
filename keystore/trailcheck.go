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
func (s *Store) compareTrails(ctx context.Context) {
	since := s.o.Now().Add(-recentFor)
	for stream, changes := range s.rollback.recent(since) {
		there, whole, err := s.eventsSince(ctx, stream, changes[0].at)
		if err != nil || ctx.Err() != nil {
			return // it is compared again after the next connection
		}
		if !whole || len(there) == 0 {
			continue // it was trimmed since, or the account is gone
		}
		missing := slices.DeleteFunc(changes, func(c *ownChange) bool { return there[c.event()] })
		if len(missing) == 0 {
			continue
		}
		s.o.Log.Error("changes of this node are missing from the audit trail, though others have been made since: the store came back older",
			zap.Int("changes", len(missing)))
		s.rollback.begin(missing[0].slot, missing[0].position-1)
		s.keys.unverify()
		s.accounts.unverify()
		s.changed(Change{})
	}
}

// eventsSince returns the entries of a trail that were made since then, and
// reports whether none of them was trimmed.
func (s *Store) eventsSince(ctx context.Context, stream string, since time.Time) (there map[string]bool, whole bool, err error) {
	there = map[string]bool{}
	for from := "+"; len(there) < maxTrail; {
		entries, err := s.data.entries(ctx, stream, from, trailPortion)
		if err != nil {
			return nil, false, err
		}
		for _, e := range entries {
			there[e.event] = true
			from = "(" + e.id
			id, ok := parseEntryID(e.id)
			if ok && id.millis < uint64(since.Add(-clockSlack).UnixMilli()) { // #nosec G115 -- a time of this century
				return there, true, nil
			}
		}
		if len(entries) < trailPortion {
			return there, len(there) < s.o.Audit.Events, nil
		}
	}
	return there, false, nil
}

// clockSlack is how far the clock of Redis, which dates entries, may differ from
// that of this node.
const clockSlack = 30 * time.Second

// event is the entry of the change in the audit trail, "" for none.
func (c *ownChange) event() string {
	i := slices.IndexFunc(c.change.steps, func(s step) bool { return s.Kind == stepXAdd || s.Kind == stepXOnce })
	if i < 0 {
		return ""
	}
	return c.change.steps[i].Value
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
		for _, s := range c.change.steps {
			if s.Kind == stepXAdd || s.Kind == stepXOnce {
				recent[s.Key] = append(recent[s.Key], c)
				break
			}
		}
	}
	for _, changes := range recent {
		slices.Reverse(changes)
	}
	return recent
}
