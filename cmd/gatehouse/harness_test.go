package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/keystore/porttest"
)

// patience is for how long something is waited for that has no promised time.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	stopChromium()
	if built.folder != "" {
		if err := os.RemoveAll(built.folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// built is the gatehouse binary, once a test run, with the race detector.
var built struct {
	once   sync.Once
	folder string // holds the binary, and its coverage where nobody asks for it
	err    error
}

// binary returns the folder of the gatehouse binary.
func binary(t testing.TB) string {
	t.Helper()
	built.once.Do(build)
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.folder
}

func build() {
	if built.folder, built.err = os.MkdirTemp("", "gatehouse-e2e-"); built.err != nil {
		return
	}
	compile := exec.Command("go", "build", "-race", "-cover", "-coverpkg=gatehouse/...", "-buildvcs=false", "-o", built.folder, ".")
	if said, err := compile.CombinedOutput(); err != nil {
		built.err = fmt.Errorf("%s: %w\n%s", compile, err, said)
	}
}

// coverageFolder is where gatehouse processes leave their coverage.
func coverageFolder(t testing.TB) string {
	t.Helper()
	if folder := os.Getenv("GATEHOUSE_GOCOVERDIR"); folder != "" {
		return folder
	}
	return binary(t)
}

// lack skips a test that needs a program which is not there, or fails it where
// nothing may be left out.
func lack(t testing.TB, program string) {
	t.Helper()
	if os.Getenv("GATEHOUSE_TEST_REQUIRE") != "" {
		t.Fatalf("%s is missing, and GATEHOUSE_TEST_REQUIRE is set", program)
	}
	t.Skipf("SKIPPED: %s is missing; .ci/deps installs it", program)
}

// eventually tries again and again until try returns nil, and fails the test
// when it did not in time.
func eventually(t testing.TB, within time.Duration, what string, try func() error) {
	t.Helper()
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-timeout.C:
			t.Fatalf("%s: not within %s: %v", what, within, err)
		case <-tick.C:
		}
	}
}

// unless is an error for eventually.
func unless(ok bool, otherwise string) error {
	if ok {
		return nil
	}
	return errors.New(otherwise)
}

// output is what a process has written so far.
type output struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// process is a program that runs beside the test and is stopped with it.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan struct{}
	awaited        bool // its end was asked for
}

func startProcess(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.stderr
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // also when the tests are killed
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the process dies with the thread that started it
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the exit code says it
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *process) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %s to %s: %v", s, p.cmd, err)
	}
}

// kill ends the process at once, if it has not ended.
func (p *process) kill() {
	p.awaited = true
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// wait returns the exit code; -1 after a signal that was not caught.
func (p *process) wait(t testing.TB, within time.Duration) int {
	t.Helper()
	p.awaited = true
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	select {
	case <-p.ended:
	case <-timeout.C:
		t.Fatalf("%s did not end within %s\n%s%s", p.cmd, within, p.stdout.String(), p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

var ports = porttest.New()

// freePort is one that nobody listens on, and that no other test gets.
func freePort(t testing.TB) string {
	t.Helper()
	port, err := ports.Free(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}
