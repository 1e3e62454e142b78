package main_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse/proxy/attacktest"
)

// newcomers is how long a connection may take to make its first request.
const newcomers = 2 * time.Second

// slowBackend answers when it is released.
func slowBackend(t *testing.T) (b *backend, begun <-chan struct{}, release func()) {
	t.Helper()
	arrived, released := make(chan struct{}, 16), make(chan struct{})
	b = startBackend(t, func(c net.Conn, r received) bool {
		arrived <- struct{}{}
		select {
		case <-released:
		case <-t.Context().Done():
		}
		return answerOK(c, r)
	})
	return b, arrived, func() { close(released) }
}

// inFlight sends a request, waits until the backend has it, and returns what
// becomes of it.
func (g *gateway) inFlight(t *testing.T, r request, begun <-chan struct{}) <-chan outcome {
	t.Helper()
	done := make(chan outcome, 1)
	go func() {
		got, err := g.exchange(r)
		done <- outcome{got, err}
	}()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-begun:
	case early := <-done:
		t.Fatalf("the request ended early: %+v", early)
	case <-timeout.C:
		t.Fatal("the request did not reach the backend")
	}
	return done
}

type outcome struct {
	answer answer
	err    error
}

func TestDrain(t *testing.T) {
	t.Parallel()
	slow, begun, release := slowBackend(t)
	d := newTable(t, settings{Store: embeddedStore(t), Others: map[string]string{"slow": slow.addr}, OtherTimeout: "60s"})
	k := d.createKey(t, d.root, may("serp_api:read"))
	// A connection that is idle must not hold it up.
	idle, err := d.dial(request{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }() // the gateway closes it too
	done := d.inFlight(t, get(k, "/slow/x"), begun)
	d.signal(t, syscall.SIGTERM)
	eventually(t, patience, "not ready", func() error {
		said, err := d.probe("/readyz")
		return unless(err != nil && strings.Contains(said, "draining"), said)
	})
	if _, err := d.probe("/livez"); err != nil {
		t.Errorf("/livez: %v", err)
	}
	if _, err := d.probe("/metrics"); err != nil {
		t.Errorf("/metrics: %v", err)
	}
	eventually(t, patience, "no new connections", func() error {
		c, err := d.dial(request{})
		if err == nil {
			_ = c.Close() // it was one too many
		}
		return unless(err != nil, "it is still listening")
	})
	if d.hasEnded() {
		t.Fatal("it did not wait for the request")
	}
	release()
	if got := <-done; got.err != nil || got.answer.status != http.StatusOK {
		t.Errorf("the request in flight got %d %s, %v", got.answer.status, got.answer.body, got.err)
	}
	if code := d.wait(t, patience); code != 0 {
		t.Errorf("it ended with %d, want 0", code)
	}
}

func TestDrainPastTheGrace(t *testing.T) {
	t.Parallel()
	const grace = time.Second
	slow, begun, _ := slowBackend(t)
	d := newTable(t, settings{Store: embeddedStore(t), Grace: grace.String(), Others: map[string]string{"slow": slow.addr}, OtherTimeout: "60s"})
	k := d.createKey(t, d.root, may("serp_api:read"))
	done := d.inFlight(t, get(k, "/slow/x"), begun)
	signalled := time.Now()
	d.signal(t, syscall.SIGTERM)
	code := d.wait(t, patience)
	if took := time.Since(signalled); code == 0 || took < grace/2 || took > slack*grace {
		t.Errorf("it ended with %d after %s, want another code than 0 after %s", code, took, grace)
	}
	if !strings.Contains(d.stderr.String(), "cut off") {
		t.Errorf("stderr does not say that a request was cut off: %s", d.stderr.String())
	}
	if got := <-done; got.err == nil && got.answer.status == http.StatusOK {
		t.Errorf("the request got %d", got.answer.status)
	}
}

// TestSecondSignal: who asks twice does not wait.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	slow, begun, _ := slowBackend(t)
	d := newTable(t, settings{Store: embeddedStore(t), Others: map[string]string{"slow": slow.addr}, OtherTimeout: "60s"})
	k := d.createKey(t, d.root, may("serp_api:read"))
	done := d.inFlight(t, get(k, "/slow/x"), begun)
	d.signal(t, syscall.SIGINT)
	eventually(t, patience, "draining", func() error {
		_, err := d.probe("/readyz")
		return unless(err != nil, "it is ready")
	})
	d.signal(t, syscall.SIGINT)
	if code := d.wait(t, slack*time.Second); code == 0 {
		t.Errorf("it ended with 0, and a request in flight")
	}
	<-done
}

