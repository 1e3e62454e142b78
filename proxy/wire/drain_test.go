package wire_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"gatehouse/proxy/wire"
)

// TestDrainHandsOverWhatWasAccepted, a handshake that has only begun included,
// and nothing that comes later.
func TestDrainHandsOverWhatWasAccepted(t *testing.T) {
	t.Parallel()
	cert, roots := certified(t)
	for _, row := range []struct {
		name        string
		certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	}{
		{"plain", nil},
		{"TLS", func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			gate := &countingListener{Listener: inner, accepted: make(chan struct{}, 1)}
			l, err := wire.Listen(gate, wire.Options{Limits: wire.Limits{Bytes: 100, Lines: 10}, HeadTimeout: patience, Certificate: row.certificate})
			if err != nil {
				t.Fatal(err)
			}
			handed, ended := make(chan struct{}, 1), make(chan error, 1)
			go func() {
				for {
					if _, err := l.Accept(); err != nil {
						ended <- err
						return
					}
					select {
					case handed <- struct{}{}:
					default: // one that only looks whether it can connect
					}
				}
			}()
			client, err := net.Dial("tcp", inner.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			<-gate.accepted
			drained := make(chan error, 1)
			go func() { drained <- l.Drain(t.Context()) }()
			eventually(t, "nobody can connect", func() bool {
				c, err := net.Dial("tcp", inner.Addr().String())
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
			if row.certificate != nil {
				if len(drained) > 0 {
					t.Error("it did not wait for the handshake")
				}
				if err := tls.Client(client, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "127.0.0.1"}).Handshake(); err != nil {
					t.Errorf("the handshake: %v", err)
				}
			}
			<-handed
			if err := errors.Join(<-drained, l.Close()); err != nil {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close, Accept returned %v", err)
			}
		})
	}
}

// TestDrainWaitsForTheServer to have taken the last connection, and to have come
// back for another one: between the two, http.Server has not noted it.
func TestDrainWaitsForTheServer(t *testing.T) {
	t.Parallel()
	for name, secured := range map[string]bool{"plain": false, "TLS": true} {
		synctest.Test(t, func(t *testing.T) {
			cert, roots := certified(t) // by the clock of the bubble
			o := wire.Options{Limits: wire.Limits{Bytes: 100, Lines: 10}, HeadTimeout: patience}
			if secured {
				o.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
			}
			inner := &pipeListener{made: make(chan net.Conn), closed: make(chan struct{})}
			l, err := wire.Listen(inner, o)
			if err != nil {
				t.Fatal(err)
			}
			client, server := net.Pipe()
			var all sync.WaitGroup
			all.Go(func() {
				inner.made <- server
				if secured {
					if err := tls.Client(client, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "127.0.0.1"}).Handshake(); err != nil {
						t.Error(err)
					}
				}
				_, _ = io.Copy(io.Discard, client) // the session tickets, until the end
			})
			taken, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			var drained atomic.Bool
			all.Go(func() {
				if err := l.Drain(t.Context()); err != nil {
					t.Error(err)
				}
				drained.Store(true)
			})
			synctest.Wait()
			if drained.Load() {
				t.Errorf("%s: drained before the server came back", name)
			}
			all.Go(func() { _, _ = l.Accept() }) // until Close
			synctest.Wait()
			if !drained.Load() {
				t.Errorf("%s: not drained", name)
			}
			if err := errors.Join(taken.Close(), client.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			all.Wait()
		})
	}
}

// pipeListener accepts what is made, without a network.
type pipeListener struct {
	made   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.made:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return nil }

// countingListener tells of the first connection that it accepts.
type countingListener struct {
	net.Listener
	accepted chan struct{}
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	select {
	case l.accepted <- struct{}{}:
	default:
	}
	return c, err
}
