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
}

func (m *memory[V]) youngerThan(d time.Duration, now time.Time) bool {
	return d > 0 && now.UnixNano()-m.readAt.Load() < int64(d)
}

// memories is a bounded set of decoded records. It counts invalidations, so
// that what was read before one is never remembered after it.
type memories[K comparable, V any] struct {
	cache      *otter.Cache[K, *memory[V]]
	generation atomic.Uint64
}

func newMemories[K comparable, V any](entries int) *memories[K, V] {
	return &memories[K, V]{cache: otter.Must(&otter.Options[K, *memory[V]]{MaximumSize: entries})}
}

func (c *memories[K, V]) get(key K) (*memory[V], bool) { return c.cache.GetIfPresent(key) }

// remember stores what was read since the given generation. Checking and
// storing are one step for the cache, and an invalidation counts up before it
// removes: whichever comes first, an old record never stays.
func (c *memories[K, V]) remember(key K, m *memory[V], generation uint64) {
	c.cache.Compute(key, func(old *memory[V], _ bool) (*memory[V], otter.ComputeOp) {
		if c.generation.Load() != generation {
			return old, otter.CancelOp
		}
		return m, otter.WriteOp
	})
}

func (c *memories[K, V]) forget(key K) {
	c.generation.Add(1)
	c.cache.Invalidate(key)
}

func (c *memories[K, V]) forgetAll() {
	c.generation.Add(1)
	c.cache.InvalidateAll()
}
