package main_test

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the command line in testdata/script. Beside testscript's own
// commands there are
//
//	exits CODE PROGRAM ARGUMENT...  for a program that must end with the code
//	gateway                         starts a gateway, which $GATEHOUSE_ADMIN_URL names
func TestScripts(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() }) // the scripts have ended
	closed := closedPort(t)
	folder, coverage := binary(t), coverageFolder(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Values["testing"] = env.T()
			env.Setenv("PATH", folder+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("GOCOVERDIR", coverage)
			env.Vars = append(env.Vars, hurry)
			env.Setenv("BUSY", busy.Addr().String())
			env.Setenv("CLOSED", closed)
			env.Setenv("TOKEN", operatorToken)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "gateway": startForScript},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGUMENT...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("it ended with %d, want %d", got, want)
	}
}

func startForScript(ts *testscript.TestScript, neg bool, args []string) {
	t, ok := ts.Value("testing").(testing.TB)
	if !ok || neg || len(args) > 0 {
		ts.Fatalf("usage: gateway")
	}
	g := startGateway(t, settings{Store: embeddedStore(t)})
	ts.Setenv("GATEHOUSE_ADMIN_URL", "http://"+g.admin)
	ts.Setenv("GATEHOUSE_ADMIN_TOKEN", operatorToken)
	ts.Setenv("GATEWAY", "http://"+g.addr)
}

var curlLine = regexp.MustCompile(`(?m)^  (curl .*)$`)

