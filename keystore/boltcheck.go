package keystore

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"
)

// check reads all that the file holds, and returns an error for anything that is
// not as it was written: that a name is not there must mean that it was never
// there, or was removed. checkPages comes before it.
func (e *embedded) check() (err error) {
	defer recovered(&err)()
	return e.db.View(func(tx *bbolt.Tx) error {
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

// check looks at every checksum, finds every key as a lookup would, and counts
// what heads say they count.
func (b boltBucket) check() error {
	headed := string(b.name) == string(hashesBucket) || string(b.name) == string(streamsBucket)
	var parts partCounter
	var last []byte
	err := b.under(nil, nil, func(key, stored []byte) (bool, error) {
		if _, _, err := unsealed(b.name, key, stored); err != nil {
			return false, err
		}
		if found := b.b.Get(key); last != nil && bytes.Compare(last, key) >= 0 || !bytes.Equal(found, stored) {
			return false, fmt.Errorf("%w: %q in %s is not in its place", errDamaged, key, b.name)
		}
		last = key
		if !headed {
			return true, nil
		}
		return true, parts.add(b, key)
	})
	if err != nil {
		return err
	}
	return parts.whole(b)
}

// partCounter counts the parts of one hash or stream after the other.
type partCounter struct {
	name          []byte // with the zero byte behind it
	said, counted uint64
}

func (c *partCounter) add(b boltBucket, key []byte) error {
	if c.name != nil && bytes.HasPrefix(key, c.name) {
		c.counted++
		return nil
	}
	if err := c.whole(b); err != nil {
		return err
	}
	if bytes.IndexByte(key, 0) != len(key)-1 {
		return fmt.Errorf("%w: %q in %s has no head", errDamaged, key, b.name)
	}
	h, err := b.head(string(key[:len(key)-1]))
	c.name, c.said, c.counted = key, h.count, 0
	return err
}

func (c *partCounter) whole(b boltBucket) error {
	if c.said != c.counted {
		return fmt.Errorf("%w: %q in %s has %d parts, and %d are there", errDamaged, c.name, b.name, c.said, c.counted)
	}
	return nil
}
