package main

import (
	"crypto/tls"
	"log"
	"net"
	"net/http"

	"gatehouse/proxy"
	"gatehouse/proxy/wire"
)

// newServer makes the server of product traffic.
func (n *node) newServer(h http.Handler, errorLog *log.Logger) *http.Server {
	limits := n.config.Limits
	return proxy.NewServer(h, proxy.ServerOptions{
		MaxHeader: int(limits.MaxHeader), HeaderTimeout: limits.HeaderTimeout, IdleTimeout: limits.IdleTimeout,
		MaxStreams: limits.HTTP2.MaxStreams, H2C: n.config.ListenH2C, ErrorLog: errorLog,
	})
}

// guard judges what clients send over the connections of l before anything else
// sees it.
func (n *node) guard(l net.Listener) (*wire.Listener, error) {
	limits := n.config.Limits
	guarded, err := wire.Listen(l, wire.Options{
		Limits:      wire.Limits{Bytes: int(limits.MaxHeader), Lines: limits.MaxHeaderLines},
		HeadTimeout: limits.HeaderTimeout, Certificate: n.certificate(), H2C: n.config.ListenH2C,
		Total: limits.Connections.Total, PerAddress: limits.Connections.PerAddress,
		Trusted: n.config.ClientAddress.TrustedProxies, Metrics: wire.NewMetrics(n.registry),
	})
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, func() error { return ignoreClosed(guarded.Close()) })
	return guarded, nil
}

// certificate gives the current certificate for each handshake; nil for plain
// HTTP.
func (n *node) certificate() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if n.config.TLS.CertFile == "" {
		return nil
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.current.Load().certificate, nil }
}
