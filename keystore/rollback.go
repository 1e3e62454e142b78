package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// redoFor is for how long a node remembers what it committed.
	redoFor = time.Hour
	// maxRedo and maxRedoBytes bound how much of it; the oldest goes first.
	maxRedo      = 20_000
	maxRedoBytes = 32 << 20
	// redoTries is how often a change is made again while others must come
	// first, redoPause apart.
	redoTries = 30
	redoPause = time.Second
)

// rollback knows what was committed lately, and notices when the store has lost
// some of it: at a failover, or because it was restored from an older copy. A
// node makes its own changes again then. Until an operator accepts the store,
// records that are older than what the node knows of them open nothing.
type rollback struct {
	lost atomic.Bool // the store is older, and not accepted

	mu     sync.Mutex
	floors map[int]floor // where slots were found that have lost something
	// generation is the one in which it was found.
	generation uint64
	latest     map[string]*mark // by record name
	own        []*ownChange     // the oldest first
	bytes      int
	// wake is sent to when there may be something to do again.
	wake chan struct{}
}

// floor is the lowest position that a slot was found at, and in how many eras: a
// slot begins another one each time that it is found to be older.
type floor struct {
	position uint64
	era      uint64
}

// mark is the newest that is known of a record.
type mark struct {
	slot     int
	position uint64
	era      uint64
	at       time.Time
	// own: value is what this node made of it, "" for nothing.
	own   bool
	value string
	gone  bool
}

// ownChange is a change that this node made, or a part of one.
type ownChange struct {
	change   change
	slot     int
	position uint64
	era      uint64
	at       time.Time
	size     int
	done     bool // again, or it need not be
}

func newRollback() *rollback {
	return &rollback{floors: map[int]floor{}, latest: map[string]*mark{}, wake: make(chan struct{}, 1)}
}

func (r *rollback) found() bool { return r.lost.Load() }

// landed notes a change that this node has made.
func (r *rollback) landed(c change, slot int, position uint64, now time.Time) {
	if c.counted() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	own := &ownChange{change: c, slot: slot, position: position, era: r.floors[slot].era, at: now}
	for _, s := range c.steps {
		own.size += len(s.Key) + len(s.Field) + len(s.Value) + 64
		if s.sets() || s.Kind == stepDel {
			m := &mark{slot: slot, position: position, era: r.floors[slot].era, at: now, own: true, gone: s.Kind == stepDel}
			if s.sets() {
				m.value = s.Value
			}
			r.latest[s.Key] = m
		}
	}
	r.own = append(r.own, own)
	r.bytes += own.size
	r.drop(now)
}

// counted reports whether the change only counts, or says what was refused:
// nothing of it is acknowledged to anybody.
func (c change) counted() bool {
	return !slices.ContainsFunc(c.steps, func(s step) bool {
		return s.sets() || s.Kind == stepDel || s.Kind == stepHSet || s.Kind == stepHDel
	}) || slices.ContainsFunc(c.steps, func(s step) bool { return s.Kind == stepCount })
}

// heard notes that another node has changed a record, or removed it.
func (r *rollback) heard(name string, slot int, position uint64, gone bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.latest[name]; known != nil && known.era == r.floors[slot].era && known.position >= position {
		return
	}
	r.latest[name] = &mark{slot: slot, position: position, era: r.floors[slot].era, at: now, gone: gone}
	r.drop(now)
}

// drop forgets what is too old or too much. It is called with the lock held.
func (r *rollback) drop(now time.Time) {
	oldest := now.Add(-redoFor)
	for len(r.own) > 0 && (r.own[0].at.Before(oldest) || len(r.own) > maxRedo || r.bytes > maxRedoBytes) {
		r.bytes -= r.own[0].size
		r.own[0] = nil
		r.own = r.own[1:]
	}
	if len(r.latest) <= 10*maxRedo && (len(r.latest) < 1000 || len(r.latest)%1000 != 0) {
		return // looking at all of them is not worth it each time
	}
	for name, m := range r.latest {
		if m.at.Before(oldest) || len(r.latest) > 10*maxRedo {
			delete(r.latest, name)
		}
	}
}

// begin notes that a slot was found at a lower position than before, and
// reports whether it is the first of the store.
func (r *rollback) begin(slot int, position uint64) (first bool) {
	r.mu.Lock()
	f, known := r.floors[slot]
	if !known || position < f.position {
		f.position = position
	}
	f.era++
	r.floors[slot] = f
	r.generation = position >> countBits
	first = r.lost.CompareAndSwap(false, true)
	r.mu.Unlock()
	r.poke()
	return first
}

// accepted notes the generation of a marker: an operator who accepts the store
// begins a new one.
func (r *rollback) accepted(generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost.Load() && generation > r.generation {
		r.floors, r.latest, r.own, r.bytes = map[int]floor{}, map[string]*mark{}, nil, 0
		r.lost.Store(false)
	}
}

// judge returns nil when the record, which was read when its slot was at that
// position, may be what it says, for all that this node knows of it. A reading
// that began before a lost change was made again, and ends after it, has seen the
// record without it.
func (r *rollback) judge(name, raw string, position uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.latest[name]
	if m == nil {
		return nil
	}
	before := m.era == r.floors[m.slot].era && position < m.position
	if !before && !r.isLost(m.slot, m.position, m.era) {
		return nil
	}
	switch {
	case m.gone:
		return ErrUnknownToken
	case m.own && m.value == raw:
		return nil
	}
	return fmt.Errorf("%w: %w: this record was changed since", ErrUnavailable, ErrOlder)
}

