package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/keyapi"
	"gatehouse/proxy/problem"
)

type serveCommand struct {
	Config string `help:"The configuration file." required:"" placeholder:"FILE"`
}

// Run serves until the process is told to stop.
func (c *serveCommand) Run(t *terminal) error {
	loaded, err := config.Load(c.Config, t.lookupEnv)
	if err != nil {
		return usageError{err}
	}
	log, flush, err := newLogger(loaded.Log, t.out)
	if err != nil {
		return err
	}
	defer flush()
	// net/http writes there what a broken backend sends beyond its answers,
	// which may be anything.
	stdlog.SetOutput(io.Discard)
	tuneCollector(t)
	n, err := start(t.ctx, loaded, log)
	if err != nil {
		return err
	}
	log.Info("serving", zap.Stringer("listen", n.public.Addr()), zap.Stringer("admin_listen", n.private.Addr()),
		zap.String("version", version()))
	return n.wait(t.ctx)
}

// collectorPercent lets the heap, which is small, grow further between two
// collections than Go's default does: a tenth more throughput for some memory.
const collectorPercent = 400

// tuneCollector leaves the operator's own GOGC alone.
func tuneCollector(t *terminal) {
	if _, given := t.lookupEnv("GOGC"); !given {
		debug.SetGCPercent(collectorPercent)
	}
}

// node is a running gateway and all that belongs to it.
type node struct {
	config    *config.Config
	log       *zap.Logger
	catalogue policy.Catalogue
	store     *keystore.Store
	registry  *prometheus.Registry
	draining  atomic.Bool

	public, private net.Listener
	gateway, admin  *http.Server
	failed          chan error
	closers         []func() error // in the order in which they were opened
}

// start opens everything that the configuration names, and serves. Where
// something cannot be opened, what was open is closed again.
func start(ctx context.Context, c *config.Config, log *zap.Logger) (*node, error) {
	n := &node{config: c, log: log, registry: prometheus.NewRegistry(), failed: make(chan error, 2)}
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := n.open(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	n.serve()
	return n, nil
}

func (n *node) open(ctx context.Context) (err error) {
	if n.catalogue, err = n.config.Catalogue(); err != nil {
		return err
	}
	if n.public, err = n.listen(ctx, n.config.Listen, "listen"); err != nil {
		return err
	}
	if n.private, err = n.listen(ctx, n.config.AdminListen, "admin_listen"); err != nil {
		return err
	}
	if n.store, err = n.openStore(ctx); err != nil {
		return err
	}
	n.closers = append(n.closers, n.store.Close)
	handler, err := n.newGateway()
	if err != nil {
		return err
	}
	quiet, err := zap.NewStdLogAt(n.log, zap.DebugLevel)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	documents, err := keyapi.NewDocuments()
	if err != nil {
		return err
	}
	n.gateway = proxy.NewServer(documents.Before(handler), int(n.config.Limits.MaxHeader), quiet)
	if n.gateway.TLSConfig, err = serverTLS(n.config.TLS); err != nil {
		return err
	}
	n.admin, err = n.newAdmin(quiet)
	return err
}

// listen says what to do about a port in use.
func (n *node) listen(ctx context.Context, address, setting string) (net.Listener, error) {
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s %s: the port is in use by another process; choose another one, or stop that process", setting, address)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", setting, address, err)
	}
	n.closers = append(n.closers, func() error { return ignoreClosed(listener.Close()) })
	return listener, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (n *node) openStore(ctx context.Context) (*keystore.Store, error) {
	c := n.config
	options := keystore.Options{
		Prefix: "gatehouse:", Timeout: c.Store.Timeout, Mode: keystore.Mode(c.Store.Lookup),
		CacheTTL: c.Store.Cache.TTL, CacheEntries: c.Store.Cache.Entries, StaleIfUnavailable: c.Store.StaleIfUnavailable,
		Catalogue: n.catalogue, TokenPrefix: c.Token.Prefix, MaxKeys: c.Delegation.MaxKeysPerAccount,
		Delegation: policy.Delegation{InheritAddresses: c.Delegation.InheritIPs, CapExpiry: c.Delegation.CapExpiry},
		Audit:      keystore.AuditKeep{Events: c.Audit.Keep.Events, Age: c.Audit.Keep.Age},
		Now:        time.Now, Log: n.log,
	}
	if c.Store.Embedded != nil {
		options.EmbeddedFile = c.Store.Embedded.File
		return keystore.Open(ctx, options)
	}
	r := c.Store.Redis
	secured, err := redisTLS(r.TLS)
	if err != nil {
		return nil, err
	}
	options.Prefix = r.Prefix
	options.Redis = &keystore.Redis{
		Addrs: r.Addrs, MasterName: r.MasterName, Username: r.Username, Password: string(r.Password), DB: r.DB, TLS: secured,
	}
	return keystore.Open(ctx, options)
}

