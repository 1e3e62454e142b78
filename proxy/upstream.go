package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// copyBufferSize is that of the buffers in which answers are copied.
const copyBufferSize = 32 << 10

// UpstreamOptions says where a product's backends are. Name, Targets, Timeout
// and Log must be given; the zero value of the others means what is said there.
type UpstreamOptions struct {
	Name string
	// Targets are http, https or h2c URLs of nothing but a host.
	Targets []*url.URL
	// TLS is for https targets; nil trusts the certificates of the system.
	TLS *tls.Config
	// Timeout is how long a backend may take from the whole request until the
	// headers of its answer. A route may say otherwise.
	Timeout time.Duration
	// MaxInFlight is how many requests there may be at once; 0: 10,000.
	MaxInFlight int
	// MaxConnectionAge is for how long a connection gets new requests, or up to
	// a fifth less; 0: five minutes. Names are looked up for each connection.
	MaxConnectionAge time.Duration
	// Ejection: 0 is five failures, one second and one minute.
	Ejection Ejection
	// HealthCheck asks each target how it is; nil does not.
	HealthCheck *HealthCheck
	// AddressHeader is the header that trusted proxies name the client in.
	AddressHeader string
	// Metrics counts; nil does not.
	Metrics *UpstreamMetrics
	// Now is the clock of ejections and of the age of connections; nil: the
	// wall's.
	Now func() time.Time
	Log *zap.Logger
}

// withDefaults fills in what was left out.
func (o UpstreamOptions) withDefaults() UpstreamOptions {
	setDefault(&o.MaxInFlight, 10_000)
	setDefault(&o.MaxConnectionAge, 5*time.Minute)
	setDefault(&o.Ejection.Failures, 5)
	setDefault(&o.Ejection.Backoff, time.Second)
	setDefault(&o.Ejection.MaxBackoff, time.Minute)
	if o.Now == nil {
		o.Now = wallClock
	}
	o.Log = o.Log.With(zap.String("upstream", o.Name))
	return o
}

func setDefault[T int | time.Duration](setting *T, otherwise T) {
	if *setting == 0 {
		*setting = otherwise
	}
}

// Upstream is a Backend that forwards to one of several targets, to the less
// busy one of two that are chosen at random. It may be used concurrently.
type Upstream struct {
	name         string
	targets      []*target
	timeout      time.Duration
	maxInFlight  int64
	mayMultiplex bool // some target may speak HTTP/2
	filter       headerFilter
	buffers      *BufferPool
	errorLog     *log.Logger
	now          func() time.Time
	retried      func()

	inFlight atomic.Int64
	down     atomic.Int64 // how many targets are
	close    func()
}

// Name is the upstream's in the configuration.
func (u *Upstream) Name() string { return u.name }

// NewUpstream makes an upstream with connections and health checks of its own,
// which Close ends.
func NewUpstream(o UpstreamOptions) (*Upstream, error) {
	if len(o.Targets) == 0 || o.Timeout <= 0 || o.Log == nil {
		return nil, fmt.Errorf("upstream %s: an option is missing", o.Name)
	}
	o = o.withDefaults()
	u := &Upstream{
		name: o.Name, timeout: o.Timeout, maxInFlight: int64(o.MaxInFlight), filter: newHeaderFilter(o.AddressHeader), buffers: &BufferPool{},
		now: o.Now, retried: o.Metrics.countRetries(o.Name),
	}
	for _, at := range o.Targets {
		t, err := newTarget(at, o)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", o.Name, err)
		}
		t.onDown, t.onEject = func(change int64) { u.down.Add(change) }, o.Metrics.countEjections(o.Name, t.name)
		u.mayMultiplex = u.mayMultiplex || t.spoken != schemeHTTP
		u.targets = append(u.targets, t)
	}
	quiet, err := zap.NewStdLogAt(o.Log, zap.DebugLevel)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("upstream %s: log", o.Name), err)
	}
	u.errorLog = quiet
	if o.TLS != nil && o.TLS.InsecureSkipVerify {
		o.Log.Warn("the certificates of this upstream are not verified: whoever is on the way to it can read and change everything")
	}
	o.Metrics.add(u)
	stop := u.checkHealth(o.HealthCheck)
	u.close = sync.OnceFunc(func() {
		stop()
		o.Metrics.remove(u)
	})
	return u, nil
}

// Close stops the health checks and closes the idle connections. Requests under
// way go on, and their connections close behind them.
func (u *Upstream) Close() {
	u.close()
	for _, t := range u.targets {
		t.pool.Load().CloseIdleConnections()
	}
}

// targetNames are the labels of metrics.
func (u *Upstream) targetNames() []string {
	names := make([]string, len(u.targets))
	for i, t := range u.targets {
		names[i] = t.name
	}
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// checkHealth returns what stops it.
func (u *Upstream) checkHealth(h *HealthCheck) (stop func()) {
	if h == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, t := range u.targets {
		running.Go(func() { t.watch(ctx, *h, u.now) })
	}
	return func() {
		cancel()
		running.Wait()
	}
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
