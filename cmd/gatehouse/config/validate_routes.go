package config

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"gatehouse/policy"
	"gatehouse/proxy"
)

func (v *validator) products() {
	for _, product := range v.config.Products {
		p := path{"products"}.key(product.Name)
		if !isName(product.Name) || product.Name == "account" {
			v.refuse(p, "is no name of a product", "write a-z, 0-9 and _, and not account, which is built in")
		}
		if strings.TrimSpace(product.Label) == "" || strings.ContainsFunc(product.Label, unicode.IsControl) {
			v.refuse(p.key("label"), "is no text to show", "write what customers call the product")
		}
		if len(product.Actions) == 0 {
			v.refuse(p.key("actions"), "names no action", "write a list such as [read, write, delete]")
		}
		for i, action := range product.Actions {
			entry := p.key("actions").index(i)
			_, err := policy.ParsePermission(product.Name + ":" + action)
			switch {
			case !isName(action):
				v.refuse(entry, v.shown(entry)+" is no name of an action", "write a-z, 0-9 and _, as in read")
			case slices.Contains(product.Actions[:i], action):
				v.refuse(entry, v.shown(entry)+" is there twice", "remove one of them")
			case err != nil && isName(product.Name):
				v.refuse(entry, "makes too long a permission with the product's name", "use shorter names")
			}
		}
	}
}

func (v *validator) routes() {
	p := path{"routes"}
	if len(v.config.Routes) == 0 {
		v.refuse(p, "has no route", "write at least one: without it every request is refused")
	}
	for i, route := range v.config.Routes {
		v.route(p.index(i), route)
	}
	v.patterns()
}

func (v *validator) route(p path, route Route) {
	if route.Match == "" {
		v.refuse(p.key("match"), "is missing", "write METHOD /path, or /path with by_method")
	}
	upstreams := slices.Sorted(maps.Keys(v.config.Upstreams))
	if _, ok := v.config.Upstreams[route.Upstream]; !ok {
		fault := v.shown(p.key("upstream")) + " is not one of the upstreams"
		if route.Upstream == "" {
			fault = "is missing"
		}
		v.refuseUnless("upstreams", p.key("upstream"), fault, oneOf(route.Upstream, upstreams, "define it under upstreams"))
	}
	const mend = "give it exactly one of permission, by_method and by_query"
	switch needs := v.needsOf(p); len(needs) {
	case 0:
		v.refuse(p, "needs no permission", mend)
	case 1:
	default:
		v.refuse(p.key(needs[1]), "is there beside "+needs[0], mend)
	}
	if v.given(p.key("permission")) {
		v.permission(p.key("permission"), route.Permission)
	}
	if v.given(p.key("max_body")) {
		v.aboveZero(p.key("max_body"), int64(route.MaxBody), "write a size such as 1GiB, or leave it out")
	}
	if v.given(p.key("timeout")) {
		v.aboveZero(p.key("timeout"), int64(route.Timeout), "write a duration such as 30s, or leave it out")
	}
	v.webSocket(p.key("websocket"), route)
	if route.Limit != nil {
		v.ownRate(p.key("limit"), *route.Limit)
	}
	v.byMethod(p.key("by_method"), route.ByMethod)
	v.byQuery(p.key("by_query"), route.ByQuery)
}

// refuseUnless refuses a reference into a section, unless the section itself
// could not be read.
func (v *validator) refuseUnless(section string, p path, fault, mend string) {
	if !v.unread[section] {
		v.refuse(p, fault, mend)
	}
}

// needsOf returns by which settings a route says what it needs.
func (v *validator) needsOf(p path) []string {
	return slices.DeleteFunc([]string{"permission", "by_method", "by_query"}, func(name string) bool { return !v.given(p.key(name)) })
}

func (v *validator) byMethod(p path, permissions map[string]policy.Permission) {
	if v.given(p) && len(permissions) == 0 {
		v.refuse(p, "names no method", "write METHOD: permission")
	}
	for method, permission := range permissions {
		if !slices.Contains(routeMethods(), method) {
			v.refuse(p.key(method), "is no method of a route", oneOf(method, routeMethods(), ""))
		}
		v.permission(p.key(method), permission)
	}
}

// routeMethods are the methods that proxy.NewRoutes takes.
func routeMethods() []string {
	return []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions,
	}
}

