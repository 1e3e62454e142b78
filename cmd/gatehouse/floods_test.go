package main_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// maxStreams is what the gateway under floods takes from one connection.
const maxStreams = 20

// TestFloodsOfHTTP2AreBounded: the connection they come over is ended, after no
// more than so much, while others are served.
func TestFloodsOfHTTP2AreBounded(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := certificate(t)
	held := startBackend(t, func(net.Conn, received) bool {
		<-t.Context().Done()
		return false
	})
	d := newPlainTable(t, settings{
		Store: embeddedStore(t), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile),
		Inbound: fmt.Sprintf(", http2: {max_streams: %d}", maxStreams), Others: map[string]string{"held": held.addr}, OtherTimeout: "60s",
	})
	token := d.firstKey(t, "acme", may("serp_api:read")).Token
	quiet := d.gauge(t, "go_goroutines")

	// flood sends until the gateway ends the connection, or until it has sent
	// the most that is bearable.
	flood := func(name string, most int, send func(f *frames, i int) error) (sent int) {
		t.Run(name, func(t *testing.T) {
			f := d.dialFrames(t, roots)
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_, _ = io.Copy(io.Discard, f.conn) // ends with the connection
			}()
			ended := false
			for ; sent < most && !ended; sent++ {
				ended = send(f, sent) != nil
			}
			timeout := time.NewTimer(patience / 3)
			defer timeout.Stop()
			select {
			case <-gone:
			case <-timeout.C:
				t.Errorf("%d were taken, and the connection is open", most)
			}
			other := d.dialFrames(t, roots)
			other.headers(1, asking("/serp/v1/x", token), true)
			if said, _ := other.answer(1); said != "200" {
				t.Errorf("another client got %q", said)
			}
			if now := d.gauge(t, "go_goroutines"); now > quiet+10*maxStreams {
				t.Errorf("%v goroutines, and %v before", now, quiet)
			}
		})
		return sent
	}

	// CVE-2023-44487: streams that are reset at once cost work that no limit
	// of concurrent streams counts.
	sent := flood("rapid reset", 100_000, func(f *frames, i int) error {
		stream := uint32(2*i + 1)
		f.headers(stream, asking("/held/x", token), true)
		return f.WriteRSTStream(stream, http2.ErrCodeCancel)
	})
	// Some are on their way to the backend before the reset behind them is read.
	if n := held.count(); n > sent/10 {
		t.Errorf("of %d requests that were reset, %d reached the backend", sent, n)
	}
	// CVE-2024-27316, CVE-2023-45288: headers without end.
	flood("CONTINUATION", 10_000, func(f *frames, i int) error {
		block := []byte("\x00\x01a\x7f\x80\x01" + strings.Repeat("b", 255)) // a: bbb…
		if i == 0 {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
		}
		return f.WriteContinuation(1, false, block)
	})
	// CVE-2019-9512: a client asks and does not take the answers. The kernels take
	// some megabytes of them, and the gateway 10,000.
	t.Run("PING", func(t *testing.T) {
		f := d.dialFrames(t, roots)
		thousand := repeated(t, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) })
		for sent := 0; ; sent++ {
			if sent == 5000 {
				t.Fatalf("%d thousand were taken, and the connection is open", sent)
			}
			if _, err := f.conn.Write(thousand); err != nil {
				break
			}
		}
	})
	// CVE-2019-9515: several settings are answered as one, so that these cost
	// nothing but the time to read them.
	t.Run("SETTINGS", func(t *testing.T) {
		f := d.dialFrames(t, roots)
		thousand := repeated(t, func(f *http2.Framer) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
		})
		before := d.gauge(t, "process_resident_memory_bytes")
		for range 100 {
			if _, err := f.conn.Write(thousand); err != nil {
				break
			}
		}
		if grown := d.gauge(t, "process_resident_memory_bytes") - before; grown > 64<<20 {
			t.Errorf("it took %v bytes of memory", grown)
		}
	})
	if memory := d.gauge(t, "process_resident_memory_bytes"); memory > 512<<20 {
		t.Errorf("%v bytes of memory", memory)
	}
}

