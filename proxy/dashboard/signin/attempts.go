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
// address or with the e-mail address, whoever's it is, or of all people at once.
type TooManyError struct {
	RetryAfter time.Duration
	limit      string // which one
	first      bool   // since it last let something through
}

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
	limit string
	rate  Rate
	seed  maphash.Seed
	slots []atomic.Pointer[budget]
}

// budget is that of a place. It is spent when it has refused the last attempt.
type budget struct {
	*rate.Limiter
	spent atomic.Bool
}

// newAttempts makes a table for the limit of that name, with a default for no
// rate.
func newAttempts(limit string, r, otherwise Rate) *attempts {
	if r == (Rate{}) {
		r = otherwise
	}
	return &attempts{limit: limit, rate: r, seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[budget], attemptSlots)}
}

// take counts one attempt, or returns a *TooManyError and counts nothing.
func (a *attempts) take(name []byte, now time.Time) error {
	slot := &a.slots[maphash.Bytes(a.seed, name)%attemptSlots]
	tokens := slot.Load()
	if tokens == nil {
		slot.CompareAndSwap(nil, &budget{Limiter: rate.NewLimiter(rate.Limit(a.rate.PerSecond), a.rate.Burst)})
		tokens = slot.Load()
	}
	if tokens.AllowN(now, 1) {
		tokens.spent.Store(false)
		return nil
	}
	missing := 1 - tokens.TokensAt(now)
	return &TooManyError{RetryAfter: time.Duration(missing / a.rate.PerSecond * float64(time.Second)), limit: a.limit, first: tokens.spent.CompareAndSwap(false, true)}
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

// networkOf is the IPv6 /48 of an address, of which one customer may have all;
// nil for IPv4.
func networkOf(client netip.Addr) []byte {
	client = client.Unmap()
	if !client.Is6() {
		return nil
	}
	return client.AsSlice()[:6]
}

// limits are all budgets of attempts on this node.
type limits struct {
	addresses, networks, pairs, emails, users *attempts
}

func newLimits(o Options) limits {
	return limits{
		addresses: newAttempts("address", o.PerAddress, Rate{PerSecond: 1. / 3, Burst: 30}),
		networks:  newAttempts("network", o.PerNetwork, Rate{PerSecond: 1, Burst: 120}),
		pairs:     newAttempts("email_and_address", o.PerPair, Rate{PerSecond: 1. / 60, Burst: 10}),
		emails:    newAttempts("email", o.PerEmail, Rate{PerSecond: 1. / 6, Burst: 100}),
		users:     newAttempts("user", o.PerUser, Rate{PerSecond: 1. / 60, Burst: 10}),
	}
}

// from counts an attempt against the address and its network: who is over the
// one limit does not use up the other.
func (l limits) from(client netip.Addr, now time.Time) error {
	if err := l.addresses.take(nameOf(client), now); err != nil {
		return err
	}
	if network := networkOf(client); network != nil {
		return l.networks.take(network, now)
	}
	return nil
}

// to counts an attempt against the e-mail address: from this address, and then
// from everywhere, so that one stranger alone locks nobody out.
func (l limits) to(email string, client netip.Addr, now time.Time) error {
	if err := l.pairs.take(append([]byte(email+"\x00"), nameOf(client)...), now); err != nil {
		return err
	}
	return l.emails.take([]byte(email), now)
}
