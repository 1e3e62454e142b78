package proxy

import (
	"net/http"
	"net/netip"
	"strings"
)

// maxForwardedHops is how many entries of a forwarding header are looked at.
const maxForwardedHops = 32

// ClientAddress says which address a client has. With its zero value nobody is
// trusted, and the client is the peer of the connection.
type ClientAddress struct {
	// TrustedProxies are the addresses of proxies whose forwarding header is
	// believed. Canonical prefixes.
	TrustedProxies []netip.Prefix
	// Header is X-Forwarded-For, Forwarded (RFC 7239), or the name of a header
	// with one address that a trusted proxy sets.
	Header string
}

// origin is where a request came from.
type origin struct {
	// client is the address that counts; invalid when a trusted proxy did not
	// say it understandably, which no address restriction allows.
	client netip.Addr
	// peer is the other end of the connection.
	peer netip.Addr
	// trusted: the peer is a trusted proxy.
	trusted bool
	// via are the trusted proxies between client and peer, in the order of
	// the request's way.
	via []netip.Addr
}

// of reads the header from its right end, where the nearest proxy wrote, and
// takes the first address that is no trusted proxy. What stands left of that
// was written by the client and is never looked at.
func (c ClientAddress) of(r *http.Request) origin {
	peer := peerAddress(r.RemoteAddr)
	o := origin{client: peer, peer: peer, trusted: c.trusts(peer)}
	if !o.trusted {
		return o
	}
	lines := r.Header.Values(c.Header)
	if len(lines) == 0 {
		return o
	}
	var hops []string
	switch {
	case strings.EqualFold(c.Header, "X-Forwarded-For"):
		hops = splitHops(lines)
	case strings.EqualFold(c.Header, "Forwarded"):
		hops = forwardedFor(lines)
	case len(lines) == 1:
		hops = lines
	default:
		hops = []string{""} // one value was promised, several came
	}
	return c.walk(o, hops)
}

func (c ClientAddress) walk(o origin, hops []string) origin {
	for i := len(hops) - 1; i >= 0; i-- {
		addr, ok := parseHop(hops[i])
		if !ok || len(hops)-i > maxForwardedHops {
			o.client = netip.Addr{}
			return o
		}
		o.client = addr
		if !c.trusts(addr) {
			return o
		}
		if i > 0 {
			o.via = append([]netip.Addr{addr}, o.via...)
		}
	}
	return o
}

func (c ClientAddress) trusts(addr netip.Addr) bool {
	for _, p := range c.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func peerAddress(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// splitHops splits the lines of a list header, the last entries only.
func splitHops(lines []string) []string {
	var hops []string
	for i := len(lines) - 1; i >= 0 && len(hops) <= maxForwardedHops; i-- {
		hops = append(strings.Split(lines[i], ","), hops...)
	}
	return hops
}

// parseHop reads an address as proxies write it: plain, with a port, in
// brackets, in quotes.
func parseHop(s string) (netip.Addr, bool) {
	s = strings.Trim(s, " \t")
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Unmap().WithZone(""), true
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		addr, err := netip.ParseAddr(s[1 : len(s)-1])
		return addr.Unmap().WithZone(""), err == nil && addr.Is6()
	}
	ap, err := netip.ParseAddrPort(s)
	return ap.Addr().Unmap().WithZone(""), err == nil
}

// forwardedFor takes the for= parameters out of Forwarded lines (RFC 7239 §4),
// one entry an element. An element that cannot be read becomes "", which is no
// address.
func forwardedFor(lines []string) []string {
	hops := splitHops(lines)
	for i, element := range hops {
		hops[i] = ""
		found := 0
		for parameter := range strings.SplitSeq(element, ";") {
			name, value, _ := strings.Cut(parameter, "=")
			if strings.EqualFold(strings.Trim(name, " \t"), "for") {
				hops[i] = value
				found++
			}
		}
		// A quote that spans a separator was cut apart; its halves are odd.
		if found != 1 || strings.Count(element, `"`)%2 != 0 {
			hops[i] = ""
		}
	}
	return hops
}
