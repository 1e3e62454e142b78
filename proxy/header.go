package proxy

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// withheld are the request headers that never reach a backend as the client
// sent them, in lower case: credentials, everything in which a client could
// name another address, host, path or method than those that were decided on,
// and what the gateway sets itself.
func withheld() []string {
	return []string{
		"api-token", "authorization", "proxy", "upgrade", "host", "content-length", "transfer-encoding",
		"forwarded", "x-forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-remote-ip", "x-remote-addr", "x-originating-ip",
		"true-client-ip", "cf-connecting-ip", "fastly-client-ip", "client-ip",
		"x-original-url", "x-original-uri", "x-original-path", "x-rewrite-url", "x-override-url", "x-envoy-original-path", "x-original-host", "x-host",
		"x-http-method", "x-http-method-override", "x-method-override", "x-original-method", "x-middleware-subrequest",
		"x-envoy-external-address", "x-azure-clientip", "x-appengine-user-ip", "x-proxyuser-ip", "http2-settings",
		"x-request-id", "traceparent",
	}
}

// headerFilter says which request headers are withheld.
type headerFilter struct {
	byLength map[int][]string // lower case
}

// newHeaderFilter also withholds the header that names the client's address.
func newHeaderFilter(addressHeader string) headerFilter {
	f := headerFilter{byLength: map[int][]string{}}
	for _, name := range append(withheld(), strings.ToLower(addressHeader)) {
		f.byLength[len(name)] = append(f.byLength[len(name)], name)
	}
	return f
}

// strip removes what is withheld, in any letter case, and with any separator
// for dashes: CGI-like backends do not tell X_Gatehouse_Account or
// X.Gatehouse.Account from X-Gatehouse-Account.
func (f headerFilter) strip(h http.Header) {
	for name := range h {
		if f.withholds(name) {
			delete(h, name)
		}
	}
	withholdSession(h)
}

// sessionCookie is what the names of the dashboard's cookies begin with,
// __Host-gatehouse, as hasPrefixFolded wants it.
const sessionCookie = "--host-gatehouse"

func isSession(cookie string) bool {
	return hasPrefixFolded(strings.TrimLeft(cookie, " \t"), sessionCookie)
}

// withholdSession takes the dashboard's cookies out of the request, and leaves
// all other bytes of Cookie as they are.
func withholdSession(h http.Header) {
	lines := h["Cookie"]
	if !slices.ContainsFunc(lines, func(line string) bool {
		for cookie := range strings.SplitSeq(line, ";") {
			if isSession(cookie) {
				return true
			}
		}
		return false
	}) {
		return
	}
	var kept []string
	for _, line := range lines {
		cookies := slices.DeleteFunc(strings.Split(line, ";"), isSession)
		if line = strings.TrimLeft(strings.Join(cookies, ";"), " \t"); line != "" {
			kept = append(kept, line)
		}
	}
	delete(h, "Cookie")
	if len(kept) > 0 {
		h["Cookie"] = kept
	}
}

func (f headerFilter) withholds(name string) bool {
	if isIdentity(name) || hasPrefixFolded(name, "x-forwarded-") {
		return true
	}
	name = strings.TrimRight(name, "!#$%&'*+-.^_`|~") // separators at the end count as little
	for _, other := range f.byLength[len(name)] {
		if hasPrefixFolded(name, other) {
			return true
		}
	}
	return false
}

// isIdentity reports whether a header could be read as one of Gatehouse's own.
func isIdentity(name string) bool { return hasPrefixFolded(name, "x-gatehouse-") }

// stripHop removes what is said of one connection alone (RFC 9110 §7.6.1).
func stripHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.Trim(name, " \t"))
		}
	}
	for _, name := range []string{
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	} {
		delete(h, name)
	}
}

func stripIdentity(h http.Header) {
	for name := range h {
		if isIdentity(name) {
			delete(h, name)
		}
	}
}

// hasPrefixFolded compares ASCII letters in either case, and everything that is
// no letter or digit as a dash, as CGI-like servers do. The prefix is in lower
// case.
func hasPrefixFolded(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case (c < 'a' || c > 'z') && (c < '0' || c > '9'):
			c = '-'
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}

// headerSetter sets single values with one allocation for all of them.
type headerSetter struct {
	header http.Header
	values []string
}

func newHeaderSetter(h http.Header, atMost int) *headerSetter {
	return &headerSetter{header: h, values: make([]string, 0, atMost)}
}

// set takes a name in canonical form.
func (s *headerSetter) set(name, value string) {
	s.values = append(s.values, value)
	last := len(s.values)
	s.header[name] = s.values[last-1 : last : last]
}

// forwardedForValue is what is known of the way a request came: the client,
// the trusted proxies between, and the peer.
func (o origin) forwardedForValue() string {
	if !o.trusted {
		return o.peer.String()
	}
	hops := make([]string, 0, len(o.via)+2)
	if o.client.IsValid() && o.client != o.peer {
		hops = append(hops, o.client.String())
	}
	for _, hop := range append(append([]netip.Addr{}, o.via...), o.peer) {
		hops = append(hops, hop.String())
	}
	return strings.Join(hops, ", ")
}

// scheme is that of the client's own connection, as far as it is known: a
// trusted proxy may say that it was https.
func (o origin) scheme(r *http.Request) string {
	if said := r.Header["X-Forwarded-Proto"]; o.trusted && len(said) == 1 && (said[0] == "http" || said[0] == "https") {
		return said[0]
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}
