package proxy

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// The schemes of targets.
const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
	schemeH2C   = "h2c" // HTTP/2 on a plain connection
)

// target is one host of an upstream.
type target struct {
	standing
	name     string // its URL, for metrics and logs
	spoken   string // one of the schemes above
	scheme   string // as http.Transport knows it
	host     string
	port     int
	inFlight atomic.Int64
	pool     atomic.Pointer[pool]
	newPool  func(now time.Time) *pool
}

// pool is a transport and its connections, which are used until it retires.
type pool struct {
	*http.Transport
	retires time.Time
}

func newTarget(u *url.URL, o UpstreamOptions) (*target, error) {
	known := u.Scheme == schemeHTTP || u.Scheme == schemeHTTPS || u.Scheme == schemeH2C
	if !known || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("target %s is more or less than scheme and host", u.Redacted())
	}
	t := &target{name: u.String(), spoken: u.Scheme, scheme: u.Scheme, host: u.Host}
	t.port = portOf(u)
	t.standing = standing{rule: o.Ejection, name: t.name, log: o.Log}
	var secured *tls.Config
	switch u.Scheme {
	case schemeHTTPS:
		secured = o.TLS
	case schemeH2C:
		t.scheme = schemeHTTP
	}
	t.newPool = func(now time.Time) *pool {
		return &pool{Transport: newTransport(t.spoken, o.Timeout, secured), retires: now.Add(shortened(o.MaxConnectionAge))}
	}
	t.pool.Store(t.newPool(o.Now()))
	return t, nil
}

// portOf is the scheme's where the URL has none.
func portOf(u *url.URL) int {
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	if u.Scheme == schemeHTTPS {
		return 443
	}
	return 80
}

// shortened returns up to a fifth less than d, so that not everything that
// began together ends together.
func shortened(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/5+1)) // #nosec G404 -- spreading needs no secrecy
}

// transport has connections that are not too old: http.Transport knows no
// greatest age, so another one takes its place. What is under way on the old
// one goes on, and its connections close behind that.
func (t *target) transport(now time.Time) *http.Transport {
	current := t.pool.Load()
	if now.Before(current.retires) {
		return current.Transport
	}
	fresh := t.newPool(now)
	if !t.pool.CompareAndSwap(current, fresh) {
		return t.pool.Load().Transport
	}
	current.CloseIdleConnections()
	return fresh.Transport
}

// locate says where on the target a request goes. A transport may still look at
// what it got before.
// forgetIdle has the next request dial.
func (t *target) forgetIdle() { t.pool.Load().CloseIdleConnections() }

func (t *target) locate(u *url.URL) *url.URL {
	at := *u
	at.Scheme, at.Host = t.scheme, t.host
	return &at
}

// choice is a target that was picked. A probe finds out whether an ejected one
// is well again.
type choice struct {
	*target
	isProbe bool
}

// pick takes a target whose ejection is over, for one request at a time, or the
// target with fewer requests in flight of two random ones. When more than half
// of all are down that counts for nothing: the rest could not carry the load.
// It returns no target where but the excepted one there is none.
func (u *Upstream) pick(except *target) choice {
	down := u.down.Load()
	if down == 0 && except == nil {
		return choice{target: lessBusy(u.targets)}
	}
	now := u.now()
	isPanic := 2*int(down) > len(u.targets)
	candidates := make([]*target, 0, len(u.targets))
	for _, t := range u.targets {
		switch {
		case t == except:
		case except == nil && t.takeProbe(now):
			return choice{target: t, isProbe: true}
		case isPanic || !t.isDown():
			candidates = append(candidates, t)
		}
	}
	if len(candidates) == 0 && except == nil {
		candidates = u.targets // it changed meanwhile
	}
	return choice{target: lessBusy(candidates)}
}

// lessBusy returns nil only for no targets.
func lessBusy(targets []*target) *target {
	switch len(targets) {
	case 0:
		return nil
	case 1:
		return targets[0]
	}
	first := rand.IntN(len(targets))      // #nosec G404 -- balancing needs no secrecy
	second := rand.IntN(len(targets) - 1) // #nosec G404 -- balancing needs no secrecy
	if second >= first {
		second++
	}
	a, b := targets[first], targets[second]
	if b.inFlight.Load() < a.inFlight.Load() {
		return b
	}
	return a
}
