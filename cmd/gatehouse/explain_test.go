package main_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
)

// explanation is the answer of POST /admin/v1/explain.
type explanation struct {
	Allowed       bool    `json:"allowed"`
	Reason        string  `json:"reason"`
	Status        *int    `json:"status"`
	Detail        *string `json:"detail"`
	Route         *string `json:"route"`
	Permission    *string `json:"permission"`
	Subaccount    *string `json:"subaccount"`
	Upstream      *string `json:"upstream"`
	AccountID     *string `json:"account_id"`
	KeyID         *string `json:"key_id"`
	ClientAddress *string `json:"client_address"`
	Steps         []struct {
		Step, Says, Outcome, Detail string
	} `json:"steps"`
}

// explainable is the body that asks about a request; false for one that can
// only be sent.
func explainable(t *testing.T, r request) (string, bool) {
	t.Helper()
	headers := r.header
	switch {
	case r.chunked:
		headers = r.with("Transfer-Encoding: chunked").header
	case r.body != "":
		headers = r.with("Content-Length: " + jsonOf(t, len(r.body))).header
	}
	if headers == nil {
		headers = []string{}
	}
	from := r.from
	if from == "" {
		from = "127.0.0.1"
	}
	url := "http://" + r.host + r.target
	if !strings.HasPrefix(r.target, "/") || !utf8.ValidString(url+strings.Join(headers, "")) || strings.ContainsAny(url, "\r\n") {
		return "", false
	}
	return jsonOf(t, map[string]any{"method": r.method, "url": url, "client_address": from, "headers": headers}), true
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// explained holds that the gateway explains the request as what it answered to
// it: the error code, or allowed.
func (d *table) explained(t *testing.T, r request, want string) {
	t.Helper()
	body, is := explainable(t, r)
	// What an upstream does is not decided, and nothing is sent to find out; nor
	// can a body be judged that is only described.
	if !is || strings.HasPrefix(want, "upstream_") || r.chunked && want == "body_too_large" {
		return
	}
	before := d.counts()
	got := d.operate(t, http.MethodPost, "/explain", body)
	if got.status != http.StatusOK {
		t.Errorf("explain %s: %d %s", body, got.status, got.body)
		return
	}
	if e := dataOf[explanation](t, got); e.Reason != want || e.Allowed != (want == "allowed") {
		t.Errorf("explained as %s, want %s: %s", e.Reason, want, got.body)
	}
	for i, b := range d.backends {
		if seen := b.seen(before[i]); len(seen) > 0 {
			t.Errorf("a backend saw a request that was only explained:\n%s", seen[0].raw)
		}
	}
}

// TestExplainingWritesNothing to the store, and of a token nothing anywhere.
func TestExplainingWritesNothing(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	d := newTable(t, settings{Store: server.yaml(), Scope: "cluster", Key: "{rate: 0.01, burst: 5}", FailedAuth: "{rate: 0.01, burst: 2}"})
	before := contents(t, server.client)
	for range 10 {
		d.explained(t, d.base(), "allowed")
		d.explained(t, d.base().by(unknownToken()), "invalid_token")
		got := dataOf[explanation](t, d.operate(t, http.MethodPost, "/explain",
			`{"method": "GET", "url": "`+proxyListOfA+`", "client_address": "192.0.2.1", "key_id": "`+d.key.ID+`"}`))
		if !got.Allowed || *got.KeyID != d.key.ID || *got.AccountID != "acme" || *got.Upstream != "datacenter" || *got.Subaccount != subA || got.Status != nil {
			t.Errorf("got %+v", got)
		}
	}
	if after := contents(t, server.client); before != after {
		t.Errorf("the store has changed: before\n%s\nafter\n%s", before, after)
	}
	for _, k := range dataOf[[]managed](t, d.operate(t, http.MethodGet, "/accounts/acme/keys", nil)) {
		if k.LastUsedAt != nil && k.ID == d.key.ID {
			t.Errorf("key %s was used at %d", k.ID, *k.LastUsedAt)
		}
	}
	// The first requests that are really made have the whole budget.
	for range 5 {
		d.passes(t, d.base())
	}
	d.explained(t, d.base(), "rate_limited")
	if got := d.send(t, d.base()); got.status != http.StatusTooManyRequests {
		t.Errorf("got %d, and it was explained as rate_limited", got.status)
	}
}

// contents are all names and values of a Redis but those of the usage of root,
// which makes the keys.
func contents(t *testing.T, client *redis.Client) string {
	t.Helper()
	names, err := client.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	for _, name := range names {
		if strings.Contains(name, ":usage:") || strings.HasSuffix(name, ":used") || strings.HasPrefix(name, "gatehouse:beat:") {
			continue
		}
		dumped, err := client.Dump(t.Context(), name).Result()
		if err != nil {
			t.Fatal(err)
		}
		all[name] = dumped
	}
	return jsonOf(t, all)
}

// TestExplainTakesTheTokenFromWhereNobodySeesIt.
func TestExplainTakesTheTokenFromWhereNobodySeesIt(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t)})
	run := func(change func(cmd *exec.Cmd), args ...string) string {
		cmd := gatehouse(t, append([]string{"explain", "GET", "http://api.example.com" + proxyListOfA, "--client", "203.0.113.7", "--admin", "http://" + d.admin}, args...)...)
		change(cmd)
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v: %s", args, err, said)
		}
		checkNoToken(t, "explain", string(said))
		return string(said)
	}
	env := func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "GATEHOUSE_TOKEN="+d.key.Token) }
	stdin := func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader(d.key.Token + "\n") }
	nothing := func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "GATEHOUSE_TOKEN=") }
	file := t.TempDir() + "/token"
	if err := os.WriteFile(file, []byte(d.key.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, said := range map[string]string{
		"environment": run(env), "standard input": run(stdin, "--token-file", "-"), "file": run(nothing, "--token-file", file),
		"id": run(env, "--key", d.key.ID), "id and account": run(nothing, "--key", d.key.ID, "--account", "acme"),
	} {
		if !strings.HasPrefix(said, "allowed\n") || !strings.Contains(said, "upstream datacenter") {
			t.Errorf("%s: %s", name, said)
		}
	}
	if said := run(nothing); !strings.HasPrefix(said, "refused: 401 missing_credentials\n") {
		t.Errorf("nothing: %s", said)
	}
	if said := run(env, "--header", "Upgrade: websocket", "--json"); !strings.Contains(said, `"allowed":true`) {
		t.Errorf("json: %s", said)
	}
}
