package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"gatehouse/policy"
)

// routeMethods are the methods a route may name.
func routeMethods() []string {
	return []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions,
	}
}

// compile turns a spec into one route a method.
func compile(spec RouteSpec) ([]*Route, error) {
	method, host, path := splitPattern(spec.Match)
	names, err := wildcards(path)
	if err != nil {
		return nil, fmt.Errorf("route %q: %w", spec.Match, err)
	}
	base := Route{
		pattern: spec.Match, template: path, names: names, subaccount: -1, own: spec.Own, backend: spec.Backend, refused: spec.Refused,
		webSocket: spec.WebSocket,
		timeout:   spec.Timeout,
		maxBody:   spec.MaxBody,
		open:      strings.HasSuffix(path, "/") || strings.HasSuffix(path, "}"),
		limit:     spec.Limit,
	}
	for i, name := range names {
		if name == subaccountName {
			base.subaccount = i
		}
	}
	if host != canonicalHost(host) || strings.Contains(host, ":") {
		return nil, fmt.Errorf("route %q: its host could never match: write it in lower case, without port and final dot", spec.Match)
	}
	if spec.Backend == nil {
		return nil, fmt.Errorf("route %q has no upstream", spec.Match)
	}
	if err := checkNeeds(spec, method); err != nil {
		return nil, fmt.Errorf("route %q %w", spec.Match, err)
	}
	if len(spec.ByMethod) == 0 {
		base.permission, base.query = spec.Permission, spec.ByQuery
		return []*Route{&base}, nil
	}
	routes := make([]*Route, 0, len(spec.ByMethod))
	for _, m := range slices.Sorted(maps.Keys(spec.ByMethod)) {
		route := base
		route.pattern, route.permission = m+" "+host+path, spec.ByMethod[m]
		routes = append(routes, &route)
	}
	return routes, nil
}

// checkNeeds: what a route needs must be said once, and for a named method. A
// permission for "any method" would let a write pass as a read.
func checkNeeds(spec RouteSpec, method string) error {
	said := 0
	for _, is := range []bool{spec.Permission != "", len(spec.ByMethod) > 0, spec.ByQuery.Parameter != ""} {
		if is {
			said++
		}
	}
	switch {
	case said == 0:
		return errors.New("needs no permission; give it exactly one of permission, by_method and by_query")
	case said > 1:
		return errors.New("says more than once what it needs; give it exactly one of permission, by_method and by_query")
	case len(spec.ByMethod) > 0 && method != "":
		return fmt.Errorf("names the method %s and has by_method; remove one of them", method)
	case len(spec.ByMethod) == 0 && method == "":
		return errors.New("names no method; write METHOD /path, or use by_method")
	case spec.ByQuery.Parameter != "" && len(spec.ByQuery.Permissions) == 0:
		return errors.New("has by_query without any value; name the values and what each needs")
	}
	methods := slices.Collect(maps.Keys(spec.ByMethod))
	if method != "" {
		methods = append(methods, method)
	}
	for _, m := range methods {
		if !slices.Contains(routeMethods(), m) {
			return fmt.Errorf("names the method %q; it must be one of %s", m, strings.Join(routeMethods(), ", "))
		}
	}
	needs := slices.AppendSeq([]policy.Permission{}, maps.Values(spec.ByMethod))
	needs = slices.AppendSeq(needs, maps.Values(spec.ByQuery.Permissions))
	if slices.Contains(needs, "") {
		return errors.New("has a method or value without a permission")
	}
	return nil
}

// splitPattern cuts "[METHOD ][HOST]/PATH".
func splitPattern(pattern string) (method, host, path string) {
	rest := pattern
	if before, after, ok := strings.Cut(pattern, " "); ok {
		method, rest = before, strings.TrimLeft(after, " \t")
	}
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return method, rest, ""
	}
	return method, rest[:i], rest[i:]
}

func patternPath(pattern string) string {
	_, _, path := splitPattern(pattern)
	return path
}

// wildcards returns the names of a pattern path's wildcards by segment.
func wildcards(path string) (map[int]string, error) {
	if path == "" {
		return nil, errors.New("it has no path; write METHOD /path")
	}
	names := map[int]string{}
	literal := make([]string, 0, strings.Count(path, "/"))
	for i, part := range strings.Split(path[1:], "/") {
		inner, isWildcard := strings.CutPrefix(part, "{")
		if !isWildcard {
			literal = append(literal, part)
			continue
		}
		literal = append(literal, "x")
		name := strings.TrimSuffix(inner, "}")
		switch {
		case name == subaccountName && slices.Contains(slices.Collect(maps.Values(names)), name):
			return nil, errors.New("{subaccount} is there twice; a request has one subaccount")
		case name == subaccountName+"...":
			return nil, errors.New("{subaccount...} is not one segment; write {subaccount}")
		case name != "$" && !strings.HasSuffix(name, "..."):
			names[i] = name
		}
	}
	if err := CanonicalPath("/" + strings.Join(literal, "/")); err != nil || strings.Contains(path, "%") {
		return nil, errors.New("its path could never match: write it unescaped, without dot segments, empty segments and special characters")
	}
	return names, nil
}
