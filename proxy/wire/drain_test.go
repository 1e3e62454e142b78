package wire_test

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"

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
			handed := make(chan error, 2)
			go func() {
				for range cap(handed) {
					_, err := l.Accept()
					handed <- err
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
			if err := <-handed; err != nil {
				t.Errorf("the connection was not handed over: %v", err)
			}
			if err := errors.Join(<-drained, l.Close()); err != nil {
				t.Error(err)
			}
			if err := <-handed; !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close, Accept returned %v", err)
			}
		})
	}
}

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
