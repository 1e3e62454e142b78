package signin

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Rate is so many attempts a second, and that many at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

// TooManyError says that there were too many attempts to sign in, from the
// address or with the e-mail address, whoever's it is.
type TooManyError struct{ RetryAfter time.Duration }

func (e *TooManyError) Error() string {
	return fmt.Sprintf("too many attempts to sign in; the next may be in %s", e.RetryAfter.Round(time.Second))
}

// attemptSlots is how many budgets a table has.
const attemptSlots = 1 << 16

// attempts limits attempts by what they name. It never forgets: what is named
// has its place in a table of fixed size by a hash that nobody outside can
// compute, so that no flood gives anybody a fresh budget. Two names in one
// place share it.
type attempts struct {
	rate  Rate
	seed  maphash.Seed
	slots []atomic.Pointer[rate.Limiter]
}

func newAttempts(r Rate) *attempts {
	return &attempts{rate: r, seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[rate.Limiter], attemptSlots)}
}

// take counts one attempt, or returns a *TooManyError and counts nothing.
func (a *attempts) take(name []byte, now time.Time) error {
	slot := &a.slots[maphash.Bytes(a.seed, name)%attemptSlots]
	tokens := slot.Load()
	if tokens == nil {
		slot.CompareAndSwap(nil, rate.NewLimiter(rate.Limit(a.rate.PerSecond), a.rate.Burst))
		tokens = slot.Load()
	}
	if tokens.AllowN(now, 1) {
		return nil
	}
	missing := 1 - tokens.TokensAt(now)
	return &TooManyError{RetryAfter: time.Duration(missing / a.rate.PerSecond * float64(time.Second))}
}

// nameOf is what an address counts as: itself, or its IPv6 /64, of which one
// client has all.
func nameOf(client netip.Addr) []byte {
	client = client.Unmap()
	if client.Is6() {
		return client.AsSlice()[:8]
	}
	return client.AsSlice()
}
