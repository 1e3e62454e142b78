package proxy

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// copyBufferSize is that of the buffers in which answers are copied.
	copyBufferSize = 32 << 10
	// idlePerTarget is how many idle connections are kept for each target, for
	// hundreds of concurrent requests without new connections.
	idlePerTarget = 1024
	// maxResponseHeader bounds the headers of a backend's answer, in bytes.
	maxResponseHeader = 256 << 10
	dialTimeout       = 5 * time.Second
)

// UpstreamOptions says where a product's backends are.
type UpstreamOptions struct {
	Name string
	// Targets are http or https URLs of nothing but a host.
	Targets []*url.URL
	// Timeout is how long a backend may take until the headers of its answer.
	Timeout time.Duration
	// AddressHeader is the header that trusted proxies name the client in.
	AddressHeader string
	Log           *zap.Logger
}

// Upstream is a Backend that forwards to one of several targets, to the less
// busy one of two that are chosen at random. It may be used concurrently.
type Upstream struct {
	targets   []*target
	transport *http.Transport
	filter    headerFilter
	buffers   *BufferPool
	errorLog  *log.Logger
}

type target struct {
	url      *url.URL
	inFlight atomic.Int64
}

// NewUpstream makes an upstream with a pool of connections of its own, which
// Close ends.
func NewUpstream(o UpstreamOptions) (*Upstream, error) {
	if len(o.Targets) == 0 || o.Timeout <= 0 || o.Log == nil {
		return nil, fmt.Errorf("upstream %s: an option is missing", o.Name)
	}
	u := &Upstream{filter: newHeaderFilter(o.AddressHeader), buffers: &BufferPool{}, transport: NewTransport(o.Timeout)}
	for _, t := range o.Targets {
		if (t.Scheme != "http" && t.Scheme != "https") || t.Host == "" || t.Path != "" || t.RawQuery != "" || t.User != nil {
			return nil, fmt.Errorf("upstream %s: target %s is more or less than scheme and host", o.Name, t.Redacted())
		}
		u.targets = append(u.targets, &target{url: t})
	}
	quiet, err := zap.NewStdLogAt(o.Log.With(zap.String("upstream", o.Name)), zap.DebugLevel)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("upstream %s: log", o.Name), err)
	}
	u.errorLog = quiet
	return u, nil
}

// NewTransport is tuned for a gateway: as many connections as there are
// requests, kept for reuse, bytes as they come, no proxy from the environment.
// The headers of an answer must arrive within the timeout.
func NewTransport(timeout time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: min(timeout, dialTimeout), KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &patientConn{Conn: conn, patience: timeout}, nil
		},
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  timeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    idlePerTarget,
		MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression:     true,
		Protocols:              http1Only(),
	}
}

func http1Only() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// pick takes the target with fewer requests in flight of two random ones.
func (u *Upstream) pick() *target {
	if len(u.targets) == 1 {
		return u.targets[0]
	}
	first := rand.IntN(len(u.targets))      // #nosec G404 -- balancing needs no secrecy
	second := rand.IntN(len(u.targets) - 1) // #nosec G404 -- balancing needs no secrecy
	if second >= first {
		second++
	}
	a, b := u.targets[first], u.targets[second]
	if b.inFlight.Load() < a.inFlight.Load() {
		return b
	}
	return a
}

// Close closes the idle connections.
func (u *Upstream) Close() { u.transport.CloseIdleConnections() }

// patientConn gives up writing to a backend that has stopped reading, for
// which http.Transport has no timeout.
type patientConn struct {
	net.Conn
	patience time.Duration
	renewed  time.Time // writes come one after the other
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
	return c.Conn.Write(b)
}

// BufferPool lends buffers for copying answers, as httputil.ReverseProxy wants
// them. Its zero value is ready for use.
type BufferPool struct{ pool sync.Pool }

// Get lends a buffer.
func (p *BufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[copyBufferSize]byte); ok {
		return b[:]
	}
	return make([]byte, copyBufferSize)
}

// Put takes a buffer back.
func (p *BufferPool) Put(b []byte) {
	if len(b) == copyBufferSize {
		p.pool.Put((*[copyBufferSize]byte)(b))
	}
}
