package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// What the tests speak of.
const (
	subA = policy.SubaccountID("aaaaaaaa-0000-4000-8000-000000000001") // of account and key
	subB = policy.SubaccountID("bbbbbbbb-0000-4000-8000-000000000002") // of the account alone
	subC = policy.SubaccountID("cccccccc-0000-4000-8000-000000000003") // of nobody

	readPermission   = policy.Permission("datacenter_shared:read")
	writePermission  = policy.Permission("datacenter_shared:write")
	deletePermission = policy.Permission("datacenter_shared:delete")
	serpPermission   = policy.Permission("serp_api:write") // the key lacks it

	product    = "/v4/account/" + string(subA) + "/datacenter_shared"
	maxBody    = 1 << 10
	patience   = 10 * time.Second // for what must happen; only a failing test waits
	noAddress  = "invalid IP"
	bearerName = "Authorization: Bearer "
)

var theTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// clock stands still until it is moved.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(theTime.UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) Advance(d time.Duration) { c.nanos.Add(int64(d)) }

// tokenOf makes a well-formed token out of a word.
func tokenOf(word string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	body := "gk_" + word + strings.Repeat("0", keystore.TokenLength-len("gk_")-6-len(word))
	sum := crc32.ChecksumIEEE([]byte(body))
	var check [6]byte
	for i := len(check) - 1; i >= 0; i-- {
		check[i] = digits[sum%62]
		sum /= 62
	}
	return body + string(check[:])
}

var good = tokenOf("good")

// finder is a KeyFinder of a function.
type finder func(ctx context.Context, t keystore.Token) (keystore.Entry, error)

func (f finder) Lookup(ctx context.Context, t keystore.Token) (keystore.Entry, error) {
	return f(ctx, t)
}

// only finds the entry for its token and knows no other.
func only(t testing.TB, token string, e keystore.Entry) finder {
	t.Helper()
	parsed, err := keystore.ParseToken("gk_", token)
	if err != nil {
		t.Fatal(err)
	}
	return func(_ context.Context, asked keystore.Token) (keystore.Entry, error) {
		if asked != parsed {
			return keystore.Entry{}, keystore.ErrUnknownToken
		}
		return e, nil
	}
}

// entry is a key that may do everything the tests do, but for serpPermission and subB.
func entry() keystore.Entry {
	return keystore.Entry{
		Key: &policy.Key{
			ID: "11111111-0000-4000-8000-000000000001", Account: "acme", Name: "CI", Active: true,
			Permissions: policy.NewPermissionSet(readPermission, writePermission, deletePermission),
			Subaccounts: policy.OnlySubaccounts(subA), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
		},
		Account: &policy.Account{
			ID: "acme", Status: policy.Active, Subaccounts: policy.OnlySubaccounts(subA, subB),
			Permissions: policy.NewPermissionSet(readPermission, writePermission, deletePermission, serpPermission),
		},
		Source: keystore.FromStore,
	}
}

// records is a Recorder that is a channel.
type records chan proxy.Record

func (c records) Record(r *proxy.Record) { c <- *r }

// next is the record of the next request that ended.
func (c records) next(t testing.TB) proxy.Record {
	t.Helper()
	select {
	case r := <-c:
		return r
	case <-time.After(patience):
		t.Fatal("no request was recorded")
		panic("unreachable")
	}
}

// setup is what a gate is made of. Tests change one thing of the default.
type setup struct {
	keys     proxy.KeyFinder
	backend  proxy.Backend // in the place of the upstream
	upstream proxy.UpstreamOptions
	options  proxy.Options
	h2c      bool
}

// gate is a running gateway with everything around it.
type gate struct {
	t        testing.TB
	addr     string
	h2c      bool
	gateway  *proxy.Gateway
	backend  *backend
	clock    *clock
	records  records
	registry *prometheus.Registry
	log      *lockedBuffer
	stop     func() // ends all of it before the test ends
}

// start runs a gateway in front of a backend that remembers what it saw.
func start(t testing.TB, changes ...func(*setup)) *gate {
	t.Helper()
	g := newGate(t, changes...)
	server := httptest.NewUnstartedServer(nil)
	options := serverOptions()
	options.H2C = g.h2c
	server.Config = proxy.NewServer(g.gateway, options)
	server.Listener = guarded(t, server.Listener, wire.Options{H2C: g.h2c})
	server.Start()
	t.Cleanup(server.Close)
	closeUpstream := g.stop
	g.stop = func() {
		server.Close()
		closeUpstream()
		g.backend.stop()
	}
	g.addr = server.Listener.Addr().String()
	return g
}

// serverOptions are those of the tests.
func serverOptions() proxy.ServerOptions {
	return proxy.ServerOptions{MaxHeader: 64 << 10, HeaderTimeout: patience, IdleTimeout: patience, MaxStreams: 100, ErrorLog: discardLog()}
}

