package config

import (
	"reflect"
	"strings"
)

// lasting are the settings that count from start to end of a process, by name.
// All others count from a reload on.
func (c *Config) lasting() []struct {
	name string
	at   any
} {
	return []struct {
		name string
		at   any
	}{
		{"listen", &c.Listen},
		{"listen_h2c", &c.ListenH2C},
		{"admin_listen", &c.AdminListen},
		{"shutdown_grace", &c.ShutdownGrace},
		{"store", &c.Store},
		{"token.prefix", &c.Token.Prefix},
		{"limits.scope", &c.Limits.Scope},
		{"limits.max_header", &c.Limits.MaxHeader},
		{"limits.max_header_lines", &c.Limits.MaxHeaderLines},
		{"limits.header_timeout", &c.Limits.HeaderTimeout},
		{"limits.idle_timeout", &c.Limits.IdleTimeout},
		{"limits.http2", &c.Limits.HTTP2},
		{"delegation", &c.Delegation},
		{"audit", &c.Audit},
		{"log.buffer", &c.Log.Buffer},
		{"log.format", &c.Log.Format},
		{"tracing", &c.Tracing},
	}
}

// isLasting reports whether the setting of that name, or what it stands in, is
// lasting.
func isLasting(name string) bool {
	for _, setting := range new(Config).lasting() {
		rest, found := strings.CutPrefix(name, setting.name)
		if found && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// Pending names the settings in which the next configuration differs from the
// running one and which wait for the next start: the lasting ones, and tls where
// one of the two has none.
func Pending(running, next *Config) []string {
	var names []string
	now, then := running.lasting(), next.lasting()
	for i := range now {
		if !reflect.DeepEqual(now[i].at, then[i].at) {
			names = append(names, now[i].name)
		}
	}
	if (running.TLS.CertFile == "") != (next.TLS.CertFile == "") {
		names = append(names, "tls")
	}
	return names
}

// InForce is the next configuration without the changes that are Pending.
func InForce(running, next *Config) *Config {
	merged, kept := *next, *running
	now, then := kept.lasting(), merged.lasting()
	for i := range now {
		reflect.ValueOf(then[i].at).Elem().Set(reflect.ValueOf(now[i].at).Elem())
	}
	if (running.TLS.CertFile == "") != (next.TLS.CertFile == "") {
		merged.TLS = running.TLS
	}
	return &merged
}
