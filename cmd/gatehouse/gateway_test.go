package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"go.uber.org/zap"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/keystore"
)

// settings is a configuration of a gateway under test. Empty fields take the
// defaults of the tests.
type settings struct {
	Store         string // YAML of the store
	Timeout       string // of the store
	Host          string // to listen on
	AdminToken    string // "-" for none
	TLS           string // YAML of tls
	ClientAddress string // YAML of client_address
	Key           string // YAML of limits.key
	Management    string // YAML of limits.management
	FailedAuth    string // YAML of limits.failed_auth
	Scope         string // limits.scope
	InFlight      string // limits.in_flight
	Plans         string // YAML of plans
	Serp          string // YAML of the limit of the route /serp/v1/
	Origins       string // YAML of cors.origins
	Inbound       string // more YAML of limits, with a comma in front
	H2C           bool
	Grace         string
	Level         string
	Log           string   // more YAML of log, with a comma in front
	Tracing       string   // YAML of tracing
	Stdout        *os.File // in the place of what the harness collects
	Delegation    string   // YAML of delegation
	Datacenter    string   // HOST:PORT of a backend
	Residential   string   // HOST:PORT of a backend
	// Others are further upstreams, HOST:PORT by name, each with a route
	// /NAME/ like that of /serp/v1/.
	Others       map[string]string
	OtherTimeout string // theirs; a second by default
	// Lines of YAML that are added to the sections of these names.
	Products, Upstreams, Routes string
	Token                       string       // YAML of token
	Plain                       bool         // without the race detector
	Binary                      string       // the file of another gatehouse
	Sockets                     *heldSockets // handed over at the start, in the place of addresses
	Env                         []string     // more of the environment
	Dashboard                   string       // YAML of dashboard

	Listen, AdminListen string // chosen by the harness
}

// operatorToken is the admin token of the gateways under test.
const operatorToken = "operators-own-token-of-the-tests-0123456789"

// maxBody is the largest request body of the gateways under test.
const maxBody = 64 << 10

var configuration = template.Must(template.New("config").Parse(`
listen: "{{.Listen}}"
admin_listen: "{{.AdminListen}}"
admin_token: "{{if ne .AdminToken "-"}}{{.AdminToken}}{{end}}"
tls: {{.TLS}}
listen_h2c: {{.H2C}}
token: {{.Token}}
shutdown_grace: {{.Grace}}
store:
  {{.Store}}
  timeout: {{.Timeout}}
client_address: {{.ClientAddress}}
products:
  datacenter_shared: {label: Shared datacenter, actions: [read, write, delete]}
  residential: {label: Residential, actions: [read, write, delete]}
  serp_api: {label: SERP API, actions: [read, write, delete]}
  subaccount: {label: Subaccounts, actions: [read, write]}
{{.Products}}
upstreams:
{{.Upstreams}}
  datacenter: {targets: ["http://{{.Datacenter}}"]}
  residential: {targets: ["http://{{.Residential}}"]}
{{- range $name, $target := .Others}}
  {{$name}}: {targets: ["http://{{$target}}"], timeout: {{$.OtherTimeout}}}
{{- end}}
routes:
{{.Routes}}
  - match: GET /v4/account/{subaccount}/datacenter_shared/proxy-list
    permission: datacenter_shared:read
    upstream: datacenter
  - match: GET /v4/account/{subaccount}/datacenter_shared/whitelist
    by_query:
      type: {get: datacenter_shared:read, add: datacenter_shared:write, set: datacenter_shared:write, remove: datacenter_shared:delete}
    upstream: datacenter
  - match: /v4/account/{subaccount}/residential/subusers
    by_method: {GET: residential:read, POST: residential:write}
    upstream: residential
  - match: DELETE /v4/account/{subaccount}/residential/subusers/{subuser}
    permission: residential:delete
    upstream: residential
  - match: /v4/account/{subaccount}/details
    by_method: {GET: subaccount:read, PUT: subaccount:write}
    upstream: residential
  - match: /serp/v1/
    by_method: {GET: serp_api:read, POST: serp_api:write, DELETE: serp_api:delete}
    upstream: residential
    limit: {{.Serp}}
{{- range $name, $target := .Others}}
  - match: /{{$name}}/
    by_method: {GET: serp_api:read, POST: serp_api:write, DELETE: serp_api:delete}
    upstream: {{$name}}
{{- end}}
cors: {origins: {{.Origins}}}
limits: {key: {{.Key}}, management: {{.Management}}, failed_auth: {{.FailedAuth}}, scope: {{.Scope}}, in_flight: {{.InFlight}}, max_body: 64KiB{{.Inbound}}}
plans: {{.Plans}}
delegation: {{.Delegation}}
dashboard: {{.Dashboard}}
log: {level: {{.Level}}{{.Log}}}
tracing: {{.Tracing}}
`))

