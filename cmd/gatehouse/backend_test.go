package main_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// received is a request as a backend got it.
type received struct {
	method, target, proto string
	host                  string
	header                map[string][]string // by lower-case name
	body                  string
	// nth is its number on its connection, from 1.
	nth int
	raw string
}

// answerFunc answers on the connection, and reports whether it goes on.
type answerFunc func(c net.Conn, r received) (keep bool)

// backend is a product that remembers every request byte for byte.
type backend struct {
	addr   string
	answer answerFunc

	mu       sync.Mutex
	requests []received
	broken   int // requests that broke off
	conns    map[net.Conn]struct{}
	serving  sync.WaitGroup
}

func startBackend(t *testing.T, answer answerFunc) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: l.Addr().String(), answer: answer, conns: map[net.Conn]struct{}{}}
	b.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[c] = struct{}{}
			b.mu.Unlock()
			b.serving.Go(func() { b.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // ends Accept
		b.disconnect()
		b.serving.Wait()
	})
	return b
}

// disconnect closes all connections.
func (b *backend) disconnect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		_ = c.Close() // its gateway may have gone
	}
}

func (b *backend) serve(c net.Conn) {
	defer func() {
		_ = c.Close() // it may be closed already
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.conns, c)
	}()
	var raw bytes.Buffer
	in := bufio.NewReader(io.TeeReader(c, &raw))
	for nth := 1; ; nth++ {
		raw.Reset()
		r, err := http.ReadRequest(in)
		if err != nil {
			if raw.Len() > 0 {
				b.breakOff()
			}
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			b.breakOff()
			return
		}
		got := received{
			method: r.Method, target: r.RequestURI, proto: r.Proto, host: r.Host,
			header: headerOf(raw.String()), body: string(body), nth: nth, raw: raw.String(),
		}
		b.mu.Lock()
		b.requests = append(b.requests, got)
		b.mu.Unlock()
		if !b.answer(c, got) {
			return
		}
	}
}

func (b *backend) breakOff() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken++
}

// seen returns the requests since the first skip.
func (b *backend) seen(skip int) []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]received{}, b.requests[skip:]...)
}

func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.requests)
}

// headerOf reads a head by hand: no library has changed the names.
func headerOf(raw string) map[string][]string {
	head, _, _ := strings.Cut(raw, "\r\n\r\n")
	header := map[string][]string{}
	for _, line := range strings.Split(head, "\r\n")[1:] {
		name, value, _ := strings.Cut(line, ": ")
		name = strings.ToLower(name)
		header[name] = append(header[name], value)
	}
	return header
}

// answerOK answers with what a product would, and with what only Gatehouse may
// say, which no client must get from a backend.
func answerOK(c net.Conn, r received) bool {
	body := `{"success":true,"nonce":` + strconv.Quote(strings.Join(r.header["x-nonce"], "")) + `}`
	if r.method == http.MethodHead {
		body = ""
	}
	_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-Product: datacenter\r\n"+
		"X-Request-Id: the-backends-own\r\nX-Gatehouse-Account: the-backends-own\r\n\r\n%s", len(body), body)
	return err == nil
}

// closedPort is an address that refuses connections, and that no other process
// can take meanwhile.
func closedPort(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) }) // the test is over
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + strconv.Itoa(bound.(*syscall.SockaddrInet4).Port)
}
