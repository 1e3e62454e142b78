package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"gatehouse/proxy/problem"
	"gatehouse/proxy/wire"
)

const (
	// closePatience is how long a client has to answer a close frame.
	closePatience = time.Second

	// Close codes of RFC 6455 §7.4.1.
	closeGoingAway       = 1001
	closePolicyViolation = 1008
	closeTryAgainLater   = 1013
)

// tunnel carries a WebSocket between client and backend, until one of them
// ends it or its right is gone. It returns an error when it has not begun.
func (u *Upstream) tunnel(w http.ResponseWriter, x *exchange, answer *http.Response, backend io.ReadWriteCloser) error {
	defer func() { _ = backend.Close() }()
	if !accepted(answer, x.r.Header) {
		return unreachable(errSwitched)
	}
	client, buffered, err := x.hijack(w)
	if err != nil {
		return problem.Internal(fmt.Errorf("take the connection over: %w", err))
	}
	defer func() { _ = client.Close() }()
	t := &tunnel{client: client, backend: backend, x: x, buffers: u.buffers}
	err = wire.Tunnel(client) // what follows are no requests
	if err == nil {
		err = t.open(buffered.Writer, x.w.Header(), answer)
	}
	if err != nil {
		x.record.Reason, x.record.Cause = reasonAborted, err
		return nil // there is nobody to answer
	}
	x.lasting.mu.Lock()
	x.lasting.tunnel = t
	x.lasting.mu.Unlock()
	if x.ending() != nil {
		t.hurry()
	}
	x.watch(liveWebSocket)
	t.run(buffered.Reader)
	x.w.written, x.record.BytesIn = t.sent, t.received
	return nil
}

// tunnel is one WebSocket.
type tunnel struct {
	client  net.Conn
	backend io.ReadWriteCloser
	x       *exchange
	buffers *BufferPool
	mu      sync.Mutex // of the client's deadline
	toward  frames     // of what the client got
	sent    int64      // bytes to the client
	// received are bytes from the client; of the goroutine that copies them,
	// until that has ended.
	received int64
}

// open answers the handshake.
func (t *tunnel) open(w *bufio.Writer, h http.Header, answer *http.Response) error {
	for _, name := range []string{"Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "Trailer", "Keep-Alive", "Proxy-Connection"} {
		answer.Header.Del(name)
	}
	for name, values := range answer.Header {
		h[name] = values
	}
	h["Connection"], h["Upgrade"], h["X-Request-Id"] = []string{"Upgrade"}, []string{"websocket"}, t.x.w.requestID
	t.more()
	_, err := io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\n")
	return errors.Join(err, h.Write(w), ignoreCount(io.WriteString(w, "\r\n")), w.Flush())
}

// hijack takes the client's connection from the server.
func (x *exchange) hijack(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.w.switched()
	return conn, buffered, nil
}

func ignoreCount(_ int, err error) error { return err }

// run copies both ways, and returns when both have ended.
func (t *tunnel) run(early io.Reader) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.received, _ = io.Copy(t.backend, early) // its end says all there is to say
		_ = t.backend.Close()
	}()
	t.copyToClient()
	if p := t.x.ending(); p != nil && t.toward.between() {
		t.more()
		if _, err := t.client.Write(closeFrame(t.closeCode(p))); err == nil {
			// What the client has sent meanwhile is read, so that no reset
			// overtakes the close frame; it has no backend to go to.
			_ = t.client.SetReadDeadline(wallClock().Add(closePatience))
			<-done
			_, _ = io.Copy(io.Discard, t.client)
		}
	}
	_ = t.client.Close()
	<-done
}

// copyToClient copies until the backend ends, or the client takes nothing.
func (t *tunnel) copyToClient() {
	buffer := t.buffers.Get()
	defer t.buffers.Put(buffer)
	for {
		n, err := t.backend.Read(buffer)
		if n > 0 && t.x.ending() == nil {
			t.more()
			written, failed := t.client.Write(buffer[:n])
			t.toward.pass(buffer[:written])
			t.sent += int64(written)
			if failed != nil {
				return
			}
		}
		if err != nil || t.x.ending() != nil {
			return
		}
	}
}

// more gives the client time for the next write: little, when it must go.
func (t *tunnel) more() {
	t.mu.Lock()
	defer t.mu.Unlock()
	patience := ioPatience
	if t.x.ending() != nil {
		patience = closePatience
	}
	_ = t.client.SetWriteDeadline(wallClock().Add(patience))
}

// hurry ends the tunnel from another goroutine.
func (t *tunnel) hurry() {
	t.more()
	_ = t.backend.Close()
}

func (t *tunnel) closeCode(p *problem.Problem) (uint16, string) {
	switch {
	case t.x.lasting.request.goingAway.Load():
		return closeGoingAway, "going_away"
	case p.Code == problem.KeyStoreUnavailable:
		return closeTryAgainLater, string(p.Code)
	}
	return closePolicyViolation, string(p.Code)
}
