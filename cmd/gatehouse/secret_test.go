package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
)

// looksLikeToken finds tokens and what is left of them; a preview has only
// four characters behind the prefix.
var looksLikeToken = regexp.MustCompile(`gk_[A-Za-z0-9]{5,}`)

// checkNoToken holds text that may be seen by others than the owner of a key.
func checkNoToken(t testing.TB, what, text string) {
	t.Helper()
	if found := looksLikeToken.FindString(text); found != "" {
		t.Errorf("%s shows a token: %s", what, found)
	}
	if strings.Contains(text, operatorToken) {
		t.Errorf("%s shows the admin token", what)
	}
}

// accessFields are the fields of every line about a request.
var accessFields = []string{
	"time", "level", "logger", "message", "http.request.method", "http.route", "url.path", "url.scheme", "http.response.status_code",
	"client.address", "network.peer.address", "server.address", "network.protocol.version", "user_agent.original",
	"http.request.body.size", "http.response.body.size", "gatehouse.reason", "gatehouse.request_id", "gatehouse.key_id", "gatehouse.account",
	"gatehouse.permission", "gatehouse.lookup", "gatehouse.duration_ms", "gatehouse.lookup_ms", "gatehouse.upstream_ms",
}

// checkOutput holds all that a gateway has written: lines of JSON with the
// documented fields, no token, no panic, no data race.
func checkOutput(t testing.TB, stdout, stderr string) {
	t.Helper()
	for _, bad := range []string{"DATA RACE", "panic", "goroutine "} {
		if strings.Contains(stderr+stdout, bad) {
			t.Errorf("the gateway wrote %q:\n%s\n%s", bad, lastOf(stderr), lastOf(stdout))
		}
	}
	checkNoToken(t, "the log", stdout)
	checkNoToken(t, "stderr", stderr)
	for line := range strings.Lines(stdout) {
		if !strings.HasSuffix(line, "\n") {
			continue // cut off by a kill
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("a line of the log is not JSON: %v\n%s", err, line)
			return
		}
		if fields["message"] != "request" {
			continue
		}
		for _, name := range accessFields {
			if _, ok := fields[name]; !ok {
				t.Errorf("a line of the access log lacks %s:\n%s", name, line)
				return
			}
		}
	}
}

// TestNoTokenAnywhere: a token is shown to its owner once, and is nowhere
// else: in no answer, log, metric, nor in anything that Redis is told.
func TestNoTokenAnywhere(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	told := redis.monitor(t)
	d := newTable(t, settings{Store: redis.yaml(), Others: map[string]string{"dead": closedPort(t)}})
	token := d.createKey(t, d.root, may("datacenter_shared:read", "serp_api:read")).Token
	bare := d.base().without("api-token").without("Api_Token")
	for _, r := range []request{
		bare.by(token), bare.by(token + "x"), bare.by(token[:63]), bare.by("x" + token), bare.by(unknownToken()), bare.with("Authorization: Basic " + token),
		bare.with("Authorization: Bearer "+token, "api-token: "+token[:63]+"0"), bare.at("GET", "/"+token), bare.at("GET", proxyListOfA+"?api-token="+token),
		bare.by(token).at("GET", "/v4/account/"+token+"/datacenter_shared/proxy-list"), bare.by(token).at("GET", "/dead/"+token+"?"+token),
		bare.by(token).at("GET", whitelistOfA+"?type="+token), bare.with("X-Request-Id: "+token, "User-Agent: "+token, "Cookie: "+token), bare.at("GET", "/serp/v1/../"+token),
		bare.with("X-Forwarded-For: "+token, "Upgrade: "+token, "Connection: Upgrade"),
	} {
		got := d.send(t, r)
		checkNoToken(t, "the answer to "+r.target, got.body)
		for name, values := range got.header {
			checkNoToken(t, "the answer's "+name, strings.Join(values, " "))
		}
	}
	for _, body := range []string{
		`{"name": "x", "permissions": ["` + token + `"]}`, `{"` + token + `": 1}`, `{"name": "x", "permissions": ["serp_api:read"], "allowed_ips": [1, "` + token + `"]}`,
	} {
		d.send(t, creation(d.root, body)) // the answer repeats what is wrong, to who sent it
	}
	metrics, err := d.probe("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	checkNoToken(t, "/metrics", metrics)
	if !strings.Contains(metrics, "gatehouse_requests_total{") || !strings.Contains(metrics, "gatehouse_request_duration_seconds_bucket{") {
		t.Errorf("/metrics lacks the gateway's own: %s", lastOf(metrics))
	}
	if strings.Contains(metrics, subA) || strings.Contains(metrics, "acme") {
		t.Errorf("/metrics has a series for each subaccount or account")
	}
	cmdline, err := d.probe("/debug/pprof/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	checkNoToken(t, "the command line", cmdline)
	list := d.operate(t, "GET", "/accounts/acme/keys", nil)
	checkNoToken(t, "the list of keys", list.body)
	dump := redis.dump(t)
	checkNoToken(t, "Redis", dump)
	if !strings.Contains(dump, "gatehouse:key:") || !strings.Contains(dump, d.key.ID) {
		t.Errorf("Redis holds no keys, which proves nothing: %s", dump)
	}
	eventually(t, patience, "what Redis is told", func() error {
		return unless(strings.Contains(told.String(), `"mget"`), "no lookups were seen")
	})
	checkNoToken(t, "what Redis is told", told.String())
}

// dump is all that the server holds.
func (r *redisServer) dump(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	keys, err := r.client.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		kind, err := r.client.Type(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		read := map[string][]any{
			"string": {"GET", key}, "hash": {"HGETALL", key}, "zset": {"ZRANGE", key, 0, -1}, "set": {"SMEMBERS", key}, "list": {"LRANGE", key, 0, -1}, "stream": {"XRANGE", key, "-", "+"},
		}[kind]
		value, err := r.client.Do(t.Context(), read...).Result()
		if err != nil {
			t.Fatalf("%s %s: %v", kind, key, err)
		}
		fmt.Fprintf(&all, "%s %s %v\n", kind, key, value)
	}
	return all.String()
}

// monitor collects all commands that the server gets.
func (r *redisServer) monitor(t *testing.T) *output {
	t.Helper()
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	told, done := &output{}, make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(told, c) // ends with the connection
	}()
	t.Cleanup(func() {
		_ = c.Close() // ends the goroutine
		<-done
	})
	if _, err := c.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "MONITOR", func() error { return unless(strings.HasPrefix(told.String(), "+OK"), told.String()) })
	return told
}
