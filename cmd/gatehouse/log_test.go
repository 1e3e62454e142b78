package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stuckPipe is an output that takes nothing until it is read, and shows some spaces then.
func stuckPipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = reader.Close(), writer.Close() }) // they may be closed
	if err := writer.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(bytes.Repeat([]byte(" "), 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("filling the pipe: %v", err)
	}
	return reader, writer
}

// overflow sends requests until lines of the log have been dropped.
func (d *table) overflow(t *testing.T) {
	t.Helper()
	for i := range 2000 {
		d.passes(t, get(d.key, proxyListOfA))
		if i%50 == 49 && d.metric(t, "gatehouse_log_dropped_total") > 0 {
			return
		}
	}
	t.Fatal("nothing was dropped, which proves nothing")
}

// TestStuckLogHoldsNobodyUp: no request, and not the end of the process.
func TestStuckLogHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	_, writer := stuckPipe(t)
	d := newTable(t, settings{Store: embeddedStore(t), Stdout: writer, Log: ", buffer: 64KiB"})
	d.overflow(t)
	d.refuses(t, get(key{Token: unknownToken()}, proxyListOfA), refusal{status: 401, code: "invalid_token", challenge: badToken})
	d.signal(t, syscall.SIGTERM)
	if code := d.wait(t, patience); code != 0 {
		t.Errorf("the gateway ended with %d, want 0", code)
	}
	if said := d.stderr.String(); !strings.Contains(said, "of the log are lost") {
		t.Errorf("the gateway said %q", said)
	}
}

// TestSlowLogGoesOn when its reader does, and says what is missing.
func TestSlowLogGoesOn(t *testing.T) {
	t.Parallel()
	reader, writer := stuckPipe(t)
	d := newTable(t, settings{Store: embeddedStore(t), Stdout: writer, Log: ", buffer: 64KiB"})
	d.overflow(t)
	log := &output{}
	go func() { _, _ = io.Copy(log, reader) }() // ends with the pipe
	eventually(t, patience, "the log", func() error {
		return unless(strings.Contains(log.String(), "lines of the log were dropped"), "does not say that lines are missing")
	})
	d.passes(t, get(d.key, proxyListOfA+"?last"))
	d.signal(t, syscall.SIGTERM)
	d.wait(t, patience)
	eventually(t, patience, "the last line", func() error {
		return unless(strings.Contains(log.String(), `"message":"stopped"`), "is missing")
	})
	for line := range strings.Lines(log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line was written in part: %q", line)
		}
	}
}

// TestLogWhoseReaderHasGone: the gateway goes on without it.
func TestLogWhoseReaderHasGone(t *testing.T) {
	t.Parallel()
	reader, writer := stuckPipe(t)
	d := newTable(t, settings{Store: embeddedStore(t), Stdout: writer})
	if err := errors.Join(reader.Close(), writer.Close()); err != nil {
		t.Fatal(err)
	}
	d.passes(t, get(d.key, proxyListOfA))
	eventually(t, patience, "lines are dropped", func() error {
		return unless(d.metric(t, "gatehouse_log_dropped_total") > 0, "none was")
	})
	d.passes(t, get(d.key, proxyListOfA))
}

// TestLogIsWhole when the gateway ends: nothing was dropped.
func TestLogIsWhole(t *testing.T) {
	t.Parallel()
	const requests = 300
	d := newTable(t, settings{Store: embeddedStore(t)})
	for range requests {
		d.passes(t, get(d.key, proxyListOfA))
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, patience)
	if n := d.logged(t, proxyListOfA); n != requests {
		t.Errorf("there are %d lines, want %d", n, requests)
	}
}

// logged counts the lines about requests for the path.
func (g *gateway) logged(t *testing.T, path string) (n int) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(g.stdout.String()))
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		var line struct {
			Message string `json:"message"`
			Path    string `json:"url.path"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "request" && line.Path == path {
			n++
		}
	}
	return n
}

// TestLogIsSampled: of requests that went well, and of no others.
func TestLogIsSampled(t *testing.T) {
	t.Parallel()
	const requests = 200
	d := newTable(t, settings{Store: embeddedStore(t), Log: ", sample: 0.5"})
	refused := get(d.key, "/serp/v1/refused")
	for range requests {
		d.passes(t, get(d.key, proxyListOfA))
		d.refuses(t, refused, refusal{status: 403, code: "permission_denied", challenge: lacks("serp_api:read")})
	}
	d.reload(t, func(s *settings) { s.Log = ", sample: 0" })
	for range requests {
		d.passes(t, get(d.key, whitelistOfA+"?type=get"))
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, patience)
	// Six standard deviations to both sides.
	if n := d.logged(t, proxyListOfA); n < requests/2-43 || n > requests/2+43 {
		t.Errorf("%d of %d requests that went well are logged", n, requests)
	}
	if n := d.logged(t, refused.target); n != requests {
		t.Errorf("%d of %d refusals are logged", n, requests)
	}
	if n := d.logged(t, whitelistOfA); n != 0 {
		t.Errorf("%d requests that went well are logged, with sample: 0", n)
	}
}

// TestLogLevelsChange at run time, and what changed them is in the log.
func TestLogLevelsChange(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t), Level: "error", Log: ", modules: {access: info}"})
	change := func(levels string) {
		t.Helper()
		if got := d.operate(t, "PATCH", "/log-levels", json.RawMessage(levels)); got.status != 200 {
			t.Fatalf("answered %d %s", got.status, got.body)
		}
	}
	loud, quiet, other := proxyListOfA, whitelistOfA, "/serp/v1/other"
	d.passes(t, get(d.key, loud))
	change(`{"modules": {"access": "error"}}`)
	d.passes(t, get(d.key, quiet+"?type=get"))
	d.reload(t, func(s *settings) { s.InFlight = "17" }) // says the same of the log
	d.passes(t, get(d.key, quiet+"?type=get"))
	d.reload(t, func(s *settings) { s.InFlight, s.Log = "17", ", modules: {access: info, config: debug}" })
	d.passes(t, get(d.root, other))
	d.signal(t, syscall.SIGTERM)
	d.wait(t, patience)
	if d.logged(t, loud) != 1 || d.logged(t, quiet) != 0 || d.logged(t, other) != 1 {
		t.Errorf("the log has %d, %d and %d lines, want 1, 0 and 1:\n%s", d.logged(t, loud), d.logged(t, quiet), d.logged(t, other), d.stdout.String())
	}
	log := d.stdout.String()
	for _, said := range []string{
		`"message":"log levels were changed","gatehouse.actor_kind":"operator","client.address":"127.0.0.1","gatehouse.request_id":"`,
		`"gatehouse.levels":["access: error instead of info"]`,
		`"gatehouse.because":"the configuration was reloaded","gatehouse.levels":["access: info instead of error","config: debug instead of error"]`,
	} {
		if !strings.Contains(log, said) {
			t.Errorf("the log does not have %s:\n%s", said, log)
		}
	}
	if strings.Contains(log, `"message":"admin request"`) || strings.Contains(log, `"message":"serving"`) {
		t.Errorf("the log has lines of modules at error:\n%s", log)
	}
}

// TestStuckTerminalToo: where the log and what is said at the end have one output.
func TestStuckTerminalToo(t *testing.T) {
	t.Parallel()
	_, writer := stuckPipe(t)
	cmd := gatehouse(t, "serve", "--config", "nowhere.yaml")
	cmd.Stdout, cmd.Stderr = writer, writer
	p := startProcess(t, cmd)
	if code := p.wait(t, patience); code != 2 {
		t.Errorf("ended with %d, want 2", code)
	}
}
