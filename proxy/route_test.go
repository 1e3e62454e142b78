package proxy_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/problem"

	"github.com/google/go-cmp/cmp"
)

const (
	routeSubaccount = "0b1e6f3c-1111-4222-8333-944455556661"
	routeReads      = policy.Permission("datacenter_shared:read")
	routeWrites     = policy.Permission("datacenter_shared:write")
)

// neverServed is the backend of routes that are only found.
func neverServed() proxy.Backend {
	return proxy.BackendFunc(func(http.ResponseWriter, *http.Request, proxy.Access) error { return nil })
}

// routeTo is a route that needs one permission.
func routeTo(match string, needs policy.Permission) proxy.RouteSpec {
	return proxy.RouteSpec{Match: match, Permission: needs, Backend: neverServed()}
}

func compiledRoutes(t testing.TB, reserved []string, specs ...proxy.RouteSpec) *proxy.Routes {
	t.Helper()
	routes, err := proxy.NewRoutes(reserved, specs)
	if err != nil {
		t.Fatal(err)
	}
	return routes
}

// asReceived is a request as net/http would have read it.
func asReceived(t testing.TB, method, host, path string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(path)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Request{Method: method, Host: host, URL: u, RequestURI: path, Header: http.Header{}}
}

// contractRoutes has routes of every kind: own ones below reserved paths, by
// method, by query, with hosts, with every kind of wildcard.
func contractRoutes(t testing.TB) *proxy.Routes {
	t.Helper()
	own := func(match string, needs policy.Permission) proxy.RouteSpec {
		spec := routeTo(match, needs)
		spec.Own = true
		return spec
	}
	return compiledRoutes(
		t, []string{"/v4/account/api-keys", "/v4/account/whoami"},
		own("POST /v4/account/api-keys", policy.CreateKeys),
		own("GET /v4/account/api-keys", policy.ReadKeys),
		own("GET /v4/account/api-keys/{id}", policy.ReadKeys),
		own("DELETE /v4/account/api-keys/{id}", policy.DeleteKeys),
		own("POST /v4/account/api-keys/{id}/regenerate", policy.RegenerateKeys),
		own("GET /v4/account/api-keys/allowed-permissions", policy.AnyValidKey),
		own("GET /v4/account/whoami", policy.AnyValidKey),
		proxy.RouteSpec{
			Match: "/v4/account/{subaccount}/datacenter_shared", Backend: neverServed(),
			ByMethod: map[string]policy.Permission{"GET": routeReads, "PUT": routeWrites, "DELETE": "datacenter_shared:delete"},
		},
		proxy.RouteSpec{
			Match: "GET /v4/account/{subaccount}/datacenter_shared/whitelist", Backend: neverServed(), ByQuery: whitelistRule("type"),
		},
		proxy.RouteSpec{
			Match: "beta.example.com/by/{subaccount}", Backend: neverServed(), ByMethod: map[string]policy.Permission{"GET": routeReads},
		},
		routeTo("GET /v4/account/{subaccount}", "subaccount:read"),
		routeTo("GET /v4/account/{subaccount}/{product}/stats/{day}", routeReads),
		routeTo("GET /v4/serp/{rest...}", "serp_api:read"),
		routeTo("POST /v4/serp/{$}", "serp_api:write"),
		routeTo("GET /v4/tree/", "residential:read"),
		routeTo("GET /v4/a:b", "residential:write"),
		routeTo("GET /v4/{word}", "residential:read"),
		routeTo("GET api.example.com/v4/tree/", "residential:delete"),
		routeTo("GET beta.example.com/only/there", "residential:delete"),
		routeTo("GET /a/tree/", "residential:read"),
		routeTo("GET /a/rest/{rest...}", "residential:read"),
		routeTo("GET /a/end/{$}", "residential:read"),
		routeTo("GET api.example.com/a/hosted/", "residential:read"),
		routeTo("HEAD /v4/probe", "residential:read"),
		routeTo("OPTIONS /v4/probe", "residential:write"),
	)
}