// byQuery: the gateway compares the parameter and its values as they are sent,
// so one that a client would have to escape could never match.
func (v *validator) byQuery(p path, permissions map[string]map[string]policy.Permission) {
	const mend, unreserved = "write letters, digits, -, ., _ and ~, of which none is escaped", "-._~"
	if v.given(p) && len(permissions) != 1 {
		v.refuse(p, fmt.Sprintf("names %d query parameters", len(permissions)), "name exactly one: one parameter decides")
	}
	for parameter, values := range permissions {
		if parameter == "" || !isMadeOf(parameter, unreserved) {
			v.refuse(p.key(parameter), "could never be the name of a parameter", mend)
		}
		if len(values) == 0 {
			v.refuse(p.key(parameter), "names no value", "write value: permission for each value that is allowed")
		}
		for value, permission := range values {
			if value == "" || !isMadeOf(value, unreserved) {
				v.refuse(p.key(parameter).key(value), "could never be the value of the parameter", mend)
			}
			v.permission(p.key(parameter).key(value), permission)
		}
	}
}

// permission: a route may need a permission of a product, and no other.
func (v *validator) permission(p path, needed policy.Permission) {
	var known []string
	for _, product := range v.config.Products {
		at := path{"products"}.key(product.Name)
		if product.Name == needed.Resource() && !v.isRead(at) {
			return
		}
		for i, action := range product.Actions {
			if string(needed) == product.Name+":"+action {
				return
			}
			if !v.literals[at.key("actions").index(i).String()].replaced {
				known = append(known, product.Name+":"+action)
			}
		}
	}
	fault := " is not in the catalogue of permissions"
	if strings.HasPrefix(string(needed), "account:") {
		fault = " is for Gatehouse's own API, and not for a product's route"
	}
	v.refuseUnless("products", p, v.shown(p)+fault, oneOf(string(needed), known, "define its product under products"))
}

// patterns has the routes compiled as they will be, with stand-ins for what
// they need and who answers: that is reported by route.
func (v *validator) patterns() {
	var specs []proxy.RouteSpec
	var indexes []int
	for i, route := range v.config.Routes {
		spec, isCertain := v.standIn(path{"routes"}.index(i), route)
		switch {
		case route.Match == "":
		case isCertain:
			specs, indexes = append(specs, spec), append(indexes, i)
		default:
			v.compile([]proxy.RouteSpec{spec}, []int{i})
		}
	}
	v.compile(specs, indexes)
}

// standIn returns a spec with the route's pattern and methods, and whether it
// is certain which methods these are.
func (v *validator) standIn(p path, route Route) (proxy.RouteSpec, bool) {
	spec := proxy.RouteSpec{Match: route.Match, Backend: proxy.BackendFunc(nil)}
	needs := v.needsOf(p)
	isByMethod := len(needs) == 1 && needs[0] == "by_method"
	isCertain := len(needs) == 1
	if !isByMethod && (isCertain || strings.Contains(route.Match, " ")) {
		spec.Permission = policy.AnyValidKey
		return spec, isCertain
	}
	spec.ByMethod = map[string]policy.Permission{}
	for method := range route.ByMethod {
		if slices.Contains(routeMethods(), method) {
			spec.ByMethod[method] = policy.AnyValidKey
		}
	}
	if len(spec.ByMethod) == 0 {
		spec.ByMethod[http.MethodGet] = policy.AnyValidKey
		isCertain = false
	}
	return spec, isCertain
}

// compile reports what proxy finds wrong with specs, which are those of the
// routes with the indexes.
func (v *validator) compile(specs []proxy.RouteSpec, indexes []int) {
	_, err := proxy.NewRoutes(v.config.Reserved(), specs)
	if err == nil {
		return
	}
	faults := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		faults = joined.Unwrap()
	}
	for _, fault := range faults {
		if wrong, ok := errors.AsType[*proxy.RouteError](fault); ok {
			text, mend := v.patternFault(wrong.Error())
			v.refuse(path{"routes"}.index(indexes[wrong.Index]).key("match"), text, mend)
		}
	}
}

// patternFault cuts a message of proxy into fault and mend. One that quotes a
// pattern in which the environment was put is replaced.
func (v *validator) patternFault(message string) (fault, mend string) {
	for i, route := range v.config.Routes {
		match := path{"routes"}.index(i).key("match").String()
		if v.literals[match].replaced && strings.Contains(message, strings.Trim(strconv.Quote(route.Match), `"`)) {
			return "is no valid pattern, or conflicts with another one, with what the environment has", "write the patterns without ${} to see how"
		}
	}
	for _, separator := range []string{"; ", ": "} {
		if i := strings.LastIndex(message, separator); i >= 0 && !strings.Contains(message[i:], `"`) {
			return message[:i], message[i+len(separator):]
		}
	}
	return message, "correct the pattern"
}
