package proxy_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/proxy"
)

// startProduct serves a handler with the protocols, with TLS if the scheme says
// so, and returns its URL and whom to trust.
func startProduct(t *testing.T, scheme string, h http.Handler, change func(*httptest.Server)) (*url.URL, *x509.CertPool) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = discardLog()
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(scheme != "h2c")
	server.Config.Protocols.SetHTTP2(scheme == "https")
	server.Config.Protocols.SetUnencryptedHTTP2(scheme == "h2c")
	server.EnableHTTP2 = scheme == "https"
	if change != nil {
		change(server)
	}
	pool := x509.NewCertPool()
	if scheme == "https" {
		server.StartTLS()
		pool.AddCert(server.Certificate())
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return &url.URL{Scheme: scheme, Host: server.Listener.Addr().String()}, pool
}

// TestProtocolIsThatOfTheTarget: gRPC's needs among them. HEAD, bodies and
// trailers, announced and not, work in each.
func TestProtocolIsThatOfTheTarget(t *testing.T) {
	t.Parallel()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Protocol", r.Proto)
		w.Header().Set("X-Te", r.Header.Get("Te"))
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Body", string(body))
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, "ok")
		_ = http.NewResponseController(w).Flush() // or HTTP/2 gives a length, behind which HTTP/1.1 has no trailers
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "late")
	})
	for _, row := range []struct{ name, scheme, protocol string }{
		{"http", "http", "HTTP/1.1"}, {"h2c", "h2c", "HTTP/2.0"}, {"https", "https", "HTTP/2.0"}, {"https without HTTP/2", "https", "HTTP/1.1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			at, pool := startProduct(t, row.scheme, answer, func(s *httptest.Server) {
				if row.protocol == "HTTP/1.1" {
					s.EnableHTTP2 = false
					s.Config.Protocols.SetHTTP2(false)
				}
			})
			g := start(t, func(s *setup) {
				s.upstream.Targets, s.upstream.TLS = []*url.URL{at}, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
			})
			for _, raw := range []string{
				request("POST", product+"/settings", "body", "TE: trailers"), request("POST", product+"/settings", "", "TE: trailers"),
				get(product+"/proxy-list", "TE: trailers"), get(product+"/whitelist?type=add", "TE: trailers"),
			} {
				conn := g.dial()
				_, _ = io.WriteString(conn, raw)
				r, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(r.Body)
				_ = r.Body.Close()
				want := ""
				if strings.HasSuffix(raw, "body") {
					want = "body"
				}
				if r.StatusCode != 200 || string(body) != "ok" || r.Header.Get("X-Protocol") != row.protocol || r.Header.Get("X-Te") != "trailers" || r.Header.Get("X-Body") != want {
					t.Errorf("%s got %d %v %q", raw[:20], r.StatusCode, r.Header, body)
				}
				if r.Trailer.Get("Grpc-Status") != "0" || r.Trailer.Get("Grpc-Message") != "late" {
					t.Errorf("%s got the trailers %v", raw[:20], r.Trailer)
				}
				g.records.next(t)
			}
			if a, _ := g.do(request("HEAD", product+"/proxy-list", "")); a.Status != 200 {
				t.Errorf("HEAD got %d", a.Status)
			}
		})
	}
}