func TestMatchFindsTheRouteAndWhatItNeeds(t *testing.T) {
	const account = "/v4/account/" + routeSubaccount
	rows := []struct {
		name       string
		method     string
		host       string
		path       string
		pattern    string
		needs      policy.Permission
		subaccount policy.SubaccountID
	}{
		{"own list", "GET", "", "/v4/account/api-keys", "GET /v4/account/api-keys", policy.ReadKeys, ""},
		{"own creation", "POST", "", "/v4/account/api-keys", "POST /v4/account/api-keys", policy.CreateKeys, ""},
		{"own key", "DELETE", "", "/v4/account/api-keys/1", "DELETE /v4/account/api-keys/{id}", policy.DeleteKeys, ""},
		{"own word before own key", "GET", "", "/v4/account/api-keys/allowed-permissions", "GET /v4/account/api-keys/allowed-permissions", policy.AnyValidKey, ""},
		{"own word before any subaccount", "GET", "", "/v4/account/whoami", "GET /v4/account/whoami", policy.AnyValidKey, ""},
		{"almost a reserved path is a subaccount", "GET", "", "/v4/account/api-keysx", "GET /v4/account/{subaccount}", "subaccount:read", "api-keysx"},
		{"reserved path in capitals is a subaccount", "GET", "", "/v4/account/API-KEYS", "GET /v4/account/{subaccount}", "subaccount:read", "API-KEYS"},

		{"by method, read", "GET", "", account + "/datacenter_shared", "GET /v4/account/{subaccount}/datacenter_shared", routeReads, routeSubaccount},
		{"by method, write", "PUT", "", account + "/datacenter_shared", "PUT /v4/account/{subaccount}/datacenter_shared", routeWrites, routeSubaccount},
		{"by method, delete", "DELETE", "", account + "/datacenter_shared", "DELETE /v4/account/{subaccount}/datacenter_shared", "datacenter_shared:delete", routeSubaccount},
		{"by method, HEAD reads", "HEAD", "", account + "/datacenter_shared", "GET /v4/account/{subaccount}/datacenter_shared", routeReads, routeSubaccount},
		{"by method and host", "GET", "beta.example.com", "/by/x", "GET beta.example.com/by/{subaccount}", routeReads, "x"},
		{"by query", "GET", "", account + "/datacenter_shared/whitelist", "GET /v4/account/{subaccount}/datacenter_shared/whitelist", "", routeSubaccount},
		{"HEAD on a GET route", "HEAD", "", account, "GET /v4/account/{subaccount}", "subaccount:read", routeSubaccount},
		{"HEAD on its own route", "HEAD", "", "/v4/probe", "HEAD /v4/probe", "residential:read", ""},
		{"OPTIONS", "OPTIONS", "", "/v4/probe", "OPTIONS /v4/probe", "residential:write", ""},
		{"subaccount before other wildcards", "GET", "", account + "/residential/stats/7", "GET /v4/account/{subaccount}/{product}/stats/{day}", routeReads, routeSubaccount},
		{"subaccount that is none, as it was sent", "GET", "", "/v4/account/caf%C3%A9", "GET /v4/account/{subaccount}", "subaccount:read", "caf%C3%A9"},

		{"rest of one segment", "GET", "", "/v4/serp/a", "GET /v4/serp/{rest...}", "serp_api:read", ""},
		{"rest of many segments", "GET", "", "/v4/serp/a/b/c", "GET /v4/serp/{rest...}", "serp_api:read", ""},
		{"exactly this path", "POST", "", "/v4/serp/", "POST /v4/serp/{$}", "serp_api:write", ""},
		{"below a path", "GET", "", "/v4/tree/a", "GET /v4/tree/", "residential:read", ""},
		{"colon", "GET", "", "/v4/a:b", "GET /v4/a:b", "residential:write", ""},
		{"escaped delimiter", "GET", "", "/v4/a%40b", "GET /v4/{word}", "residential:read", ""},
		{"host in capitals", "GET", "API.Example.com", "/v4/tree/a", "GET api.example.com/v4/tree/", "residential:delete", ""},
		{"host with a final dot", "GET", "api.example.com.:8443", "/v4/tree/a", "GET api.example.com/v4/tree/", "residential:delete", ""},
		{"escaped UTF-8", "GET", "", "/v4/caf%C3%A9", "GET /v4/{word}", "residential:read", ""},
		{"escaped percent sign", "GET", "", "/v4/100%25", "GET /v4/{word}", "residential:read", ""},

		{"host", "GET", "api.example.com", "/v4/tree/a", "GET api.example.com/v4/tree/", "residential:delete", ""},
		{"host with a port", "GET", "api.example.com:8443", "/v4/tree/a", "GET api.example.com/v4/tree/", "residential:delete", ""},
		{"host, escaped path", "GET", "api.example.com", "/v4/tree/caf%C3%A9", "GET api.example.com/v4/tree/", "residential:delete", ""},
		{"another host", "GET", "www.example.com", "/v4/tree/a", "GET /v4/tree/", "residential:read", ""},
		{"subdomain of the host", "GET", "x.api.example.com", "/v4/tree/a", "GET /v4/tree/", "residential:read", ""},
		{"route of one host alone", "GET", "beta.example.com", "/only/there", "GET beta.example.com/only/there", "residential:delete", ""},
	}
	routes := contractRoutes(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := asReceived(t, row.method, row.host, row.path)
			route, err := routes.Match(r, row.path)
			if err != nil {
				t.Fatalf("got %v, want %s", err, row.pattern)
			}
			if route.Pattern() != row.pattern {
				t.Errorf("got pattern %q, want %q", route.Pattern(), row.pattern)
			}
			if got := route.Subaccount(row.path); got != row.subaccount {
				t.Errorf("got subaccount %q, want %q", got, row.subaccount)
			}
			if row.needs == "" {
				return // the query decides; see below
			}
			if got, err := route.Needs(r, "type=remove&type=get"); err != nil || got != row.needs {
				t.Errorf("got needs %q, %v, want %q whatever the query says", got, err, row.needs)
			}
		})
	}
}

