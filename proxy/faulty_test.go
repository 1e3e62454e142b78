package proxy_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// faulty is a TCP proxy in front of a backend that does to connections what
// networks and broken backends do. It counts those that are open.
type faulty struct {
	t        testing.TB
	listener net.Listener
	backend  string
	wg       sync.WaitGroup

	mu    sync.Mutex
	fault fault
	open  map[net.Conn]bool
}

// fault gets the gateway's connection, and what the backend answers to what
// comes on it. When it returns, the connection is closed.
type fault func(c *net.TCPConn, answer io.Reader)

func newFaulty(t testing.TB, b *backend) *faulty {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{t: t, listener: l, backend: b.listener.Addr().String(), open: map[net.Conn]bool{}, fault: pass}
	f.wg.Go(f.listen)
	t.Cleanup(f.close)
	return f
}

func (f *faulty) url() *url.URL { return &url.URL{Scheme: "http", Host: f.listener.Addr().String()} }

// does makes the connections that are opened from now on suffer the fault.
func (f *faulty) does(what fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = what
}

func (f *faulty) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.open)
}

// refuse makes the proxy refuse connections, and reset the open ones.
func (f *faulty) refuse() {
	_ = f.listener.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.open {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
}

func (f *faulty) close() {
	f.refuse()
	f.wg.Wait()
}

func (f *faulty) listen() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.open[c] = true
		f.mu.Unlock()
		f.wg.Go(func() {
			f.serve(c.(*net.TCPConn))
			_ = c.Close()
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.open, c)
		})
	}
}

func (f *faulty) serve(c *net.TCPConn) {
	f.mu.Lock()
	what := f.fault
	f.mu.Unlock()
	up, err := net.Dial("tcp", f.backend)
	if err != nil {
		f.t.Error(err)
		return
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		_, _ = io.Copy(up, c)
		_ = up.(*net.TCPConn).CloseWrite()
	})
	what(c, up)
	_ = c.Close()
	_ = up.Close()
	sending.Wait()
}

func pass(c *net.TCPConn, answer io.Reader) { _, _ = io.Copy(c, answer) }

// after lets some bytes of the answer through and then something happen.
func after(bytes int64, happens func(c *net.TCPConn)) fault {
	return func(c *net.TCPConn, answer io.Reader) {
		if _, err := io.CopyN(c, answer, bytes); err == nil {
			happens(c)
		}
	}
}

func end(*net.TCPConn) {}

func reset(c *net.TCPConn) { _ = c.SetLinger(0) }

// halfClose ends the answer and goes on taking what comes.
func halfClose(c *net.TCPConn) {
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
}

// hang says nothing more until the gateway gives up.
func hang(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }

// instead answers with a text of its own as soon as the backend answers.
func instead(text string) fault {
	return func(c *net.TCPConn, answer io.Reader) {
		if _, err := io.CopyN(io.Discard, answer, 1); err == nil {
			_, _ = io.WriteString(c, text)
			hang(c)
		}
	}
}

// onceReleased lets the answer through when the channel is closed.
func onceReleased(release <-chan struct{}) fault {
	return func(c *net.TCPConn, answer io.Reader) {
		<-release
		pass(c, answer)
	}
}
