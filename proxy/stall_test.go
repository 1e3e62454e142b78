package proxy_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
)

// stream is a backend that streams without end, and says when it was given up.
func stream(t *testing.T, contentType string) (h http.HandlerFunc, over <-chan struct{}) {
	t.Helper()
	ended := make(chan struct{}, 10)
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		w.Header().Set("Content-Type", contentType)
		chunk := []byte(strings.Repeat("x", 8<<10))
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-t.Context().Done():
				return
			case <-tick.C:
			}
		}
	}, ended
}

// TestWhoTakesNothingHoldsNothing: a client that has stopped reading is cut off
// with its right, in whatever protocol it does not read.
func TestWhoTakesNothingHoldsNothing(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(t *testing.T, l *liveGate, path string){
		"HTTP/1.1": func(t *testing.T, l *liveGate, path string) {
			conn := l.dial()
			_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\nApi-Token: "+good+"\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		},
		"HTTP/2": func(t *testing.T, l *liveGate, path string) {
			conn := l.dial()
			if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
				t.Fatal(err)
			}
			framer := http2.NewFramer(conn, conn)
			var head strings.Builder
			encoder := hpack.NewEncoder(&head)
			for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", path}, {"api-token", good}} {
				_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
			}
			err := errors.Join(
				framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}),
				framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(head.String()), EndHeaders: true, EndStream: true}),
			)
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, contentType := range []string{"text/event-stream", "application/octet-stream"} {
			t.Run(name+", "+contentType, func(t *testing.T) {
				t.Parallel()
				backend, over := stream(t, contentType)
				l := startLive(t, backend, func(s *setup) { s.h2c = true })
				ask(t, l, plainPath)
				eventually(t, "it is watched over", func() bool { return l.liveCount() == 1 })
				l.keys.fail(keystore.ErrUnknownToken)
				l.live.Changed(keystore.Change{})
				begun := time.Now()
				<-over
				eventually(t, "it is forgotten", func() bool { return l.liveCount() == 0 })
				if took := time.Since(begun); took > 4*time.Second {
					t.Errorf("it took %s", took)
				}
				if record := l.records.next(t); record.Reason != "invalid_token" {
					t.Errorf("the record is %+v", record)
				}
			})
		}
	}
}

// TestWebSocketOfAClientThatReadsNothingEndsToo.
func TestWebSocketOfAClientThatReadsNothingEndsToo(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	var written atomic.Int64
	l := startLive(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }() // the gateway has ended it
		for conn.Write(r.Context(), websocket.MessageBinary, make([]byte, 64<<10)) == nil {
			written.Add(1)
		}
	})
	l.mustOpen() // and reads nothing
	before, since := int64(-1), time.Now()
	eventually(t, "all buffers are full", func() bool {
		if now := written.Load(); now != before {
			before, since = now, time.Now()
		}
		return before > 0 && time.Since(since) > 300*time.Millisecond
	})
	l.keys.fail(keystore.ErrUnknownToken)
	l.live.Changed(keystore.Change{})
	begun := time.Now()
	<-ended
	eventually(t, "it is forgotten", func() bool { return l.liveCount() == 0 })
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestWhateverLastsEndsWithItsRight: by whatever name a stream goes.
func TestWhateverLastsEndsWithItsRight(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"", "application/json", "Application/grpc", "application/grpc-web", "application/connect+proto"} {
		t.Run(contentType, func(t *testing.T) {
			t.Parallel()
			backend, over := stream(t, contentType)
			l := startLive(t, backend)
			conn := l.dial()
			if _, err := io.WriteString(conn, "POST "+livePath+" HTTP/1.1\r\nHost: x\r\nApi-Token: "+good+"\r\nContent-Type: "+contentType+"\r\nContent-Length: 0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			eventually(t, "it is watched over", func() bool { return l.liveCount() == 1 })
			l.keys.set(func(k *policy.Key, _ *policy.Account) { k.Active = false })
			l.live.Changed(keystore.Change{})
			<-over
			if record := l.records.next(t); record.Reason != "key_disabled" {
				t.Errorf("the record is %+v", record)
			}
		})
	}
}

// TestExpiryCountsWhileTheStoreIsAway, without waiting for it.
func TestExpiryCountsWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	l := startLive(t, echo(nil))
	l.keys.set(func(k *policy.Key, _ *policy.Account) { k.Expiry = policy.ExpiresAt(theTime.Unix() + 5) })
	conn := l.mustOpen()
	l.keys.fail(keystore.ErrUnavailable)
	l.live.Changed(keystore.Change{})
	l.clock.Advance(5 * time.Second)
	_, _, err := conn.Read(t.Context())
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Reason != "key_expired" {
		t.Errorf("got %v, want key_expired", err)
	}
}

// TestFramesBeforeTheHandshakeIsAnsweredEndIt: what was judged as a request, and
// is none, is not handed on.
func TestFramesBeforeTheHandshakeIsAnsweredEndIt(t *testing.T) {
	t.Parallel()
	reached, release, got := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	l := startLive(t, func(w http.ResponseWriter, r *http.Request) {
		close(reached)
		<-release
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+
			proxy.AcceptKey(r.Header.Get("Sec-Websocket-Key"))+"\r\n\r\n")
		all, _ := io.ReadAll(buffered)
		got <- string(all)
	})
	conn := l.dial()
	if _, err := io.WriteString(conn, handshake("GET", livePath, "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")); err != nil {
		t.Fatal(err)
	}
	<-reached
	if _, err := io.WriteString(conn, "\x81\x85\x01\n\x03\x04ab\ncd"); err != nil {
		t.Fatal(err)
	}
	eventuallyRead := time.NewTimer(200 * time.Millisecond) // net/http looks ahead
	<-eventuallyRead.C
	close(release)
	_, _ = io.Copy(io.Discard, conn)
	if said := <-got; strings.Contains(said, "HTTP/1.1") || strings.Contains(said, "REFUSED") {
		t.Errorf("the backend got %q through the tunnel", said)
	}
}