func TestRouteByQueryNeedsWhatTheQueryDecides(t *testing.T) {
	const path = "/v4/account/" + routeSubaccount + "/datacenter_shared/whitelist"
	r := asReceived(t, "GET", "", path)
	route, err := contractRoutes(t).Match(r, path)
	if err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]policy.Permission{
		"type=get": routeReads, "type=add": routeWrites, "type=remove": "datacenter_shared:delete", "": "", "type=get&type=add": "",
	} {
		got, err := route.Needs(r, query)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", query, got, err, want)
		}
	}
}

func TestMatchRefusesAndNeverRedirects(t *testing.T) {
	const account = "/v4/account/" + routeSubaccount
	rows := []struct {
		name   string
		method string
		host   string
		path   string
		want   problem.Code
		allow  string
	}{
		{"root", "GET", "", "/", problem.UnknownRoute, ""},
		{"unknown path", "GET", "", "/v5", problem.UnknownRoute, ""},
		{"above every route", "GET", "", "/v4", problem.UnknownRoute, ""},
		{"behind a route", "GET", "", account + "/datacenter_shared/x", problem.UnknownRoute, ""},
		{"slash behind a route", "GET", "", account + "/datacenter_shared/", problem.UnknownRoute, ""},
		{"slash for a subaccount", "GET", "", "/v4/account/", problem.UnknownRoute, ""},
		{"another letter case", "GET", "", "/V4/tree/", problem.UnknownRoute, ""},
		{"tree without its slash, which a mux redirects", "GET", "", "/a/tree", problem.UnknownRoute, ""},
		{"rest without its slash, which a mux redirects", "GET", "", "/a/rest", problem.UnknownRoute, ""},
		{"end without its slash, which a mux redirects", "GET", "", "/a/end", problem.UnknownRoute, ""},
		{"tree of a host without its slash", "GET", "api.example.com", "/a/hosted", problem.UnknownRoute, ""},
		{"route of another host", "GET", "api.example.com", "/only/there", problem.UnknownRoute, ""},
		{"route of a host by method, without one", "GET", "", "/by/x", problem.UnknownRoute, ""},
		{"route of a host, without one", "GET", "", "/only/there", problem.UnknownRoute, ""},

		{"another method", "POST", "", account, problem.MethodNotAllowed, "GET, HEAD"},
		{"another method than three", "PATCH", "", account + "/datacenter_shared", problem.MethodNotAllowed, "DELETE, GET, HEAD, PUT"},
		{"GET on a HEAD route", "DELETE", "", "/v4/probe", problem.MethodNotAllowed, "GET, HEAD, OPTIONS"},
		{"method in lower case", "get", "", account, problem.MethodNotAllowed, "GET, HEAD"},
		{"CONNECT", "CONNECT", "", account, problem.MethodNotAllowed, "GET, HEAD"},
		{"TRACE", "TRACE", "", account, problem.MethodNotAllowed, "GET, HEAD"},
		{"no method", "", "", account, problem.MethodNotAllowed, "GET, HEAD"},
		{"another method on a host's route", "PUT", "beta.example.com", "/only/there", problem.MethodNotAllowed, "GET, HEAD"},
		{"another method on a host's route, without the host", "PUT", "", "/only/there", problem.UnknownRoute, ""},

		{"own path, another method", "PUT", "", "/v4/account/api-keys", problem.MethodNotAllowed, "GET, HEAD, POST"},
		{"own path that a product route would match", "GET", "", "/v4/account/api-keys/1/2", problem.UnknownRoute, ""},
		{"own path with a slash behind", "GET", "", "/v4/account/api-keys/", problem.UnknownRoute, ""},
		{"own path as the subaccount of a product route", "PUT", "", "/v4/account/api-keys/datacenter_shared", problem.MethodNotAllowed, "DELETE, GET, HEAD"},
		{"own path as the subaccount of a longer route", "GET", "", "/v4/account/api-keys/datacenter_shared/whitelist", problem.UnknownRoute, ""},
		{"own path, product method", "DELETE", "", "/v4/account/whoami", problem.MethodNotAllowed, "GET, HEAD"},
		{"below an own path", "PUT", "", "/v4/account/whoami/datacenter_shared", problem.UnknownRoute, ""},
	}
	routes := contractRoutes(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			route, err := routes.Match(asReceived(t, row.method, row.host, row.path), row.path)
			p, ok := errors.AsType[*problem.Problem](err)
			if !ok || route != nil {
				t.Fatalf("got route %v and %v, want no route and a problem", route, err)
			}
			if p.Code != row.want || p.Allow != row.allow {
				t.Errorf("got %s, Allow %q, want %s, Allow %q", p.Code, p.Allow, row.want, row.allow)
			}
		})
	}
}

func TestMatchLeavesTheRequestAsItWas(t *testing.T) {
	routes := contractRoutes(t)
	for _, path := range []string{"/v4/tree/a", "/v4/caf%C3%A9", "/a/tree", "/nowhere"} {
		r := asReceived(t, "GET", "api.example.com", path)
		before := *r.URL
		_, _ = routes.Match(r, path)
		if diff := cmp.Diff(before, *r.URL); diff != "" {
			t.Errorf("%s: URL (-before +after):\n%s", path, diff)
		}
		if r.Pattern != "" || r.Method != "GET" || r.Host != "api.example.com" || r.RequestURI != path {
			t.Errorf("%s: got pattern %q, method %q, host %q, target %q", path, r.Pattern, r.Method, r.Host, r.RequestURI)
		}
	}
}

