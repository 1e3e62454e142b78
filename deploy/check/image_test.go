package check_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// built is what the commands of the Dockerfile make of a clean checkout, once a
// test run.
var built struct {
	once   sync.Once
	folder string // has out, in the place of /out
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := os.RemoveAll(built.folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// lack skips a test that needs what is not there, or fails it where nothing may
// be left out.
func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("GATEHOUSE_TEST_REQUIRE") != "" {
		t.Fatalf("%s is missing, and GATEHOUSE_TEST_REQUIRE is set", what)
	}
	t.Skipf("SKIPPED: %s is missing", what)
}

// stages are those of the Dockerfile.
func stages() ([]instructions.Stage, error) {
	file, err := os.Open("../../Dockerfile")
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	parsed, err := parser.Parse(file)
	if err != nil {
		return nil, err
	}
	if len(parsed.Warnings) > 0 {
		return nil, fmt.Errorf("%+v", parsed.Warnings)
	}
	all, _, err := instructions.Parse(parsed.AST, nil)
	return all, err
}

// find returns the instructions of one type.
func find[T any](stage instructions.Stage) []T {
	var found []T
	for _, command := range stage.Commands {
		if one, ok := command.(T); ok {
			found = append(found, one)
		}
	}
	return found
}

// buildArguments are what `docker build` is given as --build-arg.
var buildArguments = map[string]string{"VERSION": "v1.2.3", "REVISION": "0123456789abcdef0123456789abcdef01234567"}

// build runs the RUN instructions in a clone of what is committed, without what
// .dockerignore leaves out.
func build() error {
	all, err := stages()
	if err != nil {
		return err
	}
	if built.folder, err = os.MkdirTemp("", "gatehouse-image-"); err != nil {
		return err
	}
	source, out := filepath.Join(built.folder, "src"), filepath.Join(built.folder, "out")
	script := fmt.Sprintf("set -e; git clone -q --no-hardlinks ../.. %[1]q; cd %[1]q; xargs rm -rf <.dockerignore\n", source)
	for _, run := range find[*instructions.RunCommand](all[0]) {
		script += strings.ReplaceAll(run.CmdLine[0], "/out", out) + "\n"
	}
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Env = os.Environ()
	for _, arg := range find[*instructions.ArgCommand](all[0]) {
		cmd.Env = append(cmd.Env, arg.Args[0].Key+"="+buildArguments[arg.Args[0].Key])
	}
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", script, err, said)
	}
	return nil
}

