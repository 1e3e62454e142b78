package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// subaccountName is the wildcard of a pattern that names the subaccount.
const subaccountName = "subaccount"

// RouteSpec is one route as configured: what it matches, what it needs, and
// who answers. Exactly one of Permission, ByMethod and ByQuery is set.
type RouteSpec struct {
	// Match is a pattern of http.ServeMux with a method in front, unless
	// ByMethod gives the methods. {subaccount} is the request's scope.
	Match      string
	Permission policy.Permission
	ByMethod   map[string]policy.Permission
	ByQuery    QueryRule
	Backend    Backend
	// MaxBody is the largest request body, in bytes; 0: as Options.MaxBody says.
	MaxBody int64
	// WebSocket allows requests to be upgraded, to WebSocket and nothing else.
	WebSocket bool
	// Timeout is how long an upstream may take until the headers of its answer;
	// 0: as long as the upstream says.
	Timeout time.Duration
	// Limit is for what each key asks of this route, in the place of every
	// other limit of its requests; nil for none of its own.
	Limit *Limiter
	// Own marks a route of Gatehouse itself: only such a route matches below
	// the reserved paths of NewRoutes.
	Own bool
	// Refused is told of requests to such a route that were refused although
	// their key is known; nil for nobody.
	Refused RefusedFunc
}

// RefusedFunc is told that the caller's request was refused with the code,
// before the client is. The request has its path values.
type RefusedFunc func(ctx context.Context, r *http.Request, by policy.Caller, code problem.Code)

// RouteError says which of the specs given to NewRoutes is wrong.
type RouteError struct {
	Index int
	Err   error
}

func (e *RouteError) Error() string { return e.Err.Error() }

// Unwrap gives the fault itself.
func (e *RouteError) Unwrap() error { return e.Err }

// Route is one compiled route. It is immutable.
type Route struct {
	pattern    string
	template   string // its path, as OpenTelemetry's http.route
	permission policy.Permission
	query      QueryRule
	subaccount int // index of the segment behind the leading slash; -1: none
	names      map[int]string
	own        bool
	open       bool // the pattern does not end with a word
	webSocket  bool
	backend    Backend
	refused    RefusedFunc
	timeout    time.Duration // 0: the upstream's
	maxBody    int64         // 0: the gateway's
	limit      *Limiter
}

// Pattern is the route as metrics and logs name it: its method and pattern
// from the configuration, never anything a client sent.
func (t *Route) Pattern() string { return t.pattern }

// ServeHTTP makes a Route something that http.ServeMux can hold. The mux only
// finds routes and never runs them, so running one is a bug.
func (t *Route) ServeHTTP(http.ResponseWriter, *http.Request) {
	panic("proxy: a route was served past the gateway")
}

// Needs returns the permission the request needs, or an ambiguous_query
// problem when the query leaves that open.
func (t *Route) Needs(r *http.Request, rawQuery string) (policy.Permission, error) {
	if t.query.Parameter == "" {
		return t.permission, nil
	}
	if err := t.query.bodyMayDecide(r); err != nil {
		return "", err
	}
	return t.query.Needs(rawQuery)
}

// Subaccount returns the subaccount that a matched path names, "" where the
// route has none. It is what was sent: only the account knows whether it is one.
func (t *Route) Subaccount(path string) policy.SubaccountID {
	if t.subaccount < 0 {
		return ""
	}
	return policy.SubaccountID(segment(path, t.subaccount))
}

// setPathValues does for Gatehouse's own endpoints what http.ServeMux.ServeHTTP
// would have done for the wildcards of one segment.
func (t *Route) setPathValues(r *http.Request, path string) {
	for i, name := range t.names {
		r.SetPathValue(name, segment(path, i))
	}
}

