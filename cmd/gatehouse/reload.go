package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/policy"
)

// lookPause is how often the configuration's files are looked at.
const lookPause = time.Second

// The results of gatehouse_config_reloads_total.
const reloaded, notReloaded = "success", "failure"

// reloader loads the configuration anew when its files change, or on SIGHUP.
type reloader struct {
	*node
	file      string
	lookupEnv func(string) (string, bool)

	seen, settling [sha256.Size]byte // of the files: as loaded, and as last looked at
	settled        *generation       // the one whose catalogue is the store's; or it is that of two

	successful prometheus.Gauge
	loadedAt   prometheus.Gauge
	reloads    *prometheus.CounterVec
}

// loadSeen loads the configuration, and says of what: its fingerprint, and those
// of the files that it names. Where the file was replaced meanwhile it is none,
// so that it will be loaded again.
func loadSeen(file string, lookupEnv func(string) (string, bool)) (loaded *config.Config, seen [sha256.Size]byte, err error) {
	before := contentOf(file)
	if loaded, err = config.Load(file, lookupEnv); err != nil {
		return nil, seen, err
	}
	seen = look(file, loaded)
	if contentOf(file) != before {
		seen = [sha256.Size]byte{}
	}
	return loaded, seen, nil
}

// follow begins to follow the file, which was loaded as it was seen, until the
// node is closed.
func (n *node) follow(file string, seen [sha256.Size]byte, lookupEnv func(string) (string, bool)) {
	r := &reloader{
		node: n, file: file, lookupEnv: lookupEnv,
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gatehouse_config_last_reload_successful",
			Help: "Whether the last loading of the configuration was successful.",
		}),
		loadedAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gatehouse_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration that is in force was loaded.",
		}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_config_reloads_total",
			Help: "Reloads of the configuration, by result: success or failure.",
		}, []string{"result"}),
	}
	n.registry.MustRegister(r.successful, r.loadedAt, r.reloads)
	for _, result := range []string{reloaded, notReloaded} {
		r.reloads.WithLabelValues(result)
	}
	r.successful.Set(1)
	r.loadedAt.SetToCurrentTime()
	r.seen, r.settling, r.settled = seen, seen, n.current.Load()
	ctx, stop := context.WithCancel(context.Background())
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx, hangups)
	}()
	n.closers = append(n.closers, func() error {
		signal.Stop(hangups)
		stop()
		<-done
		return nil
	})
}

func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) {
	tick := time.NewTicker(lookPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			r.reload("SIGHUP") //nolint:contextcheck // what it starts lives as long as the node
		case <-tick.C:
			r.settle()
			if r.hasChanged() {
				r.reload("a file has changed") //nolint:contextcheck // what it starts lives as long as the node
			}
		}
	}
}

// settle takes from accounts what only the generation before knew. No request
// of that one is being decided any more: a lookup takes no second.
func (r *reloader) settle() {
	if g := r.current.Load(); r.settled != g {
		r.store.SetCatalogue(g.catalogue)
		r.settled = g
	}
}

// hasChanged reports whether the files are others than those that were loaded,
// and look the same twice: whoever writes them may not be done.
func (r *reloader) hasChanged() bool {
	before := r.settling
	r.settling = r.look()
	return r.settling != r.seen && r.settling == before
}

// look is a fingerprint of the configuration and of every file that it names.
func (r *reloader) look() [sha256.Size]byte { return look(r.file, r.current.Load().config) }

func look(file string, c *config.Config) [sha256.Size]byte {
	files := []string{file, c.TLS.CertFile, c.TLS.KeyFile}
	for _, name := range sortedNames(c.Upstreams) {
		u := c.Upstreams[name].TLS
		files = append(files, u.CAFile, u.CertFile, u.KeyFile)
	}
	return contentOf(files...)
}

// reload loads the file. One with a fault changes nothing.
func (r *reloader) reload(because string) {
	r.tell(daemon.SdNotifyReloading)
	defer r.tell(daemon.SdNotifyReady)
	r.seen = r.look()
	loaded, seen, err := loadSeen(r.file, r.lookupEnv)
	if err == nil {
		err = r.replace(loaded)
	}
	if err != nil {
		r.successful.Set(0)
		r.reloads.WithLabelValues(notReloaded).Inc()
		r.logs.of(config.LogConfig).Error("the configuration was not reloaded: the one before stays in force",
			zap.String("because", because), zap.Strings("problems", problemLines(err)))
		return
	}
	r.seen = seen
	r.successful.Set(1)
	r.loadedAt.SetToCurrentTime()
	r.reloads.WithLabelValues(reloaded).Inc()
	r.logs.of(config.LogConfig).Info("the configuration was reloaded", zap.String("because", because))
}

// problemLines are the faults of a configuration one by one, for a log whose
// texts are cut.
func problemLines(err error) []string {
	var problems config.Problems
	if !errors.As(err, &problems) {
		return []string{err.Error()}
	}
	lines := make([]string, 0, len(problems))
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	return lines
}

// replace puts the configuration in force, at one moment for each request.
func (n *node) replace(c *config.Config) error {
	if stay := config.Pending(n.config, c); len(stay) > 0 {
		n.logs.of(config.LogConfig).Warn("these settings have changed, and do so at the next start", zap.Strings("settings", stay))
	}
	before := n.current.Load()
	next, err := n.build(config.InForce(n.config, c), before)
	if err != nil {
		return err
	}
	// While requests of both generations are being decided, accounts hold what
	// either of them knows; see settle.
	both, err := policy.NewCatalogue(append(productPermissions(before.config), productPermissions(next.config)...)...)
	if err != nil {
		retire(next.parts, before.parts)
		return fmt.Errorf("catalogue: %w", err)
	}
	n.store.SetCatalogue(both)
	n.current.Store(next)
	retire(before.parts, next.parts)

	connections := c.Limits.Connections
	n.guarded.Limit(connections.Total, connections.PerAddress, c.ClientAddress.TrustedProxies)
	n.access.Sample(c.Log.Sample)
	// What an operator has set at run time stays, where the file says the same as
	// before.
	if levels := c.Log.Levels(); !maps.Equal(levels, before.config.Log.Levels()) {
		n.logs.set(levels, zap.String("gatehouse.because", "the configuration was reloaded"))
	}
	return nil
}

func productPermissions(c *config.Config) []policy.Permission {
	var all []policy.Permission
	for _, p := range c.Products {
		for _, action := range p.Actions {
			all = append(all, policy.Permission(p.Name+":"+action))
		}
	}
	return all
}
