package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The bounds that are promised for a right that was taken, and the one that a
// node may take when it is told of a right that was given.
const (
	connectedBound = time.Second
	worstBound     = 10 * time.Second
)

// plan says how a fleet is made and used.
type plan struct {
	mode      string // its name
	nodes     int
	store     []string // YAML of the store, one for each gateway, or one for all
	timeout   string   // of the store
	unchanged int      // keys that are never changed
	changing  int      // keys that are, at the beginning
	accounts  int
	pace      time.Duration // between two requests to one gateway
	changers  int           // clients that make changes
	rest      time.Duration // of a changer between two changes
	streams   int           // event streams at each gateway
	plain     bool          // without the race detector
	binaries  []string      // of each gateway; nil: the one that is tested
}

// fleet is gateways on one store, the clients that use and manage them, and what
// these found.
type fleet struct {
	plan
	gateways []*gateway
	clients  []*http.Client // of one gateway each
	recorder *recorder
	roots    []key // of one account each

	steady []*subject // those that are never changed

	mu       sync.Mutex
	subjects []*subject // the others
	findings findings

	// What a node is bound by depends on when it had trouble with its store.
	troubleBegan, troubleEnded atomic.Int64 // Unix nanoseconds; 0: not yet

	cancel, cancelChanges context.CancelFunc
	users, changers       sync.WaitGroup
}

// accountOf is the name of an account of a fleet.
func accountOf(i int) string { return fmt.Sprintf("acme-%d", i) }

// startFleet starts the gateways and makes accounts and keys. Nothing is used
// before run.
func startFleet(t *testing.T, p plan) *fleet {
	t.Helper()
	f := &fleet{plan: p, recorder: startRecorder(t)}
	for i := range p.nodes {
		s := settings{
			Store: p.store[min(i, len(p.store)-1)], Timeout: p.timeout, Residential: f.recorder.addr, Level: "warn", Plain: p.plain,
			Upstreams:  fmt.Sprintf("  events: {targets: [\"http://%s\"]}", f.recorder.addr),
			Routes:     `  - {match: GET /events, permission: "serp_api:read", upstream: events}`,
			Delegation: "{max_keys_per_account: 10000}", InFlight: "0",
			Log: `, modules: {access: error}`,
		}
		if p.binaries != nil {
			s.Binary = p.binaries[i]
		} else if i == 0 {
			makeStore(t, s)
		}
		f.gateways = append(f.gateways, startGateway(t, s))
		f.clients = append(f.clients, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}})
		t.Cleanup(f.clients[i].CloseIdleConnections)
	}
	for i := range max(1, p.accounts) {
		account := account{Name: "Acme", Permissions: []string{"*"}}
		f.must(t, http.StatusCreated, f.operate(t.Context(), 0, http.MethodPut, "/accounts/"+accountOf(i), account), nil)
		var made struct{ Data key }
		f.must(t, http.StatusCreated, f.operate(t.Context(), 0, http.MethodPost, "/accounts/"+accountOf(i)+"/keys", may(everything...)), &made)
		f.roots = append(f.roots, made.Data)
	}
	f.populate(t)
	return f
}

// makeStore makes the store, as an operator does once, where this binary has a
// command for it.
func makeStore(t *testing.T, s settings) {
	t.Helper()
	if hasCommand(t, "store", "init") {
		f := configFile(t, s)
		p := startProcess(t, gatehouse(t, "store", "init", "--config", f))
		if code := p.wait(t, patience); code != 0 {
			t.Fatalf("store init: %d\n%s%s", code, p.stdout.String(), p.stderr.String())
		}
	}
}

// hasCommand reports whether the binary has a command.
func hasCommand(t *testing.T, words ...string) bool {
	t.Helper()
	p := startProcess(t, gatehouse(t, append(words, "--help")...))
	return p.wait(t, patience) == 0
}

