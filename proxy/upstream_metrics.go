package proxy

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// UpstreamMetrics counts for all upstreams of a process, for Prometheus. An
// upstream that takes the place of another one of its name goes on with its
// counters; those of one that is gone go with it. Labels come from the
// configuration alone.
type UpstreamMetrics struct {
	up, inFlight       *prometheus.Desc
	ejections, retries *prometheus.CounterVec

	mu   sync.Mutex
	live []*Upstream // the newest last
}

// NewUpstreamMetrics declares the metrics in the registry.
func NewUpstreamMetrics(registry prometheus.Registerer) *UpstreamMetrics {
	m := &UpstreamMetrics{
		up: prometheus.NewDesc("gatehouse_upstream_target_up",
			"Whether a target gets requests: 0 while it is ejected or unhealthy.", []string{"upstream", "target"}, nil),
		inFlight: prometheus.NewDesc("gatehouse_upstream_in_flight", "Requests that an upstream is at work on.", []string{"upstream"}, nil),
		ejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_upstream_ejections_total",
			Help: "How often a target was taken out because it could not be connected to.",
		}, []string{"upstream", "target"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_upstream_retries_total",
			Help: "Requests that were sent once more.",
		}, []string{"upstream"}),
	}
	registry.MustRegister(m, m.ejections, m.retries)
	return m
}

// Describe is for the registry.
func (m *UpstreamMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- m.up
	descriptions <- m.inFlight
}

// Collect is for the registry.
func (m *UpstreamMetrics) Collect(metrics chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	type label struct{ upstream, target string }
	up, inFlight := map[label]float64{}, map[string]float64{}
	for _, u := range m.live {
		inFlight[u.name] += float64(u.inFlight.Load())
		for _, t := range u.targets {
			up[label{u.name, t.name}] = 1
			if t.isDown() {
				up[label{u.name, t.name}] = 0
			}
		}
	}
	for of, value := range up {
		metrics <- prometheus.MustNewConstMetric(m.up, prometheus.GaugeValue, value, of.upstream, of.target)
	}
	for of, value := range inFlight {
		metrics <- prometheus.MustNewConstMetric(m.inFlight, prometheus.GaugeValue, value, of)
	}
}

func (m *UpstreamMetrics) countRetries(upstream string) func() {
	if m == nil {
		return func() {}
	}
	return m.retries.WithLabelValues(upstream).Inc
}

func (m *UpstreamMetrics) countEjections(upstream, target string) func() {
	if m == nil {
		return func() {}
	}
	return m.ejections.WithLabelValues(upstream, target).Inc
}

func (m *UpstreamMetrics) add(u *Upstream) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live = append(m.live, u)
}

func (m *UpstreamMetrics) remove(u *Upstream) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live = slices.DeleteFunc(m.live, func(other *Upstream) bool { return other == u })
	kept := map[string]bool{}
	isKept := false
	for _, other := range m.live {
		if other.name == u.name {
			isKept = true
			for _, name := range other.targetNames() {
				kept[name] = true
			}
		}
	}
	for _, name := range u.targetNames() {
		if !kept[name] {
			m.ejections.DeleteLabelValues(u.name, name)
		}
	}
	if !isKept {
		m.retries.DeleteLabelValues(u.name)
	}
}
