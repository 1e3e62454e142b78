package keystore

import (
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
