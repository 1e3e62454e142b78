package proxy

import (
	"net/netip"
	"time"
)

// IsHost is for tests.
var IsHost = isHost

// AcceptKey is for backends of the tests that answer handshakes.
var AcceptKey = acceptKey

// FailureSlots is how many budgets for failures there are.
const FailureSlots = failureSlots

// Fails counts a failure, and reports whether there were not too many.
func (l *FailureLimiter) Fails(client netip.Addr, now time.Time) bool {
	return l.take(client, now) == nil
}

// Keys is how many keys are remembered.
func (f *InFlight) Keys() int {
	n := 0
	for i := range f.shards {
		f.shards[i].mu.Lock()
		n += len(f.shards[i].requests)
		f.shards[i].mu.Unlock()
	}
	return n
}