func TestMatchComparesBytesAndDecodesNothing(t *testing.T) {
	routes := compiledRoutes(t, nil, routeTo("GET /a:b", routeReads), routeTo("GET /a/b", routeReads), routeTo("GET /x/{$}", routeReads))
	for path, found := range map[string]bool{"/a:b": true, "/a%3Ab": false, "/a/b": true, "/a%2Fb": false, "/%61/b": false, "/x/": true, "/x%2F": false} {
		_, err := routes.Match(asReceived(t, "GET", "", path), path)
		if (err == nil) != found {
			t.Errorf("%s: got %v, want found %v", path, err, found)
		}
	}
}

func TestRoutesMatchConcurrently(t *testing.T) {
	routes := contractRoutes(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for _, path := range []string{"/v4/tree/a", "/v4/caf%C3%A9", "/a/tree", "/v4/account/api-keys/1"} {
				_, _ = routes.Match(&http.Request{Method: "GET", URL: &url.URL{Path: path}}, path)
			}
		})
	}
	group.Wait()
}

func TestZeroRoutesMatchNothing(t *testing.T) {
	empty := compiledRoutes(t, []string{"/v4"})
	for name, routes := range map[string]*proxy.Routes{"zero value": {}, "no specs": empty} {
		for _, path := range []string{"/", "/v4", "/v4/account"} {
			route, err := routes.Match(asReceived(t, "GET", "", path), path)
			p, ok := errors.AsType[*problem.Problem](err)
			if route != nil || !ok || p.Code != problem.UnknownRoute {
				t.Errorf("%s, %s: got %v, %v, want %s", name, path, route, err, problem.UnknownRoute)
			}
		}
	}
}

func TestRouteServedPastTheGatewayPanics(t *testing.T) {
	route, err := contractRoutes(t).Match(asReceived(t, "GET", "", "/v4/tree/"), "/v4/tree/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("got an answer, want a panic")
		}
	}()
	route.ServeHTTP(httptest.NewRecorder(), asReceived(t, "GET", "", "/v4/tree/"))
}

