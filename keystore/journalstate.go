package keystore

import (
	"iter"
	"strconv"
)

// cell is the last state of one Redis key: a set value in whole, the steps
// that made each of its fields, or those that added its entries, in order.
type cell struct {
	whole   *step
	fields  map[string]step
	entries []step
}

// add applies steps to what the journal holds.
func (j *journal) add(steps []step) {
	for _, s := range steps {
		switch s.Kind {
		case stepSet, stepReplace:
			j.live[s.Key] = cell{whole: &s}
		case stepDel:
			delete(j.live, s.Key)
		case stepHSet, stepZAdd:
			c := j.live[s.Key]
			if c.fields == nil {
				c.fields = map[string]step{}
				j.live[s.Key] = c
			}
			if _, known := c.fields[s.Field]; !known || s.Kind == stepHSet {
				c.fields[s.Field] = s
			}
		case stepCount:
			j.count(s)
		case stepHDel, stepZRem:
			delete(j.live[s.Key].fields, s.Field)
			if len(j.live[s.Key].fields) == 0 {
				delete(j.live, s.Key)
			}
		case stepXAdd:
			j.live[s.Key] = cell{entries: trimmed(append(j.live[s.Key].entries, s), s)}
		case stepRoom, stepPublish, stepXDel, stepXOnce: // a journaled change is never taken back
		}
	}
}

// count adds up a field that counts, as one step.
func (j *journal) count(s step) {
	c := j.live[s.Key]
	if c.fields == nil {
		c.fields = map[string]step{}
		j.live[s.Key] = c
	}
	if before, known := c.fields[s.Field]; known {
		was, _ := strconv.ParseInt(before.Value, 10, 64)
		more, _ := strconv.ParseInt(s.Value, 10, 64)
		s.Key, s.Field, s.Value = before.Key, before.Field, strconv.FormatInt(was+more, 10)
	}
	c.fields[s.Field] = s
}

// trimmed drops the entries of a stream that its last step does not keep.
func trimmed(entries []step, last step) []step {
	drop := max(0, len(entries)-last.Keep)
	oldest := entrySecond(last) - last.Age
	for drop < len(entries) && entrySecond(entries[drop]) < oldest {
		drop++
	}
	return entries[drop:]
}

// entrySecond is the time in an entry's id, in Unix seconds.
func entrySecond(s step) int64 {
	id, _ := parseEntryID(s.Field)
	return int64(id.millis / 1000) // #nosec G115 -- written by this process, from a clock
}

// gone reports whether what the step made has gone away by that second.
func (s step) gone(unixSeconds int64) bool {
	if s.Kind == stepXAdd {
		return entrySecond(s)+s.Age <= unixSeconds
	}
	return s.Ends != 0 && s.Ends <= unixSeconds
}

// state yields steps that restore what the journal holds, less what has gone
// away by that second, in portions.
func (j *journal) state(unixSeconds int64) iter.Seq[[]step] {
	const portion, portionBytes = 1000, 1 << 20 // far below maxJournalLine, whatever the escapes
	return func(yield func([]step) bool) {
		var steps []step
		size := 0
		emit := func(s step) bool {
			if s.gone(unixSeconds) {
				return true
			}
			steps = append(steps, s)
			size += len(s.Key) + len(s.Field) + len(s.Value)
			if len(steps) < portion && size < portionBytes {
				return true
			}
			full := steps
			steps, size = nil, 0
			return yield(full)
		}
		for _, c := range j.live {
			if c.whole != nil && !emit(*c.whole) {
				return
			}
			for _, s := range c.fields {
				if !emit(s) {
					return
				}
			}
			for _, s := range c.entries {
				if !emit(s) {
					return
				}
			}
		}
		if len(steps) > 0 {
			yield(steps)
		}
	}
}
