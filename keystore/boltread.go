package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// view reads the file as it is at one moment. A page that cannot be read, or that
// bbolt makes no sense of, is an error of this reading alone.
func (e *embedded) view(ctx context.Context, read func(tx *bbolt.Tx, now int64) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer recovered(&err)()
	return e.db.View(func(tx *bbolt.Tx) error { return read(tx, e.unix()) })
}

// recovered makes a panic an error: bbolt panics over pages that are damaged, and
// a page of the mapped file that the disk does not give is a fault.
func recovered(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			*err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}
}

// in reads one bucket.
func (e *embedded) in(ctx context.Context, bucket []byte, read func(boltBucket) error) error {
	return e.view(ctx, func(tx *bbolt.Tx, now int64) error {
		b, err := bucketIn(tx, bucket, now)
		if err != nil {
			return err
		}
		return read(b)
	})
}

// get is the read of the hot path.
func (e *embedded) get(ctx context.Context, name string) (v value, err error) {
	err = e.in(ctx, valuesBucket, func(b boltBucket) error {
		v, err = e.valueIn(b, name)
		return err
	})
	return v, err
}

func (e *embedded) many(ctx context.Context, names []string) ([]value, error) {
	values := make([]value, len(names))
	err := e.in(ctx, valuesBucket, func(b boltBucket) (err error) {
		for i, name := range names {
			if values[i], err = e.valueIn(b, name); err != nil {
				return err
			}
		}
		return nil
	})
	return values, err
}

func (e *embedded) valueIn(b boltBucket, name string) (value, error) {
	raw, _, found, err := b.get([]byte(name))
	if err != nil {
		return value{}, err
	}
	v := value{found: found}
	if found {
		v.raw = string(raw)
	}
	marker, _, _, err := b.get([]byte(e.marker))
	v.marker = string(marker)
	return v, err
}

func (e *embedded) now(context.Context) (time.Time, error) { return e.clock(), nil }

func (e *embedded) fields(ctx context.Context, hash string, names ...string) ([]string, error) {
	values := make([]string, len(names))
	err := e.in(ctx, hashesBucket, func(b boltBucket) error {
		if h, err := b.head(hash); err != nil || h.count == 0 {
			return err
		}
		for i, name := range names {
			if name == "" {
				continue // no field has that name: it would be the head
			}
			raw, _, _, err := b.get(within(hash, name))
			if err != nil {
				return err
			}
			values[i] = string(raw)
		}
		return nil
	})
	return values, err
}

func (e *embedded) scan(ctx context.Context, hash string, each func(field, value string) error) error {
	for from := ""; ; {
		portion, err := e.fieldsFrom(ctx, hash, from, scanPortion)
		if err != nil {
			return err
		}
		for _, f := range portion {
			if err := each(f.field, f.value); err != nil {
				return err
			}
		}
		if len(portion) < scanPortion {
			return nil
		}
		from = portion[len(portion)-1].field + "\x00"
	}
}

func (e *embedded) some(ctx context.Context, hash string, n int) ([]hashField, error) {
	return e.fieldsFrom(ctx, hash, "", n)
}

// fieldsFrom returns up to n fields, in order, from that field on.
func (e *embedded) fieldsFrom(ctx context.Context, hash, from string, n int) (found []hashField, err error) {
	err = e.in(ctx, hashesBucket, func(b boltBucket) error {
		return b.fields(hash, from, func(field, value string) bool {
			found = append(found, hashField{field, value})
			return len(found) < n
		})
	})
	return found, err
}

// fields yields the fields of a hash from that field on.
func (b boltBucket) fields(hash, from string, each func(field, value string) bool) error {
	if h, err := b.head(hash); err != nil || h.count == 0 {
		return err
	}
	prefix := within(hash, "")
	return b.under(prefix, within(hash, from), func(key, stored []byte) (bool, error) {
		if len(key) == len(prefix) {
			return true, nil // the head
		}
		raw, _, err := unsealed(b.name, key, stored)
		if err != nil {
			return false, err
		}
		return each(string(key[len(prefix):]), string(raw)), nil
	})
}

