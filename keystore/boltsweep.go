package keystore

import (
	"bytes"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

const (
	// sweepEvery is how often what has ended is removed. Until then it takes room,
	// and is not there for anybody.
	sweepEvery = time.Hour
	// sweepPortion is how many keys one transaction looks at, and how many it
	// removes: other changes wait meanwhile.
	sweepPortion = 2000
)

// sweep removes what has ended, in portions, of which each is a transaction.
func (e *embedded) sweep() {
	for _, bucket := range [][]byte{valuesBucket, hashesBucket, streamsBucket} {
		for from := []byte(nil); ; {
			gone, next, err := e.endedFrom(bucket, from)
			if err == nil && len(gone) > 0 {
				err = e.removeEnded(bucket, gone)
			}
			if err != nil {
				e.log.Warn("what has ended was not removed from the store", zap.Error(err))
				return
			}
			if from = next; from == nil {
				break
			}
		}
	}
}

// endedFrom returns the keys from a key on that have ended, and where to go on;
// nil at the end. A hash or stream is removed by its head.
func (e *embedded) endedFrom(bucket, from []byte) (gone [][]byte, next []byte, err error) {
	defer recovered(&err)()
	err = e.db.View(func(tx *bbolt.Tx) error {
		b, err := bucketIn(tx, bucket, e.unix())
		if err != nil {
			return err
		}
		looked := 0
		return b.under(nil, from, func(key, stored []byte) (bool, error) {
			if looked++; looked > sweepPortion {
				next = []byte(string(key))
				return false, nil
			}
			_, ends, err := unsealed(bucket, key, stored)
			if err == nil && ended(ends, b.now) {
				gone = append(gone, []byte(string(key)))
			}
			return true, err
		})
	})
	return gone, next, err
}

// removeEnded removes those that have ended still.
func (e *embedded) removeEnded(bucket []byte, keys [][]byte) error {
	return e.write(func(tx *bbolt.Tx) error {
		b, err := bucketIn(tx, bucket, e.unix())
		if err != nil {
			return err
		}
		for _, key := range keys {
			_, ends, _, err := b.get(key)
			if err != nil {
				return err
			}
			if !ended(ends, b.now) {
				continue
			}
			if err := b.removeKey(key); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeKey removes a value; by its head, a whole hash or stream.
func (b boltBucket) removeKey(key []byte) error {
	if string(b.name) == string(valuesBucket) {
		return b.b.Delete(key)
	}
	return b.removeAll(string(key[:len(key)-1]))
}

// check reads all of the file, and returns an error for anything that is not as
// it was written: that a name is not there must mean that it was never there, or
// was removed.
func (e *embedded) check() (err error) {
	defer recovered(&err)()
	return e.db.View(func(tx *bbolt.Tx) error {
		info, err := e.stat()
		if err != nil {
			return err
		}
		if info < tx.Size() {
			return fmt.Errorf("%w: it has %d bytes, and %d belong to it: it was cut", errDamaged, info, tx.Size())
		}
		for err := range tx.Check() {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		about, err := bucketIn(tx, aboutBucket, 0)
		if err != nil {
			return err
		}
		format, _, _, err := about.get(formatKey)
		if err != nil {
			return err
		}
		if string(format) != boltFormat {
			return fmt.Errorf("its format is %q, and only %s is understood", format, boltFormat)
		}
		for _, name := range allBuckets() {
			b, err := bucketIn(tx, name, 0)
			if err != nil {
				return err
			}
			if err := b.check(); err != nil {
				return err
			}
		}
		return nil
	})
}

// check looks at every checksum, and counts what heads say they count.
func (b boltBucket) check() error {
	headed := string(b.name) == string(hashesBucket) || string(b.name) == string(streamsBucket)
	var name []byte
	said, counted := uint64(0), uint64(0)
	whole := func() error {
		if said != counted {
			return fmt.Errorf("%w: %q in %s has %d parts, and %d are there", errDamaged, name, b.name, said, counted)
		}
		return nil
	}
	err := b.under(nil, nil, func(key, stored []byte) (bool, error) {
		if _, _, err := unsealed(b.name, key, stored); err != nil {
			return false, err
		}
		if !headed {
			return true, nil
		}
		if name != nil && hasPrefix(key, name) {
			counted++
			return true, nil
		}
		if err := whole(); err != nil {
			return false, err
		}
		name, counted = []byte(string(key)), 0
		if bytes.IndexByte(key, 0) != len(key)-1 {
			return false, fmt.Errorf("%w: %q in %s has no head", errDamaged, key, b.name)
		}
		h, err := b.head(string(key[:len(key)-1]))
		said = h.count
		return true, err
	})
	if err != nil {
		return err
	}
	return whole()
}
