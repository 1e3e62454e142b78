package wire_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/proxy/wire"
)

// TestConnectionsAreBounded, in all and of each address, and count until they
// are closed.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		o      wire.Options
		most   int
		reason string
	}{
		{"in all", wire.Options{Total: 3}, 3, "total"},
		{"of one address", wire.Options{Total: 10, PerAddress: 2}, 2, "per_address"},
		{"of a trusted proxy in all alone", wire.Options{Total: 3, PerAddress: 1, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, 3, "total"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			registry := prometheus.NewRegistry()
			row.o.Metrics = wire.NewMetrics(registry)
			s := start(t, row.o)
			var open []net.Conn
			for range row.most {
				c := s.dial()
				s.served(c)
				open = append(open, c)
			}
			for range 2 {
				if n, err := s.dial().Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, errTimeout) {
					t.Errorf("one too many got %d bytes and %v, want to be closed", n, err)
				}
			}
			if got := value(t, registry, "gatehouse_connections_refused_total", row.reason); got != 2 {
				t.Errorf("%v refused for %s, want 2", got, row.reason)
			}
			if got := value(t, registry, "gatehouse_connections", ""); got != float64(row.most) {
				t.Errorf("%v connections, want %d", got, row.most)
			}
			_ = open[0].Close()
			eventually(t, "a place is free", func() bool { return value(t, registry, "gatehouse_connections", "") < float64(row.most) })
			s.served(s.dial())
		})
	}
}

func TestAnotherAddressHasPlacesOfItsOwn(t *testing.T) {
	t.Parallel()
	s := start(t, wire.Options{PerAddress: 1})
	s.served(s.dial())
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	c, err := dialer.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	s.served(c)
}

// TestIPv6AddressesAreCountedByNetwork: who has one of a /64 has them all.
func TestIPv6AddressesAreCountedByNetwork(t *testing.T) {
	t.Parallel()
	l := &pipes{conns: make(chan net.Conn, 3)}
	guarded, err := wire.Listen(l, wire.Options{Limits: wire.Limits{Bytes: 1, Lines: 1}, HeadTimeout: 1, PerAddress: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"} {
		l.conns <- &from{address: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 1))}
	}
	for _, want := range []string{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1"} {
		c, err := guarded.Accept()
		if err != nil || c.RemoteAddr().String() != want {
			t.Errorf("accepted %v, %v, want %s", c, err, want)
		}
	}
}

// pipes is a listener of connections that tests make.
type pipes struct {
	net.Listener
	conns chan net.Conn
}

func (p *pipes) Accept() (net.Conn, error) { return <-p.conns, nil }

type from struct {
	net.Conn
	address net.Addr
}

func (f *from) RemoteAddr() net.Addr { return f.address }
func (f *from) Close() error         { return nil }

// TestHeadHasATimeOfItsOwn, also behind another request, where net/http would
// give it that of an idle connection; but not while a request is being served.
func TestHeadHasATimeOfItsOwn(t *testing.T) {
	t.Parallel()
	const short = 100 * time.Millisecond
	s := start(t, wire.Options{HeadTimeout: short})
	c := s.dial()
	s.served(c)
	begun := time.Now()
	_, _ = io.WriteString(c, "GET /slow HTTP/1.1\r\nHost:")
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, errTimeout) {
		t.Errorf("got %d bytes and %v, want the end", n, err)
	}
	if took := time.Since(begun); took < short/2 || took > patience/2 {
		t.Errorf("closed after %s, want about %s", took, short)
	}
	held, release := s.hold()
	busy := s.dial()
	_, _ = io.WriteString(busy, "GET /held HTTP/1.1\r\nHost: x\r\n\r\nGET /half")
	ctx := <-held
	select {
	case <-ctx.Done():
		t.Error("half a request behind it ended a request that was being served")
	case <-time.After(3 * short):
	}
	release()
}

// TestTunnelPassesEverythingOn, also what came before it began.
func TestTunnelPassesEverythingOn(t *testing.T) {
	t.Parallel()
	const frames = "\x81\x05hello\r\n\n\n\x00 not HTTP"
	s, secured := secure(t, wire.Options{})
	plain := start(t, wire.Options{})
	for _, site := range []*site{s, plain} {
		c := site.dial()
		if site == s {
			secured := secured.Clone()
			secured.ServerName = "127.0.0.1"
			c = tls.Client(c, secured)
		}
		_, _ = io.WriteString(c, "GET /tunnel HTTP/1.1\r\nHost: x\r\n\r\n\x81\x05he")
		if _, err := io.ReadFull(c, make([]byte, len("go"))); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, frames)
		got := make([]byte, len("\x81\x05he")+len(frames))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "\x81\x05he"+frames {
			t.Errorf("got %q, %v", got, err)
		}
		_ = c.Close()
	}
}

func TestListenNeedsItsLimits(t *testing.T) {
	t.Parallel()
	whole := wire.Options{Limits: wire.Limits{Bytes: 1, Lines: 1}, HeadTimeout: 1}
	for _, change := range []func(*wire.Options){
		func(o *wire.Options) { o.Limits.Bytes = 0 }, func(o *wire.Options) { o.Limits.Lines = 0 }, func(o *wire.Options) { o.HeadTimeout = 0 },
	} {
		o := whole
		change(&o)
		if _, err := wire.Listen(&pipes{}, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

// value is that of the metric with the reason, or of the only one.
func value(t testing.TB, registry *prometheus.Registry, name, reason string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch {
			case f.GetName() != name:
			case len(m.GetLabel()) == 0:
				return m.GetGauge().GetValue()
			case m.GetLabel()[0].GetValue() == reason:
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s with the reason %q", name, reason)
	return 0
}