// TestTargetsAreVerified unless the configuration says otherwise, which the log
// repeats.
func TestTargetsAreVerified(t *testing.T) {
	t.Parallel()
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	at, pool := startProduct(t, "https", ok, nil)
	strict, strictPool := startProduct(t, "https", ok, func(s *httptest.Server) {
		s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	})
	source := httptest.NewUnstartedServer(ok)
	source.StartTLS()
	defer source.Close()
	const loud = "are not verified"
	for _, row := range []struct {
		name   string
		at     *url.URL
		tls    *tls.Config
		status int
		isLoud bool
	}{
		{"trusted", at, &tls.Config{RootCAs: pool}, 200, false},
		{"of the name", at, &tls.Config{RootCAs: pool, ServerName: "example.com"}, 200, false},
		{"unknown", at, &tls.Config{RootCAs: x509.NewCertPool()}, 502, false},
		{"by the system", at, nil, 502, false},
		{"of another name", at, &tls.Config{RootCAs: pool, ServerName: "elsewhere.example"}, 502, false},
		{"unverified", at, &tls.Config{InsecureSkipVerify: true}, 200, true},
		{"without our certificate", strict, &tls.Config{RootCAs: strictPool}, 502, false},
		{"with our certificate", strict, &tls.Config{RootCAs: strictPool, Certificates: source.TLS.Certificates}, 200, false},
		{"not TLS at all", closedPort(), nil, 502, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			said := &lockedBuffer{}
			g := start(t, func(s *setup) {
				s.upstream.Targets, s.upstream.TLS, s.upstream.Log = []*url.URL{row.at}, row.tls, newLog(said)
			})
			for _, raw := range []string{get(product + "/proxy-list"), request("POST", product+"/settings", "a body")} {
				if a, record := g.do(raw); a.Status != row.status {
					t.Errorf("got %d (%v), want %d", a.Status, record.Cause, row.status)
				}
			}
			if strings.Contains(said.String(), loud) != row.isLoud {
				t.Errorf("the log says %q", said)
			}
		})
	}
}

// frame is an HTTP/2 frame (RFC 9113 §4.1).
func frame(kind, flags byte, stream uint32, payload ...byte) []byte {
	f := []byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(f[5:], stream)
	return append(f, payload...)
}

