package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/keyapi"
	"gatehouse/proxy/password"
	"gatehouse/proxy/wire"
)

type serveCommand struct {
	Config string `help:"The configuration file." required:"" placeholder:"FILE"`
}

// Run serves until the process is told to stop.
func (c *serveCommand) Run(t *terminal) error {
	loaded, seen, err := loadSeen(c.Config, t.lookupEnv)
	if err != nil {
		return usageError{err}
	}
	log, err := newLogger(loaded.Log, t.out)
	if err != nil {
		return err
	}
	defer log.stop(t)
	// Whoever reads the log may end before the gateway does.
	signal.Ignore(syscall.SIGPIPE)
	// net/http writes there what a broken backend sends beyond its answers,
	// which may be anything.
	stdlog.SetOutput(io.Discard)
	defer tuneCollector(t.lookupEnv, os.DirFS("/"))()
	opened, err := inheritSockets()
	if err != nil {
		return usageError{err}
	}
	n, err := start(t.ctx, loaded, log, opened)
	if err != nil {
		return err
	}
	n.follow(c.Config, seen, t.lookupEnv)
	if err := n.feedWatchdog(); err != nil {
		return errors.Join(err, n.close())
	}
	n.tell(daemon.SdNotifyReady)
	n.log.Info("serving", zap.Stringer("listen", n.public.Addr()), zap.Stringer("admin_listen", n.private.Addr()),
		zap.String("version", version()))
	return n.wait(t.ctx)
}

// node is a running gateway and all that belongs to it.
type node struct {
	config  *config.Config // the one it was started with
	logs    *logger
	log     *zap.Logger // the server's
	access  *proxy.AccessLog
	store   *keystore.Store
	budgets *proxy.SharedBudgets // nil where each node has its own
	tracing *tracing             // nil where there is none

	passwords *password.Hasher
	documents *keyapi.Documents

	live     atomic.Pointer[proxy.Live]
	draining atomic.Bool
	current  atomic.Pointer[generation]

	registry        *prometheus.Registry
	records         proxy.Recorder
	metrics         *proxy.Metrics // one of records
	upstreamMetrics *proxy.UpstreamMetrics
	storeMetrics    *proxy.StoreMetrics
	signIns         *prometheus.CounterVec // by method and outcome

	public, private net.Listener
	guarded         *wire.Listener // public, guarded
	connections     connections    // of clients
	operators       connections
	gateway, admin  *http.Server
	failed          chan error
	closers         []func() error // in the order in which they were opened
}

// hashesAtATime bounds the memory that the hashing of passwords takes: 76 MiB.
const hashesAtATime = 4

// start opens everything that the configuration names, and serves. Where
// something cannot be opened, what was open is closed again.
func start(ctx context.Context, c *config.Config, log *logger, opened sockets) (*node, error) {
	n := &node{config: c, logs: log, log: log.of(config.LogServer), registry: prometheus.NewRegistry(), failed: make(chan error, 2)}
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	log.count(n.registry)
	n.access = proxy.NewAccessLog(log.of(config.LogAccess))
	n.access.Sample(c.Log.Sample)
	n.metrics, n.upstreamMetrics, n.storeMetrics = proxy.NewMetrics(n.registry), proxy.NewUpstreamMetrics(n.registry), proxy.NewStoreMetrics(n.registry)
	n.records = proxy.Recorders{n.metrics, n.access}
	n.declareMetrics()
	if err := n.open(ctx, opened); err != nil {
		return nil, errors.Join(err, n.close())
	}
	n.serve()
	return n, nil
}