// repeated is a thousand of the frame.
func repeated(t *testing.T, write func(f *http2.Framer) error) []byte {
	t.Helper()
	var many bytes.Buffer
	for into, i := http2.NewFramer(&many, nil), 0; i < 1000; i++ {
		if err := write(into); err != nil {
			t.Fatal(err)
		}
	}
	return many.Bytes()
}

// TestStreamsOfAConnectionAreBounded: one too many is refused, and the rest goes on.
func TestStreamsOfAConnectionAreBounded(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := certificate(t)
	held, begun, release := slowBackend(t)
	d := newPlainTable(t, settings{
		Store: embeddedStore(t), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile),
		Inbound: ", http2: {max_streams: 3}", Others: map[string]string{"held": held.addr}, OtherTimeout: "60s",
	})
	token := d.firstKey(t, "acme", may("serp_api:read")).Token
	f := d.dialFrames(t, roots)
	for i := range uint32(3) {
		f.headers(2*i+1, asking("/held/x", token), true)
		<-begun
	}
	f.headers(7, asking("/held/x", token), true)
	if said, alive := f.answer(7); said != "" || !alive {
		t.Errorf("one too many got %q, and the connection lives: %v", said, alive)
	}
	if most := f.settings[http2.SettingMaxConcurrentStreams]; most != 3 {
		t.Errorf("the gateway says that it takes %d streams, want 3", most)
	}
	release()
	if said, _ := f.answer(1); said != "200" {
		t.Errorf("a stream within the bounds got %q", said)
	}
}

// TestSettingsOfConnectionsCount: the binary does with them what they say.
func TestSettingsOfConnectionsCount(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{
		Store: embeddedStore(t), H2C: true,
		Inbound: ", connections: {total: 50, per_address: 3}, header_timeout: 300ms, idle_timeout: 500ms, max_header_lines: 20",
	})
	elsewhere := d.base()
	elsewhere.from = "127.0.0.9" // the tests' own connections are of 127.0.0.1
	elsewhere.header = elsewhere.header[:5]
	if got, err := d.exchange(elsewhere); err != nil || got.status != http.StatusOK {
		t.Fatalf("got %d, %v", got.status, err)
	}
	dial := func() net.Conn {
		c, err := d.dial(request{from: "127.0.0.8"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	ends := func(c net.Conn, within time.Duration) {
		t.Helper()
		begun := time.Now()
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || time.Since(begun) > within {
			t.Errorf("after %s: %d bytes and %v, want the end", time.Since(begun), n, err)
		}
	}
	open := []net.Conn{dial(), dial(), dial()}
	ends(dial(), patience/2)
	if refused := d.gauge(t, `gatehouse_connections_refused_total{reason="per_address"}`); refused != 1 {
		t.Errorf("%v connections were refused, want 1", refused)
	}
	for _, c := range open {
		ends(c, patience/2) // no header came in time
	}
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: h2c}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequest(http.MethodGet, "http://"+d.addr+proxyListOfA, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("api-token", d.key.Token)
	if got, err := answerTo(&http.Client{Transport: transport, Timeout: patience}, r); err != nil || got.status != http.StatusOK || got.proto != "HTTP/2.0" {
		t.Errorf("h2c: got %s %d %s, %v", got.proto, got.status, got.body, err)
	}
	many := elsewhere
	for range 20 {
		many = many.with("X-A: b")
	}
	if got, err := d.exchange(many); err != nil || got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d, %v, want 431", got.status, err)
	}
}

// gauge is the value of a metric, named with its labels.
func (g *gateway) gauge(t *testing.T, name string) float64 {
	t.Helper()
	said, err := g.probe("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(said) {
		if rest, is := strings.CutPrefix(line, name+" "); is {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
