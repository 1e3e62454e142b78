package check_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"
)

const document = "../../docs/deploy.md"

// standIn takes the place of the programs that need a daemon, a cluster or
// systemd as the first process. It notes what it was asked. What runs in a
// container it runs here, and what goes into the host's folders goes below $HOST.
const standIn = `#!/bin/sh
set -e
name=$(basename "$0")
{ printf '%s\0' "$PWD" "$name" "$@"; printf '\n'; } >>"$CALLS"
case "$name $1 $2" in
"docker compose exec")
	[ "$4" = /gatehouse ]
	shift 4
	said=$("$GATEHOUSE" "$@")
	printf '%s\n' "$said" | tee -a "$SAID";;
install*)
	for argument; do
		case $argument in /dev/null) ;; /*) argument=$HOST$argument;; esac
		set -- "$@" "$argument"
		shift
	done
	exec /usr/bin/install "$@";;
curl*)
	token=$(grep -o 'gk_[A-Za-z0-9_-]*' "$SAID" | head -1)
	for argument; do
		set -- "$@" "$(printf %s "$argument" | sed "s|localhost:8080|$LISTEN|; s|TOKEN|$token|")"
		shift
	done
	exec /usr/bin/curl -sS --fail-with-body "$@";;
esac
`

// call is what a stand-in was asked.
type call struct {
	folder, program string
	args            []string
}

func (c call) String() string { return c.program + " " + strings.Join(c.args, " ") }

// after returns the arguments that follow a flag, one each.
func (c call) after(flag string) []string {
	var found []string
	for i, arg := range c.args[:len(c.args)-1] {
		if arg == flag {
			found = append(found, c.args[i+1])
		}
	}
	return found
}

// host is a machine on which the document is followed.
type host struct {
	root, checkout string // below root is what is installed
	calls          []call
}

// TestCommandsOfTheDeployDocument: all of them are run, by a shell and as they
// stand, and what they ask of Docker, Helm, Kubernetes and systemd is there.
func TestCommandsOfTheDeployDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	h := follow(t, string(text))
	judges := map[string]func(*testing.T, *host, call){
		"docker": judgeDocker, "install": nil, "curl": nil, // run for real
		"systemctl": judgeSystemctl, "helm": judgeHelm, "kubectl": judgeKubectl,
	}
	for _, c := range h.calls {
		if judge := judges[c.program]; judge != nil {
			judge(t, h, c)
		}
	}
	if commands := 14; len(h.calls) < commands {
		t.Errorf("only %d commands were run: %q", len(h.calls), h.calls)
	}
	for _, row := range []struct {
		file string
		mode os.FileMode
	}{
		{"usr/local/bin/gatehouse", 0o755}, {"etc/gatehouse/config.yaml", 0o644}, {"etc/gatehouse/environment", 0o600},
	} {
		if about, err := os.Stat(filepath.Join(h.root, row.file)); err != nil || about.Mode() != row.mode {
			t.Errorf("%s: %v, %v", row.file, about, err)
		}
	}
	units := analyze(t, "verify", "--root="+h.root, "gatehouse.service", "gatehouse.socket", "gatehouse-admin.socket")
	if units != "" {
		t.Errorf("of the units as installed, systemd says: %s", units)
	}
}