// gatehouse is a command of the binary, which has nothing but env around it.
func gatehouse(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	built.once.Do(func() { built.err = build() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	cmd := exec.Command(filepath.Join(built.folder, "out", "gatehouse"), args...)
	cmd.Env = append([]string{}, env...)
	return cmd
}

// TestImageIsOnlyGatehouse: it begins with nothing, and no root runs it.
func TestImageIsOnlyGatehouse(t *testing.T) {
	all, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	last := all[len(all)-1]
	users, checks := find[*instructions.UserCommand](last), find[*instructions.HealthCheckCommand](last)
	entries, commands := find[*instructions.EntrypointCommand](last), find[*instructions.CmdCommand](last)
	if last.BaseName != "scratch" || len(find[*instructions.RunCommand](last)) > 0 {
		t.Errorf("the image begins with %s", last.BaseName)
	}
	if len(users) != 1 || users[0].User != "65532:65532" {
		t.Errorf("it is run by %+v; a cluster can tell only of a number that it is not root", users)
	}
	if len(checks) != 1 || !slices.Equal(checks[0].Health.Test, []string{"CMD", "/gatehouse", "health"}) {
		t.Errorf("it is asked whether it is well by %+v", checks)
	}
	if len(entries) != 1 || entries[0].PrependShell || len(commands) != 1 || commands[0].PrependShell {
		t.Errorf("it needs a shell: %+v %+v", entries, commands)
	}
	if stop := find[*instructions.StopSignalCommand](last); len(stop) != 1 || stop[0].Signal != "SIGTERM" {
		t.Errorf("it is stopped by %+v", stop)
	}
	labels := map[string]bool{}
	for _, l := range find[*instructions.LabelCommand](last) {
		for _, pair := range l.Labels {
			labels[pair.Key] = true
		}
	}
	for _, want := range []string{"title", "licenses", "version", "revision"} {
		if !labels["org.opencontainers.image."+want] {
			t.Errorf("it has no label %s", want)
		}
	}
}

// TestImageKnowsWhichBuildItIs, although its build sees no repository.
func TestImageKnowsWhichBuildItIs(t *testing.T) {
	said, err := gatehouse(t, nil, "version").CombinedOutput()
	if want := "gatehouse v1.2.3 0123456789ab "; err != nil || !strings.HasPrefix(string(said), want) {
		t.Errorf("it says %q, %v, want %q", said, err, want)
	}
}

// imageRoot lays the files of the image out as its COPY instructions say, and
// those of the build stage's base from this machine.
func imageRoot(t *testing.T) string {
	t.Helper()
	gatehouse(t, nil) // builds it
	all, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil { // another user looks into it
		t.Fatal(err)
	}
	for _, c := range find[*instructions.CopyCommand](all[len(all)-1]) {
		from := strings.Replace(c.SourcePaths[0], "/out/", filepath.Join(built.folder, "out")+"/", 1)
		if _, err := os.Stat(from); err != nil {
			lack(t, from)
		}
		to := filepath.Join(root, c.DestPath)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if said, err := exec.Command("cp", "-rT", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		if owner := c.Chown; owner != "" {
			if said, err := exec.Command("chown", "-R", owner, to).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
		}
	}
	return root
}

// TestImageRunsConfined: with the files of the image and nothing else, none of
// which can be written but /data, as nobody, without privileges.
func TestImageRunsConfined(t *testing.T) {
	if os.Getuid() != 0 {
		lack(t, "root, who may make a root of a folder,")
	}
	root := imageRoot(t)
	listen, admin := freeAddress(t), freeAddress(t)
	config := fmt.Sprintf("listen: %q\nadmin_listen: %q\nstore: {embedded: {file: /data/gatehouse.db.jsonl}}\n", listen, admin) +
		"products: {serp_api: {label: SERP API, actions: [read]}}\nupstreams: {serp: {targets: [\"http://127.0.0.1:1\"]}}\n" +
		"routes: [{match: GET /serp/v1/, permission: \"serp_api:read\", upstream: serp}]\n"
	if err := os.MkdirAll(filepath.Join(root, "etc/gatehouse"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/gatehouse/config.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	served := inImage(root, admin, "serve", "--config", "/etc/gatehouse/config.yaml")
	var said strings.Builder
	served.Stdout, served.Stderr = &said, &said
	if err := served.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- served.Wait() }()
	defer func() { _ = served.Process.Kill() }() // it has ended, unless the test failed
	if err := healthy(root, admin, ended); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", served.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("it does not run with %q:\n%s", want, status)
		}
	}
	if err := served.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v\n%s", err, said.String())
	}
	if kept, err := os.ReadFile(filepath.Join(root, "data/gatehouse.db.jsonl")); err != nil || len(kept) == 0 {
		t.Errorf("nothing is kept in /data: %v", err)
	}
}

// healthy asks as the image's HEALTHCHECK does, until it is well.
func healthy(root, admin string, ended <-chan error) error {
	const patience, pause = time.Minute, 50 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		said, err := inImage(root, admin, "health").CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("it ended: %w", errors.Join(err, errors.New("too early")))
		case <-timeout:
			return fmt.Errorf("it is not well: %w: %s", err, said)
		case <-tick.C:
		}
	}
}

// inImage runs the image's entry point in a root of its own that cannot be
// written, but for /data.
func inImage(root, admin string, args ...string) *exec.Cmd {
	const confine = `mount --make-rprivate / && mount --bind "$0" "$0" && mount --bind "$0/data" "$0/data" && mount -o remount,bind,ro "$0" &&
		exec setpriv --no-new-privs chroot --userspec=65532:65532 "$0" /gatehouse "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "/bin/sh", "-c", confine, root}, args...)...)
	cmd.Env = append(os.Environ(), "GATEHOUSE_ADMIN_URL=http://"+admin)
	return cmd
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // that is all it was for
	return "127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
