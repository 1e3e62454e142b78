package proxy

import (
	"errors"
	"net/http"
	"net/url"

	"gatehouse/proxy/problem"
)

const (
	// corsRequestHeaders is what a page may send beside what every page may.
	corsRequestHeaders = "api-token, authorization, content-type"
	// corsAnswerHeaders is what a page may read beside what every page may.
	corsAnswerHeaders = "Location, Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate, Deprecation, Sunset, X-Request-Id"
	corsMaxAge        = "600"
)

// cors lets pages of certain origins use Gatehouse's own API from a browser
// (Fetch standard, "CORS protocol"). Credentials are not among it: tokens are
// sent in headers, and a browser never adds those by itself. What products
// allow is their own affair. The zero value allows nobody.
type cors struct{ origins map[string]bool }

func newCORS(origins []string) cors {
	if len(origins) == 0 {
		return cors{}
	}
	c := cors{origins: make(map[string]bool, len(origins))}
	for _, o := range origins {
		c.origins[o] = true
	}
	return c
}

// admit gives the answer, whatever it will be, the headers by which a browser
// lets a page of an allowed origin read it. It reports whether there is one.
func (c cors) admit(answer, request http.Header) bool {
	if c.origins == nil {
		return false
	}
	answer.Add("Vary", "Origin")
	origin := request["Origin"]
	if len(origin) != 1 || !c.origins[origin[0]] {
		return false
	}
	answer.Set("Access-Control-Allow-Origin", origin[0])
	answer.Set("Access-Control-Expose-Headers", corsAnswerHeaders)
	return true
}

// preflight answers what a browser asks before a request of an allowed origin
// (Fetch standard, "CORS-preflight request"). It reports false, and has written
// nothing, for a request that is none, or that asks for what there is not.
func (g *Gateway) preflight(x *exchange) bool {
	asked := x.r.Header["Access-Control-Request-Method"]
	if x.r.Method != http.MethodOptions || len(asked) != 1 {
		return false
	}
	route, err := g.o.Routes.Match(&http.Request{Method: asked[0], Host: x.r.Host, URL: &url.URL{Path: x.path}}, x.path)
	if err != nil || !route.own {
		return false
	}
	var refused *problem.Problem
	if _, err := g.o.Routes.Match(x.r, x.path); !errors.As(err, &refused) || refused.Allow == "" {
		return false
	}
	x.record.Route, x.record.Reason = route.Pattern(), reasonPreflight
	h := x.w.Header()
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", refused.Allow)
	h.Set("Access-Control-Allow-Headers", corsRequestHeaders)
	h.Set("Access-Control-Max-Age", corsMaxAge)
	h.Set("Cache-Control", "no-store")
	x.w.WriteHeader(http.StatusNoContent)
	return true
}
