package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// plain is the gatehouse binary without race detector, which would count for
// memory, and bounds how many goroutines there may be.
var plain struct {
	once sync.Once
	err  error
}

func plainBinary(t testing.TB) string {
	t.Helper()
	file := filepath.Join(binary(t), "gatehouse-plain")
	plain.once.Do(func() {
		if said, err := exec.Command("go", "build", "-buildvcs=false", "-o", file, ".").CombinedOutput(); err != nil {
			plain.err = fmt.Errorf("%w\n%s", err, said)
		}
	})
	if plain.err != nil {
		t.Fatal(plain.err)
	}
	return file
}

// rss is the resident memory of a process, in bytes.
func (p *process) rss(t testing.TB) int64 {
	t.Helper()
	said, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(said)
	if found == nil {
		t.Fatal("no VmRSS")
	}
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// zeros is so many bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { return len(p), nil }

// TestLargeBodiesNeedNoMemory: a GiB up and a GiB down, with and without a
// length, while the gateway grows by less than 32 MiB.
func TestLargeBodiesNeedNoMemory(t *testing.T) {
	const (
		size  = 1 << 30
		grows = 32 << 20
	)
	backend := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			if r.URL.RawQuery == "length" {
				w.Header().Set("Content-Length", strconv.Itoa(size))
			}
			_, _ = io.Copy(w, zeros(size))
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintln(w, n, err)
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = backend.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = backend.Close() })
	d := newPlainTable(t, settings{
		Store: embeddedStore(t), Level: "warn", Plain: true,
		Upstreams: fmt.Sprintf("  large: {targets: [\"http://%s\"], timeout: 1m}", l.Addr()),
		Routes:    "  - {match: /large, by_method: {GET: \"serp_api:read\", POST: \"serp_api:write\"}, upstream: large, max_body: 2GiB}",
	})
	k := d.firstKey(t, "acme", may("serp_api:read", "serp_api:write"))
	before := d.rss(t)
	var most atomic.Int64
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most.Store(max(most.Load(), d.rss(t)))
			case <-done:
				return
			}
		}
	})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for name, row := range map[string]struct {
		method, query string
		length        int64
	}{
		"up": {http.MethodPost, "", size}, "up in chunks": {http.MethodPost, "", -1},
		"down": {http.MethodGet, "?length", 0}, "down in chunks": {http.MethodGet, "", 0},
	} {
		begun := time.Now()
		r, err := http.NewRequestWithContext(t.Context(), row.method, "http://"+d.addr+"/large"+row.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if row.length != 0 {
			r.Body, r.ContentLength = io.NopCloser(zeros(size)), row.length
		}
		r.Header.Set("api-token", k.Token)
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if row.method == http.MethodPost {
			said, err := bufio.NewReader(response.Body).ReadString('\n')
			if said != fmt.Sprintln(size, nil) {
				t.Errorf("%s: %d, the backend got %q, %v", name, response.StatusCode, said, err)
			}
		} else if n, err := io.Copy(io.Discard, response.Body); n != size || err != nil {
			t.Errorf("%s: got %d bytes, %v", name, n, err)
		}
		_ = response.Body.Close() // it was read
		t.Logf("%s: %s", name, time.Since(begun).Round(time.Millisecond))
	}
	close(done)
	watching.Wait()
	t.Logf("grew by %.1f MiB", float64(most.Load()-before)/(1<<20))
	if most.Load()-before > grows {
		t.Errorf("it grew by %d MiB, want %d at the most", (most.Load()-before)>>20, grows>>20)
	}
}

// TestIdleConnectionsDisturbNobody: ten thousand are held while others are
// served.
func TestIdleConnectionsDisturbNobody(t *testing.T) {
	const idle = 10_000
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < idle+1000 {
		t.Skipf("SKIPPED: this needs %d open files, and there are %d (%v)", idle+1000, files.Cur, err)
	}
	d := newPlainTable(t, settings{Store: embeddedStore(t), Level: "warn", Plain: true, Inbound: ", connections: {total: 20000, per_address: 0}, header_timeout: 2m, idle_timeout: 5m"})
	asked := get(d.key, proxyListOfA)
	before := d.rss(t)
	conns := make([]net.Conn, 0, idle)
	defer func() {
		for _, c := range conns {
			_ = c.Close() // idle
		}
	}()
	for n := range idle {
		c, err := d.dial(request{})
		if err != nil {
			t.Fatalf("connection %d: %v", n, err)
		}
		conns = append(conns, c)
		if n%2 == 0 { // half of them have been used
			if got, err := exchangeOn(c, bufio.NewReader(c), http.MethodGet, asked.bytes()); err != nil || got.status != http.StatusOK {
				t.Fatalf("connection %d: %d, %v", n, got.status, err)
			}
		}
	}
	held := d.rss(t) - before
	t.Logf("%d connections: %.1f KiB each", idle, float64(held)/1024/idle)
	slowest := time.Duration(0)
	for range 500 {
		begun := time.Now()
		if got, err := d.exchange(asked); err != nil || got.status != http.StatusOK {
			t.Fatalf("beside them: %d, %v", got.status, err)
		}
		slowest = max(slowest, time.Since(begun))
	}
	t.Logf("the slowest of 500 requests beside them took %s", slowest)
	for _, n := range []int{0, 1, idle / 2, idle - 1} {
		if got, err := exchangeOn(conns[n], bufio.NewReader(conns[n]), http.MethodGet, asked.bytes()); err != nil || got.status != http.StatusOK {
			t.Errorf("connection %d is not held: %d, %v", n, got.status, err)
		}
	}
}
