package wire

import (
	"net"
	"net/netip"
	"sync"
)

// The reasons why a connection is closed at once, as metrics label them.
const (
	reasonTotal      = "total"
	reasonPerAddress = "per_address"
	reasonHandshake  = "tls_handshake"
)

// counts are the open connections, in all and of each address.
type counts struct {
	mu                   sync.Mutex
	most, mostPerAddress int
	trusted              []netip.Prefix
	open                 int
	byAddress            map[netip.Addr]int
}

func newCounts(most, mostPerAddress int, trusted []netip.Prefix) *counts {
	return &counts{most: most, mostPerAddress: mostPerAddress, trusted: trusted, byAddress: map[netip.Addr]int{}}
}

// admit counts the connection until it is closed, or says why it may not stay.
func (t *counts) admit(c net.Conn) (net.Conn, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	address, exempt := t.subject(c.RemoteAddr())
	switch {
	case t.most > 0 && t.open >= t.most:
		return nil, reasonTotal
	case !exempt && t.mostPerAddress > 0 && t.byAddress[address] >= t.mostPerAddress:
		return nil, reasonPerAddress
	}
	t.open++
	t.byAddress[address]++
	return &countedConn{Conn: c, counts: t, address: address}, ""
}

func (t *counts) limit(most, mostPerAddress int, trusted []netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.most, t.mostPerAddress, t.trusted = most, mostPerAddress, trusted
}

// subject is whom a connection is counted for: an IPv6 client has a whole /64
// to choose addresses from.
func (t *counts) subject(peer net.Addr) (address netip.Addr, exempt bool) {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, true // no network
	}
	address = tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, p := range t.trusted {
		exempt = exempt || p.Contains(address)
	}
	if address.Is6() {
		network, _ := address.Prefix(64) // fits every IPv6 address
		address = network.Addr()
	}
	return address, exempt
}

func (t *counts) release(address netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	if t.byAddress[address]--; t.byAddress[address] == 0 {
		delete(t.byAddress, address)
	}
}

func (t *counts) now() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// countedConn gives its place back when it is closed.
type countedConn struct {
	net.Conn
	counts  *counts
	address netip.Addr
	closed  sync.Once
}

func (c *countedConn) Close() error {
	c.closed.Do(func() { c.counts.release(c.address) })
	return c.Conn.Close()
}

// CloseWrite closes the one direction.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
