package config

import (
	"maps"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// validator looks for what a configuration that fits its types must not say.
type validator struct {
	*source
	config *Config
}

func (v *validator) validate() {
	v.listeners()
	v.adminToken()
	v.certificate(path{"tls"}, v.config.TLS.CertFile, v.config.TLS.KeyFile)
	v.aboveZero(path{"shutdown_grace"}, int64(v.config.ShutdownGrace), "write a duration such as 30s")
	v.store()
	v.clientAddress()
	v.tokenPrefix()
	v.products()
	v.upstreams()
	v.routes()
	v.limits()
	v.plans()
	v.origins()
	v.aboveZero(path{"delegation", "max_keys_per_account"}, int64(v.config.Delegation.MaxKeysPerAccount), "write a number such as 1000")
	v.aboveZero(path{"audit", "keep", "events"}, int64(v.config.Audit.Keep.Events), "write a number such as 10000")
	v.aboveZero(path{"audit", "keep", "age"}, int64(v.config.Audit.Keep.Age), "write a duration such as 9600h, which is 400 days")
	v.dashboard(path{"dashboard"}, v.config.Dashboard)
	v.log()
	v.tracing()
}

// refuse reports a fault of a setting that could be read: about another one,
// the reason for that is reported already.
func (v *validator) refuse(p path, fault, mend string) {
	if v.isRead(p) {
		v.report(p, fault, mend)
	}
}

// shown names the value of a setting in a message.
func (v *validator) shown(p path) string {
	if l, ok := v.literals[p.String()]; ok {
		return l.String()
	}
	return "the value"
}

func (v *validator) aboveZero(p path, n int64, mend string) {
	if n <= 0 {
		v.refuse(p, v.shown(p)+" is not above 0", mend)
	}
}

func (v *validator) choice(p path, value string, known ...string) {
	if !slices.Contains(known, value) {
		v.refuse(p, v.shown(p)+" is not one of its values", oneOf(value, known, ""))
	}
}

// certificate: the file of a certificate goes with the file of its key.
func (v *validator) certificate(p path, certFile, keyFile string) {
	switch {
	case certFile != "" && keyFile == "":
		v.refuse(p, "has a cert_file without a key_file", "give it both, or neither")
	case certFile == "" && keyFile != "":
		v.refuse(p, "has a key_file without a cert_file", "give it both, or neither")
	}
}

func (v *validator) listeners() {
	const mend = "write HOST:PORT, or :PORT for every address of this host"
	product, admin := path{"listen"}, path{"admin_listen"}
	host, port, ok := splitHostPort(v.config.Listen)
	if !ok {
		v.refuse(product, v.shown(product)+" is no address to listen on", mend)
	}
	adminHost, adminPort, adminOK := splitHostPort(v.config.AdminListen)
	if !adminOK {
		v.refuse(admin, v.shown(admin)+" is no address to listen on", mend)
	}
	isEvery := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	if ok && adminOK && port != 0 && port == adminPort && (host == adminHost || isEvery(host) || isEvery(adminHost)) {
		v.refuse(admin, "is the same address as listen", "use another port: the operators' side is never public")
	}
}

// splitHostPort reads "HOST:PORT", where HOST may be empty.
func splitHostPort(s string) (host string, port uint16, ok bool) {
	host, portText, err := net.SplitHostPort(s)
	if err != nil || !isHost(host) {
		return "", 0, false
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	return host, uint16(n), err == nil
}

func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || isMadeOf(s, "-._")
}

// isMadeOf reports whether s has letters, digits and the bytes of also alone.
func isMadeOf(s, also string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(also, c) < 0 {
			return false
		}
	}
	return true
}

// isName reports whether s can be a part of a permission.
func isName(s string) bool {
	return s != "" && isMadeOf(s, "_") && s == strings.ToLower(s)
}

func (v *validator) adminToken() {
	const shortest = 16
	const mend = "make one, for example with: openssl rand -hex 32"
	p, secret := path{"admin_token"}, string(v.config.AdminToken)
	isSendable := strings.IndexFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
	switch {
	case secret == "":
	case len(secret) < shortest:
		v.refuse(p, "is shorter than 16 characters", mend)
	case !isSendable:
		v.refuse(p, "has a character that no header can carry: a space, a line break, or none of ASCII", mend)
	}
}

func (v *validator) tokenPrefix() {
	p, prefix := path{"token", "prefix"}, v.config.Token.Prefix
	if len(prefix) < 2 || len(prefix) > 8 || !isName(prefix) {
		v.refuse(p, v.shown(p)+" is no prefix of tokens", "write 2 to 8 characters of a-z, 0-9 and _")
	}
}

