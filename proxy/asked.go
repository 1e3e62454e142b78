package proxy

import (
	"net/http"

	"gatehouse/proxy/clean"
)

// How much is shown of what a client sent, in bytes.
const (
	maxShownPath  = 256
	maxShownHost  = 128
	maxShownAgent = 192
)

// Asked is what a client sent of a request, as it was sent: it may hold a token,
// end lines, or be long. It cannot be read but through Clean.
type Asked struct {
	path, host, agent string
	protocol          int8 // 10, 11, 20 for HTTP/2
	isHTTPS           bool
}

// askedOf leaves the path out until it is known to have one spelling: in others
// a token could be written so that nobody sees it.
func askedOf(r *http.Request, o origin) Asked {
	return Asked{
		host: r.Host, agent: headerOf(r.Header, "User-Agent"), isHTTPS: o.scheme(r) == "https",
		protocol: int8(min(r.ProtoMajor, 9)*10 + min(r.ProtoMinor, 9)), //nolint:gosec // at the most 99
	}
}

// headerOf is the first value of a header, by its canonical name.
func headerOf(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// CleanAsked is what logs and traces may show of what a client sent: printable,
// of bounded length, and without words that could be a token. A query is not in it.
type CleanAsked struct {
	Path      string // "" where the path had more than one spelling
	Host      string
	UserAgent string
	Scheme    string // http or https
	Protocol  string // 1.0, 1.1 or 2
}

// Clean makes it fit to be shown.
func (a Asked) Clean() CleanAsked {
	shown := CleanAsked{
		Path: clean.ASCII(a.path, maxShownPath), Host: clean.ASCII(hostname(a.host), maxShownHost), UserAgent: clean.ASCII(a.agent, maxShownAgent),
		Scheme: "http", Protocol: "1.1",
	}
	if a.isHTTPS {
		shown.Scheme = "https"
	}
	switch {
	case a.protocol >= 20:
		shown.Protocol = "2"
	case a.protocol < 11:
		shown.Protocol = "1.0"
	}
	return shown
}
