package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"go.etcd.io/bbolt"
)

// The buckets of an embedded store. Keys begin with the name that the value has
// in the store; where a name holds several values, a zero byte and what tells
// them apart stand behind it, so that those of one name stand together:
//
//	values    name              the value
//	hashes    name 0 field      the value of the field
//	          name 0            how many fields there are; when the hash ends
//	sets      name 0 m member   its score
//	          name 0 s score member   nothing: the order
//	streams   name 0 id         the entry
//	          name 0            how many entries there are; when the stream ends
//	about     format            what this is
//
// Every value is sealed: a CRC32C of bucket, key and what follows, the Unix second
// at which it ends as a varint (0: never), and its bytes. bbolt itself has no
// checksums of its pages.
var (
	valuesBucket  = []byte("values")
	hashesBucket  = []byte("hashes")
	setsBucket    = []byte("sets")
	streamsBucket = []byte("streams")
	aboutBucket   = []byte("about")
	formatKey     = []byte("format")
)

// boltFormat names what the buckets hold, and its version.
const boltFormat = "gatehouse-store-1"

func allBuckets() [][]byte {
	return [][]byte{valuesBucket, hashesBucket, setsBucket, streamsBucket, aboutBucket}
}

// errDamaged: what was read is not what was written.
var errDamaged = errors.New("the file of the store is damaged")

var errName = errors.New("a name is empty, or has a zero byte")

func sumOfValue(bucket, key, rest []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(crc32.Checksum(bucket, table), table, key), table, rest)
}

const checksumBytes = 4

// sealed returns what is stored of a value.
func sealed(bucket, key []byte, ends int64, raw string) []byte {
	b := make([]byte, checksumBytes, checksumBytes+binary.MaxVarintLen64+len(raw))
	b = binary.AppendVarint(b, ends)
	b = append(b, raw...)
	binary.BigEndian.PutUint32(b, sumOfValue(bucket, key, b[checksumBytes:]))
	return b
}

// unsealed returns the bytes of a value, which are good until the end of the
// transaction, and when it ends.
func unsealed(bucket, key, stored []byte) (raw []byte, ends int64, err error) {
	if len(stored) <= checksumBytes || binary.BigEndian.Uint32(stored) != sumOfValue(bucket, key, stored[checksumBytes:]) {
		return nil, 0, fmt.Errorf("%w: the checksum of %q in %s is wrong", errDamaged, key, bucket)
	}
	ends, n := binary.Varint(stored[checksumBytes:])
	if n <= 0 {
		return nil, 0, fmt.Errorf("%w: the end of %q in %s", errDamaged, key, bucket)
	}
	return stored[checksumBytes+n:], ends, nil
}

// bucket is a bucket within a transaction, at a moment.
type boltBucket struct {
	name []byte
	b    *bbolt.Bucket
	now  int64 // Unix seconds
}

func bucketIn(tx *bbolt.Tx, name []byte, now int64) (boltBucket, error) {
	b := tx.Bucket(name)
	if b == nil {
		return boltBucket{}, fmt.Errorf("%w: it has no bucket %s", errDamaged, name)
	}
	return boltBucket{name, b, now}, nil
}

// get returns what the key holds now; found is false for what is not there, or
// has ended.
func (b boltBucket) get(key []byte) (raw []byte, ends int64, found bool, err error) {
	stored := b.b.Get(key)
	if stored == nil {
		return nil, 0, false, nil
	}
	raw, ends, err = unsealed(b.name, key, stored)
	return raw, ends, err == nil && !ended(ends, b.now), err
}

func (b boltBucket) put(key []byte, ends int64, raw string) error {
	return b.b.Put(key, sealed(b.name, key, ends, raw))
}

// under yields the keys that begin with prefix, and what they hold, from a key
// on. What it yields is good until the bucket is changed.
func (b boltBucket) under(prefix, from []byte, each func(key, stored []byte) (goOn bool, err error)) error {
	c := b.b.Cursor()
	for key, stored := c.Seek(from); key != nil && hasPrefix(key, prefix); key, stored = c.Next() {
		if goOn, err := each(key, stored); err != nil || !goOn {
			return err
		}
	}
	return nil
}

func hasPrefix(key, prefix []byte) bool {
	return len(key) >= len(prefix) && string(key[:len(prefix)]) == string(prefix)
}

// ended reports whether what ends then has ended by now.
func ended(ends, now int64) bool { return ends != 0 && ends <= now }

// within is the key of a part of what the name holds, or with "" that of its
// head. A name has no zero byte.
func within(name, part string) []byte {
	key := make([]byte, 0, len(name)+1+len(part))
	return append(append(append(key, name...), 0), part...)
}

// head is what is known of a hash or a stream as a whole.
type head struct {
	count uint64
	ends  int64
}

// head returns the zero head of a name that is not there, or has ended.
func (b boltBucket) head(name string) (head, error) {
	raw, ends, found, err := b.get(within(name, ""))
	if err != nil || !found {
		return head{}, err
	}
	count, n := binary.Uvarint(raw)
	if n <= 0 || n != len(raw) {
		return head{}, fmt.Errorf("%w: the head of %q in %s", errDamaged, name, b.name)
	}
	return head{count, ends}, nil
}

// setHead writes the head, or removes that of what is empty now.
func (b boltBucket) setHead(name string, h head) error {
	if h.count == 0 {
		return b.b.Delete(within(name, ""))
	}
	return b.put(within(name, ""), h.ends, string(binary.AppendUvarint(nil, h.count)))
}

// removeAll removes all that the name holds.
func (b boltBucket) removeAll(name string) error {
	prefix := within(name, "")
	var keys [][]byte
	err := b.under(prefix, prefix, func(key, _ []byte) (bool, error) {
		keys = append(keys, []byte(string(key)))
		return true, nil
	})
	for _, key := range keys {
		if err == nil {
			err = b.b.Delete(key)
		}
	}
	return err
}

// begin removes what is left of a hash or stream that has ended: it begins anew.
func (b boltBucket) begin(name string) (head, error) {
	h, err := b.head(name)
	if err == nil && h.count == 0 && b.b.Get(within(name, "")) != nil {
		err = b.removeAll(name)
	}
	return h, err
}

// The two kinds of keys of a sorted set.
const (
	memberPart = "m"
	orderPart  = "s"
)

func scoreBytes(score int64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(score)^1<<63) // #nosec G115 -- negative ones come first
	return string(b[:])
}

func orderKey(set string, m member) []byte { return within(set, orderPart+scoreBytes(m.score)+m.name) }

// parseOrder reads what orderKey wrote for the set.
func parseOrder(set string, key []byte) (member, bool) {
	rest, ok := strings.CutPrefix(string(key), string(within(set, orderPart)))
	if !ok || len(rest) <= 8 {
		return member{}, false
	}
	score := int64(binary.BigEndian.Uint64([]byte(rest[:8])) ^ 1<<63) // #nosec G115 -- as it was written
	return member{name: rest[8:], score: score}, true
}

func idBytes(id entryID) string {
	return string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, id.millis), id.sequence))
}

func parseIDBytes(b []byte) (id entryID, ok bool) {
	if len(b) != 16 {
		return entryID{}, false
	}
	return entryID{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, true
}
