package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// clusterCommitter commits on a Redis Cluster, where no script can span slots.
// A change is cut into parts of one slot each, in the order of its steps. Guards
// of other slots are read first, and each part holds those of its own. When a
// guard fails, what the parts before it added is taken back. From the first part
// on that overwrote or removed something there is no way back: what follows is
// done, and tried again until it is.
type clusterCommitter struct {
	one *scriptCommitter
	// later takes over parts that could not be done in time.
	later func(parts []change)
}

// retryPause is how long to wait between two tries of a part.
const retryPause = 50 * time.Millisecond

func (cc *clusterCommitter) commit(ctx context.Context, c change) error {
	parts := c.parts()
	if len(parts) < 2 && c.inOneSlot() {
		return cc.one.commit(ctx, c)
	}
	for _, g := range c.guards {
		if err := cc.one.commit(ctx, change{guards: []guard{g}}); err != nil {
			return err
		}
	}
	for i, part := range parts {
		err := cc.one.commit(ctx, part)
		if err == nil {
			continue
		}
		if irreversible(parts[:i]) {
			return cc.rollForward(ctx, parts[i:])
		}
		return cc.giveUp(ctx, parts, i, err)
	}
	return nil
}

// giveUp takes back what the parts before the one that failed have added, once
// it is certain that the one did not happen.
func (cc *clusterCommitter) giveUp(ctx context.Context, parts []change, failed int, err error) error {
	part := parts[failed]
	if errors.Is(err, ErrUncertain) {
		switch applied, asked := cc.applied(ctx, part); {
		case asked != nil:
			return err
		case applied:
			return cc.rollForward(ctx, parts[failed+1:])
		}
		// It may still be on its way: what it would leave half done is taken
		// back once it cannot arrive any more.
		if back := undoOf(parts[:failed]); len(back) > 0 && len(part.untouched()) > 0 {
			cc.later(append([]change{{guards: part.untouched()}}, back...))
		}
		return err
	}
	for _, back := range undoOf(parts[:failed]) {
		if undoErr := cc.one.commit(ctx, back); undoErr != nil {
			cc.later([]change{back})
			return fmt.Errorf("%w: a change was given up, and not taken back: %w", ErrUncertain, undoErr)
		}
	}
	return err
}

// rollForward does what is left of a change that cannot be taken back. It
// returns an error that wraps ErrUncertain when that took too long, and has it
// done later.
func (cc *clusterCommitter) rollForward(ctx context.Context, parts []change) error {
	for i, part := range parts {
		part = part.again()
		for {
			err := cc.one.commit(ctx, part)
			if err == nil {
				break
			}
			pause := time.NewTimer(retryPause)
			select {
			case <-ctx.Done():
				pause.Stop()
				cc.later(parts[i:])
				return fmt.Errorf("%w: a change is half made, and will be completed: %w", ErrUncertain, err)
			case <-pause.C:
			}
		}
	}
	return nil
}

// applied reports whether what the part gives its values is there.
func (cc *clusterCommitter) applied(ctx context.Context, part change) (bool, error) {
	for _, s := range part.steps {
		if !s.sets() && s.Kind != stepDel {
			continue
		}
		want := s.Value
		if s.Kind == stepDel {
			want = ""
		}
		err := cc.one.commit(ctx, change{guards: []guard{{key: s.Key, want: want}}})
		if errors.Is(err, errMoved) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// untouched are guards that hold if the part has given its values to nothing.
func (c change) untouched() []guard {
	var absent []guard
	for _, s := range c.steps {
		if s.Kind == stepSet {
			absent = append(absent, guard{key: s.Key})
		}
	}
	return absent
}

// again is the change as it is repeated: without what its own first try would
// have it fail for, and without a second entry in the audit trail.
func (c change) again() change {
	c.guards, c.redo = nil, true
	c.steps = slices.Clone(c.steps)
	for i, s := range c.steps {
		if s.Kind == stepXAdd {
			c.steps[i].Kind = stepXOnce
		}
	}
	return c
}

// inOneSlot reports whether all of the change is of one slot for certain.
func (c change) inOneSlot() bool {
	tags := map[string]bool{}
	for _, g := range c.guards {
		tags[slotTag(g.key)] = true
	}
	for _, s := range c.steps {
		tags[slotTag(s.Key)] = true
	}
	return len(tags) == 1
}

// parts cuts the change into parts of one slot, each with the guards of that
// slot. A message goes with the part that makes it true.
func (c change) parts() []change {
	var parts []change
	for _, s := range c.steps {
		at := len(parts) - 1
		if s.Kind == stepPublish {
			for i := range parts {
				if slotTag(parts[i].steps[0].Key) == slotTag(s.Key) {
					at = i
				}
			}
		}
		if at < 0 || slotTag(parts[at].steps[0].Key) != slotTag(s.Key) {
			parts, at = append(parts, change{redo: c.redo}), len(parts)
		}
		parts[at].steps = append(parts[at].steps, s)
	}
	for i := range parts {
		for _, g := range c.guards {
			if slotTag(g.key) == slotTag(parts[i].steps[0].Key) && !settled(g, parts[:i]) {
				parts[i].guards = append(parts[i].guards, g)
			}
		}
	}
	return parts
}

// settled reports whether the guard is not to be asked any more behind the
// parts: they have written what it looks at, or cannot be taken back.
func settled(g guard, before []change) bool {
	return irreversible(before) || slices.ContainsFunc(before, func(part change) bool {
		return slices.ContainsFunc(part.steps, func(s step) bool { return s.Key == g.key })
	})
}

// irreversible reports whether one of the parts overwrites or removes something.
func irreversible(parts []change) bool {
	return slices.ContainsFunc(parts, func(part change) bool { return slices.ContainsFunc(part.steps, step.frees) })
}

// undoOf takes back, last first, what the parts added.
func undoOf(parts []change) []change {
	var undo []change
	for _, part := range slices.Backward(parts) {
		var back change
		for _, s := range slices.Backward(part.steps) {
			switch s.Kind {
			case stepSet:
				back.steps = append(back.steps, step{Kind: stepDel, Key: s.Key})
			case stepHSet:
				back.steps = append(back.steps, step{Kind: stepHDel, Key: s.Key, Field: s.Field})
			case stepXAdd, stepXOnce:
				back.steps = append(back.steps, step{Kind: stepXDel, Key: s.Key, Value: s.Value})
			case stepCount: // only ever in one slot
			case stepZAdd, stepDel, stepReplace, stepHDel, stepZRem, stepXDel, stepPublish, stepRoom:
			}
		}
		if len(back.steps) > 0 {
			undo = append(undo, back)
		}
	}
	return undo
}
