package config

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

func (v *validator) upstreams() {
	for _, name := range slices.Sorted(maps.Keys(v.config.Upstreams)) {
		upstream, p := v.config.Upstreams[name], path{"upstreams"}.key(name)
		if name == "" || len(name) > 64 || !isMadeOf(name, "-._") {
			v.refuse(p, "is no name of an upstream", "write 1 to 64 characters of A-Z, a-z, 0-9, ., _ and -")
		}
		if len(upstream.Targets) == 0 {
			v.refuse(p.key("targets"), "names no target", "write at least one http://HOST:PORT")
		}
		for i, target := range upstream.Targets {
			entry := p.key("targets").index(i)
			if fault, mend := targetFault(target); fault != "" {
				v.refuse(entry, v.shown(entry)+" "+fault, mend)
			}
		}
		v.aboveZero(p.key("timeout"), int64(upstream.Timeout), "write a duration such as 30s")
		v.aboveZero(p.key("max_in_flight"), int64(upstream.MaxInFlight), "write a number such as 10000")
		v.aboveZero(p.key("max_connection_age"), int64(upstream.MaxConnectionAge), "write a duration such as 5m")
		v.upstreamTLS(p, upstream)
		v.ejection(p.key("ejection"), upstream.Ejection)
		if upstream.HealthCheck != nil {
			v.healthCheck(p.key("health_check"), upstream.HealthCheck)
		}
	}
}

// targetFault: a target is a scheme and a host. What else a URL has would be
// dropped or, as a path, change what a route means.
func targetFault(u *url.URL) (fault, mend string) {
	const mendTarget = "write http://HOST:PORT, https://HOST:PORT or h2c://HOST:PORT"
	const mendRest = "write the scheme, host and port alone"
	switch {
	case u == nil: // could not be read
		return "", ""
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "h2c":
		return "does not begin with http://, https:// or h2c://", mendTarget
	case u.User != nil:
		return "has a user or password", mendRest
	case u.Path != "":
		return "has a path", mendRest
	case u.RawQuery != "" || u.ForceQuery:
		return "has a query", mendRest
	case u.Fragment != "":
		return "has a fragment", mendRest
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if u.Opaque != "" || u.Hostname() == "" || !isHost(u.Hostname()) || strings.HasSuffix(u.Host, ":") ||
		u.Port() != "" && (err != nil || port == 0) {
		return "has no valid host and port", mendTarget
	}
	return "", ""
}

// upstreamTLS: what would not be used is refused, so that nobody relies on it.
func (v *validator) upstreamTLS(p path, u Upstream) {
	at := p.key("tls")
	v.certificate(at, u.TLS.CertFile, u.TLS.KeyFile)
	isHTTPS := func(target *url.URL) bool { return target == nil || target.Scheme == "https" }
	if u.TLS != (UpstreamTLS{}) && len(u.Targets) > 0 && !slices.ContainsFunc(u.Targets, isHTTPS) {
		v.refuse(at, "has settings, but no target is https", "write https:// in front of the targets, or remove them")
	}
	if u.TLS.InsecureSkipVerify && u.TLS.CAFile != "" {
		v.refuse(at.key("insecure_skip_verify"), "is there beside ca_file, which nothing would be verified with", "remove one of them")
	}
}

func (v *validator) ejection(p path, e Ejection) {
	v.aboveZero(p.key("failures"), int64(e.Failures), "write a number such as 5")
	v.aboveZero(p.key("backoff"), int64(e.Backoff), "write a duration such as 1s")
	if e.MaxBackoff < e.Backoff {
		v.refuse(p.key("max_backoff"), v.shown(p.key("max_backoff"))+" is less than backoff", "write a duration such as 1m")
	}
}

func (v *validator) healthCheck(p path, h *HealthCheck) {
	const mend = "write a path such as /healthz"
	u, err := url.ParseRequestURI(h.Path)
	switch {
	case h.Path == "":
		v.refuse(p.key("path"), "is missing", mend)
	case err != nil || !strings.HasPrefix(h.Path, "/") || u.RequestURI() != h.Path:
		v.refuse(p.key("path"), v.shown(p.key("path"))+" is no path", mend)
	}
	v.aboveZero(p.key("interval"), int64(h.Interval), "write a duration such as 5s")
	v.aboveZero(p.key("timeout"), int64(h.Timeout), "write a duration such as 1s")
	if h.Timeout > h.Interval {
		v.refuse(p.key("timeout"), v.shown(p.key("timeout"))+" is more than interval", "write less")
	}
	v.aboveZero(p.key("healthy"), int64(h.Healthy), "write a number such as 2")
	v.aboveZero(p.key("unhealthy"), int64(h.Unhealthy), "write a number such as 3")
}

// webSocket: HTTP/2 without TLS has no upgrade to WebSocket.
func (v *validator) webSocket(p path, route Route) {
	isH2C := func(target *url.URL) bool { return target != nil && target.Scheme == "h2c" }
	if route.WebSocket && slices.ContainsFunc(v.config.Upstreams[route.Upstream].Targets, isH2C) {
		v.refuse(p, "is true, but the upstream has an h2c target, which cannot be upgraded", "use an upstream of http and https targets")
	}
}