// TestDemo runs what the demo prints, as it stands.
func TestDemo(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		lack(t, "curl")
	}
	temp := t.TempDir()
	cmd := gatehouse(t, "demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	demo := startProcess(t, cmd)
	eventually(t, patience, "the demo's introduction", func() error {
		if demo.hasEnded() {
			t.Fatalf("the demo ended:\n%s%s", demo.stdout.String(), demo.stderr.String())
		}
		return unless(strings.Contains(demo.stdout.String(), "gatehouse key list"), "not complete")
	})
	introduction := demo.stdout.String()
	lines := curlLine.FindAllStringSubmatch(introduction, -1)
	if len(lines) != 3 {
		t.Fatalf("got %d curl lines, want 3:\n%s", len(lines), introduction)
	}
	for i, want := range []string{"HTTP/1.1 200 OK", "HTTP/1.1 403 Forbidden", "HTTP/1.1 201 Created"} {
		said := shell(t, lines[i][1])
		if !strings.HasPrefix(said, want) {
			t.Errorf("%s\nsaid\n%s\nwant %s", lines[i][1], said, want)
		}
	}
	operator := introduction[strings.Index(introduction, "GATEHOUSE_ADMIN_TOKEN="):]
	if said := shell(t, operator); !strings.Contains(said, "First key") || !strings.Contains(said, "CI pipeline") {
		t.Errorf("%s\nsaid\n%s", operator, said)
	}
	checkNoToken(t, "the demo's log", demo.stderr.String())
	t.Run("a port in use", func(t *testing.T) {
		used := regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`).FindStringSubmatch(introduction)[1]
		second := startProcess(t, gatehouse(t, "demo", "--listen", used, "--admin-listen", "127.0.0.1:0"))
		code := second.wait(t, patience)
		if said := second.stderr.String(); code != 1 || !strings.Contains(said, used) || !strings.Contains(said, "in use") || !strings.Contains(said, "--listen") {
			t.Errorf("a second demo ended with %d and said %s", code, said)
		}
	})
	demo.signal(t, syscall.SIGINT)
	if code := demo.wait(t, patience); code != 0 {
		t.Errorf("the demo ended with %d, want 0:\n%s", code, demo.stderr.String())
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v behind (%v)", left, err)
	}
	for _, bad := range []string{"DATA RACE", "panic"} {
		if strings.Contains(demo.stderr.String(), bad) {
			t.Errorf("the demo wrote %s:\n%s", bad, demo.stderr.String())
		}
	}
}

// shell runs a line as somebody would who copied it.
func shell(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = append(os.Environ(), "PATH="+binary(t)+string(os.PathListSeparator)+os.Getenv("PATH"), "GOCOVERDIR="+coverageFolder(t), hurry, "no_proxy=*")
	said, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v", line, err)
	}
	return string(said)
}

// TestDemoProducts: each of the example's routes has something behind it.
func TestDemoProducts(t *testing.T) {
	t.Parallel()
	demo := startProcess(t, gatehouse(t, "demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"))
	eventually(t, patience, "the demo's introduction", func() error {
		return unless(strings.Contains(demo.stdout.String(), "gatehouse key list"), "not complete")
	})
	said := demo.stdout.String()
	addresses := regexp.MustCompile(`(?:Products and key API|Metrics and health) +http://([0-9.:]+)`).FindAllStringSubmatch(said, 2)
	subs := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).FindAllString(said, 2)
	g := &gateway{process: demo, addr: addresses[0][1], admin: addresses[1][1], client: http.DefaultClient}
	datacenter, residential := "/v4/account/"+subs[0], "/v4/account/"+subs[1]
	operator := created(t, g.operate(t, http.MethodPost, "/accounts/demo/keys", may(
		"datacenter_shared:read", "datacenter_shared:write", "datacenter_shared:delete", "residential:read", "residential:write", "residential:delete",
		"serp_api:read", "serp_api:write", "subaccount:read", "subaccount:write")))
	for _, step := range []struct {
		method, target, body string
		status               int
		says                 string
	}{
		{"GET", datacenter + "/datacenter_shared/proxy-list", "", 200, `"country":"DE"`},
		{"GET", datacenter + "/datacenter_shared/whitelist?type=add&ip=203.0.113.7,203.0.113.8", "", 200, `["203.0.113.7","203.0.113.8"]`},
		{"GET", datacenter + "/datacenter_shared/whitelist?type=remove&ip=203.0.113.7", "", 200, `["203.0.113.8"]`},
		{"GET", datacenter + "/datacenter_shared/whitelist?type=set&ip=203.0.113.9", "", 200, `["203.0.113.9"]`},
		{"GET", datacenter + "/datacenter_shared/whitelist?type=get", "", 200, `["203.0.113.9"]`},
		{"GET", datacenter + "/datacenter_shared/whitelist?type=add&ip=x", "", 422, "ip must be"},
		{"GET", residential + "/datacenter_shared/whitelist?type=get", "", 200, `[]`},
		{"POST", residential + "/residential/subusers", `{"username": "ann", "traffic_limit_gb": 5}`, 201, `"id":1,"username":"ann"`},
		{"POST", residential + "/residential/subusers", `{"username": ""}`, 422, "username"},
		{"GET", residential + "/residential/subusers", "", 200, `"username":"ann"`},
		{"DELETE", residential + "/residential/subusers/1", "", 200, `"success":true`},
		{"DELETE", residential + "/residential/subusers/1", "", 404, "no such subuser"},
		{"PUT", residential + "/details", `{"label": "US lab"}`, 200, `"label":"US lab"`},
		{"PUT", residential + "/details", `nonsense`, 422, "label"},
		{"GET", residential + "/details", "", 200, `"account":"demo"`},
		{"GET", "/serp/v1/search?q=go", "", 200, `Result 1 for go`},
		{"POST", "/serp/v1/jobs", `{}`, 202, `"queued"`},
	} {
		got := g.send(t, request{method: step.method, target: step.target, host: "localhost", body: step.body}.by(operator.Token))
		if got.status != step.status || !strings.Contains(got.body, step.says) {
			t.Errorf("%s %s: got %d %s, want %d with %s", step.method, step.target, got.status, got.body, step.status, step.says)
		}
	}
	demo.signal(t, syscall.SIGTERM)
	if code := demo.wait(t, patience); code != 0 {
		t.Errorf("the demo ended with %d, want 0:\n%s", code, demo.stderr.String())
	}
}

// TestExampleIsOne: the example that is built in is the one that operators see.
func TestExampleIsOne(t *testing.T) {
	t.Parallel()
	seen, err := os.ReadFile(filepath.Join("..", "..", "config.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	builtIn, err := os.ReadFile(filepath.Join("config", "example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(seen, builtIn) {
		t.Error("config.example.yaml and cmd/gatehouse/config/example.yaml differ; `make golden` copies the one to the other")
	}
}