func (v *validator) clientAddress() {
	p := path{"client_address"}
	for i, prefix := range v.config.ClientAddress.TrustedProxies {
		entry := p.key("trusted_proxies").index(i)
		if prefix.IsValid() && prefix.Bits() == 0 {
			v.refuse(entry, v.shown(entry)+" trusts every client to say which address it has", "name the addresses of your proxies")
		}
	}
	header := v.config.ClientAddress.Header
	if header == "" || !isMadeOf(header, "!#$%&'*+-.^_`|~") {
		v.refuse(p.key("header"), v.shown(p.key("header"))+" is no name of a header", "write X-Forwarded-For, Forwarded, or the name of a header with a single value")
	}
}

// origins: a browser spells an origin in one way (RFC 6454 §6.1), and what it
// sends is compared byte by byte.
func (v *validator) origins() {
	p := path{"cors", "origins"}
	for i, origin := range v.config.CORS.Origins {
		entry := p.index(i)
		switch scheme, host, _ := strings.Cut(origin, "://"); {
		case origin == "*" || origin == "null":
			v.refuse(entry, v.shown(entry)+" would let pages of everybody use keys", "name the origins of your own pages, such as https://app.example.com")
		case (scheme != "https" && scheme != "http") || !isOriginHost(scheme, host):
			v.refuse(entry, v.shown(entry)+" is no origin", "write SCHEME://HOST or SCHEME://HOST:PORT in lower case, with nothing behind it, and without the port that the scheme has anyway")
		case slices.Contains(v.config.CORS.Origins[:i], origin):
			v.refuse(entry, v.shown(entry)+" is there twice", "remove one of them")
		}
	}
}

func isOriginHost(scheme, host string) bool {
	u, err := url.Parse(scheme + "://" + host)
	if err != nil || u.Host != host || host != strings.ToLower(host) || strings.HasSuffix(host, ":") {
		return false
	}
	name, port := u.Hostname(), u.Port()
	number, err := strconv.ParseUint(port, 10, 16)
	usual := map[string]uint64{"http": 80, "https": 443}[scheme]
	return name != "" && isHost(name) && (port == "" || err == nil && number != 0 && number != usual)
}

func (v *validator) limits() {
	p, limits := path{"limits"}, v.config.Limits
	v.choice(p.key("scope"), string(limits.Scope), limits.Scope.choices()...)
	if limits.Scope == ScopeCluster && v.config.Store.Embedded != nil {
		v.refuse(p.key("scope"), `is "cluster" with an embedded store, which has one node`, "write node, or keep keys in store.redis")
	}
	const mostInFlight = 1e6
	if limits.InFlight < 0 || limits.InFlight > mostInFlight {
		v.refuse(p.key("in_flight"), v.shown(p.key("in_flight"))+" is no number of requests", "write 0 for any number, or 1 to 1000000")
	}
	v.rate(p.key("key"), limits.Key)
	v.rate(p.key("management"), limits.Management)
	v.rate(p.key("failed_auth"), limits.FailedAuth)
	v.aboveZero(p.key("max_body"), int64(limits.MaxBody), "write a size such as 10MiB")
	v.aboveZero(p.key("max_header"), int64(limits.MaxHeader), "write a size such as 32KiB")
	if limits.MaxHeader > 16<<20 {
		v.refuse(p.key("max_header"), v.shown(p.key("max_header"))+" is more than is sensible", "write at most 16MiB")
	}
	v.inbound(p, limits)
}

// plans: their names go into accounts and to the log.
func (v *validator) plans() {
	for _, name := range slices.Sorted(maps.Keys(v.config.Plans)) {
		p := path{"plans"}.key(name)
		if name == "" || len(name) > 64 || !isMadeOf(name, "-._") {
			v.refuse(p, "is no name of a plan", "write 1 to 64 characters of A-Z, a-z, 0-9, ., _ and -")
		}
		v.ownRate(p, v.config.Plans[name])
	}
}

// ownRate: in the place of limits.key, no limit must be said aloud.
func (v *validator) ownRate(p path, r Rate) {
	if v.isRead(p) && !v.given(p.key("rate")) {
		v.refuse(p, "has no rate", "write rate and burst, or rate: 0 for no limit")
	}
	v.rate(p, r)
}

// rate: within these bounds, the time to fill a burst is a time.Duration.
func (v *validator) rate(p path, r Rate) {
	const slowest, fastest, largest = 0.001, 1e6, 1e6
	if r.Rate != 0 && (r.Rate < slowest || r.Rate > fastest || math.IsNaN(r.Rate)) {
		v.refuse(p.key("rate"), v.shown(p.key("rate"))+" is no rate", "write 0 for no limit, or 0.001 to 1000000 a second")
	}
	switch {
	case r.Burst < 0 || r.Burst > largest:
		v.refuse(p.key("burst"), v.shown(p.key("burst"))+" is no burst", "write 1 to 1000000")
	case r.Rate > 0 && r.Burst == 0:
		v.refuse(p.key("burst"), "is 0, so that the rate would let nothing through", "write 1 or more, or a rate of 0 for no limit")
	}
}
