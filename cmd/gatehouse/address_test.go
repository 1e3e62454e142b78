package main_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

// addresses is a gateway with keys that work from certain addresses alone.
type addresses struct {
	*table
	ranges key // 203.0.113.0/24, 2001:db8::/32 and 198.51.100.7
	anyone key
}

func newAddresses(t *testing.T, s settings) *addresses {
	t.Helper()
	s.Store = embeddedStore(t)
	a := &addresses{table: newTable(t, s)}
	a.anyone = a.createKey(t, a.root, may("datacenter_shared:read"))
	limited := may("datacenter_shared:read")
	limited.IPs = []string{"203.0.113.0/24", "2001:db8::/32", "198.51.100.7"}
	a.ranges = a.createKey(t, a.root, limited)
	return a
}

// sighting is what the gateway makes of a request: the address that it must
// see, "" for none that it can tell, and whether that is one of the ranges.
type sighting struct {
	name   string
	from   string
	header []string
	seen   string
	inside bool
	// forwarded is what the backend must be told, where that is more than the
	// address seen.
	forwarded string
}

func (a *addresses) run(t *testing.T, sightings []sighting) {
	t.Helper()
	for _, s := range sightings {
		t.Run(s.name, func(t *testing.T) {
			r := get(a.ranges, proxyListOfA).with(s.header...)
			r.from = s.from
			if s.inside {
				id := a.ranges.who(subA, "datacenter_shared:read")
				id.client = orElse(s.forwarded, s.seen)
				a.forwards(t, r, id)
			} else {
				detail := "may not be used from " + s.seen + "."
				if s.seen == "" {
					detail = "could not be determined"
				}
				a.turnsAway(t, r, refusal{status: 403, code: "ip_not_allowed", detail: detail})
			}
			who := get(a.anyone, whoamiPath).with(s.header...)
			who.from = s.from
			me := dataOf[whoami](t, a.passes(t, who))
			if me.ClientIP != s.seen {
				t.Errorf("whoami says that the client is %q, want %q", me.ClientIP, s.seen)
			}
		})
	}
}

// whoami is what a key is told about itself.
type whoami struct {
	AccountID   string   `json:"account_id"`
	KeyID       string   `json:"key_id"`
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
	Subaccounts []string `json:"allowed_subaccounts"`
	ExpiresAt   *int64   `json:"expires_at"`
	ClientIP    string   `json:"client_ip"`
}

// From 127.0.0.1 and 127.0.0.5 come trusted proxies, from everywhere else
// clients.
const trusting = `{trusted_proxies: ["127.0.0.1", 127.0.0.5/32, 10.0.0.0/8, "fd00::/8"], header: `