// configFile writes a configuration with addresses that nobody uses.
func configFile(t *testing.T, s settings) string {
	t.Helper()
	s = s.withDefaults()
	s.Listen, s.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	var text strings.Builder
	if err := configuration.Execute(&text, s); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// runAgain starts a gateway that was killed, and waits until it lives.
func (g *gateway) runAgain(t *testing.T) {
	t.Helper()
	eventually(t, patience, "the port is free again", func() error { return unless(g.launch(t), "it is not") })
}

// launchAnyhow starts a gateway that was killed, and that may end at once.
func (g *gateway) launchAnyhow(t *testing.T) {
	t.Helper()
	cmd := gatehouse(t, "serve", "--config", g.config)
	if g.set.Plain {
		cmd.Path = plainBinary(t)
	}
	g.process = startProcess(t, cmd)
}

// populate makes the keys that there are at the beginning.
func (f *fleet) populate(t *testing.T) {
	t.Helper()
	var making sync.WaitGroup
	var made atomic.Int64
	for range 8 {
		making.Go(func() {
			for {
				n := int(made.Add(1)) - 1
				if n >= f.unchanged+f.changing {
					return
				}
				s := f.create(t.Context(), n%len(f.roots), n%len(f.gateways), nil)
				if s == nil {
					t.Error("a key could not be made")
					return
				}
				f.add(s, n < f.unchanged)
			}
		})
	}
	if making.Wait(); t.Failed() {
		t.FailNow()
	}
}

func (f *fleet) add(s *subject, steady bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.steady = steady; steady {
		f.steady = append(f.steady, s)
		return
	}
	f.subjects = append(f.subjects, s)
}

// all returns the subjects that there are.
func (f *fleet) all() []*subject {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Concat(f.steady, f.subjects)
}

// run starts the clients; halt stops those that make changes, and stop all.
func (f *fleet) run() {
	ctx, cancel := context.WithCancel(context.Background())
	changing, halt := context.WithCancel(ctx)
	f.cancel, f.cancelChanges = cancel, halt
	for node := range f.gateways {
		f.users.Go(func() { f.use(ctx, node) })
		for range f.streams {
			f.users.Go(func() { f.listen(ctx, node) })
		}
	}
	for range f.plan.changers {
		f.changers.Go(func() { f.change(changing) })
	}
}

// halt stops the changers, each after its last change, and waits for that.
func (f *fleet) halt() {
	f.cancelChanges()
	f.changers.Wait()
}

func (f *fleet) stop() {
	f.halt()
	f.cancel()
	f.users.Wait()
}

// within is the bound that counts for a change and a use: none at the node that
// acknowledged the change, and the worst where there was trouble meanwhile.
func (f *fleet) within(d deed, a attempt) time.Duration {
	switch {
	case d.node == a.node:
		return 0
	case f.trouble(d.ended, a.began):
		return worstBound
	default:
		return connectedBound * slack
	}
}

// trouble reports whether there was any in that time.
func (f *fleet) trouble(from, to time.Time) bool {
	began, ended := f.troubleBegan.Load(), f.troubleEnded.Load()
	return began != 0 && to.UnixNano() >= began && (ended == 0 || from.UnixNano() <= ended)
}

// said is an answer to the fleet: with an err there is none.
type said struct {
	status int
	body   []byte
	err    error
	hungUp bool // the client did
}

func (f *fleet) operate(ctx context.Context, node int, method, path string, body any) said {
	return f.ask(ctx, node, method, "http://"+f.gateways[node].admin+"/admin/v1"+path, body, "Authorization", "Bearer "+operatorToken)
}

// manage is a request to the key API of an account, by its first key.
func (f *fleet) manage(ctx context.Context, account, node int, method, path string, body any) said {
	return f.ask(ctx, node, method, "http://"+f.gateways[node].addr+path, body, "Api-Token", f.roots[account].Token)
}

func (f *fleet) ask(ctx context.Context, node int, method, url string, body any, header ...string) said {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return said{err: err}
		}
		content = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return said{err: err}
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := f.clients[node].Do(r)
	if err != nil {
		return said{err: err, hungUp: ctx.Err() != nil}
	}
	defer func() { _ = response.Body.Close() }() // it was read
	content2, err := io.ReadAll(response.Body)
	if err != nil {
		return said{err: err, hungUp: ctx.Err() != nil}
	}
	return said{status: response.StatusCode, body: content2}
}

// must fails the test unless the answer has that status, which may take some
// tries while everything starts, and reads its body.
func (f *fleet) must(t *testing.T, status int, got said, into any) {
	t.Helper()
	if got.err != nil || got.status != status {
		t.Fatalf("got %d %s, %v, want %d", got.status, got.body, got.err, status)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(got.body, into); err != nil {
		t.Fatal(err)
	}
}
