package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/proxy"
)

// upstreams opens the upstreams of the configuration, by name.
func (b *builder) upstreams() (map[string]*proxy.Upstream, error) {
	opened := make(map[string]*proxy.Upstream, len(b.config.Upstreams))
	for name, u := range b.config.Upstreams {
		settings := upstreamSettings{u, b.config.ClientAddress.Header, contentOf(u.TLS.CAFile, u.TLS.CertFile, u.TLS.KeyFile)}
		upstream, err := take(b, "upstream "+name, settings, func() (*proxy.Upstream, func(), error) {
			return b.openUpstream(name, u)
		})
		if err != nil {
			return nil, err
		}
		opened[name] = upstream
	}
	return opened, nil
}

// upstreamSettings is all that an upstream depends on.
type upstreamSettings struct {
	config        config.Upstream
	addressHeader string
	files         [sha256.Size]byte
}

func (b *builder) openUpstream(name string, u config.Upstream) (*proxy.Upstream, func(), error) {
	options, err := upstreamOptions(name, u)
	if err != nil {
		return nil, nil, err
	}
	options.AddressHeader, options.Metrics, options.Log = b.config.ClientAddress.Header, b.upstreamMetrics, b.logs.of(config.LogUpstream)
	upstream, err := proxy.NewUpstream(options)
	if err != nil {
		return nil, nil, err
	}
	return upstream, upstream.Close, nil
}

// upstreamOptions are those that the configuration of the upstream gives.
func upstreamOptions(name string, u config.Upstream) (proxy.UpstreamOptions, error) {
	secured, err := upstreamTLS(name, u.TLS)
	if err != nil {
		return proxy.UpstreamOptions{}, err
	}
	options := proxy.UpstreamOptions{
		Name: name, Targets: u.Targets, TLS: secured, Timeout: u.Timeout, MaxInFlight: u.MaxInFlight, MaxConnectionAge: u.MaxConnectionAge,
		Ejection: proxy.Ejection{Failures: u.Ejection.Failures, Backoff: u.Ejection.Backoff, MaxBackoff: u.Ejection.MaxBackoff},
	}
	if h := u.HealthCheck; h != nil {
		options.HealthCheck = &proxy.HealthCheck{
			Path: h.Path, Interval: h.Interval, Timeout: h.Timeout, Healthy: h.Healthy, Unhealthy: h.Unhealthy,
		}
	}
	return options, nil
}

func upstreamTLS(name string, c config.UpstreamTLS) (*tls.Config, error) {
	secured, err := clientTLS(c.CAFile, c.CertFile, c.KeyFile, c.ServerName)
	if err != nil {
		return nil, fmt.Errorf("upstreams.%s.tls: %w", name, err)
	}
	secured.InsecureSkipVerify = c.InsecureSkipVerify // says so aloud, in the configuration and in the log
	return secured, nil
}

// redisTLS is nil for a plain connection. The certificate of Redis is always
// verified.
func redisTLS(c config.RedisTLS) (*tls.Config, error) {
	if !c.Enabled {
		return nil, nil
	}
	secured, err := clientTLS(c.CAFile, c.CertFile, c.KeyFile, c.ServerName)
	if err != nil {
		return nil, fmt.Errorf("store.redis.tls: %w", err)
	}
	return secured, nil
}

// clientTLS is for connections to a server of ours, with its certificates read
// from files; "" is the default of each.
func clientTLS(caFile, certFile, keyFile, serverName string) (*tls.Config, error) {
	secured := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if caFile != "" {
		pem, err := os.ReadFile(caFile) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, err
		}
		secured.RootCAs = x509.NewCertPool()
		if !secured.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", caFile)
		}
	}
	if certFile != "" {
		certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, err
		}
		secured.Certificates = []tls.Certificate{certificate}
	}
	return secured, nil
}
