package main_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager listens to a gateway as systemd does.
type manager struct{ *net.UnixConn }

func startManager(t *testing.T) manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return manager{c}
}

func (m manager) environment() []string { return []string{"NOTIFY_SOCKET=" + m.LocalAddr().String()} }

// hears waits for a message that begins so, and returns all up to it.
func (m manager) hears(t *testing.T, want string) (said []string) {
	t.Helper()
	if err := m.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for {
		message := make([]byte, 4096)
		n, err := m.Read(message)
		if err != nil {
			t.Fatalf("%q was not said, but %q: %v", want, said, err)
		}
		said = append(said, string(message[:n]))
		if strings.HasPrefix(string(message[:n]), want) {
			return said
		}
	}
}

// TestSystemdIsTold what the process is doing.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	g := startGateway(t, settings{Store: embeddedStore(t), Env: m.environment(), Grace: "50s"})
	if said := m.hears(t, "READY=1"); len(said) != 1 {
		t.Errorf("before it was ready, it said %q", said)
	}
	for _, change := range []func(*settings){func(*settings) {}, func(s *settings) { s.Key = "{" }} {
		g.reload(t, change)
		if said := m.hears(t, "READY=1"); len(said) != 2 || said[0] != "RELOADING=1" {
			t.Errorf("of a reload it said %q, want RELOADING=1 and READY=1", said)
		}
	}
	g.signal(t, syscall.SIGTERM)
	said := m.hears(t, "STOPPING=1")
	g.wait(t, patience)
	if last := said[len(said)-1]; last != fmt.Sprintf("STOPPING=1\nEXTEND_TIMEOUT_USEC=%d", time.Minute.Microseconds()) {
		t.Errorf("it said %q; want time for the grace of 50s, and some", last)
	}
}

// TestManagerThatDoesNotReadHoldsNothingUp: its queue takes a few messages.
func TestManagerThatDoesNotReadHoldsNothingUp(t *testing.T) {
	t.Parallel()
	const reloads = 3
	m := startManager(t)
	g := startGateway(t, settings{Store: embeddedStore(t), Env: append(m.environment(), "WATCHDOG_USEC=30000")})
	eventually(t, patience, "the queue is full", func() error {
		return unless(strings.Contains(g.stdout.String(), "could not be told"), "not yet")
	})
	for range reloads {
		g.reload(t, func(*settings) {})
	}
	g.signal(t, syscall.SIGTERM)
	if code := g.wait(t, patience); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

// TestWatchdogIsFed well within the time it allows.
func TestWatchdogIsFed(t *testing.T) {
	t.Parallel()
	const times = 3
	m := startManager(t)
	startGateway(t, settings{Store: embeddedStore(t), Env: append(m.environment(), "WATCHDOG_USEC=300000")})
	m.hears(t, "READY=1")
	for range times {
		m.hears(t, "WATCHDOG=1")
	}
	quiet := startManager(t)
	g := startGateway(t, settings{Store: embeddedStore(t), Env: append(quiet.environment(), "WATCHDOG_USEC=300000", "WATCHDOG_PID=1")})
	g.signal(t, syscall.SIGTERM)
	for _, said := range quiet.hears(t, "STOPPING=1") {
		if said == "WATCHDOG=1" {
			t.Error("it fed the watchdog of another process")
		}
	}
	g.wait(t, patience)
}
