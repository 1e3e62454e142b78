package proxy

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/keystore"
)

// WatchedStore is what StoreMetrics asks, as keystore.Store answers.
type WatchedStore interface {
	Ready(ctx context.Context) error
	Hears() bool
	Health() keystore.Health
	Pool() (keystore.Pool, bool)
}

// StoreMetrics counts for Prometheus what the key store tells. It may be used
// concurrently.
type StoreMetrics struct {
	registry    prometheus.Registerer
	propagation prometheus.Histogram
	managed     *prometheus.CounterVec
}

// NewStoreMetrics declares in the registry what a store tells of itself.
func NewStoreMetrics(registry prometheus.Registerer) *StoreMetrics {
	m := &StoreMetrics{
		registry: registry,
		propagation: prometheus.NewHistogram(histogram("gatehouse_change_propagation_seconds",
			"Time from a change of a key or account on any node until this node went by it.",
			.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)),
		managed: prometheus.NewCounterVec(counter("gatehouse_management_operations_total",
			"Changes that the key API, the admin API and the dashboard asked the store for, by action and outcome."), []string{"action", "outcome"}),
	}
	for _, action := range keystore.Actions() {
		for _, outcome := range keystore.Outcomes() {
			m.managed.WithLabelValues(string(action), string(outcome))
		}
	}
	registry.MustRegister(m.propagation, m.managed)
	return m
}

// Propagated is for keystore.Options.
func (m *StoreMetrics) Propagated(delay time.Duration) { m.propagation.Observe(delay.Seconds()) }

// Managed is for keystore.Options.
func (m *StoreMetrics) Managed(action keystore.Action, outcome keystore.Outcome) {
	m.managed.WithLabelValues(string(action), string(outcome)).Inc()
}

// Watch declares what is asked of the store whenever somebody looks.
func (m *StoreMetrics) Watch(s WatchedStore) {
	m.registry.MustRegister(newStoreGauges(s))
	if _, has := s.Pool(); has {
		m.registry.MustRegister(newPoolMetrics(s.Pool), newServerGauges(s.Health))
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// poolMetrics are those of the connections to Redis.
type poolMetrics struct {
	pool        func() (keystore.Pool, bool)
	connections *prometheus.Desc
	gets        *prometheus.Desc
	stale       *prometheus.Desc
	waited      *prometheus.Desc
}

func newPoolMetrics(pool func() (keystore.Pool, bool)) *poolMetrics {
	return &poolMetrics{
		pool: pool,
		connections: prometheus.NewDesc("gatehouse_redis_pool_connections",
			"Connections to Redis that are open, by state.", []string{"state"}, nil),
		gets: prometheus.NewDesc("gatehouse_redis_pool_gets_total",
			"Commands that asked for a connection, by what came of it: a free one, a new one, or none in time.", []string{"outcome"}, nil),
		stale: prometheus.NewDesc("gatehouse_redis_pool_stale_connections_total",
			"Connections to Redis that were thrown away.", nil, nil),
		waited: prometheus.NewDesc("gatehouse_redis_pool_wait_seconds_total",
			"Time that commands waited for a connection.", nil, nil),
	}
}

// Describe is for the registry.
func (m *poolMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.connections, m.gets, m.stale, m.waited} {
		descriptions <- d
	}
}

// Collect is for the registry.
func (m *poolMetrics) Collect(metrics chan<- prometheus.Metric) {
	p, _ := m.pool()
	gauge := func(value int, state string) {
		metrics <- prometheus.MustNewConstMetric(m.connections, prometheus.GaugeValue, float64(value), state)
	}
	count := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
	}
	gauge(p.Idle, "idle")
	gauge(p.InUse, "in_use")
	count(m.gets, float64(p.Hits), "hit")
	count(m.gets, float64(p.Misses), "miss")
	count(m.gets, float64(p.Timeouts), "timeout")
	count(m.stale, float64(p.Stale))
	count(m.waited, p.Waited.Seconds())
}
