package keystore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// streamFill is how full pages of entries are left when they are split: entries
// come one behind the other.
const streamFill = 0.9

// applying is a change within its transaction.
type applying struct {
	values, hashes, sets, streams boltBucket
	at                            time.Time
}

// applyChange does what commit.lua does: it checks every guard, and then does
// every step. It returns errMoved or ErrKeyLimit, and has changed nothing, where a
// guard does not hold. After any other error the transaction must not be
// committed.
func applyChange(tx *bbolt.Tx, c change, at time.Time) error {
	a := applying{at: at}
	for name, b := range map[string]*boltBucket{
		string(valuesBucket): &a.values, string(hashesBucket): &a.hashes, string(setsBucket): &a.sets, string(streamsBucket): &a.streams,
	} {
		var err error
		if *b, err = bucketIn(tx, []byte(name), at.Unix()); err != nil {
			return err
		}
	}
	a.streams.b.FillPercent = streamFill
	for _, g := range c.guards {
		holds, err := a.holds(g)
		if err != nil {
			return err
		}
		if !holds {
			return g.err()
		}
	}
	for _, s := range c.steps {
		if s.Key == "" || strings.ContainsRune(s.Key, 0) || s.Field == "" && s.namesPart() {
			return fmt.Errorf("%w: %q %q", errName, s.Key, s.Field)
		}
		if err := a.step(s); err != nil {
			return err
		}
	}
	return nil
}

// namesPart reports whether the step is about a part of what its key holds.
func (s step) namesPart() bool {
	switch s.Kind {
	case stepHSet, stepHDel, stepCount, stepZAdd, stepZRem:
		return true
	case stepSet, stepReplace, stepDel, stepXAdd, stepXOnce, stepXDel, stepPublish, stepRoom:
	}
	return false
}

func (a *applying) holds(g guard) (bool, error) {
	switch {
	case g.below > 0:
		h, err := a.hashes.head(g.key)
		return h.count < uint64(g.below), err // #nosec G115 -- positive
	case g.has != "":
		return a.hashes.has(g.key, g.has)
	}
	raw, _, found, err := a.values.get([]byte(g.key))
	if !found {
		raw = nil
	}
	return string(raw) == g.want, err
}

func (a *applying) step(s step) error {
	switch s.Kind {
	case stepSet, stepReplace:
		if ended(s.Ends, a.at.Unix()) {
			return a.values.b.Delete([]byte(s.Key))
		}
		return a.values.put([]byte(s.Key), s.Ends, s.Value)
	case stepDel:
		return errors.Join(a.values.b.Delete([]byte(s.Key)), a.hashes.removeAll(s.Key), a.sets.removeAll(s.Key), a.streams.removeAll(s.Key))
	case stepHSet:
		return a.setField(s.Key, s.Field, s.Value, 0)
	case stepHDel:
		return a.removeField(s.Key, s.Field)
	case stepCount:
		return a.count(s)
	case stepZAdd:
		return a.addMember(s)
	case stepZRem:
		return a.removeMember(s.Key, s.Field)
	case stepXAdd:
		return a.addEntry(s)
	case stepPublish, stepRoom: // one process knows its own changes, and has a disk
		return nil
	case stepXDel, stepXOnce: // take back and repeat, which a transaction needs not
	}
	return fmt.Errorf("a step %q is not for this store", s.Kind)
}

// setField sets a field, and where ends is given the end of the whole hash.
func (a *applying) setField(hash, field, value string, ends int64) error {
	h, err := a.hashes.begin(hash)
	if err != nil {
		return err
	}
	before := h
	key := within(hash, field)
	if a.hashes.b.Get(key) == nil {
		h.count++
	}
	if ends != 0 {
		h.ends = ends
	}
	if h != before {
		if err := a.hashes.setHead(hash, h); err != nil {
			return err
		}
	}
	return a.hashes.put(key, 0, value)
}

func (a *applying) removeField(hash, field string) error {
	h, err := a.hashes.begin(hash)
	key := within(hash, field)
	if err != nil || a.hashes.b.Get(key) == nil {
		return err
	}
	h.count--
	return errors.Join(a.hashes.b.Delete(key), a.hashes.setHead(hash, h))
}