// startFramed is an HTTP/2 backend that counts requests and answers each with
// frames; none ends the connection.
func startFramed(t *testing.T, answer func(number int64, stream uint32) [][]byte) (*url.URL, *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var count atomic.Int64
	serve := func(c net.Conn) {
		defer func() { _ = c.Close() }()
		in := bufio.NewReader(c)
		if _, err := in.Discard(24); err != nil { // the preface
			return
		}
		_, _ = c.Write(frame(4, 0, 0)) // SETTINGS
		head := make([]byte, 9)
		for {
			if _, err := io.ReadFull(in, head); err != nil {
				return
			}
			if _, err := in.Discard(int(head[0])<<16 | int(head[1])<<8 | int(head[2])); err != nil {
				return
			}
			switch head[3] {
			case 4:
				if head[4] == 0 {
					_, _ = c.Write(frame(4, 1, 0))
				}
			case 1: // HEADERS
				frames := answer(count.Add(1), binary.BigEndian.Uint32(head[5:]))
				for _, f := range frames {
					_, _ = c.Write(f)
				}
				if len(frames) == 0 {
					return
				}
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return &url.URL{Scheme: "h2c", Host: l.Addr().String()}, &count
}

// TestWriteReachesAnHTTP2BackendAtMostOnce: a reset or the end of a connection
// may come behind the deed, whatever it says.
func TestWriteReachesAnHTTP2BackendAtMostOnce(t *testing.T) {
	t.Parallel()
	reset := func(code byte) func(int64, uint32) [][]byte {
		return func(_ int64, stream uint32) [][]byte { return [][]byte{frame(3, 0, stream, 0, 0, 0, code)} }
	}
	for _, row := range []struct {
		name   string
		answer func(int64, uint32) [][]byte
	}{
		{"a protocol error", reset(1)},
		{"an internal error", reset(2)},
		{"a refusal", reset(7)},
		{"a cancellation", reset(8)},
		{"the end", func(int64, uint32) [][]byte { return nil }},
		{"GOAWAY behind it", func(_ int64, stream uint32) [][]byte {
			return [][]byte{frame(7, 0, 0, 0, 0, 0, byte(stream), 0, 0, 0, 1)}
		}},
	} {
		for name, raw := range map[string]string{
			"GET": get(product + "/whitelist?type=add"), "POST": request("POST", product+"/settings", "a body"),
			"POST without a body": request("POST", product+"/settings", "", "Idempotency-Key: 1"), "DELETE": request("DELETE", product+"/settings", ""),
		} {
			t.Run(row.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				at, count := startFramed(t, row.answer)
				g := start(t, func(s *setup) {
					s.upstream.Targets, s.upstream.Timeout = []*url.URL{at, at}, 300*time.Millisecond
				})
				a, record := g.do(raw)
				if count.Load() != 1 || a.Status < 502 {
					t.Errorf("the backend acted %d times, and the client got %d (%v)", count.Load(), a.Status, record.Cause)
				}
			})
		}
	}
}

// TestRefusedReadIsSentAgainByHTTP2 shows that the backend above does provoke
// a repetition.
func TestRefusedReadIsSentAgainByHTTP2(t *testing.T) {
	t.Parallel()
	for _, code := range []byte{1, 7} {
		at, count := startFramed(t, func(number int64, stream uint32) [][]byte {
			if number == 1 {
				return [][]byte{frame(3, 0, stream, 0, 0, 0, code)}
			}
			return [][]byte{frame(1, 5, stream, 0x88)} // HEADERS: 200, and the end
		})
		g := start(t, func(s *setup) { s.upstream.Targets = []*url.URL{at} })
		if a, record := g.do(get(product + "/proxy-list")); a.Status != 200 || count.Load() != 2 {
			t.Errorf("error %d: got %d (%v) for %d requests, want 200 for 2", code, a.Status, record.Cause, count.Load())
		}
	}
}

// TestReadReachesAnHTTP2BackendAtMostTwice, and in the time of one request,
// whatever a backend says: one that refuses without end must not be asked so.
func TestReadReachesAnHTTP2BackendAtMostTwice(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(int64, uint32) [][]byte{
		"a protocol error":  func(_ int64, stream uint32) [][]byte { return [][]byte{frame(3, 0, stream, 0, 0, 0, 1)} },
		"a refusal":         func(_ int64, stream uint32) [][]byte { return [][]byte{frame(3, 0, stream, 0, 0, 0, 7)} },
		"GOAWAY in between": func(int64, uint32) [][]byte { return [][]byte{frame(7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)} },
		"the end":           func(int64, uint32) [][]byte { return nil },
	} {
		for targets := range 2 {
			t.Run(fmt.Sprintf("%s, %d more", name, targets), func(t *testing.T) {
				t.Parallel()
				at, count := startFramed(t, answer)
				g := start(t, func(s *setup) {
					s.upstream.Timeout = time.Second
					s.upstream.Targets = []*url.URL{at}
					for range targets {
						s.upstream.Targets = append(s.upstream.Targets, at)
					}
				})
				begun := time.Now()
				a, record := g.do(get(product + "/proxy-list"))
				if count.Load() > 2 || a.Status < 502 || time.Since(begun) > 5*time.Second {
					t.Errorf("the backend was asked %d times in %s, and the client got %d (%v)", count.Load(), time.Since(begun), a.Status, record.Cause)
				}
			})
		}
	}
}

// TestStreamErrorsEjectNobody: they may be the client's own doing.
func TestStreamErrorsEjectNobody(t *testing.T) {
	t.Parallel()
	at, count := startFramed(t, func(_ int64, stream uint32) [][]byte { return [][]byte{frame(3, 0, stream, 0, 0, 0, 2)} })
	other, _ := startFramed(t, func(_ int64, stream uint32) [][]byte { return [][]byte{frame(1, 5, stream, 0x88)} })
	g := start(t, func(s *setup) {
		s.upstream.Targets = []*url.URL{at, other}
		s.upstream.Ejection = proxy.Ejection{Failures: 1, Backoff: time.Hour, MaxBackoff: time.Hour}
	})
	eventually(t, "the failing target is asked three times", func() bool {
		g.do(get(product + "/whitelist?type=add"))
		return count.Load() >= 3
	})
}