func (n *node) open(ctx context.Context, opened sockets) (err error) {
	if n.public, err = n.listen(ctx, opened[publicSocket], n.config.Listen, "listen"); err != nil {
		return err
	}
	if n.private, err = n.listen(ctx, opened[privateSocket], n.config.AdminListen, "admin_listen"); err != nil {
		return err
	}
	if n.store, err = n.openStore(ctx); err != nil {
		return err
	}
	n.closers = append(n.closers, n.store.Close)
	n.storeMetrics.Watch(n.store)
	if n.passwords, err = password.NewHasher(password.DefaultCost(), hashesAtATime); err != nil {
		return err
	}
	if err := n.watchLive(); err != nil { //nolint:contextcheck // what it starts lives as long as the node
		return err
	}
	if n.config.Limits.Scope == config.ScopeCluster {
		n.budgets = proxy.NewSharedBudgets(n.store, n.registry, n.logs.of(config.LogLimits))
	}
	if n.tracing, err = openTracing(ctx, n.config.Tracing, n.registry, n.logs.of(config.LogTracing)); err != nil {
		return err
	}
	n.closers = append(n.closers, n.abandonTracing)
	if n.documents, err = keyapi.NewDocuments(); err != nil {
		return err
	}
	first, err := n.build(n.config, nil) //nolint:contextcheck // what it starts lives as long as the node
	if err != nil {
		return err
	}
	n.current.Store(first)
	n.closers = append(n.closers, func() error {
		retire(n.current.Load().parts, nil)
		return nil
	})
	quiet, err := zap.NewStdLogAt(n.log, zap.DebugLevel)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	n.gateway = n.connections.watch(n.newServer(http.HandlerFunc(n.serveHTTP), quiet))
	if n.guarded, err = n.guard(n.public); err != nil {
		return err
	}
	n.admin = n.operators.watch(n.newAdmin(quiet))
	return nil
}

// serveHTTP has the request answered by the generation that is current when it
// begins.
func (n *node) serveHTTP(w http.ResponseWriter, r *http.Request) {
	n.current.Load().gateway.ServeHTTP(w, r)
}

// listen opens the address, unless there is a listener for it. It says what to
// do about a port in use.
func (n *node) listen(ctx context.Context, listener net.Listener, address, setting string) (net.Listener, error) {
	var err error
	if listener == nil {
		var l net.ListenConfig
		listener, err = l.Listen(ctx, "tcp", address)
	}
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
	options, err := storeOptions(n.config)
	if err != nil {
		return nil, err
	}
	options.Changed, options.Propagated, options.Managed = n.changed, n.storeMetrics.Propagated, n.storeMetrics.Managed
	options.Log, options.AuditLog = n.logs.of(config.LogStore), n.logs.of(config.LogAudit)
	keystore.LogClient(options.Log)
	return openWhatThereIs(ctx, options)
}

// openWhatThereIs opens a store, and says what makes one where there is none.
func openWhatThereIs(ctx context.Context, o keystore.Options) (*keystore.Store, error) {
	store, err := keystore.Open(ctx, o)
	if errors.Is(err, keystore.ErrNoStore) {
		return nil, fmt.Errorf("%w; gatehouse store init makes one", err)
	}
	return store, err
}

// storeOptions are those that the configuration gives.
func storeOptions(c *config.Config) (keystore.Options, error) {
	catalogue, err := c.Catalogue()
	if err != nil {
		return keystore.Options{}, err
	}
	options := keystore.Options{
		Prefix: "gatehouse:", Timeout: c.Store.Timeout, Mode: keystore.Mode(c.Store.Lookup),
		CacheTTL: c.Store.Cache.TTL, CacheEntries: c.Store.Cache.Entries, StaleIfUnavailable: c.Store.StaleIfUnavailable,
		Catalogue: catalogue, TokenPrefix: c.Token.Prefix, MaxKeys: c.Delegation.MaxKeysPerAccount,
		Delegation: policy.Delegation{InheritAddresses: c.Delegation.InheritIPs, CapExpiry: c.Delegation.CapExpiry},
		Audit:      keystore.AuditKeep{Events: c.Audit.Keep.Events, Age: c.Audit.Keep.Age},
		Durability: keystore.Durability{Replicas: c.Store.Durability.Replicas, Timeout: c.Store.Durability.Timeout},
		Now:        time.Now,
	}
	if c.Store.Embedded != nil {
		options.EmbeddedFile = c.Store.Embedded.File
		return options, nil
	}
	r := c.Store.Redis.Resolved()
	secured, err := redisTLS(r.TLS)
	if err != nil {
		return keystore.Options{}, err
	}
	options.Prefix = r.Prefix
	options.Redis = &keystore.Redis{
		Addrs: r.Addrs, MasterName: r.MasterName, Username: r.Username, Password: string(r.Password), DB: r.DB, TLS: secured,
		SentinelUsername: r.SentinelUsername, SentinelPassword: string(r.SentinelPassword),
	}
	return options, nil
}
