package adminapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/adminapi"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/password"
	"gatehouse/proxy/problem"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	adminToken = "0123456789abcdef0123456789abcdef"
	accounts   = "/admin/v1/accounts"
	acme       = accounts + "/acme"

	subA = "aaaaaaaa-0000-4000-8000-000000000001"
	subB = "bbbbbbbb-0000-4000-8000-000000000002"

	accountBody = `{"name":"Acme","permissions":["datacenter_shared:*","account:apikeys:*"],` +
		`"subaccounts":[{"id":"` + subA + `","label":"EU scraping","product":"datacenter_shared"}]}`
	keyBody = `{"name":"first","permissions":["datacenter_shared:read"]}`
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// world is the API on a real store.
type world struct {
	t     *testing.T
	store *keystore.Store
	redis *miniredis.Miniredis
	now   atomic.Int64
	log   *bytes.Buffer
	api   *adminapi.API

	passwords *password.Hasher
	usage     usage
	levels    levels
	explained contract.ExplainedRequest // that was asked last
}

// levels are those of a log, and who changed them last.
type levels struct {
	modules map[string]string
	by      policy.Caller
}

func (l *levels) Levels() map[string]string { return maps.Clone(l.modules) }

func (l *levels) SetLevels(by policy.Caller, changed map[string]string) {
	l.by = by
	maps.Copy(l.modules, changed)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, redis: miniredis.RunT(t), log: &bytes.Buffer{}}
	w.levels.modules = map[string]string{"access": "info", "store": "warn"}
	w.now.Store(start.Unix())
	w.redis.SetTime(start)
	clock := func() time.Time { return time.Unix(w.now.Load(), 0).UTC() }
	catalogue, err := policy.NewCatalogue("datacenter_shared:read", "datacenter_shared:write", "serp_api:read")
	if err != nil {
		t.Fatal(err)
	}
	w.store, err = keystore.Open(t.Context(), keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{w.redis.Addr()}}, Prefix: "t:", Timeout: time.Second, Mode: keystore.Strict, Create: true,
		CacheEntries: 100, Catalogue: catalogue, TokenPrefix: "gk_", MaxKeys: 10, Now: clock, Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	w.usage.Store = w.store
	w.passwords, err = password.NewHasher(password.Cost{MemoryKiB: 64, Passes: 1, Lanes: 1}, 2)
	if err != nil {
		t.Fatal(err)
	}
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg", EncodeDuration: zapcore.StringDurationEncoder})
	w.api, err = adminapi.New(adminapi.Options{
		Store: w.store, Audit: w.store, Users: w.store, Usage: &w.usage, Passwords: w.passwords, Token: adminToken, Catalogue: catalogue, Products: []string{"datacenter_shared", "serp_api"}, Now: clock,
		Levels: &w.levels,
		Export: w.store.Export,
		Explain: func(ctx context.Context, r contract.ExplainedRequest) (contract.Explanation, error) {
			w.explained = r
			return contract.Explanation{}, w.store.Ready(ctx)
		},
		Log: zap.New(zapcore.NewCore(encoder, zapcore.AddSync(w.log), zap.InfoLevel)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// serve answers a request as it is.
func (w *world) serve(r *http.Request) *httptest.ResponseRecorder {
	out := httptest.NewRecorder()
	w.api.ServeHTTP(out, r)
	return out
}

// do makes a request with the admin token and a JSON body.
func (w *world) do(method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+adminToken)
	r.Header.Set("Content-Type", "application/json")
	return w.serve(r)
}

// must is do with an answer that has to be a success.
func (w *world) must(method, target, body string) *httptest.ResponseRecorder {
	w.t.Helper()
	out := w.do(method, target, body)
	if out.Code/100 != 2 {
		w.t.Fatalf("%s %s: answered %d %s", method, target, out.Code, out.Body)
	}
	return out
}

// token makes a key of the account and returns its id and token.
func (w *world) token(account string) (id, token string) {
	w.t.Helper()
	var c struct{ Data struct{ ID, Token string } }
	if err := json.Unmarshal(w.must(http.MethodPost, accounts+"/"+account+"/keys", keyBody).Body.Bytes(), &c); err != nil {
		w.t.Fatal(err)
	}
	return c.Data.ID, c.Data.Token
}

// lookup finds the key of a token, as the gateway does.
func (w *world) lookup(token string) (keystore.Entry, error) {
	w.t.Helper()
	parsed, err := keystore.ParseToken("gk_", token)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.store.Lookup(context.Background(), parsed)
}

// check compares an answer with a code, and the text that must be in it.
func check(t *testing.T, out *httptest.ResponseRecorder, code problem.Code, says string) {
	t.Helper()
	if out.Code != code.Status() || !strings.Contains(out.Body.String(), `"error":"`+string(code)+`"`) || !strings.Contains(out.Body.String(), says) ||
		out.Header().Get("Content-Type") != "application/problem+json" || out.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("answered %d %v %s, want %d %s and %q", out.Code, out.Header(), out.Body, code.Status(), code, says)
	}
}

var variable = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|gk_[0-9A-Za-z]{61}|gk_[0-9A-Za-z]{4}…[0-9A-Za-z]{4}`)

// golden compares the whole answer with a file.
func golden(t *testing.T, name string, out *httptest.ResponseRecorder) {
	t.Helper()
	var head []string
	for field, values := range out.Header() {
		head = append(head, field+": "+strings.Join(values, ", "))
	}
	slices.Sort(head)
	text := fmt.Sprintf("%d\n%s\n\n%s\n", out.Code, strings.Join(head, "\n"), out.Body)
	text = strings.ReplaceAll(text, subA, "{subaccount}")
	got := variable.ReplaceAllString(text, "{…}")
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}