// follow runs each block of the document in a checkout of its own, with a gateway
// that serves what that of the Compose project does.
func follow(t *testing.T, text string) *host {
	t.Helper()
	h := &host{root: t.TempDir(), checkout: t.TempDir()}
	programs, notes := t.TempDir(), t.TempDir()
	for _, name := range []string{"docker", "install", "curl", "systemctl", "helm", "kubectl"} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte(standIn), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	prepared := exec.Command("/bin/sh", "-ec", `
		mkdir -p "$0/usr/local/bin" "$0/etc/systemd/system" "$0/usr/lib/systemd" "$1/bin" "$1/etc"
		cp -a /usr/lib/systemd/system "$0/usr/lib/systemd/"
		ln -s "$PWD"/../../* "$1/" 2>/dev/null || true
		cp "$2" "$1/bin/gatehouse"
		cp ../../config.example.yaml "$1/config.yaml"
		cp ../helm/values/embedded.yaml "$1/my-values.yaml"`, h.root, h.checkout, gatehouse(t, nil).Path)
	if said, err := prepared.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	const token = "GATEHOUSE_ADMIN_TOKEN=0123456789abcdef0123"
	listen, admin := startAsComposed(t, token)
	env := append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "HOST="+h.root, "CALLS="+notes+"/calls", "SAID="+notes+"/said",
		"GATEHOUSE="+gatehouse(t, nil).Path, "LISTEN="+listen, "GATEHOUSE_ADMIN_URL=http://"+admin)
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(blocks) < 4 {
		t.Fatalf("%d blocks of commands", len(blocks))
	}
	for _, block := range blocks {
		script := strings.ReplaceAll(block[1], "$(openssl rand -hex 32)", strings.TrimPrefix(token, "GATEHOUSE_ADMIN_TOKEN="))
		sh := exec.Command("/bin/sh", "-ec", script)
		sh.Dir, sh.Env = h.checkout, env
		if said, err := sh.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s\n%s", err, block[1], said)
		}
	}
	noted, err := os.ReadFile(notes + "/calls")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(noted) {
		parts := strings.Split(strings.TrimSuffix(string(line), "\x00\n"), "\x00")
		h.calls = append(h.calls, call{parts[0], parts[1], parts[2:]})
	}
	return h
}

// startAsComposed starts a gateway with the configuration of the Compose project
// but for its addresses, and one sample backend in the place of all.
func startAsComposed(t *testing.T, token string) (listen, admin string) {
	t.Helper()
	var config map[string]any
	readYAML(t, composeFolder+"gatehouse/config.yaml", &config)
	listen, admin = freeAddress(t), freeAddress(t)
	backend := freeAddress(t)
	config["listen"], config["admin_listen"] = listen, admin
	config["store"] = map[string]any{"embedded": map[string]any{"file": filepath.Join(t.TempDir(), "store.jsonl")}}
	for name := range config["upstreams"].(map[string]any) {
		config["upstreams"].(map[string]any)[name] = map[string]any{"targets": []string{"http://" + backend}}
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	begin(t, gatehouse(t, nil, "demo-backend", "--listen", backend))
	file := writeFile(t, "config.yaml", string(text))
	if said, err := gatehouse(t, []string{token}, "store", "init", "--config", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	begin(t, gatehouse(t, []string{token}, "serve", "--config", file))
	const patience = time.Minute
	timeout, tick := time.After(patience), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := http.Get("http://" + admin + "/readyz?store=1")
		if err == nil {
			_ = answer.Body.Close() // the status says it
			if answer.StatusCode == http.StatusOK {
				return listen, admin
			}
			err = errors.New(answer.Status)
		}
		select {
		case <-timeout:
			t.Fatalf("the gateway is not ready: %v", err)
		case <-tick.C:
		}
	}
}

// begin starts a program that ends with the test.
func begin(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
}

// judgeDocker holds what Docker is asked against the Dockerfile and the project.
func judgeDocker(t *testing.T, h *host, c call) {
	t.Helper()
	all, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	image := all[len(all)-1]
	switch c.args[0] {
	case "build":
		if _, err := os.Stat(filepath.Join(c.folder, c.args[len(c.args)-1], "Dockerfile")); err != nil {
			t.Errorf("%s: %v", c, err)
		}
		for _, given := range c.after("--build-arg") {
			name, _, _ := strings.Cut(given, "=")
			if !slices.ContainsFunc(find[*instructions.ArgCommand](image), func(a *instructions.ArgCommand) bool { return a.Args[0].Key == name }) {
				t.Errorf("%s: the image knows no %s", c, name)
			}
		}
	case "run":
		if !slices.ContainsFunc(h.calls, func(b call) bool { return b.args[0] == "build" && slices.Equal(b.after("-t"), c.args[len(c.args)-1:]) }) {
			t.Errorf("%s: nothing made that image", c)
		}
		for _, volume := range c.after("-v") {
			if at := strings.Split(volume, ":")[1]; at != "/data" && !strings.HasPrefix(find[*instructions.CmdCommand](image)[0].CmdLine[2], at+"/") {
				t.Errorf("%s: the image has no use for %s", c, volume)
			}
		}
		for _, port := range c.after("-p") {
			if _, inside, _ := strings.Cut(port, ":"); !slices.Contains(find[*instructions.ExposeCommand](image)[0].Ports, inside) {
				t.Errorf("%s: the image exposes no %s", c, inside)
			}
		}
	case "compose":
		if there, err := filepath.EvalSymlinks(c.folder); err != nil || filepath.Base(there) != "compose" {
			t.Errorf("%s: in %s, which is not the project's folder (%v)", c, there, err)
		}
		if _, ok := project(t).Services[c.args[2]]; c.args[1] == "exec" && !ok {
			t.Errorf("%s: there is no such service", c)
		}
	default:
		t.Errorf("nobody judges %s", c)
	}
}

func judgeSystemctl(t *testing.T, h *host, c call) {
	t.Helper()
	for _, unit := range c.args[1:] {
		if strings.HasPrefix(unit, "--") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(h.root, "etc/systemd/system", unit))
		if err != nil || !strings.Contains(string(text), "[Install]") {
			t.Errorf("%s: %s cannot be enabled: %v", c, unit, err)
		}
	}
}