func TestForwardedFor(t *testing.T) {
	t.Parallel()
	a := newAddresses(t, settings{ClientAddress: trusting + "X-Forwarded-For}"})
	xff := func(lines ...string) []string {
		header := make([]string, len(lines))
		for i, line := range lines {
			header[i] = "X-Forwarded-For: " + line
		}
		return header
	}
	a.run(t, []sighting{
		{name: "forged by a stranger", from: "127.0.0.2", header: xff("203.0.113.5"), seen: "127.0.0.2"},
		{name: "forged by a stranger, in all ways", from: "127.0.0.2", seen: "127.0.0.2", header: []string{
			"X-Forwarded-For: 203.0.113.5", "X_Forwarded_For: 203.0.113.5", "Forwarded: for=203.0.113.5", "X-Real-IP: 203.0.113.5",
			"CF-Connecting-IP: 203.0.113.5", "True-Client-IP: 203.0.113.5", "X-Client-IP: 203.0.113.5",
		}},
		{name: "no header", seen: "127.0.0.1"},
		{name: "IPv4 range", header: xff("203.0.113.5"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 127.0.0.1"},
		{name: "IPv4 range, first", header: xff("203.0.113.0"), seen: "203.0.113.0", inside: true, forwarded: "203.0.113.0, 127.0.0.1"},
		{name: "IPv4 range, last", header: xff("203.0.113.255"), seen: "203.0.113.255", inside: true, forwarded: "203.0.113.255, 127.0.0.1"},
		{name: "behind the IPv4 range", header: xff("203.0.114.0"), seen: "203.0.114.0"},
		{name: "before the IPv4 range", header: xff("203.0.112.255"), seen: "203.0.112.255"},
		{name: "IPv6 range", header: xff("2001:DB8:0:0::1"), seen: "2001:db8::1", inside: true, forwarded: "2001:db8::1, 127.0.0.1"},
		{name: "behind the IPv6 range", header: xff("2001:db9::1"), seen: "2001:db9::1"},
		{name: "single address", header: xff("198.51.100.7"), seen: "198.51.100.7", inside: true, forwarded: "198.51.100.7, 127.0.0.1"},
		{name: "beside the single address", header: xff("198.51.100.8"), seen: "198.51.100.8"},
		{name: "IPv4-mapped", header: xff("::ffff:203.0.113.5"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 127.0.0.1"},
		{name: "IPv4-mapped, in hex", header: xff("::ffff:cb00:7105"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 127.0.0.1"},
		{name: "with ports", header: xff("[2001:db8::1]:4711, 10.0.0.1:99"), seen: "2001:db8::1", inside: true, forwarded: "2001:db8::1, 10.0.0.1, 127.0.0.1"},
		{name: "from the right", header: xff("203.0.113.5, 192.0.2.1"), seen: "192.0.2.1"},
		{name: "from the right, over several lines", header: xff("203.0.113.5", "192.0.2.1"), seen: "192.0.2.1"},
		{name: "several proxies", from: "127.0.0.5", header: xff("192.0.2.1, 203.0.113.5, 10.1.1.1,10.2.2.2"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 10.1.1.1, 10.2.2.2, 127.0.0.5"},
		{name: "several proxies, over several lines", header: xff("192.0.2.1", "203.0.113.5,fd00::1", "10.2.2.2"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, fd00::1, 10.2.2.2, 127.0.0.1"},
		{name: "garbage to the left", header: xff("evil, , ::::, 203.0.113.5"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 127.0.0.1"},
		{name: "garbage to the left of the client and a proxy", header: xff("203.0.113.77x, 203.0.113.5, 10.0.0.9"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 10.0.0.9, 127.0.0.1"},
		{name: "garbage to the right", header: xff("203.0.113.5, evil")},
		{name: "garbage behind a proxy", header: xff("203.0.113.5, evil, 10.0.0.1")},
		{name: "nothing to the right", header: xff("203.0.113.5,")},
		{name: "empty", header: xff("")},
		{name: "an empty line behind", header: xff("203.0.113.5", "")},
		{name: "unknown", header: xff("unknown")},
		{name: "a range", header: xff("203.0.113.0/24")},
		{name: "leading zeros", header: xff("203.000.113.005")},
		{name: "a host name", header: xff("localhost")},
		{name: "a trusted proxy alone", header: xff("10.3.3.3"), seen: "10.3.3.3"},
		{name: "a mapped trusted proxy", header: xff("203.0.113.5, ::ffff:10.0.0.1"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 10.0.0.1, 127.0.0.1"},
		{name: "another header", header: []string{"Forwarded: for=203.0.113.5", "X-Real-IP: 203.0.113.5"}, seen: "127.0.0.1"},
	})
	t.Run("X-Forwarded-Proto of a trusted proxy", func(t *testing.T) {
		r := get(a.anyone, proxyListOfA).with("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https")
		id := a.anyone.who(subA, "datacenter_shared:read")
		id.client, id.proto = "192.0.2.1, 127.0.0.1", "https"
		a.forwards(t, r, id)
	})
	t.Run("the trace of a trusted proxy goes on", func(t *testing.T) {
		trace := "00-" + spoofedTrace + "-b7ad6b7169203331-01"
		before := a.counts()[0]
		for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
			r := get(a.anyone, proxyListOfA).with("Traceparent: "+trace, "Tracestate: edge=1")
			r.from = from
			a.passes(t, r)
		}
		seen := a.backends[0].seen(before)
		if trusted := seen[0].header; trusted["traceparent"][0] != trace || trusted["tracestate"] == nil {
			t.Errorf("a trusted proxy's trace came as %s %s", trusted["traceparent"], trusted["tracestate"])
		}
		if stranger := seen[1].header; strings.Contains(stranger["traceparent"][0], spoofedTrace) || stranger["tracestate"] != nil {
			t.Errorf("a stranger's trace came as %s %s", stranger["traceparent"], stranger["tracestate"])
		}
	})
	t.Run("X-Request-Id of a trusted proxy", func(t *testing.T) {
		for given, kept := range map[string]bool{"edge-0123.4": true, "a b": false, "<x>": false} {
			got := a.passes(t, get(a.anyone, whoamiPath).with("X-Request-Id: "+given))
			if is := got.header.Get("X-Request-Id") == given; is != kept {
				t.Errorf("X-Request-Id %q: kept is %t, want %t", given, is, kept)
			}
		}
	})
}

func TestForwardedHeader(t *testing.T) {
	t.Parallel()
	a := newAddresses(t, settings{ClientAddress: trusting + "Forwarded}"})
	forwarded := func(line string) []string { return []string{"Forwarded: " + line} }
	a.run(t, []sighting{
		{name: "forged by a stranger", from: "127.0.0.2", header: forwarded("for=203.0.113.5"), seen: "127.0.0.2"},
		{name: "plain", header: forwarded("for=203.0.113.5;proto=https;by=10.0.0.1"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 127.0.0.1"},
		{name: "quoted IPv6 with a port", header: forwarded(`proto=https; FOR="[2001:db8::1]:4711"`), seen: "2001:db8::1", inside: true, forwarded: "2001:db8::1, 127.0.0.1"},
		{name: "from the right", header: forwarded("for=203.0.113.5, for=192.0.2.1"), seen: "192.0.2.1"},
		{name: "several proxies", header: forwarded("for=192.0.2.1, for=198.51.100.7, for=10.0.0.1"), seen: "198.51.100.7", inside: true, forwarded: "198.51.100.7, 10.0.0.1, 127.0.0.1"},
		{name: "garbage to the left", header: forwarded(`for=";evil, for=203.0.113.5`), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 127.0.0.1"},
		{name: "garbage to the right", header: forwarded("for=203.0.113.5, evil")},
		{name: "without for", header: forwarded("for=203.0.113.5, proto=https")},
		{name: "for twice", header: forwarded("for=203.0.113.5;for=203.0.113.6")},
		{name: "obfuscated", header: forwarded("for=_hidden")},
		{name: "unknown", header: forwarded("for=unknown")},
		{name: "a broken quote", header: forwarded(`for="203.0.113.5`)},
		{name: "another header", header: []string{"X-Forwarded-For: 203.0.113.5"}, seen: "127.0.0.1"},
	})
}

func TestSingleValueHeader(t *testing.T) {
	t.Parallel()
	a := newAddresses(t, settings{ClientAddress: trusting + "CF-Connecting-IP}"})
	edge := func(lines ...string) []string {
		header := make([]string, len(lines))
		for i, line := range lines {
			header[i] = "CF-Connecting-IP: " + line
		}
		return header
	}
	a.run(t, []sighting{
		{name: "forged by a stranger", from: "127.0.0.2", header: edge("203.0.113.5"), seen: "127.0.0.2"},
		{name: "from a trusted proxy", header: edge("203.0.113.5"), seen: "203.0.113.5", inside: true, forwarded: "203.0.113.5, 127.0.0.1"},
		{name: "two lines", header: edge("203.0.113.5", "203.0.113.5")},
		{name: "a list", header: edge("203.0.113.5, 203.0.113.6")},
		{name: "garbage", header: edge("evil")},
		{name: "empty", header: edge("")},
		{name: "another header", header: []string{"X-Forwarded-For: 203.0.113.5"}, seen: "127.0.0.1"},
	})
}

// TestDualStack: whoever connects over IPv4 to an IPv6 socket is known by the
// IPv4 address, in lists of addresses and of trusted proxies.
func TestDualStack(t *testing.T) {
	t.Parallel()
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("SKIPPED: this machine has no IPv6: %v", err)
	}
	_ = probe.Close() // that is all it was for
	a := newAddresses(t, settings{Host: "::", ClientAddress: `{trusted_proxies: [127.0.0.5]}`})
	limited := func(ip string) key {
		k := may("datacenter_shared:read")
		k.IPs = []string{ip}
		return a.createKey(t, a.root, k)
	}
	ipv4, mapped, ipv6 := limited("127.0.0.1"), limited("::ffff:127.0.0.1"), limited("::1")
	_, port, err := net.SplitHostPort(a.addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name    string
		to      string
		seen    string
		allowed []key
		refused []key
	}{
		{"over IPv4", "127.0.0.1", "127.0.0.1", []key{ipv4, mapped}, []key{ipv6, a.ranges}},
		{"over IPv4-mapped IPv6", "::ffff:127.0.0.1", "127.0.0.1", []key{ipv4, mapped}, []key{ipv6, a.ranges}},
		{"over IPv6", "::1", "::1", []key{ipv6}, []key{ipv4, mapped, a.ranges}},
	} {
		t.Run(row.name, func(t *testing.T) {
			at := func(k key) request {
				r := get(k, proxyListOfA)
				r.to = net.JoinHostPort(row.to, port)
				return r
			}
			for _, k := range row.allowed {
				id := k.who(subA, "datacenter_shared:read")
				id.client = row.seen
				a.forwards(t, at(k), id)
			}
			for _, k := range row.refused {
				a.turnsAway(t, at(k), refusal{status: http.StatusForbidden, code: "ip_not_allowed", detail: "from " + row.seen + "."})
			}
		})
	}
	t.Run("a trusted proxy over IPv4", func(t *testing.T) {
		r := get(a.ranges, proxyListOfA).with("X-Forwarded-For: 203.0.113.5")
		r.from = "127.0.0.5"
		id := a.ranges.who(subA, "datacenter_shared:read")
		id.client = "203.0.113.5, 127.0.0.5"
		a.forwards(t, r, id)
	})
}
