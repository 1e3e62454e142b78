package proxy_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"gatehouse/proxy"
)

// network is the i-th /64 of many.
func network(i int) netip.Addr {
	var a [16]byte
	a[0], a[1] = 0x20, 0x01
	binary.BigEndian.PutUint32(a[4:], uint32(i))
	return netip.AddrFrom16(a)
}

// TestFloodOfAddressesGivesNobodyAFreshBudget: an address that has used up its
// tries has none until its time has come, however many others come between.
func TestFloodOfAddressesGivesNobodyAFreshBudget(t *testing.T) {
	t.Parallel()
	l := proxy.NewFailureLimiter(0.001, 3)
	attackers := []netip.Addr{mustAddr("198.51.100.1"), network(0)}
	for _, a := range attackers {
		for i := range 4 {
			if got := l.Fails(a, theTime); got != (i < 3) {
				t.Fatalf("%s, failure %d: passed is %v", a, i, got)
			}
		}
	}
	for i := range proxy.FailureSlots {
		l.Fails(network(1+i), theTime.Add(time.Duration(i)*time.Microsecond))
		if i%10_000 != 0 {
			continue
		}
		for _, a := range attackers {
			if l.Fails(a, theTime.Add(time.Minute)) {
				t.Fatalf("%s fails freely again after %d others", a, i)
			}
		}
	}
}

// TestAllAddressesTogetherHaveABound: who has any number of addresses has no
// more tries than the table has places for.
func TestAllAddressesTogetherHaveABound(t *testing.T) {
	t.Parallel()
	l := proxy.NewFailureLimiter(0.001, 1)
	passed := 0
	for i := range 2 * proxy.FailureSlots {
		if l.Fails(network(i), theTime) {
			passed++
		}
	}
	if passed > proxy.FailureSlots {
		t.Errorf("%d tries passed, want at most %d", passed, proxy.FailureSlots)
	}
	if passed < proxy.FailureSlots/2 {
		t.Errorf("%d tries passed: addresses are not spread over the table", passed)
	}
}

// TestFailingAddressesTakeNoMoreMemory once every place is in use.
func TestFailingAddressesTakeNoMoreMemory(t *testing.T) {
	l := proxy.NewFailureLimiter(1, 1)
	i, at := 0, theTime
	fail := func() {
		i++
		at = at.Add(time.Minute) // or there would be an answer to make
		if !l.Fails(network(i), at) {
			t.Fatal("a failure was refused")
		}
	}
	for range 5 * proxy.FailureSlots {
		fail()
	}
	if n := testing.AllocsPerRun(10_000, fail); n != 0 {
		t.Errorf("a failure of a new address allocates %v times", n)
	}
}

// TestGoodKeyPassesWhateverItsNeighboursDo, behind the same address and proxy.
func TestGoodKeyPassesWhateverItsNeighboursDo(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, peer, forwardedFor string }{
		{"behind the same address", "198.51.100.1:1", ""},
		{"in the same /64", "[2001:db8::1]:1", ""},
		{"behind a proxy that names the client", "10.0.0.1:1", "198.51.100.1"},
		{"behind a proxy that does not", "10.0.0.1:1", "unknown"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := limitGate(t, nil, proxy.NewFailureLimiter(0.001, 2), trusting("10.0.0.0/8"))
			ask := func(token string) string {
				header := []string{}
				if row.forwardedFor != "" {
					header = []string{"X-Forwarded-For", row.forwardedFor}
				}
				reason, _ := g.ask(t, token, row.peer, header...)
				return reason
			}
			for i := range 50 {
				want := "rate_limited"
				if i < 2 {
					want = "invalid_token"
				}
				if reason := ask("wrong"); reason != want {
					t.Fatalf("failure %d: recorded %s, want %s", i, reason, want)
				}
				if reason := ask(good); reason != "allowed" {
					t.Fatalf("a good key after %d failures: recorded %s", i+1, reason)
				}
			}
		})
	}
}
