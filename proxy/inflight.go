package proxy

import (
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"gatehouse/policy"
)

const (
	// inFlightShards spreads keys over locks, so that requests of different keys
	// seldom wait for one another, and never for long.
	inFlightShards = 64
	// inFlightLimit is what clients are told of this limit.
	inFlightLimit = "in_flight"
)

// InFlight bounds how many requests of one key are under way on this node at a
// time, however long each lasts. It remembers only keys with requests under
// way. A nil *InFlight does not limit. It may be used concurrently.
type InFlight struct {
	atMost int
	policy string
	seed   maphash.Seed
	shards [inFlightShards]inFlightShard
}

type inFlightShard struct {
	mu       sync.Mutex
	requests map[policy.KeyID]int
	_        [48]byte // a cache line for each lock
}

// NewInFlight bounds the requests of each key to that many at a time; nil,
// which does not limit, for 0.
func NewInFlight(atMost int) *InFlight {
	if atMost <= 0 {
		return nil
	}
	f := &InFlight{
		atMost: atMost, seed: maphash.MakeSeed(),
		policy: `"` + inFlightLimit + `";q=` + strconv.Itoa(atMost) + `;qu="concurrent-requests"`,
	}
	for i := range f.shards {
		f.shards[i].requests = map[policy.KeyID]int{}
	}
	return f
}

// enter counts a request of the key in. It returns a rate_limited problem when
// there are as many as there may be; without one, leave must be called.
func (f *InFlight) enter(key policy.KeyID) error {
	if f == nil {
		return nil
	}
	s := f.shard(key)
	s.mu.Lock()
	n := s.requests[key]
	if n < f.atMost {
		s.requests[key] = n + 1
	}
	s.mu.Unlock()
	if n < f.atMost {
		return nil
	}
	return f.refuse()
}

// peek returns what enter would, and counts nothing.
func (f *InFlight) peek(key policy.KeyID) error {
	if f == nil {
		return nil
	}
	s := f.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests[key] < f.atMost {
		return nil
	}
	return f.refuse()
}

func (f *InFlight) refuse() error {
	return rateLimited("This key has as many requests under way as it may have. Wait until one of them has ended.", inFlightLimit, f.policy, time.Second)
}

// leave counts a request of the key out.
func (f *InFlight) leave(key policy.KeyID) {
	if f == nil {
		return
	}
	s := f.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests[key]--; s.requests[key] == 0 {
		delete(s.requests, key)
	}
}

func (f *InFlight) shard(key policy.KeyID) *inFlightShard {
	return &f.shards[maphash.String(f.seed, string(key))%inFlightShards]
}