func TestRouteThatCouldNotMeanWhatItSaysIsRefused(t *testing.T) {
	const (
		neverMatches = "its path could never match: write it unescaped, without dot segments, empty segments and special characters"
		notAPattern  = "is not a pattern: write METHOD /path, with {name} for one segment and {name...} for the rest"
		oneOf        = "give it exactly one of permission, by_method and by_query"
		oneOfMethods = "it must be one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
	)
	byMethod := func(match string, needs map[string]policy.Permission) proxy.RouteSpec {
		return proxy.RouteSpec{Match: match, ByMethod: needs, Backend: neverServed()}
	}
	byQuery := func(match string, rule proxy.QueryRule) proxy.RouteSpec {
		return proxy.RouteSpec{Match: match, ByQuery: rule, Backend: neverServed()}
	}
	read := map[string]policy.Permission{"GET": routeReads}
	rows := []struct {
		name string
		spec proxy.RouteSpec
		want string
	}{
		{"allowed", routeTo("GET /a", routeReads), ""},
		{"allowed, every valid key", routeTo("GET /a", policy.AnyValidKey), ""},
		{"allowed, by method", byMethod("/a", read), ""},
		{"allowed, by method and host", byMethod("example.com/a", read), ""},
		{"allowed, by query", byQuery("GET /a", whitelistRule("type")), ""},
		{"allowed, root", routeTo("GET /", routeReads), ""},
		{"allowed, two spaces", routeTo("GET  /a", routeReads), ""},
		{"allowed, one subaccount among others", routeTo("GET /{a}/{subaccount}/{b}/{c...}", routeReads), ""},

		{"nothing", routeTo("", routeReads), `route "": it has no path; write METHOD /path`},
		{"no path", routeTo("GET example.com", routeReads), `route "GET example.com": it has no path; write METHOD /path`},
		{"no path behind a space", routeTo("GET ", routeReads), `route "GET ": it has no path; write METHOD /path`},
		{"two subaccounts", routeTo("GET /{subaccount}/x/{subaccount}", routeReads), `route "GET /{subaccount}/x/{subaccount}": {subaccount} is there twice; a request has one subaccount`},
		{"subaccount of many segments", routeTo("GET /{subaccount...}", routeReads), `route "GET /{subaccount...}": {subaccount...} is not one segment; write {subaccount}`},
		{"escaped path", routeTo("GET /a%20b", routeReads), `route "GET /a%20b": ` + neverMatches},
		{"escaped slash", routeTo("GET /a%2Fb", routeReads), `route "GET /a%2Fb": ` + neverMatches},
		{"escape in a wildcard", routeTo("GET /{a%20b}", routeReads), `route "GET /{a%20b}": ` + neverMatches},
		{"empty segment", routeTo("GET /a//b", routeReads), `route "GET /a//b": ` + neverMatches},
		{"dot segment", routeTo("GET /a/../b", routeReads), `route "GET /a/../b": ` + neverMatches},
		{"parameters", routeTo("GET /a;b", routeReads), `route "GET /a;b": ` + neverMatches},
		{"query", routeTo("GET /a?type=get", routeReads), `route "GET /a?type=get": ` + neverMatches},
		{"space behind", routeTo("GET /a ", routeReads), `route "GET /a ": ` + neverMatches},
		{"unescaped UTF-8", routeTo("GET /café", routeReads), `route "GET /café": ` + neverMatches},
		{"wildcard behind letters", routeTo("GET /x{subaccount}", routeReads), `route "GET /x{subaccount}": ` + neverMatches},

		{"no upstream", proxy.RouteSpec{Match: "GET /a", Permission: routeReads}, `route "GET /a" has no upstream`},

		{"no permission", routeTo("GET /a", ""), `route "GET /a" needs no permission; ` + oneOf},
		{"no permission, by query without a parameter", byQuery("GET /a", proxy.QueryRule{Permissions: read}), `route "GET /a" needs no permission; ` + oneOf},
		{
			"permission and by method",
			proxy.RouteSpec{Match: "/a", Permission: routeReads, ByMethod: read, Backend: neverServed()},
			`route "/a" says more than once what it needs; ` + oneOf,
		},
		{
			"permission and by query",
			proxy.RouteSpec{Match: "GET /a", Permission: routeReads, ByQuery: whitelistRule("type"), Backend: neverServed()},
			`route "GET /a" says more than once what it needs; ` + oneOf,
		},
		{
			"by method and by query",
			proxy.RouteSpec{Match: "/a", ByMethod: read, ByQuery: whitelistRule("type"), Backend: neverServed()},
			`route "/a" says more than once what it needs; ` + oneOf,
		},

		{"method and by method", byMethod("GET /a", read), `route "GET /a" names the method GET and has by_method; remove one of them`},
		{"no method", routeTo("/a", routeReads), `route "/a" names no method; write METHOD /path, or use by_method`},
		{"no method, by query", byQuery("/a", whitelistRule("type")), `route "/a" names no method; write METHOD /path, or use by_method`},
		{"by query without values", byQuery("GET /a", proxy.QueryRule{Parameter: "type"}), `route "GET /a" has by_query without any value; name the values and what each needs`},
		{"unknown method", routeTo("FETCH /a", routeReads), `route "FETCH /a" names the method "FETCH"; ` + oneOfMethods},
		{"method in lower case", routeTo("get /a", routeReads), `route "get /a" names the method "get"; ` + oneOfMethods},
		{"method that tunnels", routeTo("CONNECT /a", routeReads), `route "CONNECT /a" names the method "CONNECT"; ` + oneOfMethods},
		{"method that echoes", byMethod("/a", map[string]policy.Permission{"TRACE": routeReads}), `route "/a" names the method "TRACE"; ` + oneOfMethods},
		{"unknown method by method", byMethod("/a", map[string]policy.Permission{"GET": routeReads, "*": routeReads}), `route "/a" names the method "*"; ` + oneOfMethods},
		{"empty method by method", byMethod("/a", map[string]policy.Permission{"": routeReads}), `route "/a" names the method ""; ` + oneOfMethods},
		{"method without a permission", byMethod("/a", map[string]policy.Permission{"GET": routeReads, "PUT": ""}), `route "/a" has a method or value without a permission`},
		{
			"value without a permission", byQuery("GET /a", proxy.QueryRule{Parameter: "type", Permissions: map[string]policy.Permission{"get": routeReads, "add": ""}}),
			`route "GET /a" has a method or value without a permission`,
		},

		{"at a reserved path", routeTo("GET /own", routeReads), `route "GET /own" lies below a path of Gatehouse's own API; choose another path`},
		{"below a reserved path", routeTo("GET /own/a", routeReads), `route "GET /own/a" lies below a path of Gatehouse's own API; choose another path`},
		{"below a reserved path of a host", routeTo("GET example.com/own/{a}", routeReads), `route "GET example.com/own/{a}" lies below a path of Gatehouse's own API; choose another path`},
		{"beside a reserved path", routeTo("GET /owner", routeReads), ""},
		{"above a reserved path", routeTo("GET /{any}", routeReads), ""},
		{"at a reserved path, our own", proxy.RouteSpec{Match: "GET /own", Permission: routeReads, Own: true, Backend: neverServed()}, ""},

		{"wildcard without a name", routeTo("GET /{}", routeReads), `route "GET /{}" ` + notAPattern},
		{"wildcard with a bad name", routeTo("GET /{1}", routeReads), `route "GET /{1}" ` + notAPattern},
		{"wildcard without an end", routeTo("GET /{subaccount", routeReads), `route "GET /{subaccount" ` + notAPattern},
		{"wildcard before letters", routeTo("GET /{subaccount}x", routeReads), `route "GET /{subaccount}x" ` + notAPattern},
		{"two wildcards in a segment", routeTo("GET /{a}{b}", routeReads), `route "GET /{a}{b}" ` + notAPattern},
		{"one name twice", routeTo("GET /{a}/{a}", routeReads), `route "GET /{a}/{a}" ` + notAPattern},
		{"rest that is not the end", routeTo("GET /{a...}/b", routeReads), `route "GET /{a...}/b" ` + notAPattern},
		{"end that is not the end", routeTo("GET /{$}/b", routeReads), `route "GET /{$}/b" ` + notAPattern},
		{"wildcard in the host", routeTo("GET {host}/a", routeReads), `route "GET {host}/a" ` + notAPattern},
		{"bad name by method", byMethod("/{1}", read), `route "GET /{1}" ` + notAPattern},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			for _, others := range [][]proxy.RouteSpec{nil, {routeTo("GET /quite/another", routeReads)}} {
				routes, err := proxy.NewRoutes([]string{"/own"}, append(others, row.spec))
				var want []string
				if row.want != "" {
					want = []string{row.want}
				}
				if diff := cmp.Diff(want, faultsOf(t, err, len(others))); diff != "" {
					t.Errorf("behind %d other routes: faults (-want +got):\n%s", len(others), diff)
				}
				if (routes == nil) != (err != nil) {
					t.Errorf("got routes %v and error %v, want one of them", routes, err)
				}
			}
		})
	}
}