// TestDrainUnderLoadLosesNothing: whatever reached a backend was answered, and
// whatever was not answered never reached one.
func TestDrainUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	const clients = 16
	d := newTable(t, settings{Store: embeddedStore(t), Level: "warn"})
	before := d.backends[0].count()
	var mu sync.Mutex
	answered := map[string]bool{}
	var all sync.WaitGroup
	var enough sync.WaitGroup
	enough.Add(clients)
	for n := range clients {
		all.Go(func() {
			for i := 0; ; i++ {
				if i == 10 {
					enough.Done()
				}
				nonce := fmt.Sprintf("%d-%d", n, i)
				got, err := d.exchange(get(d.key, proxyListOfA).with("X-Nonce: " + nonce))
				if err != nil || got.status == 0 {
					if i < 10 {
						t.Errorf("request %s: %d, %v", nonce, got.status, err)
						enough.Done()
					}
					return // nobody listens any more
				}
				if got.status != http.StatusOK {
					t.Errorf("request %s got %d", nonce, got.status)
				}
				mu.Lock()
				answered[nonce] = true
				mu.Unlock()
			}
		})
	}
	enough.Wait()
	d.signal(t, syscall.SIGTERM)
	all.Wait()
	if code := d.wait(t, patience); code != 0 {
		t.Errorf("it ended with %d, want 0", code)
	}
	seen := d.backends[0].seen(before)
	for _, r := range seen {
		if nonce := strings.Join(r.header["x-nonce"], ""); !answered[nonce] {
			t.Errorf("request %s reached the backend, and was not answered", nonce)
		}
	}
	if len(seen) != len(answered) {
		t.Errorf("%d requests reached the backend, and %d were answered", len(seen), len(answered))
	}
}

// TestDrainSendsGOAWAY: an HTTP/2 client is told, and its request under way is
// answered.
func TestDrainSendsGOAWAY(t *testing.T) {
	t.Parallel()
	slow, begun, release := slowBackend(t)
	certFile, keyFile, roots := certificate(t)
	d := newPlainTable(t, settings{
		Store: embeddedStore(t), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile),
		Others: map[string]string{"slow": slow.addr}, OtherTimeout: "60s",
	})
	k := d.firstKey(t, "acme", may("serp_api:read"))
	f := d.dialFrames(t, roots)
	f.headers(1, []attacktest.Field{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: "api.example.com"},
		{Name: ":path", Value: "/slow/x"},
		{Name: "api-token", Value: k.Token},
	}, true)
	<-begun
	d.signal(t, syscall.SIGTERM)
	told, answered := false, false
	for !answered {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("told %v, and then %v", told, err)
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			if !told {
				release()
			}
			told = true
		case *http2.MetaHeadersFrame:
			answered = frame.StreamID == 1
			if status := frame.PseudoValue("status"); status != "200" {
				t.Errorf("the request under way got %s", status)
			}
		}
	}
	if !told {
		t.Error("the client was not told")
	}
	if code := d.wait(t, patience); code != 0 {
		t.Errorf("it ended with %d, want 0", code)
	}
}

// TestDrainTellsAnIdleHTTP2Client, so that it doesn't ask a connection that is
// about to be closed.
func TestDrainTellsAnIdleHTTP2Client(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := certificate(t)
	d := newPlainTable(t, settings{Store: embeddedStore(t), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile)})
	f := d.dialFrames(t, roots)
	f.headers(1, asking(proxyListOfA, d.key.Token), true)
	if said, alive := f.answer(1); said != "200" || !alive {
		t.Fatalf("got %q, and it is alive: %v", said, alive)
	}
	d.signal(t, syscall.SIGTERM)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("it was not told: %v", err)
		}
		if told, ok := frame.(*http2.GoAwayFrame); ok {
			if told.ErrCode != http2.ErrCodeNo || told.LastStreamID != 1 {
				t.Errorf("told %v", told)
			}
			break
		}
	}
	if code := d.wait(t, patience); code != 0 {
		t.Errorf("it ended with %d, want 0", code)
	}
}

// TestDrainSaysThatAnAnswerIsTheLast: a connection that goes on asking is not
// closed under a request that is on the way.
func TestDrainSaysThatAnAnswerIsTheLast(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t)})
	c, err := d.dial(request{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // the gateway closes it too
	in, asked := bufio.NewReader(c), get(d.key, proxyListOfA)
	for n, last := 0, false; !last; n++ {
		got, err := exchangeOn(c, in, asked.method, asked.bytes())
		if err != nil || got.status != http.StatusOK || got.last && n == 0 {
			t.Fatalf("request %d got %+v, %v", n, got, err)
		}
		if last = got.last; n == 0 {
			d.signal(t, syscall.SIGTERM)
		}
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v", err)
	}
	if code := d.wait(t, patience); code != 0 {
		t.Errorf("it ended with %d, want 0", code)
	}
}

// TestDrainCutsTheSilentOff: who has connected, over any protocol, and asks for
// nothing is no request, and is not waited for as long as for one.
func TestDrainCutsTheSilentOff(t *testing.T) {
	t.Parallel()
	const grace = newcomers + 2*time.Second
	certFile, keyFile, roots := certificate(t)
	plain := startGateway(t, settings{Store: embeddedStore(t), Grace: grace.String()})
	secure := startGateway(t, settings{
		Store: embeddedStore(t), Grace: grace.String(), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile),
	})
	for _, open := range []func() (net.Conn, error){
		func() (net.Conn, error) { return plain.dial(request{}) },
		func() (net.Conn, error) { return net.Dial("tcp", plain.admin) },
		func() (net.Conn, error) {
			return tls.Dial("tcp", secure.addr, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots})
		},
		func() (net.Conn, error) {
			return tls.Dial("tcp", secure.addr, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, NextProtos: []string{"h2"}})
		},
	} {
		c, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }() // the gateway closes it too
	}
	for _, g := range []*gateway{plain, secure} {
		g.signal(t, syscall.SIGTERM)
	}
	for _, g := range []*gateway{plain, secure} {
		if code := g.wait(t, patience); code != 0 {
			t.Errorf("it ended with %d: %s", code, g.stderr.String())
		}
	}
}
