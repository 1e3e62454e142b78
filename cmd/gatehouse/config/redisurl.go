package config

import "gatehouse/keystore"

// Resolved returns the settings with those of the URL in their fields, where
// there is a URL.
func (r *Redis) Resolved() Redis {
	resolved := *r
	if r.URL == "" {
		return resolved
	}
	parsed, err := keystore.ParseRedisURL(string(r.URL))
	if err != nil {
		return resolved // it was refused when the configuration was loaded
	}
	resolved.Addrs, resolved.DB = parsed.Addrs, parsed.DB
	resolved.Username, resolved.Password = parsed.Username, Secret(parsed.Password)
	resolved.TLS.Enabled = parsed.TLS != nil
	return resolved
}
