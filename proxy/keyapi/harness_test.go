package keyapi_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/contract/contracttest"
	"gatehouse/proxy/keyapi"
	"gatehouse/proxy/problem"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	subA = policy.SubaccountID("aaaaaaaa-0000-4000-8000-000000000001")
	subB = policy.SubaccountID("bbbbbbbb-0000-4000-8000-000000000002")
	subC = policy.SubaccountID("cccccccc-0000-4000-8000-000000000003") // of no account

	read  = policy.Permission("datacenter_shared:read")
	write = policy.Permission("datacenter_shared:write")
	serp  = policy.Permission("serp_api:read") // the account lacks it

	keysPath = "/v4/account/api-keys"
)

var (
	start  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	client = netip.MustParseAddr("203.0.113.9")
	office = netip.MustParsePrefix("203.0.113.0/24")
)

// world is the API on a real store, with an account that has everything but serp.
type world struct {
	t     *testing.T
	store *keystore.Store
	redis *miniredis.Miniredis
	now   atomic.Int64
	mux   *http.ServeMux
	by    policy.Caller // who makes the requests
}

func newWorld(t *testing.T, changes ...func(*keystore.Options)) *world {
	t.Helper()
	w := &world{t: t, redis: miniredis.RunT(t)}
	w.now.Store(start.Unix())
	w.redis.SetTime(start) // or it would drop keys that expired long before the real time
	clock := func() time.Time { return time.Unix(w.now.Load(), 0).UTC() }
	catalogue, err := policy.NewCatalogue(read, write, serp)
	if err != nil {
		t.Fatal(err)
	}
	o := keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{w.redis.Addr()}}, Prefix: "t:", Timeout: time.Second, Mode: keystore.Strict, Create: true,
		CacheEntries: 100, Catalogue: catalogue, TokenPrefix: "gk_", MaxKeys: 10, Now: clock, Log: zap.NewNop(),
	}
	for _, change := range changes {
		change(&o)
	}
	if w.store, err = keystore.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	w.putAccount(func(*keystore.Account) {})
	w.by, _ = w.key(func(*keystore.NewKey) {})

	api, err := keyapi.New(keyapi.Options{Keys: w.store, Audit: w.store, Usage: w.store, Catalogue: catalogue, Products: []contract.Product{{Name: "datacenter_shared", Label: "Shared datacenter"}, {Name: "serp_api"}}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	w.mux = http.NewServeMux()
	for _, e := range api.Endpoints() {
		w.mux.HandleFunc(e.Match, func(out http.ResponseWriter, r *http.Request) {
			// As the gateway does.
			if err := e.Serve(out, r, w.by); err != nil {
				problem.Write(out, problem.From(err), "id")
			}
		})
	}
	return w
}

// putAccount puts acme, changed in one thing.
func (w *world) putAccount(change func(*keystore.Account)) {
	w.t.Helper()
	a := keystore.Account{
		ID: "acme", Name: "Acme", Status: policy.Active, Permissions: []string{"datacenter_shared:*", "account:apikeys:*"},
		Subaccounts: []policy.Subaccount{{ID: subA, Product: "datacenter_shared"}, {ID: subB, Product: "datacenter_shared"}},
	}
	change(&a)
	if _, _, err := w.store.PutAccount(w.t.Context(), policy.Caller{}, a); err != nil {
		w.t.Fatal(err)
	}
}

// key makes a key that may do everything the account may, changed in one
// thing, and returns it as a caller, with its token.
func (w *world) key(change func(*keystore.NewKey)) (policy.Caller, keystore.Token) {
	w.t.Helper()
	rules, err := w.store.Rules(w.t.Context(), "acme")
	if err != nil {
		w.t.Fatal(err)
	}
	k := keystore.NewKey{Name: "caller", Permissions: rules.Permissions, Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires()}
	change(&k)
	_, token, err := w.store.Create(w.t.Context(), policy.Caller{Account: rules}, k)
	if err != nil {
		w.t.Fatal(err)
	}
	e := w.lookup(token.Reveal())
	return policy.Caller{Account: e.Account, Key: e.Key, Client: client}, token
}

func (w *world) lookup(token string) keystore.Entry {
	w.t.Helper()
	parsed, err := keystore.ParseToken("gk_", token)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := w.store.Lookup(w.t.Context(), parsed)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// keys counts the keys of the account.
func (w *world) keys() int {
	w.t.Helper()
	list, _, err := w.store.List(w.t.Context(), policy.Caller{Account: &policy.Account{ID: "acme"}}, "", 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(list)
}

// do makes a request with a JSON body, where there is one.
func (w *world) do(method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	out := httptest.NewRecorder()
	w.mux.ServeHTTP(out, r)
	w.checkContract(r, body, out)
	return out
}

var theContract = sync.OnceValues(contracttest.Load)

// checkContract holds the exchange against openapi.yaml.
func (w *world) checkContract(r *http.Request, body string, out *httptest.ResponseRecorder) {
	w.t.Helper()
	c, err := theContract()
	if err != nil {
		w.t.Fatal(err)
	}
	err = c.Check(w.t.Context(), contracttest.Exchange{
		Method: r.Method, Target: r.RequestURI, Header: r.Header, Body: body,
		Status: out.Code, AnswerHeader: out.Header(), Answer: out.Body.String(),
	})
	if err != nil {
		w.t.Errorf("not in the contract: %v", err)
	}
}

// created is what the answer to a creation shows.
type created struct {
	Success bool
	Data    struct {
		ID, Token, Name    string
		Permissions        []string
		AllowedSubaccounts []string `json:"allowed_subaccounts"`
		AllowedIPs         []string `json:"allowed_ips"`
		ExpiresAt          *int64   `json:"expires_at"`
		CreatedAt          int64    `json:"created_at"`
	}
}

// create makes a key that must be granted, and returns the answer.
func (w *world) create(body string) created {
	w.t.Helper()
	out := w.do(http.MethodPost, keysPath, body)
	var c created
	if err := json.Unmarshal(out.Body.Bytes(), &c); err != nil || out.Code != http.StatusCreated || !c.Success {
		w.t.Fatalf("%s: answered %d %s, %v", body, out.Code, out.Body, err)
	}
	return c
}

var variable = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|gk_[0-9A-Za-z]{61}|gk_[0-9A-Za-z]{4}…[0-9A-Za-z]{4}`)

// golden compares the whole answer with a file.
func golden(t *testing.T, name string, out *httptest.ResponseRecorder) {
	t.Helper()
	var head []string
	for field, values := range out.Header() {
		head = append(head, field+": "+strings.Join(values, ", "))
	}
	slices.Sort(head)
	text := fmt.Sprintf("%d\n%s\n\n%s\n", out.Code, strings.Join(head, "\n"), out.Body)
	for _, keep := range []policy.SubaccountID{subA, subB} {
		text = strings.ReplaceAll(text, string(keep), strings.ToUpper(string(keep)))
	}
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