// segment returns the i-th segment of a path, counted from 0.
func segment(path string, i int) string {
	rest := strings.TrimPrefix(path, "/")
	for range i {
		_, rest, _ = strings.Cut(rest, "/")
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

// Routes finds the route of a request. It is immutable and may be used
// concurrently. The zero value matches nothing.
type Routes struct {
	reserved []string
	own      *http.ServeMux
	products *http.ServeMux
	// folded holds the product routes with their words in lower case, to see
	// what a backend that does not mind letter case would see.
	folded *http.ServeMux
	// cased: some word of a product route has a capital letter.
	cased bool
	// literal are the methods of each path that a route of our own spells out:
	// another one's wildcard does not take it for a value.
	literal map[string][]string
}

// NewRoutes compiles the specs. Below the reserved paths only routes marked
// Own match, so that no product route can take a path of Gatehouse's own API
// for a subaccount. All faults are returned at once, joined, each a *RouteError.
func NewRoutes(reserved []string, specs []RouteSpec) (*Routes, error) {
	rs := &Routes{reserved: slices.Clone(reserved), own: http.NewServeMux(), products: http.NewServeMux(), folded: http.NewServeMux(), literal: map[string][]string{}}
	var faults []error
	var accepted []registered
	for i, spec := range specs {
		compiled, err := compile(spec)
		if err == nil && !spec.Own && rs.isReserved(patternPath(spec.Match)) {
			err = fmt.Errorf("route %q lies below a path of Gatehouse's own API; choose another path", spec.Match)
		}
		for _, route := range compiled {
			if err == nil {
				accepted, err = rs.add(route, spec.Own, accepted)
			}
		}
		if err != nil {
			faults = append(faults, &RouteError{Index: i, Err: err})
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return rs, nil
}

type registered struct {
	pattern string
	own     bool
}

func (rs *Routes) add(route *Route, own bool, accepted []registered) ([]registered, error) {
	mux := rs.products
	if own {
		mux = rs.own
	}
	if register(mux, route.pattern, route) {
		folded := foldPattern(route.pattern)
		rs.cased = rs.cased || !own && folded != route.pattern
		if method, _, path := splitPattern(route.pattern); own && len(route.names) == 0 {
			rs.literal[path] = append(rs.literal[path], method)
		}
		if !own && !register(rs.folded, folded, route) {
			return accepted, fmt.Errorf("route %q differs from another route only in letter case, which many backends do not mind; rename one of them", route.pattern)
		}
		return append(accepted, registered{route.pattern, own}), nil
	}
	if !register(http.NewServeMux(), route.pattern, route) {
		return accepted, fmt.Errorf("route %q is not a pattern: write METHOD /path, with {name} for one segment and {name...} for the rest", route.pattern)
	}
	for _, earlier := range accepted {
		pair := http.NewServeMux()
		if earlier.own == own && register(pair, earlier.pattern, route) && !register(pair, route.pattern, route) {
			return accepted, fmt.Errorf("route %q conflicts with route %q: some requests match both and neither is more specific; "+
				"make one of them more specific, or remove it", route.pattern, earlier.pattern)
		}
	}
	return accepted, fmt.Errorf("route %q is not a pattern: write METHOD /path, with {name} for one segment and {name...} for the rest", route.pattern)
}

// register reports whether the mux accepted the pattern, which it otherwise
// says with a panic.
func register(mux *http.ServeMux, pattern string, h http.Handler) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	mux.Handle(pattern, h)
	return true
}

// Match returns the route of the request, whose path is canonical; an
// unknown_route or method_not_allowed problem when there is none.
func (rs *Routes) Match(r *http.Request, path string) (*Route, error) {
	mux := rs.products
	if rs.isReserved(path) {
		mux = rs.own
	}
	if mux == nil {
		return nil, unknownRoute()
	}
	if methods, spelt := rs.literal[path]; spelt && mux == rs.own && !takes(methods, r.Method) {
		return nil, methodNotAllowed(allowed(methods))
	}
	asked := matchable(r, path)
	handler, _ := mux.Handler(asked)
	route, found := handler.(*Route)
	if strings.Contains(path, "%") {
		// A backend that unescapes first must not see another route's path.
		unescaped, _ := mux.Handler(r)
		if other, is := unescaped.(*Route); is && other != route {
			return nil, problem.New(problem.AmbiguousPath, "The path of this request is ambiguous: unescaped it is another route's.")
		}
	}
	if found && !route.own && rs.looksLikeAnother(r, path, route) {
		return nil, problem.New(problem.AmbiguousPath,
			"The path of this request is ambiguous: in another letter case, or with or without a slash at its end, it is another route's.")
	}
	if found {
		return route, nil
	}
	answer := scratch{header: http.Header{}}
	handler.ServeHTTP(&answer, asked)
	if answer.status == http.StatusMethodNotAllowed {
		return nil, methodNotAllowed(answer.header.Get("Allow"))
	}
	return nil, unknownRoute()
}

// takes: a pattern for GET also matches HEAD.
func takes(methods []string, method string) bool {
	return slices.Contains(methods, method) || method == http.MethodHead && slices.Contains(methods, http.MethodGet)
}

// allowed spells methods as an Allow header does (RFC 9110 §10.2.1).
func allowed(methods []string) string {
	all := slices.Clone(methods)
	if slices.Contains(all, http.MethodGet) {
		all = append(all, http.MethodHead)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

func methodNotAllowed(allow string) error {
	p := problem.New(problem.MethodNotAllowed, "This path does not take this method.")
	p.Allow = allow
	return p
}

// looksLikeAnother reports whether a backend that minds neither letter case nor
// a slash at the end could take the path for that of another route, which may
// need more. It can only be so where the route's pattern takes more than one
// word in the last place, or where there are capitals.
func (rs *Routes) looksLikeAnother(r *http.Request, path string, route *Route) bool {
	folded := strings.ToLower(path)
	if !route.open && folded == path && !rs.cased {
		return false
	}
	variants := []string{folded}
	if toggled, hadSlash := strings.CutSuffix(folded, "/"); route.open && hadSlash {
		variants = append(variants, toggled)
	} else if route.open {
		variants = append(variants, folded+"/")
	}
	for _, variant := range variants {
		if variant == "" {
			continue
		}
		handler, _ := rs.folded.Handler(&http.Request{Method: r.Method, Host: canonicalHost(r.Host), URL: &url.URL{Path: variant}})
		if other, is := handler.(*Route); is && other != route && !other.needsTheSame(route) {
			return true
		}
	}
	return false
}

func (t *Route) needsTheSame(other *Route) bool {
	return t.permission != "" && t.permission == other.permission && t.subaccount == other.subaccount
}

// foldPattern lowers the letters of a pattern's words, and not of its method
// and wildcards.
func foldPattern(pattern string) string {
	method, host, path := splitPattern(pattern)
	words := strings.Split(path, "/")
	for i, word := range words {
		if !strings.HasPrefix(word, "{") {
			words[i] = strings.ToLower(word)
		}
	}
	if method != "" {
		method += " "
	}
	return method + host + strings.Join(words, "/")
}

func unknownRoute() error {
	return problem.New(problem.UnknownRoute, "There is nothing at this path.")
}

// isReserved reports whether path is one of the reserved paths or below it.
func (rs *Routes) isReserved(path string) bool {
	return slices.ContainsFunc(rs.reserved, func(prefix string) bool {
		rest, ok := strings.CutPrefix(path, prefix)
		return ok && (rest == "" || rest[0] == '/')
	})
}

// matchable returns a request whose segments http.ServeMux compares byte by
// byte: it unescapes what it matches, so an escaped path is escaped once more.
// The host is spelt as DNS sees it, in lower case and without a final dot.
func matchable(r *http.Request, path string) *http.Request {
	host := canonicalHost(r.Host)
	if r.URL.RawPath == "" && r.URL.Path == path && r.Host == host {
		return r
	}
	return &http.Request{Method: r.Method, Host: host, URL: &url.URL{Path: path}}
}

func canonicalHost(host string) string {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name, port = host[:i], host[i:]
	}
	return strings.ToLower(strings.TrimSuffix(name, ".")) + port
}

// scratch takes the answer of http.ServeMux's own handlers for its status.
type scratch struct {
	header http.Header
	status int
}

func (s *scratch) Header() http.Header { return s.header }

func (s *scratch) WriteHeader(status int) { s.status = status }

func (s *scratch) Write(b []byte) (int, error) { return len(b), nil }