// faultsOf returns the texts of a NewRoutes error, all of which must be those
// of specs with the given indexes, in this order.
func faultsOf(t *testing.T, err error, indexes ...int) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != len(indexes) {
		t.Fatalf("got %v, want %d faults", err, len(indexes))
	}
	var texts []string
	for i, fault := range joined.Unwrap() {
		e, ok := errors.AsType[*proxy.RouteError](fault)
		if !ok || e.Index != indexes[i] || errors.Unwrap(e) == nil {
			t.Fatalf("got %#v, want a *RouteError of spec %d", fault, indexes[i])
		}
		texts = append(texts, e.Error())
	}
	return texts
}

func TestConflictingRoutesAreNamedBoth(t *testing.T) {
	const undecided = ": some requests match both and neither is more specific; make one of them more specific, or remove it"
	own := func(spec proxy.RouteSpec) proxy.RouteSpec { spec.Own = true; return spec }
	rows := []struct {
		name  string
		specs []proxy.RouteSpec
		want  string // the fault of the last
	}{
		{"the same", []proxy.RouteSpec{routeTo("GET /a", routeReads), routeTo("GET /a", routeWrites)}, `route "GET /a" conflicts with route "GET /a"` + undecided},
		{"the same but for a name", []proxy.RouteSpec{routeTo("GET /{a}", routeReads), routeTo("GET /{b}", routeReads)}, `route "GET /{b}" conflicts with route "GET /{a}"` + undecided},
		{"crossed", []proxy.RouteSpec{routeTo("GET /{a}/b", routeReads), routeTo("GET /a/{b}", routeReads)}, `route "GET /a/{b}" conflicts with route "GET /{a}/b"` + undecided},
		{
			"with the second of three",
			[]proxy.RouteSpec{routeTo("GET /x", routeReads), routeTo("GET /{a}/b", routeReads), routeTo("GET /y", routeReads), routeTo("GET /a/{b}", routeReads)},
			`route "GET /a/{b}" conflicts with route "GET /{a}/b"` + undecided,
		},
		{
			"one of the methods",
			[]proxy.RouteSpec{routeTo("PUT /a", routeReads), {Match: "/a", ByMethod: map[string]policy.Permission{"GET": routeReads, "PUT": routeWrites}, Backend: neverServed()}},
			`route "PUT /a" conflicts with route "PUT /a"` + undecided,
		},
		{"HEAD and GET", []proxy.RouteSpec{routeTo("GET /a", routeReads), routeTo("HEAD /a", routeReads)}, ""},
		{"HEAD and GET, crossed", []proxy.RouteSpec{routeTo("GET /a", routeReads), routeTo("HEAD /{a}", routeReads)}, `route "HEAD /{a}" conflicts with route "GET /a"` + undecided},
		{"another method", []proxy.RouteSpec{routeTo("GET /{a}/b", routeReads), routeTo("PUT /a/{b}", routeReads)}, ""},
		{"another host", []proxy.RouteSpec{routeTo("GET a.example/{a}/b", routeReads), routeTo("GET b.example/a/{b}", routeReads)}, ""},
		{"more specific", []proxy.RouteSpec{routeTo("GET /{a}/{b}", routeReads), routeTo("GET /a/{b}", routeReads), routeTo("GET /a/b", routeReads)}, ""},
		{"our own and a product's", []proxy.RouteSpec{own(routeTo("GET /own/{a}", routeReads)), routeTo("GET /{a}/b", routeReads)}, ""},
		{
			"our own twice, beside a product's that it would conflict with",
			[]proxy.RouteSpec{routeTo("GET /{a}/x", routeReads), own(routeTo("GET /own/{a}", routeReads)), own(routeTo("GET /own/{b}", routeReads))},
			`route "GET /own/{b}" conflicts with route "GET /own/{a}"` + undecided,
		},
		{"our own twice", []proxy.RouteSpec{own(routeTo("GET /own/{a}", routeReads)), own(routeTo("GET /own/{b}", routeReads))}, `route "GET /own/{b}" conflicts with route "GET /own/{a}"` + undecided},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := proxy.NewRoutes([]string{"/own"}, row.specs)
			var want []string
			if row.want != "" {
				want = []string{row.want}
			}
			if diff := cmp.Diff(want, faultsOf(t, err, len(row.specs)-1)); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	_, err := proxy.NewRoutes([]string{"/own"}, []proxy.RouteSpec{
		routeTo("GET /a", routeReads),
		routeTo("GET /a/../b", routeReads),
		routeTo("GET /{a}/b", routeReads),
		routeTo("GET /own/x", routeReads),
		routeTo("GET /c/{d}", ""),
		routeTo("GET /a/{b}", routeReads),
		routeTo("GET /e", routeReads),
		{Match: "GET /f", Permission: routeReads},
		routeTo("GET /a", routeReads),
	})
	want := []string{
		`route "GET /a/../b": its path could never match: write it unescaped, without dot segments, empty segments and special characters`,
		`route "GET /own/x" lies below a path of Gatehouse's own API; choose another path`,
		`route "GET /c/{d}" needs no permission; give it exactly one of permission, by_method and by_query`,
		`route "GET /a/{b}" conflicts with route "GET /{a}/b": some requests match both and neither is more specific; make one of them more specific, or remove it`,
		`route "GET /f" has no upstream`,
		`route "GET /a" conflicts with route "GET /a": some requests match both and neither is more specific; make one of them more specific, or remove it`,
	}
	if diff := cmp.Diff(want, faultsOf(t, err, 1, 3, 4, 5, 7, 8)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// muxPatterns are product routes for which http.ServeMux is the oracle.
func muxPatterns() []string {
	return []string{
		"GET /{$}", "GET /v4/account/{subaccount}", "PUT /v4/account/{subaccount}", "POST /v4/account/{subaccount}/keys",
		"GET /v4/account/{subaccount}/{product}/x", "GET /v4/account/self/{product}/{what}/{rest...}", "DELETE /v4/account/{subaccount}/{id}",
		"GET /tree/", "POST /tree", "GET /tree/{a}/leaf", "GET /end/{$}", "PUT /end/{a}", "HEAD /probe", "GET /a:b", "OPTIONS /{any}",
		"GET a.example/tree/{subaccount}/", "GET a.example/", "DELETE b.example/v4/{subaccount}",
	}
}

// FuzzMatch holds Match against a real http.ServeMux that serves: the same
// pattern, the same subaccount, the same methods; a redirect is no route.
func FuzzMatch(f *testing.F) {
	specs := make([]proxy.RouteSpec, 0, len(muxPatterns()))
	mux := http.NewServeMux()
	for _, pattern := range muxPatterns() {
		specs = append(specs, routeTo(pattern, routeReads))
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Pattern", r.Pattern)
			w.Header().Set("X-Subaccount", r.PathValue("subaccount"))
		})
	}
	routes := compiledRoutes(f, nil, specs...)
	for _, path := range []string{
		"/", "/v4/account/a", "/v4/account/a/", "/v4/account/a/keys", "/v4/account/self/p/x", "/v4/account/self/p/x/", "/v4/account/a/1",
		"/tree", "/tree/", "/tree/b/leaf", "/tree/b/", "/end", "/end/", "/end/c", "/probe", "/a:b", "/v4/d", "/...", "/v4/account/a/p/x/y",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "CONNECT"} {
			f.Add(method, "a.example:80", path)
			f.Add(method, "", path)
		}
		f.Add("DELETE", "b.example", path)
	}
	f.Fuzz(func(t *testing.T, method, host, path string) {
		if strings.Contains(path, "%") || proxy.CanonicalPath(path) != nil {
			t.Skip()
		}
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, asReceived(t, method, host, path))
		route, err := routes.Match(asReceived(t, method, host, path), path)
		got := muxAnswer{Status: http.StatusOK}
		if err == nil {
			got.Pattern, got.Subaccount = route.Pattern(), string(route.Subaccount(path))
		} else if p, ok := errors.AsType[*problem.Problem](err); ok {
			got.Status, got.Allow = p.Code.Status(), p.Allow
		}
		if got.Status == http.StatusBadRequest {
			return // ours minds what it looks like to others; see TestPathThatLooksLikeAnotherRoutesIsRefused
		}
		want := muxAnswer{
			Status: answer.Code, Allow: answer.Header().Get("Allow"),
			Pattern: answer.Header().Get("X-Pattern"), Subaccount: answer.Header().Get("X-Subaccount"),
		}
		if want.Status/100 == 3 {
			want = muxAnswer{Status: http.StatusNotFound}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s %s %s (-mux +ours):\n%s", method, host, path, diff)
		}
		if err == nil && strings.Contains(route.Pattern(), "{subaccount}") && route.Subaccount(path) == "" {
			t.Fatalf("%s %s: got no subaccount on %s", method, path, route.Pattern())
		}
	})
}

