package keystore

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.etcd.io/bbolt"
)

// What the tests need to see of the embedded store.

// copied is a client of a Redis in this process that holds what the store holds.
func (e *embedded) copied() redis.UniversalClient {
	m := miniredis.NewMiniRedis()
	m.SetTime(e.clock())
	fail := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	set := func(name string, ends int64) {
		if ends != 0 {
			m.SetTTL(name, time.Unix(ends, 0).Sub(e.clock()))
		}
	}
	fail(e.db.View(func(tx *bbolt.Tx) error {
		values, _ := bucketIn(tx, valuesBucket, e.unix())
		fail(values.under(nil, nil, func(key, _ []byte) (bool, error) {
			raw, ends, found, err := values.get(key)
			if found {
				fail(m.Set(string(key), string(raw)))
				set(string(key), ends)
			}
			return true, err
		}))
		hashes, _ := bucketIn(tx, hashesBucket, e.unix())
		fail(hashes.heads(func(name string, h head) {
			fail(hashes.fields(name, "", func(field, value string) bool { m.HSet(name, field, value); return true }))
			set(name, h.ends)
		}))
		streams, _ := bucketIn(tx, streamsBucket, e.unix())
		fail(streams.heads(func(name string, h head) {
			fail(streams.fields(name, "", func(id, event string) bool {
				at, _ := parseIDBytes([]byte(id))
				_, err := m.XAdd(name, at.String(), []string{"event", event})
				fail(err)
				return true
			}))
			set(name, h.ends)
		}))
		sets, _ := bucketIn(tx, setsBucket, e.unix())
		return sets.under(nil, nil, func(key, _ []byte) (bool, error) {
			name, part, _ := cutZero(string(key))
			if part[0] == memberPart[0] {
				raw, _, _, err := sets.get(key)
				fail(err)
				var score float64
				fail(json.Unmarshal(raw, &score))
				_, err = m.ZAdd(name, score, part[1:])
				fail(err)
			}
			return true, nil
		})
	}))
	return redis.NewClient(&redis.Options{
		Dialer:   func(context.Context, string, string) (net.Conn, error) { return m.Dial() },
		Protocol: 2, DisableIdentity: true, MaxRetries: -1, MaintNotificationsConfig: noNotifications(),
	})
}

// heads calls each for every hash or stream that is there.
func (b boltBucket) heads(each func(name string, h head)) error {
	return b.under(nil, nil, func(key, _ []byte) (bool, error) {
		name, part, _ := cutZero(string(key))
		if part != "" {
			return true, nil
		}
		h, err := b.head(name)
		if err == nil && h.count > 0 {
			each(name, h)
		}
		return true, err
	})
}

func cutZero(key string) (name, part string, ok bool) {
	for i := range len(key) {
		if key[i] == 0 {
			return key[:i], key[i+1:], true
		}
	}
	return key, "", false
}

// EmbeddedHook is called for what is asked of an embedded store, by the name of
// the command that Redis would get; it calls next to have it done.
type EmbeddedHook func(ctx context.Context, command string, next func() error) error

// HookEmbedded calls the hook from now on.
func HookEmbedded(s *Store, h EmbeddedHook) {
	s.data, s.reader, s.committer = hookedData{s.data, h}, hookedReader{s.reader, h}, hookedCommitter{s.committer, h}
}

type hookedData struct {
	data
	hook EmbeddedHook
}

func (d hookedData) fields(ctx context.Context, hash string, names ...string) (values []string, err error) {
	err = d.hook(ctx, "hget", func() (err error) { values, err = d.data.fields(ctx, hash, names...); return err })
	return values, err
}

func (d hookedData) lengths(ctx context.Context, names []string) (lengths []int, err error) {
	err = d.hook(ctx, "hlen", func() (err error) { lengths, err = d.data.lengths(ctx, names); return err })
	return lengths, err
}

type hookedReader struct {
	getter
	hook EmbeddedHook
}

func (r hookedReader) get(ctx context.Context, name string) (v value, err error) {
	err = r.hook(ctx, "mget", func() (err error) { v, err = r.getter.get(ctx, name); return err })
	return v, err
}

type hookedCommitter struct {
	committer
	hook EmbeddedHook
}

func (c hookedCommitter) commit(ctx context.Context, ch change) error {
	return c.hook(ctx, "evalsha", func() error { return c.committer.commit(ctx, ch) })
}

// HoldWrites calls f before each transaction that writes to an embedded store.
func HoldWrites(s *Store, f func()) {
	update := s.embedded.update
	s.embedded.update = func(do func(*bbolt.Tx) error) error {
		f()
		return update(do)
	}
}

// FailWrites makes writes to an embedded store end so, after they have happened
// where they do.
func FailWrites(s *Store, happen bool, err func() error) {
	update := s.embedded.update
	s.embedded.update = func(do func(*bbolt.Tx) error) error {
		if err() == nil {
			return update(do)
		}
		if happen {
			_ = update(do)
			return err()
		}
		return update(func(tx *bbolt.Tx) error { _ = do(tx); return err() })
	}
}

// FillDisk has every write to the file of an embedded store fail for want of
// room, until free is called.
func FillDisk(s *Store) (free func() error, err error) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = full.Close() }()
	fd := s.embedded.fd()
	kept, err := syscall.Dup(fd)
	if err != nil {
		return nil, err
	}
	if err := syscall.Dup3(int(full.Fd()), fd, syscall.O_CLOEXEC); err != nil {
		return nil, err
	}
	return func() error {
		err := syscall.Dup3(kept, fd, syscall.O_CLOEXEC)
		_ = syscall.Close(kept)
		return err
	}, nil
}

// fd is the descriptor by which the file is open.
func (e *embedded) fd() int {
	want, err := os.Stat(e.file)
	if err != nil {
		panic(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, f := range open {
		if info, err := os.Stat("/proc/self/fd/" + f.Name()); err == nil && os.SameFile(info, want) {
			n := 0
			for _, c := range f.Name() {
				n = 10*n + int(c-'0')
			}
			return n
		}
	}
	panic("the file is not open")
}

// LastWriteError is why the last write to an embedded store failed.
func LastWriteError(s *Store) error { return s.embedded.lastWriteError() }

// Probe tries whether an embedded store can be written to, as every five seconds.
func Probe(s *Store) {
	s.embedded.probe()
}

// Sweep removes what has ended, as every hour.
func Sweep(s *Store) {
	s.embedded.sweep()
}

// Lookups of one bucket of bbolt, for damage in the right place.
const ValuesBucket = "values"

// Damage overwrites what is stored under the key of a bucket.
func Damage(s *Store, bucket, key string, change func(stored []byte) []byte) error {
	return s.embedded.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		return b.Put([]byte(key), change([]byte(string(b.Get([]byte(key))))))
	})
}

// Keys returns how many keys of the file a bucket has.
func Keys(s *Store, bucket string) (n int) {
	_ = s.embedded.db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket([]byte(bucket)).Stats().KeyN
		return nil
	})
	return n
}
