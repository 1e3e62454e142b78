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
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
