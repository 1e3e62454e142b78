package proxy_test

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"gatehouse/policy"
	"gatehouse/proxy"
)

// The proxies that the tests trust.
var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

// addressGate answers everything, and records which client it saw.
func addressGate(t testing.TB, header string) *gate {
	t.Helper()
	return newGate(t, func(s *setup) {
		s.backend = proxy.BackendFunc(accept)
		s.options.Addresses = proxy.ClientAddress{TrustedProxies: proxies, Header: header}
	})
}

// clientOf is the client of a request from the peer with these header lines.
func (g *gate) clientOf(t testing.TB, peer, header string, lines []string) netip.Addr {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
	r.RemoteAddr = peer
	r.Header = http.Header{"Api-Token": {good}}
	if lines != nil {
		r.Header[http.CanonicalHeaderKey(cmp.Or(header, "X-Forwarded-For"))] = lines
	}
	w, record := g.serve(t, r)
	if w.Code != http.StatusNoContent {
		t.Fatalf("status %d, want 204", w.Code)
	}
	return record.Client
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	const (
		xff    = "X-Forwarded-For"
		rfc    = "Forwarded"
		single = "X-Edge-Client"
		edge   = "10.0.0.1:4711" // a trusted proxy
		client = "198.51.100.7"
	)
	hops := func(n int, first string) string { return first + strings.Repeat(", 10.0.0.2", n-1) }
	for _, row := range []struct {
		name, header, peer string
		lines              []string
		want               string
	}{
		// Who is not trusted is the client, whatever it says.
		{"nothing said", xff, "198.51.100.1:1", nil, "198.51.100.1"},
		{"a client's own word", xff, "198.51.100.1:1", []string{"10.0.0.1"}, "198.51.100.1"},
		{"a client's own word in Forwarded", rfc, "198.51.100.1:1", []string{"for=10.0.0.1"}, "198.51.100.1"},
		{"a client's own word in one header", single, "198.51.100.1:1", []string{"1.2.3.4"}, "198.51.100.1"},
		{"IPv6", xff, "[2001:db8::1]:1", nil, "2001:db8::1"},
		{"a mapped peer", xff, "[::ffff:198.51.100.1]:1", nil, "198.51.100.1"},
		{"a peer with a zone", xff, "[fe80::1%eth0]:1", nil, "fe80::1"},
		{"a mapped peer that is trusted", xff, "[::ffff:10.0.0.1]:1", []string{client}, client},
		{"a peer without an address", xff, "@", []string{client}, noAddress},
		{"a proxy that says nothing", xff, edge, nil, "10.0.0.1"},

		// X-Forwarded-For.
		{"plain", xff, edge, []string{client}, client},
		{"from the right", xff, edge, []string{"1.1.1.1, " + client}, client},
		{"over trusted proxies", xff, edge, []string{"1.1.1.1, " + client + ", 10.9.9.9,fd00::1"}, client},
		{"all trusted", xff, edge, []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"several lines", xff, edge, []string{"1.1.1.1", client, "10.0.0.2"}, client},
		{"several lines, the last of the client", xff, edge, []string{"10.0.0.2", client}, client},
		{"white space", xff, edge, []string{"1.1.1.1 ,\t " + client + " \t"}, client},
		{"with a port", xff, edge, []string{client + ":4711"}, client},
		{"IPv6 alone", xff, edge, []string{"2001:db8::7"}, "2001:db8::7"},
		{"IPv6 in brackets", xff, edge, []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"IPv6 with a port", xff, edge, []string{"[2001:db8::7]:4711"}, "2001:db8::7"},
		{"IPv6 in quotes", xff, edge, []string{`"[2001:db8::7]:4711"`}, "2001:db8::7"},
		{"a zone", xff, edge, []string{"fe80::7%eth0"}, "fe80::7"},
		{"a zone in brackets", xff, edge, []string{"[fe80::7%25eth0]:80"}, "fe80::7"},
		{"mapped", xff, edge, []string{"::ffff:198.51.100.7"}, client},
		{"mapped in brackets", xff, edge, []string{"[::ffff:198.51.100.7]"}, client},
		{"a mapped trusted proxy", xff, edge, []string{client + ", ::ffff:10.0.0.9"}, client},
		{"unknown", xff, edge, []string{client + ", unknown"}, noAddress},
		{"unknown left of the client", xff, edge, []string{"unknown, " + client}, client},
		{"obfuscated", xff, edge, []string{client + ", _hidden"}, noAddress},
		{"empty", xff, edge, []string{""}, noAddress},
		{"an empty entry at the end", xff, edge, []string{client + ","}, noAddress},
		{"an empty entry between", xff, edge, []string{client + ",,10.0.0.2"}, noAddress},
		{"an empty line at the end", xff, edge, []string{client, ""}, noAddress},
		{"a host name", xff, edge, []string{"example.com"}, noAddress},
		{"leading zeros", xff, edge, []string{"198.051.100.007"}, noAddress},
		{"a number", xff, edge, []string{"3325256711"}, noAddress},
		{"a range", xff, edge, []string{client + "/32"}, noAddress},
		{"a port that is none", xff, edge, []string{client + ":99999"}, noAddress},
		{"half a quote", xff, edge, []string{`"` + client}, noAddress},
		{"half a bracket", xff, edge, []string{"[2001:db8::7"}, noAddress},
		{"IPv4 in brackets", xff, edge, []string{"[" + client + "]"}, noAddress},
		{"two addresses without a comma", xff, edge, []string{client + " 1.1.1.1"}, noAddress},
		{"another separator", xff, edge, []string{client + ";1.1.1.1"}, noAddress},
		{"bytes", xff, edge, []string{"\xff\x00"}, noAddress},
		{"32 hops", xff, edge, []string{hops(32, client)}, client},
		{"33 hops", xff, edge, []string{hops(33, client)}, noAddress},
		{"33 hops in lines", xff, edge, strings.Split(hops(33, client), ", "), noAddress},
		{"many hops left of the client", xff, edge, []string{hops(5000, "10.0.0.2") + ", " + client}, client},
		{"all trusted, 33 of them", xff, edge, []string{hops(33, "10.0.0.3")}, noAddress},
		{"the header in another case", "x-forwarded-for", edge, []string{"1.1.1.1, " + client}, client},

		// Forwarded.
		{"for", rfc, edge, []string{"for=" + client}, client},
		{"For, with more", rfc, edge, []string{"by=10.0.0.1; FOR=" + client + ";proto=https"}, client},
		{"for, from the right", rfc, edge, []string{"for=1.1.1.1, for=" + client + ", for=10.0.0.2"}, client},
		{"for in lines", rfc, edge, []string{"for=1.1.1.1", "for=" + client}, client},
		{"for in quotes", rfc, edge, []string{`for="198.51.100.7"`}, client},
		{"for with a port", rfc, edge, []string{`for="198.51.100.7:4711"`}, client},
		{"for IPv6", rfc, edge, []string{`for="[2001:db8::7]"`}, "2001:db8::7"},
		{"for IPv6 with a port", rfc, edge, []string{`for="[2001:db8::7]:4711"`}, "2001:db8::7"},
		{"for unknown", rfc, edge, []string{"for=" + client + ", for=unknown"}, noAddress},
		{"for obfuscated", rfc, edge, []string{`for="_gazonk"`}, noAddress},
		{"for twice", rfc, edge, []string{"for=" + client + ";for=1.1.1.1"}, noAddress},
		{"no for", rfc, edge, []string{"for=" + client + ", proto=https"}, noAddress},
		{"for without a value", rfc, edge, []string{"for"}, noAddress},
		{"for with an escape", rfc, edge, []string{`for="198.51.100\.7"`}, noAddress},
		{"a comma in quotes", rfc, edge, []string{`for="198.51.100.7, for=1.1.1.1"`}, noAddress},
		{"a semicolon in quotes", rfc, edge, []string{`host="a;for=1.1.1.1`}, noAddress},
		{"a quote of the client before ours", rfc, edge, []string{`for="1.1.1.1`, "for=" + client}, client},
		{"empty Forwarded", rfc, edge, []string{""}, noAddress},

		// One header with one address.
		{"one", single, edge, []string{client}, client},
		{"one IPv6", single, edge, []string{"2001:db8::7"}, "2001:db8::7"},
		{"one that is trusted", single, edge, []string{"10.0.0.9"}, "10.0.0.9"},
		{"one that is a list", single, edge, []string{"1.1.1.1, " + client}, noAddress},
		{"one that is there twice", single, edge, []string{client, client}, noAddress},
		{"one that is not there", single, edge, nil, "10.0.0.1"},
		{"no header configured", "", edge, []string{client}, "10.0.0.1"},
	} {
		t.Run(row.header+"/"+row.name, func(t *testing.T) {
			t.Parallel()
			if got := addressGate(t, row.header).clientOf(t, row.peer, row.header, row.lines).String(); got != row.want {
				t.Errorf("the client is %s, want %s", got, row.want)
			}
		})
	}
}

