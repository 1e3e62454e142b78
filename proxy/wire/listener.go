package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// handshakeTimeout is how long a TLS handshake may take.
const handshakeTimeout = 10 * time.Second

// Options is what a Listener is made of.
type Options struct {
	// Limits bound each request's head; both must be above 0.
	Limits Limits
	// HeadTimeout is how long a head may take from its first byte on; above 0.
	HeadTimeout time.Duration
	// Certificate makes the listener speak TLS, and HTTP/2 where the client
	// offers that. It is asked at every handshake. nil: no TLS.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// H2C lets connections through that begin with the preface of HTTP/2
	// without TLS. The server must know what to do with them.
	H2C bool
	// Total is how many connections there may be, and PerAddress how many from
	// one address, or from one /64 of IPv6. 0: no limit.
	Total, PerAddress int
	// Trusted are the proxies whose connections PerAddress does not limit.
	Trusted []netip.Prefix
	// Metrics counts connections; nil for nobody.
	Metrics *Metrics
}

// Listener is a net.Listener for an http.Server with Context. It accepts at
// most so many connections, closes those beyond at once, and guards the rest:
// Accept returns a *tls.Conn where the client chose HTTP/2, and a connection
// whose requests are judged otherwise.
type Listener struct {
	net.Listener
	guard  *guard
	counts *counts
	secure *tls.Config // nil for plain connections
	meter  *Metrics

	ready   chan accepted // over TLS alone; closed when draining, after the last one
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	draining atomic.Bool
	drained  chan struct{} // closed by endDrain, when the server asks for more than there was
	endDrain func()
}

type accepted struct {
	conn net.Conn
	err  error
}

// Listen guards what l accepts. Close closes l, and ends every handshake that
// is under way.
func Listen(l net.Listener, o Options) (*Listener, error) {
	if o.Limits.Bytes <= 0 || o.Limits.Lines <= 0 || o.HeadTimeout <= 0 {
		return nil, errors.New("wire: a limit is missing")
	}
	w := &Listener{
		Listener: l, meter: o.Metrics,
		guard:  &guard{limits: o.Limits, headTimeout: o.HeadTimeout, h2c: o.H2C && o.Certificate == nil},
		counts: newCounts(o.Total, o.PerAddress, o.Trusted),
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.drained = make(chan struct{})
	w.endDrain = sync.OnceFunc(func() { close(w.drained) })
	w.meter.watch(w.counts)
	if o.Certificate != nil {
		w.secure = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: o.Certificate, NextProtos: []string{"h2", "http/1.1"}}
		w.ready = make(chan accepted)
		w.running.Go(w.handshakes)
	}
	return w, nil
}

// Limit replaces Options.Total, PerAddress and Trusted, for connections that
// come from now on.
func (l *Listener) Limit(total, perAddress int, trusted []netip.Prefix) {
	l.counts.limit(total, perAddress, trusted)
}

// Accept returns the next connection that may be served.
func (l *Listener) Accept() (net.Conn, error) {
	if l.secure == nil {
		c, err := l.admit()
		if err != nil {
			if l.draining.Load() {
				return l.waitDrained()
			}
			return nil, err
		}
		return newConn(c, l.guard), nil
	}
	select {
	case next, more := <-l.ready:
		if !more {
			return l.waitDrained()
		}
		return next.conn, next.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends Accept and all handshakes, and waits for their goroutines.
func (l *Listener) Close() error {
	l.stop()
	err := l.Listener.Close()
	l.running.Wait()
	if l.draining.Load() && errors.Is(err, net.ErrClosed) {
		return nil // Drain closed it
	}
	return err
}

// admit returns the next connection that is not one too many.
func (l *Listener) admit() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		counted, reason := l.counts.admit(c)
		if reason == "" {
			return counted, nil
		}
		l.meter.refused(reason)
		_ = c.Close() // nothing was promised to it
	}
}

// handshakes accepts connections until the listener is closed, and gives each
// a goroutine of its own for its handshake.
func (l *Listener) handshakes() {
	var underWay sync.WaitGroup
	defer underWay.Wait()
	for {
		c, err := l.admit()
		if err != nil {
			if l.draining.Load() {
				underWay.Wait()
				close(l.ready)
				return
			}
			if !l.hand(accepted{err: err}) {
				return
			}
			continue // the server decides whether to go on
		}
		underWay.Go(func() { l.handshake(c) })
	}
}

func (l *Listener) handshake(c net.Conn) {
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(c, l.secure)
	if err := conn.HandshakeContext(ctx); err != nil {
		l.meter.refused(reasonHandshake)
		explainPlain(err)
		_ = c.Close() // it has failed already
		return
	}
	next := accepted{conn: conn}
	if state := conn.ConnectionState(); state.NegotiatedProtocol != "h2" {
		next.conn = &secureConn{Conn: newConn(conn, l.guard), state: state}
	}
	if !l.hand(next) {
		_ = c.Close() // the listener is closed
	}
}

// hand reports false when nobody accepts any more.
func (l *Listener) hand(next accepted) bool {
	select {
	case l.ready <- next:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// explainPlain tells a client that forgot about TLS what is wrong.
func explainPlain(err error) {
	var header tls.RecordHeaderError
	if !errors.As(err, &header) || header.Conn == nil {
		return
	}
	switch string(header.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "DELET", "PATCH", "OPTIO":
		_ = header.Conn.SetWriteDeadline(wallClock().Add(time.Second))
		_, _ = io.WriteString(header.Conn, "HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nThis is an HTTPS server.\n") // it need not arrive
	}
}
