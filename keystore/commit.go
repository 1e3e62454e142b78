package keystore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// errMoved: a guard no longer holds. What was read is out of date, and
// nothing was changed.
var errMoved = errors.New("changed in the meantime")

// guard is what must still be true at the moment of a commit: either that key
// holds exactly want ("" for no such key), or, where below is set, that the
// hash at key has fewer fields than that, or, where has is set, that it has
// that field.
type guard struct {
	key   string
	want  string
	below int
	has   string
}

type stepKind string

const (
	stepSet     stepKind = "set"
	stepReplace stepKind = "replace" // of a value that is there; it works while memory is full
	stepDel     stepKind = "del"
	stepHSet    stepKind = "hset"
	stepHDel    stepKind = "hdel"
	stepCount   stepKind = "count"
	stepZAdd    stepKind = "zadd"
	stepZRem    stepKind = "zrem"
	stepXAdd    stepKind = "xadd"
	stepXOnce   stepKind = "xonce" // xadd, unless the entry is there
	stepXDel    stepKind = "xdel"
	stepPublish stepKind = "publish"
	// stepRoom lets the steps behind it write though memory is full. It deletes
	// a key that never is there.
	stepRoom stepKind = "room"
)

// step is one command of a change. A member that a sorted set has keeps its
// score. Field is the hash field, the member of a sorted set, the channel, or
// the id of a stream's entry ("" for the next); Value the value, the score, the
// message, the entry, or how many are added to a field that counts. The key of
// a message is the record that it is about, so that both are sent in one script. Ends is the
// Unix second at which a set value goes away, 0 for never, or a hash that
// counts, in whole. A stream keeps the last Keep entries of the last Age
// seconds before the newest, and goes away that long after it, by the clock
// that made the ids: that of one gateway could be wrong.
type step struct {
	Kind  stepKind `json:"kind"`
	Key   string   `json:"key"`
	Field string   `json:"field,omitempty"`
	Value string   `json:"value,omitempty"`
	Ends  int64    `json:"ends,omitempty"`
	Keep  int      `json:"keep,omitempty"`
	Age   int64    `json:"age,omitempty"`
}

// frees reports whether the step takes something away, and needs no memory.
func (s step) frees() bool {
	switch s.Kind {
	case stepDel, stepHDel, stepZRem, stepReplace:
		return true
	case stepRoom, stepSet, stepHSet, stepCount, stepZAdd, stepXAdd, stepXOnce, stepXDel, stepPublish:
	}
	return false
}

// sets reports whether the step gives its key a value.
func (s step) sets() bool { return s.Kind == stepSet || s.Kind == stepReplace }

// change is a set of steps that is committed if all guards hold. The steps are
// in the order in which stores that cannot do them as one write them: a crash
// between any two of them is harmless.
type change struct {
	guards []guard
	steps  []step
	// event says in the audit trail what was done. Store.commit makes it the
	// first step: there is no change without it.
	event *storedEvent
	// narrows is set of a change after which its subject opens nothing: it is
	// made whenever it can be.
	narrows bool
	// redo is set of a change that is being done again.
	redo bool
}

// takesAway reports whether the change may end a right: it removes or overwrites
// something.
func (c change) takesAway() bool { return slices.ContainsFunc(c.steps, step.frees) }

// onlyRemoves reports whether the change gives nothing to anybody.
func (c change) onlyRemoves() bool {
	return !slices.ContainsFunc(c.steps, func(s step) bool {
		return !s.frees() && s.Kind != stepPublish && s.Kind != stepRoom && s.Kind != stepXAdd && s.Kind != stepXOnce || s.Kind == stepReplace
	})
}

// writes reports whether the change does more than to publish.
func (c change) writes() bool {
	return slices.ContainsFunc(c.steps, func(s step) bool { return s.Kind != stepPublish })
}

// publishes reports whether other nodes are told of the change.
func (c change) publishes() bool {
	return slices.ContainsFunc(c.steps, func(s step) bool { return s.Kind == stepPublish })
}

// replacing makes the steps that overwrite what a guard says is there such that
// they work while memory is full.
func (c change) replacing() []step {
	steps := slices.Clone(c.steps)
	for i, s := range steps {
		if s.Kind == stepSet && slices.ContainsFunc(c.guards, func(g guard) bool { return g.key == s.Key && g.want != "" }) {
			steps[i].Kind = stepReplace
		}
	}
	return steps
}

// committer commits changes. It returns errMoved or ErrKeyLimit when a guard
// does not hold, in which case nothing has changed, and an error that wraps
// ErrUncertain when it is not known, or only half carried out.
type committer interface {
	commit(ctx context.Context, c change) error
}

// commitTimeout bounds a commit. It is not the caller's: one that hangs up must
// not leave half a change.
const commitTimeout = 5 * time.Second

// commit commits a change, and invalidates what it changes before it returns:
// after an acknowledged change this node answers with nothing older. It
// invalidates also when the outcome is not known.
func (s *Store) commit(ctx context.Context, c change) error {
	if err := ctx.Err(); err != nil {
		return errors.Join(ErrUnavailable, err)
	}
	if err := s.mayCommit(c); err != nil {
		return err
	}
	c.steps = c.replacing()
	asRemoved(c.steps)
	if err := s.addEvent(&c); err != nil {
		return err
	}
	ctx, cancel := s.commitContext(ctx)
	defer cancel()
	err := s.committer.commit(ctx, c)
	for _, st := range c.steps {
		if st.Kind == stepPublish {
			s.invalidate(st.Value)
		}
	}
	switch {
	case err == nil && c.event != nil:
		s.logEvent(&c.event.event, nil)
		return nil
	case err == nil || errors.Is(err, errMoved) || errors.Is(err, ErrKeyLimit):
		return err
	}
	return errors.Join(ErrUnavailable, err)
}

// commitContext is that of a commit: not the caller's, except for a file. There a
// change that was begun is made also when its caller goes away, and a
// disk that takes long is waited for.
func (s *Store) commitContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.embedded != nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
}

// mayCommit refuses changes to a store that has lost some, unless they only
// take something away: what is missing must be found first.
func (s *Store) mayCommit(c change) error {
	if c.event == nil || c.redo || c.narrows || c.onlyRemoves() {
		return nil
	}
	if s.rollback.found() {
		return errors.Join(ErrUnavailable, ErrOlder)
	}
	return s.health.writable()
}

// addEvent makes the event the first step. What takes a right away must not
// wait for memory: its event is written also while that is full.
func (s *Store) addEvent(c *change) error {
	if c.event == nil {
		return nil
	}
	add, err := s.note(s.names.audit(c.event.event.Account), c.event)
	if err != nil {
		return err
	}
	steps := []step{add}
	if c.takesAway() {
		steps = []step{{Kind: stepRoom, Key: s.names.room(c.event.event.Account)}, add}
	}
	c.steps = append(steps, c.steps...)
	return nil
}

// slotTag is what Redis Cluster hashes of a key: what stands in its first
// braces, or all of it.
func slotTag(key string) string {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}
