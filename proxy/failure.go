package proxy

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"gatehouse/keystore"
)

// failureSlots is how many budgets for failures there are at the most. They
// take 24 MiB when every one of them is in use.
const failureSlots = 1 << 18

// FailureLimiter limits how many invalid tokens come from one address: one
// IPv4 address, or one IPv6 /64, of which a client has all. It never forgets:
// an address has its place in a table of fixed size by a hash that nobody
// outside can compute, so that no flood of addresses gives one of them a fresh
// budget, and no number of them has more than the table. Two addresses in one
// place share its budget, which no request with a good key ever asks for. A nil
// *FailureLimiter does not limit. It may be used concurrently.
type FailureLimiter struct {
	rate   keystore.Rate
	policy string
	seed   maphash.Seed
	slots  []atomic.Pointer[rate.Limiter]
}

// failureLimit is what clients are told of this limit.
const failureLimit = "failed_auth"

// NewFailureLimiter makes a limiter of that many failures a second, and that
// many at once; nil, which does not limit, for a rate of 0.
func NewFailureLimiter(perSecond float64, burst int) *FailureLimiter {
	if perSecond <= 0 {
		return nil
	}
	full := time.Duration(float64(burst) / perSecond * float64(time.Second))
	return &FailureLimiter{
		rate: keystore.Rate{PerSecond: perSecond, Burst: burst}, policy: policyOf(failureLimit, burst, full),
		seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[rate.Limiter], failureSlots),
	}
}

// take counts one failure of the address. It returns a rate_limited problem
// when there were too many.
func (l *FailureLimiter) take(client netip.Addr, now time.Time) error {
	if l == nil {
		return nil
	}
	slot := &l.slots[l.place(client)]
	tokens := slot.Load()
	if tokens == nil {
		slot.CompareAndSwap(nil, newTokens(l.rate))
		tokens = slot.Load()
	}
	if tokens.AllowN(now, 1) {
		return nil
	}
	return rateLimited(tooManyRequests, failureLimit, l.policy, untilNext(tokens, now))
}

// peek returns what take would, and counts nothing.
func (l *FailureLimiter) peek(client netip.Addr, now time.Time) error {
	if l == nil {
		return nil
	}
	tokens := l.slots[l.place(client)].Load()
	if tokens == nil {
		tokens = newTokens(l.rate)
	}
	if tokens.TokensAt(now) >= 1 {
		return nil
	}
	return rateLimited(tooManyRequests, failureLimit, l.policy, untilNext(tokens, now))
}

// place is where the budget of the address is.
func (l *FailureLimiter) place(client netip.Addr) uint64 {
	subject := client.AsSlice()
	if client.Is6() {
		subject = subject[:8] // the /64
	}
	return maphash.Bytes(l.seed, subject) % failureSlots
}
