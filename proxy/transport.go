package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// idlePerTarget is how many idle connections are kept for each target, for
	// hundreds of concurrent requests without new connections.
	idlePerTarget = 1024
	// maxResponseHeader bounds the headers of a backend's answer, in bytes.
	maxResponseHeader = 256 << 10
	dialTimeout       = 5 * time.Second
	// upstreamPingAfter is for how long an HTTP/2 connection may be silent before it is
	// asked whether it is still there, and upstreamPingTimeout for how long it may take
	// to say so. Requests would go on being sent into a dead one otherwise.
	upstreamPingAfter   = 15 * time.Second
	upstreamPingTimeout = 5 * time.Second
	// streamBuffer is how much of an HTTP/2 answer is held for a client that does
	// not take it, in bytes.
	streamBuffer = 256 << 10
)

// NewTransport is tuned for a gateway: as many connections as there are
// requests, kept for reuse, bytes as they come, no proxy from the environment.
// It speaks HTTP/1.1. The headers of an answer must arrive within the timeout.
func NewTransport(timeout time.Duration) *http.Transport {
	t := newTransport("http", timeout, nil)
	t.ResponseHeaderTimeout = timeout
	return t
}

// newTransport speaks what the scheme of a target says. How long an answer may
// take is up to whoever uses it; patience is for writing to the backend.
func newTransport(scheme string, patience time.Duration, secured *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: min(patience, dialTimeout), KeepAlive: 15 * time.Second}
	if secured != nil {
		secured = secured.Clone() // http.Transport changes it
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return newPatientConn(conn, patience), nil
		},
		TLSClientConfig:        secured,
		TLSHandshakeTimeout:    dialTimeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    idlePerTarget,
		MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression:     true,
		Protocols:              protocolsOf(scheme),
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: upstreamPingAfter, PingTimeout: upstreamPingTimeout, MaxReceiveBufferPerStream: streamBuffer,
		},
	}
}

// protocolsOf: a plain connection cannot agree on a protocol, so h2c speaks
// HTTP/2 without asking (RFC 9113 §3.3).
func protocolsOf(scheme string) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(scheme != schemeH2C)
	p.SetHTTP2(scheme == schemeHTTPS)
	p.SetUnencryptedHTTP2(scheme == schemeH2C)
	return p
}

// patientConn is a connection to a backend. It gives up writing to one that has
// stopped reading, for which http.Transport has no timeout, and knows what has
// been written, and whether anybody listens to what comes.
type patientConn struct {
	net.Conn
	patience time.Duration
	renewed  time.Time // writes come one after the other
	written  atomic.Int64
	protocol atomic.Int32 // one of the constants below

	listening atomic.Bool
	listens   chan struct{} // gets a value, where there is room, when listening begins
	closed    chan struct{}
	closeOnce sync.Once
}

// What a connection speaks.
const (
	protocolUnknown int32 = iota
	protocolHTTP1
	protocolHTTP2
)

func newPatientConn(c net.Conn, patience time.Duration) *patientConn {
	return &patientConn{Conn: c, patience: patience, listens: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Write moves the deadline once a second, which is exact enough, and keeps
// small requests on a busy connection free of it.
func (c *patientConn) Write(b []byte) (int, error) {
	if now := wallClock(); now.Sub(c.renewed) >= time.Second {
		if err := c.SetWriteDeadline(now.Add(c.patience + time.Second)); err != nil {
			return 0, err
		}
		c.renewed = now
	}
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

func (c *patientConn) Read(b []byte) (int, error) {
	c.listening.Store(true)
	select {
	case c.listens <- struct{}{}:
	default:
	}
	n, err := c.Conn.Read(b)
	c.listening.Store(false)
	return n, err
}

func (c *patientConn) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// settle waits until whatever came on an idle HTTP/1 connection has been looked
// at: http.Transport lends a connection before it does so, and would take what
// a backend sent beyond its last answer for the answer to the next request.
// What nobody asked for closes the connection.
func (c *patientConn) settle(ctx context.Context) {
	for !c.listening.Load() {
		select {
		case <-c.listens:
		case <-c.closed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// connOf finds ours in what httptrace shows, and what it speaks.
func connOf(shown net.Conn) (c *patientConn, protocol int32) {
	secured, isSecured := shown.(*tls.Conn)
	if isSecured {
		shown = secured.NetConn()
	}
	c, ours := shown.(*patientConn)
	if !ours {
		return nil, protocolUnknown
	}
	if protocol = c.protocol.Load(); protocol == protocolUnknown {
		protocol = protocolHTTP1
		if isSecured && secured.ConnectionState().NegotiatedProtocol == "h2" {
			protocol = protocolHTTP2
		}
		c.protocol.Store(protocol)
	}
	return c, protocol
}