// knowsRemoved reports whether the record was removed for all that this node
// knows: that it is not there is no loss.
func (r *rollback) knowsRemoved(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.latest[name]
	return m != nil && m.gone
}

// isLost reports whether the store no longer has what was committed there.
func (r *rollback) isLost(slot int, position, era uint64) bool {
	f, older := r.floors[slot]
	return older && era < f.era && position > f.position
}

func (r *rollback) poke() {
	select {
	case r.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// toRedo are changes of this node that the store has lost, the oldest first.
func (r *rollback) toRedo() []*ownChange {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lost []*ownChange
	for _, c := range r.own {
		if !c.done && r.isLost(c.slot, c.position, c.era) {
			lost = append(lost, c)
		}
	}
	return lost
}

// slots are those in which this node has changed something lately.
func (r *rollback) slots() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	var slots []int
	for _, c := range r.own {
		if !slices.Contains(slots, c.slot) {
			slots = append(slots, c.slot)
		}
	}
	return slots
}

// removals are the changes of this node that removed records with the prefix,
// less all else that they did.
func (r *rollback) removals(prefix string) map[string]change {
	r.mu.Lock()
	defer r.mu.Unlock()
	removals := map[string]change{}
	for _, c := range r.own {
		var only change
		name := ""
		for _, s := range c.change.steps {
			if s.Kind == stepDel && strings.HasPrefix(s.Key, prefix) {
				name = s.Key
			}
			if s.frees() && s.Kind != stepReplace || s.Kind == stepPublish {
				only.steps = append(only.steps, s)
			}
		}
		if name != "" {
			removals[name] = only
		}
	}
	return removals
}

// redo makes lost changes again whenever there are some, until ctx ends.
func (s *Store) redo(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.rollback.wake:
		}
		s.compareSlots(ctx)
		s.compareTrails(ctx)
		s.redoRemovals(ctx)
		for range redoTries {
			lost := s.rollback.toRedo()
			if len(lost) == 0 || ctx.Err() != nil {
				break
			}
			if left := s.redoAll(ctx, lost); left == 0 {
				s.o.Log.Warn("the changes that this node had made were made again", zap.Int("changes", len(lost)))
				break
			}
			pause := time.NewTimer(redoPause)
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
		}
		if left := len(s.rollback.toRedo()); left > 0 && ctx.Err() == nil {
			s.o.Log.Error("changes of this node could not be made again: what they were about has changed otherwise, and answers 503",
				zap.Int("changes", left))
		}
	}
}

// compareSlots reads the markers of the slots in which this node has changed
// something, and so finds all that have lost it.
func (s *Store) compareSlots(ctx context.Context) {
	for _, slot := range s.rollback.slots() {
		v, err := s.reader.get(ctx, s.markers.name(slot))
		if err != nil || ctx.Err() != nil {
			return // what cannot be read is compared at the next reading
		}
		_ = s.trustMarker(v) // it notes what it finds
	}
}

// redoAll returns how many changes are left to be made again.
func (s *Store) redoAll(ctx context.Context, lost []*ownChange) (left int) {
	for _, c := range lost {
		err := s.commit(ctx, s.redone(c.change))
		if errors.Is(err, errMoved) && s.isThere(ctx, c.change) {
			err = nil
		}
		if err != nil {
			left++
			continue
		}
		s.rollback.mu.Lock()
		c.done = true
		s.rollback.mu.Unlock()
	}
	return left
}

// redone is the change as it is made again: on what it was made on at first.
// Removing is always right, as no token comes twice.
func (s *Store) redone(c change) change {
	again := change{redo: true}
	for _, st := range c.again().steps {
		if st.sets() {
			before := guard{key: st.Key}
			for _, g := range c.guards {
				if g.key == st.Key {
					before.want = g.want
				}
			}
			again.guards = append(again.guards, before)
		}
		if st.Kind == stepPublish {
			st.Value = s.dated(st.Value)
		}
		again.steps = append(again.steps, st)
	}
	return again
}

// isThere reports whether the store holds what the change gave its records.
func (s *Store) isThere(ctx context.Context, c change) bool {
	for _, st := range c.steps {
		if !st.sets() && st.Kind != stepDel {
			continue
		}
		want := st.Value
		if st.Kind == stepDel {
			want = ""
		}
		if err := s.committer.commit(ctx, change{guards: []guard{{key: st.Key, want: want}}}); err != nil {
			return false
		}
	}
	return true
}

// redoRemovals removes again the keys that this node removed within the last
// hour and that are there all the same, whatever the markers say: other changes
// may have been counted since. No token comes twice.
func (s *Store) redoRemovals(ctx context.Context) {
	for name, removal := range s.rollback.removals(s.names.key("")) {
		v, err := s.reader.get(ctx, name)
		if err != nil || ctx.Err() != nil {
			return // it is tried again after the next connection
		}
		if !v.found {
			continue
		}
		if err := s.commit(ctx, s.redone(removal)); err != nil {
			s.o.Log.Error("a key that this node had deleted is there again, and could not be deleted", zap.Error(err))
			continue
		}
		s.o.Log.Warn("a key that this node had deleted was there again, and is deleted")
	}
}

func errField(slot int, position uint64) []zap.Field {
	return []zap.Field{zap.Int("slot", slot), zap.Uint64("generation", position>>countBits), zap.Uint64("changes", position&(1<<countBits-1))}
}