// newGateway makes the gateway: the key API's endpoints are routes like those
// of products.
func (n *node) newGateway() (*proxy.Gateway, error) {
	c := n.config
	keys, err := keyapi.New(keyapi.Options{
		Keys: n.store, Audit: n.store, Catalogue: n.catalogue, Products: n.products(), Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	specs := make([]proxy.RouteSpec, 0, len(c.Routes))
	for _, endpoint := range keys.Endpoints() {
		specs = append(specs, proxy.RouteSpec{
			Match: endpoint.Match, Permission: endpoint.Needs, Own: true, Refused: n.refusals(endpoint),
			Backend: proxy.BackendFunc(func(w http.ResponseWriter, r *http.Request, a proxy.Access) error {
				return endpoint.Serve(w, r, a.Caller)
			}),
		})
	}
	upstreams, err := n.newUpstreams()
	if err != nil {
		return nil, err
	}
	specs = append(specs, c.RouteSpecs(func(name string) proxy.Backend { return upstreams[name] })...)
	routes, err := proxy.NewRoutes(keyapi.Reserved(), specs)
	if err != nil {
		return nil, err
	}
	perKey := n.newLimiter(c.Limits.Key)
	perFailure := n.newLimiter(c.Limits.FailedAuth)
	perManager := n.newLimiter(c.Limits.Management)
	return proxy.New(proxy.Options{
		Routes: routes, Keys: n.store, TokenPrefix: c.Token.Prefix, Limits: perKey, Failures: perFailure,
		Management: perManager, Origins: c.CORS.Origins, Used: n.store.Used,
		Addresses: proxy.ClientAddress{TrustedProxies: c.ClientAddress.TrustedProxies, Header: c.ClientAddress.Header},
		Records:   proxy.NewMetrics(n.registry, n.log), MaxBody: int64(c.Limits.MaxBody), Now: time.Now,
	})
}

// refusals notes refused actions of the endpoint in the audit trail; nil for
// an endpoint that only reads.
func (n *node) refusals(e keyapi.Endpoint) proxy.RefusedFunc {
	if e.Action == "" {
		return nil
	}
	return func(ctx context.Context, r *http.Request, by policy.Caller, code problem.Code) {
		n.store.Refused(ctx, by, e.Action, policy.KeyID(r.PathValue("id")), string(code))
	}
}

func (n *node) products() []keyapi.Product {
	products := make([]keyapi.Product, 0, len(n.config.Products))
	for _, p := range n.config.Products {
		products = append(products, keyapi.Product{Name: p.Name, Label: p.Label})
	}
	return products
}

func (n *node) newLimiter(r config.Rate) *proxy.Limiter {
	limiter := proxy.NewLimiter(r.Rate, r.Burst)
	n.closers = append(n.closers, func() error {
		limiter.Close()
		return nil
	})
	return limiter
}

// serverTLS is nil for plain HTTP.
func serverTLS(c config.TLS) (*tls.Config, error) {
	if c.CertFile == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}, nil
}
