// Package stage puts on a real Gatehouse, with a real Redis, a product behind
// it and a real Prometheus that scrapes it, for tests of what operators are
// given. It is for tests alone.
package stage

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/keystore/porttest"
)

const (
	// patience is for how long something is waited for that has no promised time.
	patience = time.Minute
	// portTries is how often a free port is looked for: another process may take
	// it in between.
	portTries = 5
)

// Need skips the test where a program is missing, or fails it where nothing may
// be left out.
func Need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("GATEHOUSE_TEST_REQUIRE") != "" {
		t.Fatalf("%s is missing, and GATEHOUSE_TEST_REQUIRE is set", program)
	}
	t.Skipf("SKIPPED: %s is missing; .ci/deps installs it", program)
}

// Eventually tries again and again until try returns nil, and fails the test
// when it did not in time.
func Eventually(t testing.TB, within time.Duration, what string, try func() error) {
	t.Helper()
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
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

// process is a program that runs beside the test and ends with it.
type process struct {
	cmd   *exec.Cmd
	said  output
	ended chan struct{}
}

// run starts the program.
func run(t testing.TB, program string, arguments ...string) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(context.WithoutCancel(t.Context()), program, arguments...), ended: make(chan struct{})} //nolint:gosec // the tests name the program
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended says its output
		close(p.ended)
	}()
	t.Cleanup(p.stop)
	return p
}

// runOnPort starts a program that listens on a port, and waits until it is
// ready there; it returns where that is.
func runOnPort(t testing.TB, start func(address string) *process, ready func(address string) error) (*process, string) {
	t.Helper()
	var last *process
	for range portTries {
		address := "127.0.0.1:" + freePort(t)
		p := start(address)
		last = p
		var taken bool
		Eventually(t, patience, p.cmd.Path+" is ready", func() error {
			select {
			case <-p.ended:
				taken = strings.Contains(p.said.String(), "in use")
				if !taken {
					t.Fatalf("%s ended:\n%s", p.cmd, p.said.String())
				}
				return nil
			default:
				return ready(address)
			}
		})
		if !taken {
			return p, address
		}
	}
	t.Fatalf("no port was free for %s:\n%s", last.cmd, last.said.String())
	return nil, ""
}

// stop ends the process at once.
func (p *process) stop() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

var ports = porttest.New() //nolint:gochecknoglobals // each is to be given once

// freePort is one that nobody listens on, and that no other test gets.
func freePort(t testing.TB) string {
	t.Helper()
	port, err := ports.Free(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

// Output runs a program to its end and returns what it said.
func Output(t testing.TB, stdin, program string, arguments ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, arguments...) //nolint:gosec // the tests name the program
	cmd.Stdin = strings.NewReader(stdin)
	said, err := cmd.CombinedOutput()
	if err != nil {
		return string(said), fmt.Errorf("%s: %w\n%s", cmd, err, said)
	}
	return string(said), nil
}
