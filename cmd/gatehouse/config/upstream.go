package config

import (
	"net/url"
	"time"
)

// Upstream is a backend of products.
type Upstream struct {
	// Targets are http, https or h2c URLs of a scheme and a host alone.
	Targets []*url.URL `yaml:"targets"`
	// Timeout is how long the response headers may take.
	Timeout time.Duration `yaml:"timeout"`
	// MaxInFlight is how many requests there may be at once.
	MaxInFlight int `yaml:"max_in_flight"`
	// MaxConnectionAge is for how long a connection gets new requests.
	MaxConnectionAge time.Duration `yaml:"max_connection_age"`
	// TLS is for https targets.
	TLS      UpstreamTLS `yaml:"tls"`
	Ejection Ejection    `yaml:"ejection"`
	// HealthCheck is nil where there is none.
	HealthCheck *HealthCheck `yaml:"health_check"`
}

// UpstreamTLS says how https targets are verified, and what we show them.
// Without CAFile the system's certificates are trusted; without ServerName the
// host of the target is expected.
type UpstreamTLS struct {
	CAFile     string `yaml:"ca_file"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"`
	// InsecureSkipVerify takes whoever answers for the backend.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify"`
}

// Ejection says when a target that cannot be connected to gets no requests,
// and for how long.
type Ejection struct {
	Failures   int           `yaml:"failures"`
	Backoff    time.Duration `yaml:"backoff"`
	MaxBackoff time.Duration `yaml:"max_backoff"`
}

// HealthCheck asks each target how it is.
type HealthCheck struct {
	Path      string        `yaml:"path"`
	Interval  time.Duration `yaml:"interval"`
	Timeout   time.Duration `yaml:"timeout"`
	Healthy   int           `yaml:"healthy"`
	Unhealthy int           `yaml:"unhealthy"`
}

func (u *Upstream) setDefaults() {
	*u = Upstream{
		Timeout:          30 * time.Second,
		MaxInFlight:      10_000,
		MaxConnectionAge: 5 * time.Minute,
		Ejection:         Ejection{Failures: 5, Backoff: time.Second, MaxBackoff: time.Minute},
	}
}

func (h *HealthCheck) setDefaults() {
	*h = HealthCheck{Interval: 5 * time.Second, Timeout: time.Second, Healthy: 2, Unhealthy: 3}
}