// count adds to a field that counts. Its hash ends as the step says.
func (a *applying) count(s step) error {
	if ended(s.Ends, a.at.Unix()) {
		return a.hashes.removeAll(s.Key)
	}
	if _, err := a.hashes.begin(s.Key); err != nil {
		return err
	}
	raw, _, found, err := a.hashes.get(within(s.Key, s.Field))
	if err != nil {
		return err
	}
	was := int64(0)
	if found {
		if was, err = strconv.ParseInt(string(raw), 10, 64); err != nil {
			return fmt.Errorf("counter %q of %q: %w", s.Field, s.Key, err)
		}
	}
	more, err := strconv.ParseInt(s.Value, 10, 64)
	if err != nil {
		return fmt.Errorf("counter %q of %q: %w", s.Field, s.Key, err)
	}
	return a.setField(s.Key, s.Field, strconv.FormatInt(was+more, 10), s.Ends)
}

// addMember adds a member that is new. One that is there keeps its score.
func (a *applying) addMember(s step) error {
	key := within(s.Key, memberPart+s.Field)
	if a.sets.b.Get(key) != nil {
		return nil
	}
	score, err := strconv.ParseInt(s.Value, 10, 64)
	if err != nil {
		return fmt.Errorf("score of %q in %q: %w", s.Field, s.Key, err)
	}
	return errors.Join(a.sets.put(key, 0, s.Value), a.sets.put(orderKey(s.Key, member{s.Field, score}), 0, ""))
}

func (a *applying) removeMember(set, name string) error {
	key := within(set, memberPart+name)
	raw, _, found, err := a.sets.get(key)
	if err != nil || !found {
		return err
	}
	score, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return fmt.Errorf("score of %q in %q: %w", name, set, err)
	}
	return errors.Join(a.sets.b.Delete(key), a.sets.b.Delete(orderKey(set, member{name, score})))
}

// addEntry adds an entry to a stream, behind the newest, and drops those that
// the step does not keep.
func (a *applying) addEntry(s step) error {
	h, err := a.streams.begin(s.Key)
	if err != nil {
		return err
	}
	newest, err := a.newest(s.Key)
	if err != nil {
		return err
	}
	id := newest.next(a.at)
	if s.Field != "" { // of a journal, which has given it one
		var ok bool
		if id, ok = parseEntryID(s.Field); !ok || id.compare(newest) <= 0 {
			return fmt.Errorf("%w: entry %q of %q", errDamaged, s.Field, s.Key)
		}
	}
	if err := a.streams.put(within(s.Key, idBytes(id)), 0, s.Value); err != nil {
		return err
	}
	h.count++
	h.ends = a.at.Unix() + s.Age
	dropped, err := a.trim(s, h.count, id)
	if err != nil {
		return err
	}
	h.count -= dropped
	return a.streams.setHead(s.Key, h)
}

// newest is the id of the newest entry, the zero id for none.
func (a *applying) newest(stream string) (entryID, error) {
	key, _ := previous(a.streams.b.Cursor(), within(stream, strings.Repeat("\xff", 17)))
	rest, ok := strings.CutPrefix(string(key), string(within(stream, "")))
	if !ok || rest == "" {
		return entryID{}, nil
	}
	id, ok := parseIDBytes([]byte(rest))
	if !ok {
		return entryID{}, fmt.Errorf("%w: entry %q", errDamaged, key)
	}
	return id, nil
}

// trim drops the oldest entries, and returns how many.
func (a *applying) trim(s step, count uint64, newest entryID) (uint64, error) {
	oldest := entryID{millis: uint64(max(0, int64(newest.millis)-s.Age*1000))} // #nosec G115 -- a time
	prefix := within(s.Key, "")
	var drop [][]byte
	err := a.streams.under(prefix, within(s.Key, "\x00"), func(key, _ []byte) (bool, error) {
		id, ok := parseIDBytes(key[len(prefix):])
		if !ok {
			return false, fmt.Errorf("%w: entry %q", errDamaged, key)
		}
		if count-uint64(len(drop)) <= uint64(s.Keep) && id.compare(oldest) >= 0 { // #nosec G115 -- not negative
			return false, nil
		}
		drop = append(drop, []byte(string(key)))
		return true, nil
	})
	for _, key := range drop {
		if err == nil {
			err = a.streams.b.Delete(key)
		}
	}
	return uint64(len(drop)), err
}
