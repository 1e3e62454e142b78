package config

import "math"

// inbound are the limits of connections and of what comes over them.
func (v *validator) inbound(p path, limits Limits) {
	v.aboveZero(p.key("max_header_lines"), int64(limits.MaxHeaderLines), "write a number such as 100")
	v.aboveZero(p.key("header_timeout"), int64(limits.HeaderTimeout), "write a duration such as 10s")
	v.aboveZero(p.key("idle_timeout"), int64(limits.IdleTimeout), "write a duration such as 2m")
	for name, n := range map[string]int{"total": limits.Connections.Total, "per_address": limits.Connections.PerAddress} {
		if entry := p.key("connections").key(name); n < 0 {
			v.refuse(entry, v.shown(entry)+" is no number of connections", "write 1 or more, or 0 for no limit")
		}
	}
	if entry := p.key("http2").key("max_streams"); limits.HTTP2.MaxStreams < 1 || limits.HTTP2.MaxStreams > math.MaxInt16 {
		v.refuse(entry, v.shown(entry)+" is no number of streams", "write 1 to 32767")
	}
	if h2c := (path{"listen_h2c"}); v.config.ListenH2C && v.config.TLS.CertFile != "" {
		v.refuse(h2c, "is of no use with tls", "remove it: HTTP/2 comes with TLS")
	}
}
