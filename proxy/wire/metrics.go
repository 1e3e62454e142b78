package wire

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts connections for Prometheus. A nil *Metrics counts nothing.
type Metrics struct {
	refusals *prometheus.CounterVec
	watched  atomic.Pointer[counts]
}

// NewMetrics declares the metrics in the registry.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_connections_refused_total",
		Help: "Connections of clients that were closed at once, by reason (total, per_address, or tls_handshake).",
	}, []string{"reason"})}
	for _, reason := range []string{reasonTotal, reasonPerAddress, reasonHandshake} {
		m.refusals.WithLabelValues(reason)
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_connections",
		Help: "Connections of clients that are open.",
	}, func() float64 {
		if c := m.watched.Load(); c != nil {
			return float64(c.now())
		}
		return 0
	})
	registry.MustRegister(m.refusals, open)
	return m
}

func (m *Metrics) watch(c *counts) {
	if m != nil {
		m.watched.Store(c)
	}
}

func (m *Metrics) refused(reason string) {
	if m != nil {
		m.refusals.WithLabelValues(reason).Inc()
	}
}
