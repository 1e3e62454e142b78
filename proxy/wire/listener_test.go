package wire_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/proxy/wire"
)

// certified makes a certificate for 127.0.0.1.
func certified(t testing.TB) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, roots
}

// secure makes a site with TLS, and what its clients need.
func secure(t testing.TB, o wire.Options) (*site, *tls.Config) {
	t.Helper()
	certificate, roots := certified(t)
	o.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil }
	return start(t, o), &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
}

// ask makes a request with net/http, and returns the protocol of its answer.
func (s *site) ask(secured *tls.Config, configure func(*http.Protocols)) (string, error) {
	protocols := new(http.Protocols)
	configure(protocols)
	transport := &http.Transport{TLSClientConfig: secured, Protocols: protocols}
	defer transport.CloseIdleConnections()
	scheme := "http"
	if secured != nil {
		scheme = "https"
	}
	r, err := http.NewRequest(http.MethodGet, scheme+"://"+s.addr+"/a", nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
	if err != nil {
		return "", err
	}
	return response.Proto, response.Body.Close()
}

// TestTheClientChoosesItsProtocol, and the handler knows of TLS either way.
func TestTheClientChoosesItsProtocol(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name      string
		tls       bool
		h2c       bool
		configure func(*http.Protocols)
		proto     string
		saw       string
	}{
		{"HTTP/1.1", false, false, func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/1.1", "GET /a"},
		{"HTTP/1.1 over TLS", true, false, func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/1.1", "GET /a  over TLS"},
		{"HTTP/2 over TLS", true, false, func(p *http.Protocols) { p.SetHTTP2(true) }, "HTTP/2.0", "GET /a  HTTP/2.0 over TLS"},
		{"HTTP/2 without TLS", false, true, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, "HTTP/2.0", "GET /a  HTTP/2.0"},
		{"HTTP/1.1 where HTTP/2 may be", false, true, func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/1.1", "GET /a"},
		{"HTTP/2 without TLS where it is off", false, false, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, "", "invalid_request"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var s *site
			var secured *tls.Config
			if o := (wire.Options{H2C: row.h2c}); row.tls {
				s, secured = secure(t, o)
			} else {
				s = start(t, o)
			}
			proto, err := s.ask(secured, row.configure)
			if proto != row.proto || (err != nil) != (row.proto == "") {
				t.Errorf("answered by %q, %v, want %q", proto, err, row.proto)
			}
			if saw := s.seen(); len(saw) == 0 || saw[0] != row.saw {
				t.Errorf("the handler saw %q, want %q", saw, row.saw)
			}
		})
	}
}

// TestTheGuardStandsBehindTLSToo, and behind what h2c begins with.
func TestTheGuardStandsBehindTLSToo(t *testing.T) {
	t.Parallel()
	s, secured := secure(t, wire.Options{})
	c, err := tls.Dial("tcp", s.addr, secured)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, get+strings.ReplaceAll(smuggle, "\r\n", "\n"))
	said, _ := io.ReadAll(c)
	if n := strings.Count(string(said), "HTTP/1.1 "); n != 2 || !strings.Contains(string(said), "HTTP/1.1 400 ") {
		t.Errorf("answered %q, want 200 and 400", said)
	}
	if saw := s.seen(); len(saw) != 2 || saw[1] != "invalid_request" {
		t.Errorf("the handler saw %q", saw)
	}
	plain := start(t, wire.Options{H2C: true})
	for _, raw := range []string{strings.ReplaceAll(smuggle, "\r\n", "\n"), "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", get + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		plain.send(raw)
		if saw := plain.seen(); saw[len(saw)-1] != "invalid_request" {
			t.Errorf("%q: the handler saw %q", raw, saw)
		}
	}
}

func TestPlainHTTPOnATLSPortIsToldSo(t *testing.T) {
	t.Parallel()
	s, _ := secure(t, wire.Options{})
	c := s.dial()
	_, _ = io.WriteString(c, get)
	if said, _ := io.ReadAll(c); !strings.HasPrefix(string(said), "HTTP/1.0 400 ") || len(s.seen()) != 0 {
		t.Errorf("answered %q, the handler saw %q", said, s.seen())
	}
}

// TestCertificateIsAskedForAtEveryHandshake, so that it can be changed.
func TestCertificateIsAskedForAtEveryHandshake(t *testing.T) {
	t.Parallel()
	first, firstRoots := certified(t)
	second, secondRoots := certified(t)
	var current atomic.Pointer[tls.Certificate]
	current.Store(first)
	s := start(t, wire.Options{Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }})
	http1 := func(p *http.Protocols) { p.SetHTTP1(true) }
	for _, step := range []struct {
		certificate *tls.Certificate
		roots       *x509.CertPool
	}{{first, firstRoots}, {second, secondRoots}} {
		current.Store(step.certificate)
		if _, err := s.ask(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: step.roots}, http1); err != nil {
			t.Error(err)
		}
	}
}

// TestHandshakeThatHangsHoldsNobodyUp, and ends with the listener.
func TestHandshakeThatHangsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	s, secured := secure(t, wire.Options{})
	silent := s.dial()
	if _, err := s.ask(secured, func(p *http.Protocols) { p.SetHTTP2(true) }); err != nil {
		t.Error(err)
	}
	s.stop()
	if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, errTimeout) {
		t.Errorf("the handshake outlived its listener: %v", err)
	}
}

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
