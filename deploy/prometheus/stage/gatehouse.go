package stage

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"text/template"
	"time"
)

const (
	adminToken = "operators-own-token-of-the-tests-0123456789"
	subaccount = "aaaaaaaa-0000-4000-8000-000000000001"
)

// built is the gatehouse binary, once a test run.
var built struct { //nolint:gochecknoglobals // building takes its time
	once sync.Once
	file string
	err  error
}

// RemoveBinary is for the end of TestMain.
func RemoveBinary() {
	if built.file != "" {
		_ = os.RemoveAll(filepath.Dir(built.file)) // a folder for temporary files
	}
}

func binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		folder, err := os.MkdirTemp("", "gatehouse-stage-") //nolint:usetesting // it outlives this test
		if err != nil {
			built.err = err
			return
		}
		built.file = filepath.Join(folder, "gatehouse")
		_, built.err = Output(t, "", "go", "build", "-buildvcs=false", "-o", built.file, "gatehouse/cmd/gatehouse")
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.file
}

// Gatehouse is a running gateway.
type Gatehouse struct {
	*process
	t testing.TB
	// Admin is where its operators' listener is.
	Admin string
	// CertificateExpires is when clients cannot connect any more.
	CertificateExpires time.Time

	public string
	client *http.Client
	config string // the file
}

//nolint:gochecknoglobals // it never changes
var configuration = template.Must(template.New("gatehouse.yaml").Parse(`
listen: "127.0.0.1:{{.Public}}"
admin_listen: "127.0.0.1:{{.Admin}}"
admin_token: "` + adminToken + `"
tls: {cert_file: "{{.Certificate}}", key_file: "{{.Key}}"}
store:
  redis: {addrs: ["{{.Redis}}"]}
  timeout: 250ms
plans: {slow: {rate: 1, burst: 1}}
limits:
  scope: cluster
  key: {rate: 100000, burst: 100000}
  management: {rate: 1000, burst: 1000}
  failed_auth: {rate: 5, burst: 5}
products:
  datacenter_shared: {label: Shared datacenter, actions: [read, write, delete]}
  residential: {label: Residential, actions: [read, write, delete]}
  serp_api: {label: SERP API, actions: [read, write, delete]}
upstreams:
  datacenter: {targets: ["{{.Product}}"]}
  serp:
    targets: ["{{.Product}}", "{{.Dead}}"]
    ejection: {failures: 2, backoff: 200ms, max_backoff: 1s}
routes:
  - {match: "GET /v4/account/{subaccount}/datacenter_shared/proxy-list", permission: "datacenter_shared:read", upstream: datacenter}
  - {match: /serp/v1/, by_method: {GET: "serp_api:read", POST: "serp_api:write"}, upstream: serp}
  - {match: "GET /residential/v1/list", permission: "residential:read", upstream: datacenter}
log: {level: error}
tracing: {endpoint: "{{.Dead}}", timeout: 1s} # nobody collects: spans fail, and are counted
`))

// StartGatehouse starts a gateway on the Redis, with an account and its first
// keys.
func StartGatehouse(t testing.TB, redis *Redis) *Gatehouse {
	t.Helper()
	const certificateLasts = 90 * 24 * time.Hour
	expires := wallClock().Add(certificateLasts)
	certificate, key, trust := certificateUntil(t, expires)
	g := &Gatehouse{
		t: t, CertificateExpires: expires, config: filepath.Join(t.TempDir(), "gatehouse.yaml"),
		client: &http.Client{Timeout: patience, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 100,
		}},
	}
	behind, dead := product(t), deadPort(t)
	start := func(address string) *process {
		g.public = "127.0.0.1:" + freePort(t)
		var text bytes.Buffer
		err := configuration.Execute(&text, map[string]string{
			"Public": portOf(g.public), "Admin": portOf(address), "Certificate": certificate, "Key": key,
			"Redis": redis.Address, "Product": behind, "Dead": dead,
		})
		if err = errors.Join(err, os.WriteFile(g.config, text.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
		if said, err := Output(t, "", binary(t), "store", "init", "--if-absent", "--config", g.config); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		return run(t, binary(t), "serve", "--config", g.config)
	}
	g.process, g.Admin = runOnPort(t, start, func(address string) error {
		return g.expect(http.MethodGet, "http://"+address+"/readyz?store=1", "", nil, http.StatusOK, nil)
	})
	t.Cleanup(g.client.CloseIdleConnections)
	return g
}

func portOf(address string) string { return address[len("127.0.0.1:"):] }

// Metrics is what the gateway shows of itself.
func (g *Gatehouse) Metrics() string {
	g.t.Helper()
	said, _, err := g.ask(context.Background(), http.MethodGet, "http://"+g.Admin+"/metrics", "", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(said)
}

// Public is where clients ask.
func (g *Gatehouse) Public() string { return "https://" + g.public }

// List is a path of a product that a key with datacenter_shared:read may ask for.
func (g *Gatehouse) List() string {
	return g.Public() + "/v4/account/" + subaccount + "/datacenter_shared/proxy-list"
}

// Ask asks with the token, "" for none, and returns what was answered.
func (g *Gatehouse) Ask(ctx context.Context, method, url, token string) (said []byte, status int, err error) {
	return g.ask(ctx, method, url, token, nil)
}

// Key is a key and its token.
type Key struct{ ID, Token string }

// PutAccount makes an account that may do everything, with that plan; "" for
// none.
func (g *Gatehouse) PutAccount(id, plan string) error {
	account := map[string]any{
		"name": "Acme", "permissions": []string{"*"},
		"subaccounts": []any{map[string]string{"id": subaccount, "label": "A", "product": "datacenter_shared"}},
	}
	if plan != "" {
		account["plan"] = plan
	}
	return g.expect(http.MethodPut, g.operators("/accounts/"+id), adminToken, account, http.StatusCreated, nil)
}

// CreateKey makes a key of the account.
func (g *Gatehouse) CreateKey(account string, permissions ...string) (Key, error) {
	var created struct{ Data Key }
	err := g.expect(http.MethodPost, g.operators("/accounts/"+account+"/keys"), adminToken,
		map[string]any{"name": "key", "permissions": permissions}, http.StatusCreated, &created)
	return created.Data, err
}

// RevokeKey revokes a key of the account.
func (g *Gatehouse) RevokeKey(account string, k Key) error {
	return g.expect(http.MethodDelete, g.operators("/accounts/"+account+"/keys/"+k.ID), adminToken, nil, http.StatusOK, nil)
}

func (g *Gatehouse) operators(path string) string { return "http://" + g.Admin + "/admin/v1" + path }

// expect asks, and returns an error for another status.
func (g *Gatehouse) expect(method, url, token string, body any, want int, into any) error {
	said, status, err := g.ask(context.Background(), method, url, token, body)
	switch {
	case err != nil:
		return err
	case status != want:
		return fmt.Errorf("%s %s: %d %s", method, url, status, said)
	case into == nil:
		return nil
	}
	return json.Unmarshal(said, into)
}

// ask asks with the token, "" for none, and with the body as JSON, nil for none.
func (g *Gatehouse) ask(ctx context.Context, method, url, token string, body any) (said []byte, status int, err error) {
	var content []byte
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return nil, 0, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return nil, 0, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := g.client.Do(r)
	if err != nil {
		return nil, 0, err
	}
	said, err = io.ReadAll(answer.Body)
	return said, answer.StatusCode, errors.Join(err, answer.Body.Close())
}