type muxAnswer struct {
	Status                     int
	Allow, Pattern, Subaccount string
}

// FuzzNewRoutes: whatever is configured, NewRoutes answers with routes that a
// mux would take, or with faults that name the right spec and the right cause.
func FuzzNewRoutes(f *testing.F) {
	for _, second := range append(muxPatterns(), "", "GET", "GET /{}", "GET /{a}/{a}", "GET /{1}", "GET /%41", "GET {h}/", "get /", "GET /a//b", "GET\t/x") {
		f.Add("GET /a", second)
		f.Add("GET /{a}/x", second)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		specs := []proxy.RouteSpec{routeTo(first, routeReads), routeTo(second, routeWrites)}
		routes, err := proxy.NewRoutes(nil, specs)
		both := http.NewServeMux()
		if err == nil {
			if routes == nil || !muxTakes(both, first) || !muxTakes(both, second) {
				t.Fatalf("%q and %q: got routes that no mux takes", first, second)
			}
			return
		}
		joined, ok := err.(interface{ Unwrap() []error })
		if routes != nil || !ok {
			t.Fatalf("%q and %q: got %v and %v", first, second, routes, err)
		}
		last := -1
		for _, fault := range joined.Unwrap() {
			e, ok := errors.AsType[*proxy.RouteError](fault)
			if !ok || e.Index <= last || e.Index >= len(specs) {
				t.Fatalf("%q and %q: got %#v", first, second, fault)
			}
			last = e.Index
			alone, text := muxTakes(http.NewServeMux(), specs[e.Index].Match), e.Error()
			if strings.Contains(text, " conflicts with ") && (!alone || !muxTakes(both, first) || muxTakes(both, second)) ||
				strings.Contains(text, " is not a pattern") && alone {
				t.Fatalf("%q and %q: got the wrong cause: %s", first, second, text)
			}
		}
	})
}

