package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/proxy/dashboard/signin"
)

// declareMetrics declares what is of the process as a whole.
func (n *node) declareMetrics() {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatehouse_build_info",
		Help: "1; its labels say which build this is.",
	}, []string{"version", "revision", "go_version"})
	b := readBuild()
	build.WithLabelValues(b.version, b.revision, b.goVersion).Set(1)
	n.signIns = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_sign_ins_total",
		Help: "Attempts to sign in, by method and outcome.",
	}, []string{"method", "outcome"})
	for _, m := range signin.Methods() {
		for _, outcome := range signin.Outcomes() {
			n.signIns.WithLabelValues(string(m), string(outcome))
		}
	}
	n.registry.MustRegister(build, n.signIns, certificateMetrics{n})
}

func (n *node) countSignIn(m signin.Method, outcome signin.Outcome) {
	n.signIns.WithLabelValues(string(m), string(outcome)).Inc()
}

// certificateMetrics says when certificates of the current generation expire.
type certificateMetrics struct{ *node }

var certificateExpiry = prometheus.NewDesc("gatehouse_certificate_expiry_timestamp_seconds", //nolint:gochecknoglobals // it never changes
	"When a certificate of ours expires, or the first of its chain that does.", []string{"certificate"}, nil)

// Describe is for the registry.
func (certificateMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- certificateExpiry
}

// Collect is for the registry.
func (m certificateMetrics) Collect(metrics chan<- prometheus.Metric) {
	current := m.current.Load()
	if current == nil {
		return // it is being started
	}
	for certificate, at := range current.expiries {
		metrics <- prometheus.MustNewConstMetric(certificateExpiry, prometheus.GaugeValue, float64(at.Unix()), certificate)
	}
}

// certificateExpiries says when our own certificates expire: that of `listen`,
// and those that upstreams and Redis are shown. The last counts from start to
// end of the process.
func (b *builder) certificateExpiries(public *tls.Certificate) (map[string]time.Time, error) {
	expiries := map[string]time.Time{}
	if public != nil {
		at, err := earliestExpiry(public.Certificate)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		expiries["listen"] = at
	}
	files := map[string]string{}
	for name, u := range b.config.Upstreams {
		files["upstream "+name] = u.TLS.CertFile
	}
	const redis = "redis"
	if at, known := b.expiries[redis]; known {
		expiries[redis] = at
	} else if r := b.config.Store.Redis; r != nil && b.expiries == nil && r.TLS.Enabled {
		files[redis] = r.TLS.CertFile
	}
	for name, file := range files {
		if file == "" {
			continue
		}
		at, err := expiryOfFile(file)
		if err != nil {
			return nil, fmt.Errorf("the certificate of %s: %w", name, err)
		}
		expiries[name] = at
	}
	return expiries, nil
}

func expiryOfFile(file string) (time.Time, error) {
	rest, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return time.Time{}, err
	}
	var chain [][]byte
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return earliestExpiry(chain)
		}
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
}

// earliestExpiry: a chain is as good as the first of it that expires.
func earliestExpiry(chain [][]byte) (time.Time, error) {
	var earliest time.Time
	for _, der := range chain {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return time.Time{}, err
		}
		if earliest.IsZero() || certificate.NotAfter.Before(earliest) {
			earliest = certificate.NotAfter
		}
	}
	return earliest, nil
}
