package config_test

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/keyapi"
)

var update = flag.Bool("update", false, "rewrite the expected errors in testdata")

// minimal is the shortest valid configuration: all else is a default.
const minimal = `
store: {redis: {}}
products: {serp: {label: SERP, actions: [read]}}
upstreams: {serp: {targets: ["http://127.0.0.1:9003"]}}
routes:
  - match: GET /serp/
    permission: serp:read
    upstream: serp
`

func noEnv(string) (string, bool) { return "", false }

func envOf(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}
}

func mustParse(t *testing.T, text string, lookupEnv func(string) (string, bool)) *config.Config {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(text), lookupEnv)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return c
}

// TestMistakes runs testdata: the file config.yaml of each archive, with the
// variables of the file env, has the error in the file error, or is ok.
func TestMistakes(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("testdata has %d cases, %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			input, vars, want := caseOf(t, archive)
			c, err := config.Parse("config.yaml", input, envOf(vars))
			if (c == nil) != (err != nil) {
				t.Errorf("Parse returned %v and %v; want a configuration or an error", c, err)
			}
			got := "ok\n"
			if err != nil {
				got = err.Error() + "\n"
			}
			if *update {
				rewrite(t, name, archive, got)
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func caseOf(t *testing.T, archive *txtar.Archive) (input []byte, vars map[string]string, want string) {
	t.Helper()
	vars = map[string]string{}
	for _, f := range archive.Files {
		switch f.Name {
		case "config.yaml":
			input = f.Data
		case "env":
			for line := range strings.Lines(string(f.Data)) {
				name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
				vars[name] = value
			}
		case "error":
			want = string(f.Data)
		default:
			t.Fatalf("the archive has an unknown file %s", f.Name)
		}
	}
	return input, vars, want
}

func rewrite(t *testing.T, name string, archive *txtar.Archive, got string) {
	t.Helper()
	for i, f := range archive.Files {
		if f.Name == "error" {
			archive.Files[i].Data = []byte(got)
		}
	}
	if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDefaults(t *testing.T) {
	want := &config.Config{
		Listen:        ":8080",
		AdminListen:   "127.0.0.1:9090",
		ShutdownGrace: 30 * time.Second,
		Store: config.Store{
			Redis:   &config.Redis{Addrs: []string{"127.0.0.1:6379"}, Prefix: "gatehouse:"},
			Timeout: 250 * time.Millisecond,
			Lookup:  config.LookupStrict,
			Cache:   config.Cache{TTL: 5 * time.Second, Entries: 100_000},

			Durability: config.Durability{Timeout: time.Second},
		},
		ClientAddress: config.ClientAddress{TrustedProxies: []netip.Prefix{}, Header: "X-Forwarded-For"},
		Token:         config.Token{Prefix: "gk_"},
		Products:      []config.Product{{Name: "serp", Label: "SERP", Actions: []string{"read"}}},
		Upstreams: map[string]config.Upstream{
			"serp": {
				Targets: []*url.URL{{Scheme: "http", Host: "127.0.0.1:9003"}}, Timeout: 30 * time.Second, MaxInFlight: 10_000,
				MaxConnectionAge: 5 * time.Minute, Ejection: config.Ejection{Failures: 5, Backoff: time.Second, MaxBackoff: time.Minute},
			},
		},
		Routes: []config.Route{{Match: "GET /serp/", Permission: "serp:read", Upstream: "serp"}},
		Limits: config.Limits{
			Scope:      config.ScopeNode,
			InFlight:   1000,
			Management: config.Rate{Rate: 10, Burst: 50},
			FailedAuth: config.Rate{Rate: 1, Burst: 20},
			MaxBody:    10 * 1024 * 1024,
			MaxHeader:  32 * 1024,

			MaxHeaderLines: 100, HeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MinBodyRate: 240,
			Connections: config.Connections{Total: 20_000, PerAddress: 2000}, HTTP2: config.HTTP2{MaxStreams: 250},
		},
		Delegation: config.Delegation{MaxKeysPerAccount: 1000},
		CORS:       config.CORS{Origins: []string{}},
		Dashboard: config.Dashboard{
			Enabled: true, PasswordSignIn: true, Providers: []config.IdentityProvider{}, Brand: config.Brand{Name: "Gatehouse", Accent: "#3451d1"},
			Session: config.Session{Idle: 30 * time.Minute, Absolute: 12 * time.Hour},
		},
		Audit:   config.Audit{Keep: config.AuditKeep{Events: 10_000, Age: 9600 * time.Hour}},
		Log:     config.Log{Level: "info", Modules: map[string]string{}, Sample: 1, Buffer: 4 << 20, Format: config.LogJSON},
		Tracing: config.Tracing{Protocol: config.OTLPgRPC, Sample: 0.1, Timeout: 5 * time.Second, Headers: map[string]config.Secret{}},
	}
	if diff := cmp.Diff(want, mustParse(t, minimal, noEnv), compareConfig()); diff != "" {
		t.Errorf("the defaults (-want +got):\n%s", diff)
	}
	embedded := strings.Replace(minimal, "redis: {}", "embedded: {}", 1)
	if got, want := mustParse(t, embedded, noEnv).Store.Embedded, (&config.Embedded{File: "gatehouse.db.jsonl"}); *got != *want {
		t.Errorf("the defaults of embedded: got %v, want %v", got, want)
	}
}

func compareConfig() cmp.Option {
	return cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
}

// everyKind has a value of each kind that is not its default.
const everyKind = `
listen: "[::1]:443"
tls: {cert_file: /tls.crt, key_file: /tls.key}
store:
  redis:
    addrs: [sentinel-1:26379, "10.0.0.2:26379"]
    master_name: keys
    username: gatehouse
    password: >-
      two
      words
    sentinel_username: watcher
    sentinel_password: hush
    db: 3
    tls: {enabled: true, server_name: redis.internal}
  lookup: cached
  stale_if_unavailable: 1m30s
client_address: {trusted_proxies: [10.1.2.3/8, "192.0.2.1", "2001:db8::1", "2001:db8::/32"], header: Forwarded}
products:
  zebra: {label: Z, actions: [write, read]}
  ant: {label: A, actions: [read]}
upstreams:
  animals:
    targets: ["https://animals.internal", "http://[::1]:80", "h2c://animals:50051"]
    timeout: 1h
    max_in_flight: 7
    max_connection_age: 90s
    tls: {ca_file: /ca.crt, cert_file: /c.crt, key_file: /c.key, server_name: animals}
    ejection: {failures: 1, max_backoff: 5m}
    health_check: {path: "/live?deep=1", healthy: 1}
routes:
  - {match: "/zebra/{subaccount}/", by_method: {GET: "zebra:read", POST: "zebra:write"}, upstream: animals, timeout: 2m}
  - {match: "GET /ant", by_query: {type: {get: "ant:read"}}, upstream: animals, limit: {rate: 2, burst: 4}}
plans: {gold: {rate: 100, burst: 200}, free: {rate: 0}}
limits: {scope: cluster, in_flight: 0, key: {rate: 0.5, burst: 3}, max_body: 1GB, max_header: 65536, connections: {total: 100}}
delegation: {inherit_ips: true, max_keys_per_account: 7}
audit: {keep: {events: 50}}
cors: {origins: ["https://app.example.com", "http://localhost:5173", "https://[2001:db8::1]:8443"]}
dashboard: {enabled: false, host: d.example.com, api_url: "https://api.example.com", brand: {name: Acme, accent: "#112233", docs: "https://docs.example.com/"}, session: {idle: 10m, absolute: 1h}, url: "https://d.example.com", password_sign_in: false, providers: [{name: sso, label: SSO, issuer: "https://id.example.com/realms/a", client_id: gatehouse, client_secret: hush, scopes: [groups], account_by_domain: {example.com: acme}, create_users: true}]}
log: {format: console, modules: {access: warn, store: debug}, sample: 0.25, buffer: 64KiB}
tracing: {endpoint: "https://collector:4318", protocol: http, sample: 1, timeout: 2s, headers: {Authorization: "Bearer x"}, tls: {ca_file: /ca.crt}}
`

func TestEveryKindOfValue(t *testing.T) {
	c := mustParse(t, everyKind, noEnv)
	checks := []struct {
		name      string
		got, want any
	}{
		{"tls", c.TLS, config.TLS{CertFile: "/tls.crt", KeyFile: "/tls.key"}},
		{"redis", *c.Store.Redis, config.Redis{
			Addrs: []string{"sentinel-1:26379", "10.0.0.2:26379"}, MasterName: "keys", Username: "gatehouse", Password: "two words",
			SentinelUsername: "watcher", SentinelPassword: "hush", DB: 3, Prefix: "gatehouse:", TLS: config.RedisTLS{Enabled: true, ServerName: "redis.internal"},
		}},
		{"lookup", c.Store.Lookup, config.LookupCached},
		{"stale", c.Store.StaleIfUnavailable, 90 * time.Second},
		{"proxies", c.ClientAddress.TrustedProxies, []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"),
			netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("2001:db8::/32"),
		}},
		{"upstream", c.Upstreams["animals"], config.Upstream{
			Targets: []*url.URL{{Scheme: "https", Host: "animals.internal"}, {Scheme: "http", Host: "[::1]:80"}, {Scheme: "h2c", Host: "animals:50051"}},
			Timeout: time.Hour, MaxInFlight: 7, MaxConnectionAge: 90 * time.Second,
			TLS:         config.UpstreamTLS{CAFile: "/ca.crt", CertFile: "/c.crt", KeyFile: "/c.key", ServerName: "animals"},
			Ejection:    config.Ejection{Failures: 1, Backoff: time.Second, MaxBackoff: 5 * time.Minute},
			HealthCheck: &config.HealthCheck{Path: "/live?deep=1", Interval: 5 * time.Second, Timeout: time.Second, Healthy: 1, Unhealthy: 3},
		}},
		{"route timeout", []time.Duration{c.Routes[0].Timeout, c.Routes[1].Timeout}, []time.Duration{2 * time.Minute, 0}},
		{"limits", c.Limits, config.Limits{
			Scope: config.ScopeCluster, Key: config.Rate{Rate: 0.5, Burst: 3}, Management: config.Rate{Rate: 10, Burst: 50}, FailedAuth: config.Rate{Rate: 1, Burst: 20}, MaxBody: 1_000_000_000, MaxHeader: 65536,
			MaxHeaderLines: 100, HeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MinBodyRate: 240,
			Connections: config.Connections{Total: 100, PerAddress: 2000}, HTTP2: config.HTTP2{MaxStreams: 250},
		}},
		{"plans", c.Plans, map[string]config.Rate{"gold": {Rate: 100, Burst: 200}, "free": {}}},
		{"limit of a route", c.Routes[1].Limit, &config.Rate{Rate: 2, Burst: 4}},
		{"audit", c.Audit, config.Audit{Keep: config.AuditKeep{Events: 50, Age: 9600 * time.Hour}}},
		{"dashboard", c.Dashboard, config.Dashboard{
			Host: "d.example.com", APIURL: "https://api.example.com", Brand: config.Brand{Name: "Acme", Accent: "#112233", Docs: "https://docs.example.com/"},
			Session: config.Session{Idle: 10 * time.Minute, Absolute: time.Hour}, URL: "https://d.example.com",
			Providers: []config.IdentityProvider{{
				Name: "sso", Label: "SSO", Issuer: "https://id.example.com/realms/a", ClientID: "gatehouse", ClientSecret: "hush", Scopes: []string{"groups"},
				AccountByDomain: map[string]string{"example.com": "acme"}, CreateUsers: true, RequireVerifiedEmail: true,
			}},
		}},
		{"cors", c.CORS.Origins, []string{"https://app.example.com", "http://localhost:5173", "https://[2001:db8::1]:8443"}},
		{"delegation", c.Delegation, config.Delegation{InheritIPs: true, MaxKeysPerAccount: 7}},
		{"log", c.Log, config.Log{
			Level: "info", Modules: map[string]string{"access": "warn", "store": "debug"}, Sample: 0.25, Buffer: 64 << 10, Format: config.LogConsole,
		}},
		{"tracing", c.Tracing, config.Tracing{
			Endpoint: "https://collector:4318", Protocol: config.OTLPHTTP, Sample: 1, Timeout: 2 * time.Second,
			Headers: map[string]config.Secret{"Authorization": "Bearer x"}, TLS: config.TracingTLS{CAFile: "/ca.crt"},
		}},
	}
	for _, check := range checks {
		if diff := cmp.Diff(check.want, check.got, compareConfig()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", check.name, diff)
		}
	}
	catalogue, err := c.Catalogue()
	if err != nil {
		t.Fatal(err)
	}
	want := policy.PermissionSet{"zebra:write", "zebra:read", "ant:read"}
	if diff := cmp.Diff(want, catalogue.All()[:3]); diff != "" {
		t.Errorf("the catalogue is in the order of the file (-want +got):\n%s", diff)
	}
}

func TestRouteSpecsAreWhatProxyTakes(t *testing.T) {
	c := mustParse(t, strings.Replace(minimal, "permission: serp:read", "by_query: {type: {get: serp:read}}", 1)+`
  - match: /serp/v2/
    by_method: {GET: serp:read}
    upstream: serp
    timeout: 2m
`, noEnv)
	var asked []string
	specs := c.RouteSpecs(func(upstream string) proxy.Backend {
		asked = append(asked, upstream)
		return proxy.BackendFunc(nil)
	})
	if _, err := proxy.NewRoutes(keyapi.Reserved(), specs); err != nil {
		t.Errorf("NewRoutes refuses the specs: %v", err)
	}
	if diff := cmp.Diff([]string{"serp", "serp"}, asked); diff != "" {
		t.Errorf("upstreams that were asked for (-want +got):\n%s", diff)
	}
	if specs[0].Timeout != 0 || specs[1].Timeout != 2*time.Minute {
		t.Errorf("the timeouts are %s and %s, want 0 and 2m", specs[0].Timeout, specs[1].Timeout)
	}
	type needs struct {
		Match    string
		ByMethod map[string]policy.Permission
		ByQuery  proxy.QueryRule
	}
	got := []needs{{specs[0].Match, specs[0].ByMethod, specs[0].ByQuery}, {specs[1].Match, specs[1].ByMethod, specs[1].ByQuery}}
	want := []needs{
		{Match: "GET /serp/", ByQuery: proxy.QueryRule{Parameter: "type", Permissions: map[string]policy.Permission{"get": "serp:read"}}},
		{Match: "/serp/v2/", ByMethod: map[string]policy.Permission{"GET": "serp:read"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("specs (-want +got):\n%s", diff)
	}
}

// TestMethodsAreThoseOfProxy: a method is refused here exactly when
// proxy.NewRoutes refuses it.
func TestMethodsAreThoseOfProxy(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "get", "FETCH"} {
		spec := proxy.RouteSpec{Match: "/x", ByMethod: map[string]policy.Permission{method: "serp:read"}, Backend: proxy.BackendFunc(nil)}
		_, theirs := proxy.NewRoutes(nil, []proxy.RouteSpec{spec})
		text := strings.Replace(minimal, "permission: serp:read", "by_method: {"+method+": serp:read}", 1)
		_, ours := config.Parse("config.yaml", []byte(strings.Replace(text, "GET /serp/", "/serp/", 1)), noEnv)
		if (theirs == nil) != (ours == nil) {
			t.Errorf("%s: proxy says %v, and config %v", method, theirs, ours)
		}
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(file, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := config.Load(file, noEnv); err != nil || c.Listen != ":8080" {
		t.Errorf("Load: got %v, %v", c, err)
	}
	if err := os.WriteFile(file, []byte("listen: 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(file, noEnv)
	var problems config.Problems
	if !errors.As(err, &problems) || problems[0].File != file {
		t.Errorf("Load of a bad file: got %v, want problems of %s", err, file)
	}
	if c, err := config.Load(file+".gone", noEnv); c != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of no file: got %v, %v", c, err)
	}
	if c, err := config.Load(t.TempDir(), noEnv); c != nil || err == nil || errors.As(err, &problems) {
		t.Errorf("Load of a directory: got %v, %v", c, err)
	}
}

func TestProblemHasAllItsParts(t *testing.T) {
	_, err := config.Parse("x.yaml", []byte(strings.Replace(minimal, "upstream: serp", "upstream: sepr", 1)), noEnv)
	want := config.Problems{{
		File: "x.yaml", Line: 8, Column: 15, Path: "routes[0].upstream",
		Fault: `"sepr" is not one of the upstreams`, Mend: "use one of serp",
	}}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// TestUnreadableText has what txtar files cannot: bytes that are no text, and
// sizes that would keep the parser busy.
func TestUnreadableText(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no UTF-8", "listen: a\nadmin_listen: \"\xff\"", "f:2:16: the file is not UTF-8; save the file as UTF-8"},
		{"NUL", "listen: \x00", `f:1:9: the file has the control character '\x00'; remove it, or write it escaped in "double quotes"`},
		{"too large", strings.Repeat("#\n", 1<<20), "f:1:1: the file is too large; write at most 1048576 bytes"},
		{"deep flow", strings.Repeat("[", 1<<19), "f:1:33: the file is nested too deep; correct the brackets or dashes here"},
		{"deep mappings", strings.Repeat("{a: ", 1<<17), "f:1:129: the file is nested too deep; correct the brackets or dashes here"},
		{"deep dashes", strings.Repeat("- ", 1<<18), "f:1:65: the file is nested too deep; correct the brackets or dashes here"},
		{"empty", "", "f:1:1: the file has no settings; begin with config.example.yaml"},
		{"byte order mark alone", "\ufeff", "f:1:1: the file has no settings; begin with config.example.yaml"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := config.Parse("f", []byte(test.text), noEnv)
			if c != nil || err == nil || err.Error() != test.want {
				t.Errorf("got %v, %v; want %s", c, err, test.want)
			}
		})
	}
	if c := mustParse(t, "\ufeff"+strings.ReplaceAll(minimal, "\n", "\r\n"), noEnv); c.Upstreams["serp"].Targets[0].Host != "127.0.0.1:9003" {
		t.Errorf("with a byte order mark and CRLF: got %v", c)
	}
}

func TestProblemsAreInTheOrderOfTheFile(t *testing.T) {
	_, err := config.Parse("f", []byte("routes: []\nlisten: x\nstore: {redis: {db: -1}, lookup: y}\n"), noEnv)
	var problems config.Problems
	if !errors.As(err, &problems) || len(problems) != 4 {
		t.Fatalf("got %v, want four problems", err)
	}
	for i := range len(problems) - 1 {
		a, b := problems[i], problems[i+1]
		if a.Line > b.Line || a.Line == b.Line && a.Column > b.Column {
			t.Errorf("problem %s comes before %s", a, b)
		}
	}
}
