package main_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// heldSockets are listening sockets that outlive the processes they are handed
// to, as those of a systemd.socket do.
type heldSockets struct {
	names   []string
	files   []*os.File
	address []string
}

func holdSockets(t testing.TB, names ...string) *heldSockets {
	t.Helper()
	h := &heldSockets{names: names}
	for range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close() // the file keeps the socket open
		t.Cleanup(func() { _ = file.Close() })
		h.files, h.address = append(h.files, file), append(h.address, l.Addr().String())
	}
	return h
}

func (h *heldSockets) addrs() (public, admin string) { return h.address[0], h.address[1] }

// hand starts the command with the sockets in the way of sd_listen_fds(3): the
// shell gives its own process id to what it becomes.
func (h *heldSockets) hand(cmd *exec.Cmd) *exec.Cmd {
	handed := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)...)
	handed.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(h.files)), "LISTEN_FDNAMES="+strings.Join(h.names, ":"))
	handed.ExtraFiles = h.files
	return handed
}

// TestRestartWithoutARefusedConnection: whoever connects while one process ends
// and the next one begins waits, and gets its answer.
func TestRestartWithoutARefusedConnection(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := certificate(t)
	secured := settings{TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile)}
	for _, row := range []struct {
		name     string
		settings settings
		ask      func(*table) error
	}{
		{"plain", settings{}, func(d *table) error { return d.askAnew(func() (net.Conn, error) { return d.dial(request{}) }) }},
		{"TLS", secured, func(d *table) error {
			return d.askAnew(func() (net.Conn, error) { return d.dialTLS(roots) })
		}},
		{"HTTP/2", secured, func(d *table) error { return d.askAnewHTTP2(roots) }},
		{"kept alive", settings{}, (*table).askAgain},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			set := row.settings
			set.Store, set.Level, set.Sockets = embeddedStore(t), "warn", holdSockets(t, "public", "admin")
			d := newPlainTable(t, set)
			answered, finish := load(t, func() error { return row.ask(d) })
			const restarts, between = 3, 50
			for range restarts {
				enough := answered.Load() + between
				eventually(t, patience, "requests are answered", func() error {
					return unless(answered.Load() >= enough, "too few")
				})
				d.signal(t, syscall.SIGTERM)
				if code := d.wait(t, patience); code != 0 {
					t.Errorf("it ended with %d", code)
				}
				if !d.launch(t) {
					t.Fatal("a port is in use")
				}
			}
			finish()
			t.Logf("%d requests, each on a connection of its own", answered.Load())
		})
	}
}

// load has clients ask again and again until it is finished. All must be answered.
func load(t *testing.T, ask func() error) (answered *atomic.Int64, finish func()) {
	const clients = 8
	answered = new(atomic.Int64)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := ask(); err != nil {
					t.Errorf("a client: %v", err)
				}
				answered.Add(1)
			}
		})
	}
	return answered, func() { close(stop); all.Wait() }
}

func (d *table) dialTLS(roots *x509.CertPool) (net.Conn, error) {
	return tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", d.addr, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots})
}

// askAnew makes one request on a connection of its own.
func (d *table) askAnew(dial func() (net.Conn, error)) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the answer was read
	asked := get(d.key, proxyListOfA).with("Connection: close")
	got, err := exchangeOn(c, bufio.NewReader(c), asked.method, asked.bytes())
	if err != nil {
		return err
	}
	return unless(got.status == http.StatusOK, fmt.Sprint(got.status, " ", got.body))
}

// askAgain makes requests on one connection, until an answer says that it was the
// last one.
func (d *table) askAgain() error {
	c, err := d.dial(request{})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // every answer was read
	in, asked := bufio.NewReader(c), get(d.key, proxyListOfA)
	const most = 20
	for n := range most {
		got, err := exchangeOn(c, in, asked.method, asked.bytes())
		if err != nil {
			return fmt.Errorf("request %d of a connection: %w", n, err)
		}
		if got.status != http.StatusOK || got.last {
			return unless(got.status == http.StatusOK, fmt.Sprint(got.status, " ", got.body))
		}
	}
	return nil
}

// askAnewHTTP2 is askAnew over HTTP/2. Unlike an http.Client it never repeats a
// request on another connection.
func (d *table) askAnewHTTP2(roots *x509.CertPool) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, Protocols: protocols}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := transport.NewClientConn(ctx, "https", d.addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the answer was read
	asked, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+d.addr+proxyListOfA, nil)
	if err != nil {
		return err
	}
	asked.Header.Set("api-token", d.key.Token)
	got, err := answerTo(&http.Client{Transport: c}, asked)
	if err != nil {
		return err
	}
	return unless(got.status == http.StatusOK && got.proto == "HTTP/2.0", fmt.Sprint(got.proto, " ", got.status, " ", got.body))
}

// TestSocketOfUnknownPurposeIsRefused: it could be the public one.
func TestSocketOfUnknownPurposeIsRefused(t *testing.T) {
	t.Parallel()
	config := filepath.Join("..", "..", "config.example.yaml")
	for _, row := range []struct {
		names []string
		want  string
	}{
		{[]string{"public", "gatehouse.socket"}, `"gatehouse.socket"`},
		{[]string{"public", "public"}, "two of this name"},
		{[]string{"", "admin"}, "LISTEN_FD_3"},
	} {
		said, err := holdSockets(t, row.names...).hand(gatehouse(t, "serve", "--config", config)).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(said), row.want) {
			t.Errorf("%q: %v, and it said %s; want exit code 2 and %s", row.names, err, said, row.want)
		}
	}
}
