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
	request *http.Request
	trusted bool // whoever sent it
	// path is left out until it is known to have one spelling: in others a token
	// could be written so that nobody sees it.
	path string
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
	r := a.request
	if r == nil {
		return CleanAsked{}
	}
	shown := CleanAsked{
		Path: clean.ASCII(a.path, maxShownPath), Host: clean.ASCII(hostName(r.Host), maxShownHost),
		UserAgent: clean.ASCII(headerOf(r.Header, "User-Agent"), maxShownAgent), Scheme: origin{trusted: a.trusted}.scheme(r), Protocol: "1.1",
	}
	switch {
	case r.ProtoMajor > 1:
		shown.Protocol = "2"
	case !r.ProtoAtLeast(1, 1):
		shown.Protocol = "1.0"
	}
	return shown
}
