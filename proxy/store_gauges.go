package proxy

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/keystore"
)

// storeGauges are what the store is at the moment. The store is asked once each
// time that somebody looks.
type storeGauges struct {
	store                                       WatchedStore
	available, heard, writable, state, warnings *prometheus.Desc
}

func newStoreGauges(s WatchedStore) *storeGauges {
	return &storeGauges{
		store: s,
		available: prometheus.NewDesc("gatehouse_store_available",
			"1 while keys can be looked up, asked when the metrics are; 0 while they cannot.", nil, nil),
		heard: prometheus.NewDesc("gatehouse_store_changes_heard",
			"1 while this node is subscribed to the changes that others make; 0 while it is not, and answers from no cache.", nil, nil),
		writable: prometheus.NewDesc("gatehouse_store_writable",
			"1 while the store takes changes; 0 while keys cannot be created, changed or revoked.", nil, nil),
		state: prometheus.NewDesc("gatehouse_store_state",
			"1 for the state that the store is in, 0 for the others.", []string{"state"}, nil),
		warnings: prometheus.NewDesc("gatehouse_store_warnings",
			"1 while there is a warning about the servers of the store, 0 while there is none, by warning.", []string{"warning"}, nil),
	}
}

// Describe is for the registry.
func (g *storeGauges) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.available, g.heard, g.writable, g.state, g.warnings} {
		descriptions <- d
	}
}

// Collect is for the registry.
func (g *storeGauges) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	down := g.store.Ready(context.Background())
	health := g.store.Health()
	state := keystore.StateOf(down)
	if down == nil {
		state = health.State
	}
	changes := down == nil && health.Writable && state != keystore.StateOlder
	gauge(g.available, oneIf(down == nil))
	gauge(g.heard, oneIf(g.store.Hears()))
	gauge(g.writable, oneIf(changes))
	for _, s := range keystore.States() {
		gauge(g.state, oneIf(s == state), string(s))
	}
	there := make(map[keystore.Warning]bool)
	for _, notice := range health.Warnings {
		there[notice.Warning] = true
	}
	for _, w := range keystore.Warnings() {
		gauge(g.warnings, oneIf(there[w]), string(w))
	}
}

// serverGauges are what the servers of Redis said of themselves last.
type serverGauges struct {
	health                           func() keystore.Health
	clock, memory, replicas, evicted *prometheus.Desc
}

func newServerGauges(health func() keystore.Health) *serverGauges {
	return &serverGauges{
		health: health,
		clock: prometheus.NewDesc("gatehouse_store_clock_offset_seconds",
			"How far the clock of Redis is ahead of this node's; negative: behind.", nil, nil),
		memory: prometheus.NewDesc("gatehouse_store_memory_used_ratio",
			"Share of maxmemory in use on the fullest server of Redis; 0 where there is no maxmemory.", nil, nil),
		replicas: prometheus.NewDesc("gatehouse_store_connected_replicas",
			"Replicas that are connected to the server of Redis with the fewest.", nil, nil),
		evicted: prometheus.NewDesc("gatehouse_store_evicted_keys",
			"Keys that the servers of Redis have evicted since they started. Anything but 0 means lost records.", nil, nil),
	}
}

// Describe is for the registry.
func (g *serverGauges) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.clock, g.memory, g.replicas, g.evicted} {
		descriptions <- d
	}
}

// Collect is for the registry.
func (g *serverGauges) Collect(metrics chan<- prometheus.Metric) {
	h := g.health()
	for _, m := range []struct {
		desc  *prometheus.Desc
		value float64
	}{{g.clock, h.ClockOffset.Seconds()}, {g.memory, h.MemoryUsed}, {g.replicas, float64(h.Replicas)}, {g.evicted, float64(h.Evicted)}} {
		metrics <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, m.value)
	}
}
