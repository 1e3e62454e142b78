package config

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Resolved returns the settings with those of the URL in their fields, where
// there is a URL.
func (r *Redis) Resolved() Redis {
	resolved := *r
	parsed, ok := parseRedisURL(string(r.URL))
	if r.URL == "" || !ok {
		return resolved
	}
	resolved.Addrs, resolved.Username, resolved.Password, resolved.DB = parsed.Addrs, parsed.Username, parsed.Password, parsed.DB
	resolved.TLS.Enabled = parsed.TLS.Enabled
	return resolved
}

// parseRedisURL reads redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or
// rediss:// for TLS. It has no parameters: each has a setting of its own.
func parseRedisURL(text string) (Redis, bool) {
	const port = "6379"
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Fragment != "" || u.RawQuery != "" || u.Hostname() == "" {
		return Redis{}, false
	}
	if u.Scheme != "redis" && u.Scheme != "rediss" {
		return Redis{}, false
	}
	r := Redis{TLS: RedisTLS{Enabled: u.Scheme == "rediss"}, Username: u.User.Username()}
	password, _ := u.User.Password()
	if r.Password = Secret(password); r.Username != "" && password == "" {
		return Redis{}, false // it would not be sent
	}
	address := net.JoinHostPort(u.Hostname(), port)
	if u.Port() != "" {
		address = net.JoinHostPort(u.Hostname(), u.Port())
	}
	if _, n, ok := splitHostPort(address); !ok || n == 0 {
		return Redis{}, false
	}
	r.Addrs = []string{address}
	if database := strings.TrimPrefix(u.Path, "/"); database != "" {
		if r.DB, err = strconv.Atoi(database); err != nil || r.DB < 0 {
			return Redis{}, false
		}
	}
	return r, true
}