func (s settings) withDefaults() settings {
	for _, d := range []struct {
		field *string
		value string
	}{
		// The machine may be busy: only the tests of faults ask for the time
		// that is promised.
		{&s.Timeout, "5s"},
		{&s.Host, "127.0.0.1"},
		{&s.AdminToken, operatorToken},
		{&s.TLS, "{}"},
		{&s.ClientAddress, "{}"},
		{&s.Key, "{rate: 0, burst: 0}"},
		{&s.Management, "{rate: 0, burst: 0}"},
		{&s.FailedAuth, "{rate: 0, burst: 0}"},
		{&s.Scope, "node"},
		{&s.InFlight, "0"},
		{&s.Plans, "{gold: {rate: 0.01, burst: 3}}"},
		{&s.Serp, "{rate: 0}"},
		{&s.Origins, "[]"},
		{&s.Grace, "30s"},
		{&s.Level, "debug"},
		{&s.Tracing, "{}"},
		{&s.Delegation, "{}"},
		{&s.OtherTimeout, "1s"},
		{&s.Token, "{}"},
		{&s.Dashboard, "{}"},
		{&s.Datacenter, "127.0.0.1:1"},
		{&s.Residential, "127.0.0.1:1"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	return s
}

// gateway is a gatehouse process that serves.
type gateway struct {
	*process
	addr   string // HOST:PORT for clients
	admin  string // HOST:PORT for operators
	config string
	set    settings // as it was started
	client *http.Client
}

// startGateway starts `gatehouse serve`, waits until it is ready, and stops it
// when the test ends, which must succeed.
func startGateway(t testing.TB, s settings) *gateway {
	t.Helper()
	g := launchGateway(t, s)
	g.waitReady(t, patience)
	return g
}

// launchGateway is startGateway for one that need not become ready.
func launchGateway(t testing.TB, s settings) *gateway {
	t.Helper()
	s = s.withDefaults()
	client := &http.Client{
		Timeout: patience, Transport: &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	g := &gateway{config: filepath.Join(t.TempDir(), "gatehouse.yaml"), client: client}
	t.Cleanup(client.CloseIdleConnections)
	const tries = 5 // another process may take a port in between
	for range tries {
		port := freePort(t)
		s.Listen, s.AdminListen = net.JoinHostPort(s.Host, port), "127.0.0.1:"+freePort(t)
		g.addr, g.admin = net.JoinHostPort("127.0.0.1", port), s.AdminListen
		g.set = s
		if s.Sockets != nil {
			g.addr, g.admin = s.Sockets.addrs()
		}
		g.configure(t, func(*settings) {})
		g.initStore(t)
		if g.launch(t) {
			return g
		}
	}
	t.Fatalf("gatehouse did not start:\n%s%s", g.stdout.String(), g.stderr.String())
	return nil
}

// initStore makes the store of the configuration, where it can be reached and
// there is none: gatehouse store init --if-absent, without a process.
func (g *gateway) initStore(t testing.TB) {
	t.Helper()
	c, err := config.Load(g.config, func(name string) (string, bool) {
		for _, variable := range g.set.Env {
			if value, is := strings.CutPrefix(variable, name+"="); is {
				return value, true
			}
		}
		return os.LookupEnv(name)
	})
	if err != nil {
		return // the gateway says why
	}
	if c.Store.Redis != nil && c.Store.Redis.TLS.Enabled {
		if said, err := gatehouse(t, "store", "init", "--if-absent", "--config", g.config).CombinedOutput(); err != nil {
			t.Logf("no store was made: %v: %s", err, said)
		}
		return
	}
	o := keystore.Options{
		Prefix: "gatehouse:", Timeout: patience, Mode: keystore.Strict, CacheEntries: 100, TokenPrefix: c.Token.Prefix,
		MaxKeys: 1, Now: time.Now, Log: zap.NewNop(),
	}
	if e := c.Store.Embedded; e != nil {
		o.EmbeddedFile = e.File
	} else {
		r := c.Store.Redis.Resolved()
		o.Prefix = r.Prefix
		o.Redis = &keystore.Redis{
			Addrs: r.Addrs, MasterName: r.MasterName, Username: r.Username, Password: string(r.Password), DB: r.DB,
			SentinelUsername: r.SentinelUsername, SentinelPassword: string(r.SentinelPassword),
		}
	}
	if err := keystore.Init(t.Context(), o); err != nil && !errors.Is(err, keystore.ErrStoreExists) {
		t.Logf("no store was made: %v", err)
	}
}

// configure writes the configuration, with a change, as a whole and at once.
func (g *gateway) configure(t testing.TB, change func(s *settings)) {
	t.Helper()
	s := g.set
	change(&s)
	var text strings.Builder
	if err := configuration.Execute(&text, s); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(g.config+".new", []byte(text.String()), 0o600), os.Rename(g.config+".new", g.config)); err != nil {
		t.Fatal(err)
	}
}

// launch reports false when a port was in use.
func (g *gateway) launch(t testing.TB) bool {
	t.Helper()
	cmd := gatehouse(t, "serve", "--config", g.config)
	if g.set.Plain {
		cmd.Path = plainBinary(t)
	}
	if g.set.Binary != "" {
		cmd.Path = g.set.Binary
	}
	cmd.Env = append(cmd.Env, g.set.Env...)
	if g.set.Sockets != nil {
		cmd = g.set.Sockets.hand(cmd)
	}
	if g.set.Stdout != nil {
		cmd.Stdout = g.set.Stdout
	}
	p := startProcess(t, cmd)
	t.Cleanup(func() { stop(t, p) })
	g.process = p
	inUse := false
	eventually(t, patience, "gatehouse starts", func() error {
		if g.hasEnded() {
			inUse = strings.Contains(g.stderr.String(), "in use")
			g.awaited = true
			if !inUse {
				t.Fatalf("gatehouse ended:\n%s%s", g.stdout.String(), g.stderr.String())
			}
			return nil
		}
		_, err := g.probe("/livez")
		return err
	})
	return !inUse
}

// hurry keeps the race detector from waiting for a second at every exit.
const hurry = "GORACE=atexit_sleep_ms=50"

// gatehouse is a command of the binary.
func gatehouse(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(binary(t), "gatehouse"), args...)
	cmd.Env = append(os.Environ(), "GOCOVERDIR="+coverageFolder(t), hurry, "GATEHOUSE_ADMIN_TOKEN="+operatorToken)
	return cmd
}

// probe asks the operators' listener, and returns an error unless it says 200.
func (g *gateway) probe(path string) (string, error) {
	response, err := g.client.Get("http://" + g.admin + path)
	if err != nil {
		return "", err
	}
	var said bytes.Buffer
	_, err = said.ReadFrom(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return said.String(), fmt.Errorf("%s: %d %s", path, response.StatusCode, said.String())
	}
	return said.String(), nil
}

func (g *gateway) waitReady(t testing.TB, within time.Duration) {
	t.Helper()
	eventually(t, within, "ready", func() error {
		_, err := g.probe("/readyz?store=1")
		return err
	})
}

// stop stops a gateway that still runs, which must drain and exit with 0, and
// looks at all it has written.
func stop(t testing.TB, p *process) {
	t.Helper()
	if !p.awaited && p.hasEnded() {
		t.Errorf("gatehouse ended by itself with %d", p.cmd.ProcessState.ExitCode())
	}
	if !p.hasEnded() {
		p.signal(t, syscall.SIGTERM)
		if code := p.wait(t, patience+10*time.Second); code != 0 {
			t.Errorf("gatehouse ended with %d, want 0", code)
		}
	}
	checkOutput(t, p.stdout.String(), p.stderr.String())
	if t.Failed() {
		t.Logf("the gateway's log ends with\n%s\n%s", lastOf(p.stdout.String()), lastOf(p.stderr.String()))
	}
}

func lastOf(s string) string {
	const shown = 4000
	if len(s) > shown {
		return "…" + s[len(s)-shown:]
	}
	return s
}
