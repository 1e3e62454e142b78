package keystore

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// unfinishedFrom is when parts of a change are tried again first: nothing
	// that was sent before can arrive any more by then.
	unfinishedFrom = 2 * commitTimeout
	// unfinishedUntil is when they are given up.
	unfinishedUntil = time.Hour
	// maxUnfinished bounds how many changes are kept for that.
	maxUnfinished = 10_000
)

// unfinished are changes of which a part is still to be done, in memory alone: a
// process that ends leaves index entries or audit entries missing, and never a
// key that works and should not.
type unfinished struct {
	mu      sync.Mutex
	changes []*unfinishedChange
}

type unfinishedChange struct {
	parts []change
	since time.Time
}

func (u *unfinished) add(parts []change, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.changes) >= maxUnfinished {
		return false
	}
	u.changes = append(u.changes, &unfinishedChange{parts: parts, since: now})
	return true
}

func (u *unfinished) all() []*unfinishedChange {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*unfinishedChange(nil), u.changes...)
}

func (u *unfinished) remove(done *unfinishedChange) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, c := range u.changes {
		if c == done {
			u.changes = append(u.changes[:i], u.changes[i+1:]...)
			return
		}
	}
}

// finishLater keeps parts of a change that could not be made in time.
func (s *Store) finishLater(parts []change) {
	if !s.unfinished.add(parts, s.o.Now()) {
		s.o.Log.Error("too many changes are unfinished; this one is left half made", zap.Int("parts", len(parts)))
	}
}

// finishChanges completes unfinished changes until ctx ends.
func (s *Store) finishChanges(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, c := range s.unfinished.all() {
			if age := s.o.Now().Sub(c.since); age < unfinishedFrom {
				continue
			} else if age > unfinishedUntil {
				s.o.Log.Error("a change stays half made", zap.Int("parts", len(c.parts)))
				s.unfinished.remove(c)
				continue
			}
			if s.finish(ctx, c) {
				s.unfinished.remove(c)
			}
		}
	}
}

// finish reports whether nothing is left to do. A guard that does not hold ends
// it too: the parts behind it were only to be done if it does.
func (s *Store) finish(ctx context.Context, c *unfinishedChange) bool {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	for len(c.parts) > 0 {
		part := c.parts[0]
		if len(part.steps) > 0 {
			part = part.again()
		}
		err := s.committer.commit(ctx, part)
		if errors.Is(err, errMoved) {
			return true
		}
		if err != nil {
			return false
		}
		c.parts = c.parts[1:]
	}
	return true
}
