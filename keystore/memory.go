package keystore

import (
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// memory is a decoded record, the bytes it was decoded from, and when it was
// last read: the moment before the reading began. It is shared.
type memory[V any] struct {
	record *V
	raw    string
	readAt atomic.Int64
	// period is that of the cache in which it was last read.
	period atomic.Uint64
}

func (m *memory[V]) youngerThan(d time.Duration, now time.Time) bool {
	return d > 0 && now.UnixNano()-m.readAt.Load() < int64(d)
}

// memories is a bounded set of decoded records. It counts invalidations, so
// that what was read before one is never stored after it, and periods without a
// gap in the subscription: entries of an earlier one are unverified, and answer
// only while the store does not.
type memories[K comparable, V any] struct {
	cache      *otter.Cache[K, *memory[V]]
	generation atomic.Uint64
	period     atomic.Uint64
}

func newMemories[K comparable, V any](entries int) *memories[K, V] {
	return &memories[K, V]{cache: otter.Must(&otter.Options[K, *memory[V]]{MaximumSize: entries})}
}

func (c *memories[K, V]) get(key K) (*memory[V], bool) { return c.cache.GetIfPresent(key) }

// verified reports whether every invalidation since the entry was read has
// arrived, if all do.
func (c *memories[K, V]) verified(m *memory[V]) bool { return m.period.Load() == c.period.Load() }

// reading is what a read must know from before it began.
type reading struct{ generation, period uint64 }

func (c *memories[K, V]) begin() reading {
	return reading{generation: c.generation.Load(), period: c.period.Load()}
}

// remember stores what was read since the reading began. Checking and storing
// are one step for the cache, and an invalidation counts up before it removes:
// whichever comes first, an old record never stays.
func (c *memories[K, V]) remember(key K, m *memory[V], since reading) {
	c.cache.Compute(key, func(old *memory[V], _ bool) (*memory[V], otter.ComputeOp) {
		if c.generation.Load() != since.generation {
			return old, otter.CancelOp
		}
		return m, otter.WriteOp
	})
}

// confirm notes that the entry is what a read found that began at that time.
func (c *memories[K, V]) confirm(m *memory[V], at time.Time, since reading) {
	m.readAt.Store(at.UnixNano())
	m.period.Store(since.period)
}

func (c *memories[K, V]) forget(key K) {
	c.generation.Add(1)
	c.cache.Invalidate(key)
}

func (c *memories[K, V]) forgetAll() {
	c.generation.Add(1)
	c.cache.InvalidateAll()
}

// unverify begins a new period: an invalidation may have been missed. What is
// being read now may be older than it.
func (c *memories[K, V]) unverify() {
	c.generation.Add(1)
	c.period.Add(1)
}