// TestUnknownAddressIsInNoList: a key without restrictions works, every other
// does not.
func TestUnknownAddressIsInNoList(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		set  policy.AddressSet
		want int
	}{
		{"no restriction", policy.AnyAddress(), http.StatusNoContent},
		{"every address", policy.OnlyAddresses(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")), http.StatusForbidden},
		{"the proxy's", policy.OnlyAddresses(proxies...), http.StatusForbidden},
	} {
		e := entry()
		e.Key.Addresses = row.set
		g := newGate(t, trusting("192.0.2.0/24"), func(s *setup) {
			s.backend, s.keys = proxy.BackendFunc(accept), only(t, good, e)
		})
		r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
		r.Header = http.Header{"Api-Token": {good}, "X-Forwarded-For": {"unknown"}}
		if w, _ := g.serve(t, r); w.Code != row.want {
			t.Errorf("%s: status %d, want %d", row.name, w.Code, row.want)
		}
	}
}

// TestAddressThatIsForgedOpensNothing: a client cannot put itself into a list.
func TestAddressThatIsForgedOpensNothing(t *testing.T) {
	t.Parallel()
	e := entry()
	e.Key.Addresses = policy.OnlyAddresses(netip.MustParsePrefix("203.0.113.0/24"))
	g := newGate(t, trusting("10.0.0.0/8"), func(s *setup) {
		s.backend, s.keys = proxy.BackendFunc(accept), only(t, good, e)
	})
	for _, peer := range []string{"198.51.100.7:1", "10.0.0.1:1"} {
		for _, lines := range [][]string{{"203.0.113.9"}, {"203.0.113.9, 198.51.100.7"}, {"203.0.113.9", "198.51.100.7, 10.0.0.2"}} {
			if strings.HasPrefix(peer, "10.") && len(lines) == 1 && !strings.Contains(lines[0], ",") {
				continue // a trusted proxy says that it is so
			}
			r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
			r.RemoteAddr = peer
			r.Header = http.Header{
				"Api-Token": {good}, "X-Forwarded-For": lines, "Forwarded": {"for=203.0.113.9"},
				"X-Real-Ip": {"203.0.113.9"}, "True-Client-Ip": {"203.0.113.9"}, "X_forwarded_for": {"203.0.113.9"},
			}
			if w, record := g.serve(t, r); record.Reason != "ip_not_allowed" || !strings.Contains(w.Body.String(), "198.51.100.7") {
				t.Errorf("%s %v: recorded %s, answered %s", peer, lines, record.Reason, w.Body)
			}
		}
	}
}

func FuzzClientAddress(f *testing.F) {
	for _, s := range []string{
		"198.51.100.7", "1.1.1.1, 198.51.100.7\n10.0.0.2", "for=198.51.100.7;by=x, for=\"[fd00::1]:80\"", "unknown", "::ffff:10.0.0.1",
		"[fe80::1%eth0]:1", `for="1.1.1.1, for=10.0.0.2"`, strings.Repeat("10.0.0.2,", 40), ",", "\"\"", "[", "[]:1", "fd00::1%x", "\xff",
	} {
		for kind := range 3 {
			f.Add(uint8(kind), s, true)
		}
		f.Add(uint8(0), s, false)
	}
	headers := []string{"X-Forwarded-For", "Forwarded", "X-Edge-Client"}
	gates := make([]*gate, len(headers))
	for i, header := range headers {
		gates[i] = addressGate(f, header)
	}
	isProxy := func(a netip.Addr) bool { return proxies[0].Contains(a) || proxies[1].Contains(a) }
	f.Fuzz(func(t *testing.T, kind uint8, text string, viaProxy bool) {
		header, g := headers[int(kind)%len(headers)], gates[int(kind)%len(headers)]
		lines := strings.Split(text, "\n")
		if !viaProxy {
			if got := g.clientOf(t, "198.51.100.1:1", header, lines); got != mustAddr("198.51.100.1") {
				t.Errorf("a client that is no proxy became %s", got)
			}
			return
		}
		const edge = "10.0.0.1:1"
		got := g.clientOf(t, edge, header, lines)
		if !got.IsValid() {
			return
		}
		if got.Is4In6() || got.Zone() != "" {
			t.Errorf("the client %s is not canonical", got)
		}
		if isProxy(got) && hasStranger(header, lines, isProxy) {
			t.Errorf("the client is the proxy %s, though %q names others", got, lines)
		}
		element := got.String()
		if header == "Forwarded" {
			element = `for="` + element + `"`
			if got.Is6() {
				element = `for="[` + got.String() + `]"`
			}
		}
		if again := g.clientOf(t, edge, header, []string{element}); again != got {
			t.Errorf("fed with %q the client is %s, want %s", element, again, got)
		}
		if header == headers[2] || isProxy(got) {
			return
		}
		for _, said := range []string{"6.6.6.6", "for=6.6.6.6", `"`, "unknown", strings.Repeat("10.0.0.2,", 50)} {
			if forged := g.clientOf(t, edge, header, append([]string{said}, lines...)); forged != got {
				t.Errorf("%q in front of %q made the client %s of %s", said, lines, forged, got)
			}
		}
	})
}

// hasStranger reports whether one of the last hops is plainly an address that
// is no proxy's.
func hasStranger(header string, lines []string, isProxy func(netip.Addr) bool) bool {
	if header == "X-Edge-Client" {
		return false
	}
	all := strings.Split(strings.Join(lines, ","), ",")
	if len(all) > 32 {
		all = all[len(all)-32:]
	}
	for _, s := range all {
		s = strings.TrimPrefix(strings.Trim(s, " \t"), "for=")
		if u, err := strconv.Unquote(s); err == nil {
			s = u
		}
		if a, err := netip.ParseAddr(s); err == nil && !isProxy(a.Unmap().WithZone("")) {
			return true
		}
	}
	return false
}