func (e *embedded) hashes(ctx context.Context, names []string) ([]map[string]string, error) {
	all := make([]map[string]string, len(names))
	err := e.in(ctx, hashesBucket, func(b boltBucket) error {
		for i, name := range names {
			all[i] = map[string]string{}
			err := b.fields(name, "", func(field, value string) bool {
				all[i][field] = value
				return true
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

func (e *embedded) lengths(ctx context.Context, names []string) ([]int, error) {
	lengths := make([]int, len(names))
	err := e.in(ctx, hashesBucket, func(b boltBucket) error {
		for i, name := range names {
			h, err := b.head(name)
			if err != nil {
				return err
			}
			lengths[i] = int(h.count) // #nosec G115 -- far from it
		}
		return nil
	})
	return lengths, err
}

func (e *embedded) exist(ctx context.Context, names []string) ([]bool, error) {
	there := make([]bool, len(names))
	err := e.view(ctx, func(tx *bbolt.Tx, now int64) error {
		for i, name := range names {
			var err error
			if there[i], err = existsIn(tx, name, now); err != nil {
				return err
			}
		}
		return nil
	})
	return there, err
}

func existsIn(tx *bbolt.Tx, name string, now int64) (bool, error) {
	for _, bucket := range [][]byte{hashesBucket, streamsBucket} {
		b, err := bucketIn(tx, bucket, now)
		if err != nil {
			return false, err
		}
		if h, err := b.head(name); err != nil || h.count > 0 {
			return err == nil, err
		}
	}
	values, err := bucketIn(tx, valuesBucket, now)
	if err != nil {
		return false, err
	}
	if _, _, found, err := values.get([]byte(name)); err != nil || found {
		return found, err
	}
	sets, err := bucketIn(tx, setsBucket, now)
	if err != nil {
		return false, err
	}
	prefix := within(name, "")
	key, _ := sets.b.Cursor().Seek(prefix)
	return bytes.HasPrefix(key, prefix), nil
}

func (e *embedded) having(ctx context.Context, hashes []string, field string) ([]bool, error) {
	have := make([]bool, len(hashes))
	err := e.in(ctx, hashesBucket, func(b boltBucket) error {
		for i, hash := range hashes {
			var err error
			if have[i], err = b.has(hash, field); err != nil {
				return err
			}
		}
		return nil
	})
	return have, err
}

func (b boltBucket) has(hash, field string) (bool, error) {
	if h, err := b.head(hash); err != nil || h.count == 0 || field == "" {
		return false, err
	}
	_, _, found, err := b.get(within(hash, field))
	return found, err
}

func (e *embedded) members(ctx context.Context, set string, after *member, n int) (found []member, err error) {
	err = e.in(ctx, setsBucket, func(b boltBucket) error {
		c := b.b.Cursor()
		from := within(set, orderPart+"\xff\xff\xff\xff\xff\xff\xff\xff\xff")
		if after != nil {
			from = orderKey(set, *after)
		}
		for key, stored := previous(c, from); len(found) < n; key, stored = c.Prev() {
			m, ok := parseOrder(set, key)
			if !ok {
				return nil // it is of another set, or none
			}
			if _, _, err := unsealed(b.name, key, stored); err != nil {
				return err
			}
			found = append(found, m)
		}
		return nil
	})
	return found, err
}

// previous moves the cursor to the last key before from.
func previous(c *bbolt.Cursor, from []byte) (key, stored []byte) {
	if key, _ := c.Seek(from); key == nil {
		return c.Last()
	}
	return c.Prev()
}

func (e *embedded) entries(ctx context.Context, stream, from string, n int) (found []streamEntry, err error) {
	prefix := within(stream, "")
	until, err := behindID(stream, from)
	if err != nil {
		return nil, err
	}
	err = e.in(ctx, streamsBucket, func(b boltBucket) error {
		if h, err := b.head(stream); err != nil || h.count == 0 {
			return err
		}
		c := b.b.Cursor()
		for key, stored := previous(c, until); len(found) < n; key, stored = c.Prev() {
			if len(key) <= len(prefix) || !bytes.HasPrefix(key, prefix) {
				return nil
			}
			raw, _, err := unsealed(b.name, key, stored)
			id, ok := parseIDBytes(key[len(prefix):])
			if err != nil || !ok {
				return fmt.Errorf("%w: entry %q: %w", errDamaged, key, err)
			}
			found = append(found, streamEntry{id: id.String(), event: string(raw)})
		}
		return nil
	})
	return found, err
}

// behindID is the first key that is not wanted: behind the id, or the id itself
// where "(" stands before it.
func behindID(stream, from string) ([]byte, error) {
	if from == "+" {
		return within(stream, strings.Repeat("\xff", 17)), nil
	}
	text, excluded := strings.CutPrefix(from, "(")
	id, ok := parseEntryID(text)
	if !ok {
		return nil, fmt.Errorf("%q is no id of an entry", from)
	}
	key := within(stream, idBytes(id))
	if !excluded {
		key = append(key, 0)
	}
	return key, nil
}

func (e *embedded) setIfAbsent(ctx context.Context, name, value string, ttl time.Duration) (bool, error) {
	err := e.commit(ctx, change{
		guards: []guard{{key: name}},
		steps:  []step{{Kind: stepSet, Key: name, Value: value, Ends: e.clock().Add(ttl).Unix()}},
	})
	if errors.Is(err, errMoved) {
		return false, nil
	}
	return err == nil, err
}

func (e *embedded) remove(ctx context.Context, name string) error {
	return e.commit(ctx, change{steps: []step{{Kind: stepDel, Key: name}}})
}