// judgeHelm renders the chart with the values that are given.
func judgeHelm(t *testing.T, _ *host, c call) {
	t.Helper()
	if there, err := filepath.EvalSymlinks(filepath.Join(c.folder, c.args[2])); err != nil || c.args[0] != "install" || c.args[1] != release || filepath.Base(there) != "gatehouse" {
		t.Fatalf("%s: %s, %v", c, there, err)
	}
	given, err := common.ReadValuesFile(filepath.Join(c.folder, c.after("-f")[0]))
	for _, one := range c.after("--set") {
		err = errors.Join(err, strvals.ParseInto(one, given))
	}
	if err != nil {
		t.Fatal(err)
	}
	made := mustRender(t, given, nil)
	if image := container(t, made)["image"]; image != "registry.example.com/gatehouse:1.0" {
		t.Errorf("%s: the pods have the image %v", c, image)
	}
}

// judgeKubectl looks for the Secret in what the chart makes of the whole example.
func judgeKubectl(t *testing.T, _ *host, c call) {
	t.Helper()
	key, value, _ := strings.Cut(strings.TrimPrefix(c.args[len(c.args)-1], "--from-literal="), "=")
	list, _ := container(t, mustRender(t, valueSets(t)["production"], nil))["env"].([]any)
	asked := slices.ContainsFunc(list, func(one any) bool {
		return at(one, "valueFrom", "secretKeyRef", "name") == c.args[3] && at(one, "valueFrom", "secretKeyRef", "key") == key
	})
	if !slices.Equal(c.args[:3], []string{"create", "secret", "generic"}) || !asked || len(value) < 16 {
		t.Errorf("%s: no pod asks for that", c)
	}
}

// TestDeployDocumentNamesWhatThereIs: files of the project, and ports of the
// Compose project.
func TestDeployDocumentNamesWhatThereIs(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile("`(deploy/[^`]*)`|\\]\\(([a-z-]+\\.md)").FindAllStringSubmatch(string(text), -1) {
		file := "../../" + found[1]
		if found[2] != "" {
			file = "../../docs/" + found[2]
		}
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	for _, found := range regexp.MustCompile("`([a-z]+\\.yaml)` [(,]|`([a-z]+\\.yaml)` and").FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat("../helm/values/" + found[1] + found[2]); err != nil {
			t.Error(err)
		}
	}
	services, named := project(t).Services, 0
	for _, found := range regexp.MustCompile(`(Gatehouse|Prometheus|Grafana)[a-z ]*\((\d+)`).FindAllStringSubmatch(string(text), -1) {
		named++
		if !slices.ContainsFunc(services[strings.ToLower(found[1])].Ports, func(p types.ServicePortConfig) bool { return p.Published == found[2] }) {
			t.Errorf("%s is not published at %s", found[1], found[2])
		}
	}
	if named != 3 {
		t.Error(fmt.Sprint(named, " ports were found, want 3"))
	}
}