// guarded is the listener of a gateway in front of l.
func guarded(t testing.TB, l net.Listener, o wire.Options) net.Listener {
	t.Helper()
	o.Limits, o.HeadTimeout = wire.Limits{Bytes: 64 << 10, Lines: 100}, patience
	w, err := wire.Listen(l, o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// newGate is start without a server; see serve.
func newGate(t testing.TB, changes ...func(*setup)) *gate {
	t.Helper()
	g := &gate{
		t: t, clock: newClock(), records: make(records, 100), registry: prometheus.NewRegistry(), log: &lockedBuffer{},
		backend: newBackend(t),
	}
	s := setup{keys: only(t, good, entry())}
	s.upstream = proxy.UpstreamOptions{
		Name: "test", Targets: []*url.URL{g.backend.url()}, Timeout: patience, AddressHeader: "X-Forwarded-For", Log: zap.NewNop(),
	}
	s.options = proxy.Options{
		TokenPrefix: "gk_", MaxBody: maxBody, Now: g.clock.Now,
		Records: proxy.Recorders{proxy.NewMetrics(g.registry), proxy.NewAccessLog(newLog(g.log)), g.records},
	}
	for _, change := range changes {
		change(&s)
	}
	if s.backend == nil {
		upstream, err := proxy.NewUpstream(s.upstream)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(upstream.Close)
		s.backend, g.stop = upstream, upstream.Close
	}
	s.options.Keys, g.h2c = s.keys, s.h2c
	if s.options.Routes == nil {
		s.options.Routes = routes(t, s.backend)
	}
	gateway, err := proxy.New(s.options)
	if err != nil {
		t.Fatal(err)
	}
	g.gateway = gateway
	return g
}

// routes has one route of each kind in front of the backend.
func routes(t testing.TB, b proxy.Backend) *proxy.Routes {
	t.Helper()
	const base = "/v4/account/{subaccount}/datacenter_shared"
	list, err := proxy.NewRoutes(nil, []proxy.RouteSpec{
		{Match: "GET " + base + "/proxy-list", Permission: readPermission, Backend: b},
		{Match: base + "/settings", Backend: b, ByMethod: map[string]policy.Permission{
			"GET": writePermission, "HEAD": writePermission, "OPTIONS": writePermission, "POST": writePermission,
			"PUT": writePermission, "DELETE": writePermission, "PATCH": writePermission,
		}},
		{Match: base + "/files/{path...}", Backend: b, ByMethod: map[string]policy.Permission{"GET": readPermission, "POST": writePermission}},
		{Match: "GET " + base + "/whitelist", Backend: b, ByQuery: proxy.QueryRule{
			Parameter:   "type",
			Permissions: map[string]policy.Permission{"get": readPermission, "add": writePermission},
		}},
		{Match: "GET /serp/v1/search", Permission: serpPermission, Backend: b},
		{Match: "GET /serp/v1/open", Permission: policy.AnyValidKey, Backend: b},
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// lockedBuffer may be written and read at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newLog writes lines of JSON without a time.
func newLog(w io.Writer) *zap.Logger {
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		LevelKey: "level", MessageKey: "msg", EncodeLevel: zapcore.LowercaseLevelEncoder,
	})
	return zap.New(zapcore.NewCore(encoder, zapcore.AddSync(w), zap.InfoLevel))
}

// dial opens a connection to the gateway for raw bytes.
func (g *gate) dial() net.Conn {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// raw sends bytes and returns what comes back until the gateway closes.
func (g *gate) raw(request string) string {
	g.t.Helper()
	conn := g.dial()
	if _, err := io.WriteString(conn, request); err != nil {
		g.t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil && len(answer) == 0 {
		g.t.Fatalf("read the answer: %v", err)
	}
	return string(answer)
}

// get makes a raw request with the good token, and more lines of headers.
func get(target string, lines ...string) string { return request("GET", target, "", lines...) }

// request closes its connection when it was answered.
func request(method, target, body string, lines ...string) string {
	head := []string{method + " " + target + " HTTP/1.1", "Host: api.example.com", "Connection: close", "Api-Token: " + good}
	if body != "" {
		head = append(head, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return strings.Join(append(head, lines...), "\r\n") + "\r\n\r\n" + body
}

// answer is a parsed raw answer.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

// do sends a raw request and returns the answer and its record.
func (g *gate) do(raw string) (answer, proxy.Record) {
	g.t.Helper()
	text := g.raw(raw)
	method, _, _ := strings.Cut(raw, " ")
	return parseAnswer(g.t, method, text), g.records.next(g.t)
}

func parseAnswer(t testing.TB, method, text string) answer {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("the answer %q: %v", text, err)
	}
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		t.Fatalf("the body of the answer %q: %v", text, err)
	}
	return answer{Status: r.StatusCode, Header: r.Header, Body: string(body)}
}

// serve answers a request in this goroutine, without a network.
func (g *gate) serve(t testing.TB, r *http.Request) (*httptest.ResponseRecorder, proxy.Record) {
	t.Helper()
	w := httptest.NewRecorder()
	g.gateway.ServeHTTP(w, r)
	return w, g.records.next(t)
}

// metrics is what the registry shows of the counted requests.
func (g *gate) metrics() string {
	g.t.Helper()
	return textOf(g.t, g.registry)
}

// accept is a backend that answers every request in the same process.
func accept(w http.ResponseWriter, _ *http.Request, _ proxy.Access) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// golden compares with a file in testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(got), 0o644)); err != nil {
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

var variable = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|` +
	`00-[0-9a-f]{32}-[0-9a-f]{16}-00|127\.0\.0\.1:[0-9]+|Date: .* GMT`)

// steady replaces what differs from run to run: ids, ports and dates.
func steady(text string) string {
	return strings.ReplaceAll(variable.ReplaceAllString(text, "{…}"), "\r\n", "\n")
}

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