// muxTakes reports whether a mux takes the pattern.
func muxTakes(mux *http.ServeMux, pattern string) (ok bool) {
	defer func() { ok = recover() == nil }()
	mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	return true
}

func TestEscapedPathOfAnotherRouteIsRefused(t *testing.T) {
	routes := compiledRoutes(t, nil, routeTo("GET /v1/{thing}", routeReads), routeTo("GET /v1/things:purge", routeReads))
	for path, want := range map[string]problem.Code{"/v1/things:purge": "", "/v1/other%3Apurge": "", "/v1/things%3Apurge": problem.AmbiguousPath} {
		_, err := routes.Match(asReceived(t, "GET", "", path), path)
		var got problem.Code
		if p, ok := errors.AsType[*problem.Problem](err); ok {
			got = p.Code
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestPathThatLooksLikeAnotherRoutesIsRefused(t *testing.T) {
	routes := compiledRoutes(t, nil, routeTo("GET /serp/v1/", routeReads), routeTo("GET /serp/v1/billing", routeWrites),
		routeTo("GET /v4/account/{subaccount}/ds/list", routeReads), routeTo("GET /v4/{rest...}", routeReads), routeTo("GET /Big/{name}", routeReads))
	for path, refused := range map[string]bool{
		"/serp/v1/billing": false, "/serp/v1/other": false, "/serp/v1/Other/": false, "/serp/v1/": false,
		"/serp/v1/billing/": true, "/serp/v1/Billing": true, "/serp/v1/BILLING/": true, "/serp/v1/billing/x": false,
		"/v4/account/s/ds/list": false, "/v4/account/S/ds/list": false, "/v4/account/s/ds/list/": true, "/v4/account/s/ds/List": true,
		"/Big/Name": false, "/Big/name": false,
	} {
		_, err := routes.Match(asReceived(t, "GET", "", path), path)
		p, ok := errors.AsType[*problem.Problem](err)
		if got := ok && p.Code == problem.AmbiguousPath; got != refused || (err == nil) == refused {
			t.Errorf("%s: got %v, want refused %v", path, err, refused)
		}
	}
	if _, err := proxy.NewRoutes(nil, []proxy.RouteSpec{routeTo("GET /a", routeReads), routeTo("GET /A", routeReads)}); err == nil {
		t.Error("two routes that differ only in letter case were accepted")
	}
}

func TestHostMustBeAHost(t *testing.T) {
	for host, fine := range map[string]bool{
		"api.example.com": true, "api.example.com:8443": true, "API.example.com.": true, "my_service:80": true, "127.0.0.1:8080": true,
		"[::1]": true, "[2001:db8::1]:443": true,
		"": false, "a:80:80": false, "a,b": false, "a..": false, "%61.example.com": false, "[a.example.com]": false, "a;": false, "x/y": false,
		"a b": false, ".a": false, "a:port": false, "[::1": false, "a:123456": false,
	} {
		if got := proxy.IsHost(host); got != fine {
			t.Errorf("%q: got %v, want %v", host, got, fine)
		}
	}
}
