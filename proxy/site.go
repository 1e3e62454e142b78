package proxy

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"gatehouse/proxy/problem"
)

// Site is what Gatehouse serves to people, or to everybody. Its requests need no
// key: it signs people in by itself, and nothing of it reaches a backend.
type Site struct {
	// Host is the only host name that it is served on, and all that is served
	// there; "" for every host.
	Host string
	// Prefix is the path that it is below.
	Prefix string
	// Targets are the request targets that it answers GET and HEAD for, byte for
	// byte, in the place of Prefix.
	Targets []string
	// Pattern names the page that a request is for, of a bounded number, for
	// records.
	Pattern func(r *http.Request) string
	// Serve answers. An error that it returns means that nothing was written.
	Serve func(w http.ResponseWriter, r *http.Request, v Visit) error
}

// Visit is what the gateway knows of a request to a Site.
type Visit struct {
	// Client is invalid where it is not known.
	Client    netip.Addr
	RequestID string
	// Scheme is that of the client's request, as far as is known.
	Scheme string
	// Refuse notes in the record why the page that is answered is no success.
	Refuse func(p *problem.Problem)
}

// owns reports whether a request with that path is the site's.
func (s *Site) owns(r *http.Request, path string) bool {
	switch {
	case s.Host != "":
		return hostName(r.Host) == s.Host
	case s.Targets != nil:
		return (r.Method == http.MethodGet || r.Method == http.MethodHead) && slices.Contains(s.Targets, r.RequestURI)
	}
	rest, below := strings.CutPrefix(path, s.Prefix)
	return below && (rest == "" || rest[0] == '/')
}

// hostName is the host less its port, as DNS sees it.
func hostName(host string) string {
	host = canonicalHost(host)
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return host
}

// visit has the site answer. Its body is bounded like every other one.
func (g *Gateway) visit(x *exchange, site *Site) error {
	x.record.Route = site.Pattern(x.r)
	_, _, x.record.Template = splitPattern(x.record.Route)
	if x.r.ContentLength > g.o.MaxBody {
		return bodyTooLarge()
	}
	if x.dry != nil {
		return nil
	}
	body := newRequestBody(x, g.o.MaxBody, g.o.MinBodyRate)
	defer body.finish(&x.record)
	x.body = body
	if err := body.checkEmpty(); err != nil {
		return body.explain(err)
	}
	return body.explain(site.Serve(x.w, x.r, Visit{
		Client: x.from.client, RequestID: x.record.RequestID, Scheme: x.from.scheme(x.r), Refuse: x.record.refuse,
	}))
}
