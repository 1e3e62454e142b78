package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"gatehouse/cmd/gatehouse/config"
)

// fullTree has every setting but embedded and two of those that name accounts.
func fullTree(t testing.TB) map[string]any {
	t.Helper()
	const text = `
listen: ":8080"
admin_listen: "127.0.0.1:9090"
listen_h2c: false
admin_token: 0123456789abcdef
shutdown_grace: 30s
tls: {cert_file: a, key_file: b}
store:
  redis: {url: "", addrs: ["127.0.0.1:6379"], master_name: keys, sentinel_username: su, sentinel_password: sp, username: u, password: p, db: 0, prefix: "g:"}
  timeout: 1s
  lookup: strict
  cache: {ttl: 5s, entries: 100}
  stale_if_unavailable: 0s
  durability: {replicas: 0, timeout: 1s}
client_address: {trusted_proxies: ["10.0.0.0/8"], header: Forwarded}
token: {prefix: gk_, websocket_subprotocol: false}
products: {serp: {label: SERP, actions: [read]}}
upstreams:
  serp:
    targets: ["https://127.0.0.1:9003"]
    timeout: 1s
    max_in_flight: 7
    max_connection_age: 1m
    ejection: {failures: 1, backoff: 1s, max_backoff: 1h}
    health_check: {path: /, interval: 1h, timeout: 1s, healthy: 1, unhealthy: 1}
routes:
  - {match: GET /a, permission: "serp:read", upstream: serp, websocket: false, max_body: 1MiB, timeout: 1s}
  - {match: /b, by_method: {GET: "serp:read"}, upstream: serp}
  - {match: GET /c, by_query: {type: {get: "serp:read"}}, upstream: serp}
limits: {scope: node, in_flight: 0, max_body: 1MiB, max_header: 1KiB, max_header_lines: 9, header_timeout: 1s, idle_timeout: 1s, min_body_rate: 0}
plans: {}
delegation: {inherit_ips: true, cap_expiry: true, max_keys_per_account: 7}
audit: {keep: {events: 50, age: 1h}}
cors: {origins: ["https://app.example.com"]}
dashboard:
  enabled: true
  host: ""
  api_url: ""
  url: "https://d.example.com"
  password_sign_in: true
  brand: {name: Acme, logo_file: "", accent: "#112233", docs: ""}
  session: {idle: 10m, absolute: 100h}
  providers: [{name: sso, label: SSO, issuer: "https://id.example.com", client_id: g, client_secret: s, scopes: [a], create_users: true, require_verified_email: true}]
log: {level: info, format: json, modules: {access: warn}, sample: 0.25, buffer: 64KiB}
tracing: {endpoint: "https://collector:4318", protocol: http, sample: 1, timeout: 2s, headers: {a: b}}
`
	tree, err := treeOf([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	at := func(tree any, keys ...any) map[string]any {
		for _, key := range keys {
			switch k := key.(type) {
			case string:
				tree = tree.(map[string]any)[k]
			case int:
				tree = tree.([]any)[k]
			}
		}
		return tree.(map[string]any)
	}
	files := func() map[string]any {
		return map[string]any{"ca_file": "a", "cert_file": "b", "key_file": "c", "server_name": "d"}
	}
	rate := func() map[string]any { return map[string]any{"rate": 1, "burst": 2} }
	at(tree, "store", "redis")["tls"] = files()
	at(tree, "store", "redis", "tls")["enabled"] = true
	at(tree, "upstreams", "serp")["tls"] = files()
	at(tree, "upstreams", "serp", "tls")["insecure_skip_verify"] = false
	at(tree, "tracing")["tls"] = files()
	for _, name := range []string{"key", "management", "failed_auth"} {
		at(tree, "limits")[name] = rate()
	}
	at(tree, "limits")["connections"] = map[string]any{"total": 1, "per_address": 1}
	at(tree, "limits")["http2"] = map[string]any{"max_streams": 1}
	at(tree, "plans")["gold"] = rate()
	at(tree, "routes", 0)["limit"] = rate()
	at(tree, "dashboard", "providers", 0)["account"] = "acme"
	return tree.(map[string]any)
}

// place is the mapping that a setting is in, and its name there.
func place(tree any, name string) (within map[string]any, key string, found bool) {
	mapping, ok := tree.(map[string]any)
	if !ok {
		return nil, "", false
	}
	first, rest, more := strings.Cut(name, ".")
	list, isItem := strings.CutSuffix(first, "[]")
	switch items, _ := mapping[list].([]any); {
	case isItem:
		for _, item := range items {
			if within, key, found := place(item, rest); found {
				return within, key, true
			}
		}
		return nil, "", false
	case first == "NAME":
		for _, entry := range mapping {
			return place(entry, rest)
		}
	case more:
		return place(mapping[first], rest)
	}
	_, found = mapping[first]
	return mapping, first, found
}

// textOf writes a tree in lines, for the loader.
func textOf(t testing.TB, tree any) []byte {
	t.Helper()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(tree); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// verdicts of the loader: all is well, or the faults of the setting and below.
func loaderOn(t testing.TB, tree any, name string) (ok bool, faults []string) {
	t.Helper()
	_, err := config.Parse("f", textOf(t, tree), envOf(map[string]string{"ONE": "1", "YES": "true", "SECOND": "1s", "WORD": "abc"}))
	var problems config.Problems
	if !errors.As(err, &problems) {
		return err == nil, nil
	}
	pattern := strings.NewReplacer(`\[\]`, `\[\d+\]`, "NAME", `[a-z]+`).Replace(regexp.QuoteMeta(name))
	here := regexp.MustCompile("^" + pattern + `($|\.|\[)`)
	for _, p := range problems {
		if here.MatchString(p.Path) {
			faults = append(faults, p.Fault)
		}
	}
	return false, faults
}

// onlyTheLoader are faults that no schema sees, of values that fit their types.
var onlyTheLoader = regexp.MustCompile(`not in the catalogue|not one of the upstreams|no address to listen|no valid host and port|is no rate|is no size for it|more than is sensible|` +
	`names the method|is no address and no CIDR|is of no use with tls|trusts every client|beside ca_file|less than backoff|more than interval|longer than absolute|` +
	`let nothing through|cannot be used|providers have to be told`)

// TestSchemaAndLoaderAgree about each setting with each of many values, and
// about what has a name that is none.
func TestSchemaAndLoaderAgree(t *testing.T) {
	t.Parallel()
	compiled := compiledSchema(t)
	if ok, _ := loaderOn(t, fullTree(t), ""); !ok {
		t.Fatal("the full configuration is refused")
	}
	for _, section := range config.Reference().Below {
		t.Run(section.Name, func(t *testing.T) {
			t.Parallel()
			seen := map[string]bool{} // one of each type is enough for what the type decides
			eachSetting(section, func(s config.Setting) {
				if slices.Contains(elsewhere, s.Name) {
					return
				}
				values := append(bounds(), defaultOf(t, s)...)
				if !seen[s.Type] || s.Type == "text" || s.Type == "URL" {
					values = append(values, probes()...)
				}
				agree(t, compiled, s, values)
				seen[s.Type] = true
			})
		})
	}
}

// elsewhere are settings that cannot be beside others of the full configuration.
var elsewhere = []string{"store.embedded", "store.embedded.file", "dashboard.providers[].account_claim", "dashboard.providers[].account_by_domain"}

// agree holds the schema against the loader for one setting, in its section of the
// full configuration and beside what must be there.
func agree(t *testing.T, compiled *jsonschema.Schema, s config.Setting, values []any) {
	t.Helper()
	full := fullTree(t)
	least, err := treeOf([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	tree := least.(map[string]any)
	section := regexp.MustCompile(`^[a-z0-9_]+`).FindString(s.Name)
	tree[section] = full[section]
	within, key, found := place(tree, s.Name)
	if !found {
		t.Fatalf("the full configuration does not have %s", s.Name)
	}
	before := within[key]
	for _, value := range values {
		within[key] = value
		ok, faults := loaderOn(t, tree, s.Name)
		faults = slices.DeleteFunc(faults, func(fault string) bool {
			return onlyTheLoader.MatchString(fault) || isExpanded(value) && !strings.Contains(fault, "has a ${")
		})
		switch err := compiled.Validate(tree); {
		case ok && err != nil:
			t.Errorf("%s: %#v is accepted by the loader, and refused by the schema: %v", s.Name, value, err)
		case err == nil && len(faults) > 0:
			t.Errorf("%s: %#v is accepted by the schema, and refused by the loader: %s", s.Name, value, faults)
		}
	}
	within[key] = before
	within["unknown"] = 1
	beside := s.Name[:max(0, strings.LastIndexByte(s.Name, '.'))] + ".unknown"
	_, faults := loaderOn(t, tree, strings.TrimPrefix(beside, "."))
	if !slices.Contains(faults, "is not a setting") || compiled.Validate(tree) == nil {
		t.Errorf("an unknown setting beside %s: the loader says %v, and the schema %v", s.Name, faults, compiled.Validate(tree))
	}
}

// isExpanded: what is in the environment is beyond a schema.
func isExpanded(value any) bool {
	text, isText := value.(string)
	return isText && strings.Contains(text, "${")
}

// bounds are values about the type of a setting and its bounds.
func bounds() []any {
	return []any{
		nil, true, -1, 0, 1, 1.5, 1_000_000, 1_000_001, 10_000_000, 10_000_001, 32767, 32768, "", "a", "0s", "5s", "0B", "5MiB", "${ONE}", "${",
		[]any{},
		[]any{"a"},
		map[string]any{},
		map[string]any{"a": "b"},
	}
}

// probes are what a reader of texts could take for something else.
func probes() []any {
	return []any{
		2, "true", "1", "0", "00s", "1h30m", "1.5h", ".5s", "-5s", "-0s", "+5s", "5 s", "5d", "1ms1us1ns1µs",
		"5B", "05MiB", "5 MiB", "5mib", "1kB", "2GB", "1.5MB", "1_000",
		"${YES}", "${SECOND}", "${WORD:-x}", "${}", "${a b}", "a${ONE}$$", "$$$${ONE}", "$$${ONE}", "x$y", "${NONE:-${ONE}}", "${NONE:-1$}",
		"debug", "cluster", "strict", "grpc", "console", ":0", ":http", "[::1]:443", "host:", "serp:read", "http://a", "ftp://a", "http://a/b", "#11223", "10.1.2.3", "a b",
		[]any{1},
		[]any{"a:1", "a:1"},
		map[string]any{"GET": 1},
		map[string]any{"access": "info"},
	}
}

// TestWhatIsRequiredIsEnough: without one of the required settings the loader
// refuses, and where only they are there it does not.
func TestWhatIsRequiredIsEnough(t *testing.T) {
	t.Parallel()
	compiled := compiledSchema(t)
	least := fullTree(t)
	optional := 0
	eachSetting(config.Reference(), func(s config.Setting) {
		tree := fullTree(t)
		if s.Required {
			within, key, _ := place(tree, s.Name)
			delete(within, key)
			if ok, _ := loaderOn(t, tree, s.Name); ok || compiled.Validate(tree) == nil {
				t.Errorf("%s is required, and may be left out: the loader says %v, and the schema %v", s.Name, ok, compiled.Validate(tree))
			}
			return
		}
		isSection := len(s.Below) > 0 && len(s.Below[0].Below) > 0 || s.Type == ""
		if within, key, found := place(least, s.Name); found && !isSection && key != "burst" && !slices.Contains(oneOfSome, s.Name) {
			optional++
			delete(within, key)
		}
	})
	if ok, _ := loaderOn(t, least, ""); !ok || optional < 50 {
		t.Errorf("without %d optional settings it is refused:\n%s", optional, textOf(t, least))
	}
	if err := compiled.Validate(least); err != nil {
		t.Error(err)
	}
}

// oneOfSome are settings of which one must be there.
var oneOfSome = []string{"routes[].permission", "routes[].by_method", "routes[].by_query", "dashboard.url", "dashboard.providers[].account"}

// defaultOf is the default of a setting as it would be written, if it has one.
func defaultOf(t testing.TB, s config.Setting) []any {
	t.Helper()
	if s.Default == "" {
		return nil
	}
	tree, err := treeOf([]byte("x: " + s.Default))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(maps.Values(tree.(map[string]any)))
}
