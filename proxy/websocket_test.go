package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
)

// liveKeys is a KeyFinder whose one key the test changes.
type liveKeys struct {
	found atomic.Pointer[keystore.Entry]
	err   atomic.Pointer[error]
}

func (k *liveKeys) Lookup(context.Context, keystore.Token) (keystore.Entry, error) {
	if err := k.err.Load(); err != nil {
		return keystore.Entry{}, *err
	}
	return *k.found.Load(), nil
}

func (k *liveKeys) set(change func(*policy.Key, *policy.Account)) {
	e := entry()
	change(e.Key, e.Account)
	k.found.Store(&e)
}

func (k *liveKeys) fail(err error) { k.err.Store(&err) }

// liveGate is a gateway that watches over live requests, in front of a backend
// of the test's own.
type liveGate struct {
	*gate
	keys    *liveKeys
	live    *proxy.Live
	watched *prometheus.Registry
}

// liveCount is how many requests are watched over.
func (l *liveGate) liveCount() (n float64) {
	l.t.Helper()
	families, err := l.watched.Gather()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			n += m.GetGauge().GetValue()
		}
	}
	return n
}

func startLive(t *testing.T, backend http.HandlerFunc, changes ...func(*setup)) *liveGate {
	t.Helper()
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	l := &liveGate{keys: &liveKeys{}, watched: prometheus.NewRegistry()}
	l.keys.set(func(*policy.Key, *policy.Account) {})
	clock := newClock()
	l.live, err = proxy.NewLive(proxy.LiveOptions{
		Keys: l.keys, Subscribed: func() bool { return true }, Now: clock.Now, Metrics: l.watched,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.live.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	l.gate = start(t, append([]func(*setup){func(s *setup) {
		s.keys, s.upstream.Targets = l.keys, []*url.URL{target}
		s.options.Live, s.options.Now = l.live, clock.Now
		upstream, err := proxy.NewUpstream(s.upstream)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(upstream.Close)
		s.options.Routes, err = proxy.NewRoutes(nil, []proxy.RouteSpec{
			{Match: "GET /v4/account/{subaccount}/live", Permission: readPermission, Backend: upstream, WebSocket: true},
			{Match: "GET /v4/account/{subaccount}/plain", Permission: readPermission, Backend: upstream},
			{Match: "POST /v4/account/{subaccount}/live", Permission: writePermission, Backend: upstream, WebSocket: true},
		})
		if err != nil {
			t.Fatal(err)
		}
	}}, changes...)...)
	l.clock = clock
	return l
}

const (
	livePath  = "/v4/account/" + string(subA) + "/live"
	plainPath = "/v4/account/" + string(subA) + "/plain"
)

// open opens a WebSocket with the good token, or with the given header.
func (l *liveGate) open(header http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
	if header == nil {
		header = http.Header{"Api-Token": {good}}
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	return websocket.Dial(ctx, "ws://"+l.addr+livePath, &websocket.DialOptions{HTTPHeader: header, Subprotocols: protocols})
}

func (l *liveGate) mustOpen() *websocket.Conn {
	l.t.Helper()
	conn, _, err := l.open(nil) //nolint:bodyclose // a handshake's answer has none
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// echo answers every message with itself.
func echo(seen chan<- *http.Request) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if seen != nil {
			seen <- r
		}
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		conn.SetReadLimit(8 << 20)
		for {
			kind, message, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	}
}

func TestWebSocketIsCarriedBothWays(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	l := startLive(t, echo(seen))
	conn := l.mustOpen()
	conn.SetReadLimit(8 << 20)
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 4 << 20} {
		sent := bytes.Repeat([]byte{'x'}, size)
		if err := conn.Write(t.Context(), websocket.MessageBinary, sent); err != nil {
			t.Fatal(err)
		}
		_, got, err := conn.Read(t.Context())
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("a message of %d bytes: got %d, %v", size, len(got), err)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
	r := <-seen
	if r.Header.Get("X-Gatehouse-Key-Id") == "" || r.Header.Get("Api-Token") != "" || r.URL.Path != livePath {
		t.Errorf("the backend saw %s %v", r.URL, r.Header)
	}
	if record := l.records.next(t); record.Status != 101 || !record.Lasting || record.Reason != "allowed" || record.BytesIn < 4<<20 || record.BytesOut < 4<<20 {
		t.Errorf("the record is %+v", record)
	}
}

// handshake is a raw request for an upgrade, of which a row changes lines.
func handshake(method, path string, lines ...string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: api.example.com\r\nApi-Token: " + good + "\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// TestOnlyWholeHandshakesUpgrade: whatever else asks for another protocol is
// refused, or answered as a request that does not.
func TestOnlyWholeHandshakesUpgrade(t *testing.T) {
	t.Parallel()
	const (
		connection = "Connection: Upgrade"
		protocol   = "Upgrade: websocket"
		key        = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
		version    = "Sec-WebSocket-Version: 13"
	)
	for name, row := range map[string]struct {
		request string
		status  int
	}{
		"whole":                            {handshake("GET", livePath, connection, protocol, key, version), 101},
		"in other letter cases":            {handshake("GET", livePath, "Connection: keep-alive, UPGRADE", "Upgrade: WebSocket", key, version), 101},
		"on a route that allows none":      {handshake("GET", plainPath, connection, protocol, key, version, "Connection: close"), 200},
		"not asked for in Connection":      {handshake("GET", livePath, "Connection: close", protocol, key, version), 200},
		"h2c":                              {handshake("GET", livePath, connection, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Connection: close"), 200},
		"TLS":                              {handshake("GET", livePath, connection, "Upgrade: TLS/1.0", "Connection: close"), 200},
		"two protocols in one line":        {handshake("GET", livePath, connection, "Upgrade: websocket, h2c", key, version), 400},
		"two protocols":                    {handshake("GET", livePath, connection, "Upgrade: h2c", protocol, key, version), 400},
		"by POST":                          {handshake("POST", livePath, connection, protocol, key, version), 400},
		"with a body":                      {handshake("GET", livePath, connection, protocol, key, version, "Content-Length: 4") + "body", 400},
		"with a body in chunks":            {handshake("GET", livePath, connection, protocol, key, version, "Transfer-Encoding: chunked") + "0\r\n\r\n", 400},
		"of another version":               {handshake("GET", livePath, connection, protocol, key, "Sec-WebSocket-Version: 8"), 400},
		"of no version":                    {handshake("GET", livePath, connection, protocol, key), 400},
		"of two versions":                  {handshake("GET", livePath, connection, protocol, key, version, version), 400},
		"without a key":                    {handshake("GET", livePath, connection, protocol, version), 400},
		"with two keys":                    {handshake("GET", livePath, connection, protocol, key, key, version), 400},
		"with a short key":                 {handshake("GET", livePath, connection, protocol, "Sec-WebSocket-Key: c2hvcnQ=", version), 400},
		"with a key that is none":          {handshake("GET", livePath, connection, protocol, "Sec-WebSocket-Key: ????", version), 400},
		"without a token":                  {strings.Replace(handshake("GET", livePath, connection, protocol, key, version), "Api-Token", "X-Other", 1), 401},
		"with a token under another name":  {handshake("GET", livePath, connection, protocol, key, version, "Sec_WebSocket_Protocol: gatehouse.token."+good), 101},
		"that Connection takes the key of": {handshake("GET", livePath, "Connection: Upgrade, Sec-WebSocket-Key", protocol, key, version), 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var reached atomic.Pointer[http.Request]
			l := startLive(t, func(w http.ResponseWriter, r *http.Request) {
				reached.Store(r)
				if r.Header.Get("Upgrade") != "" {
					echo(nil)(w, r)
				}
			})
			conn := l.dial()
			if _, err := io.WriteString(conn, row.request); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, len("HTTP/1.1 101"))
			if _, err := io.ReadFull(conn, line); err != nil || string(line) != fmt.Sprintf("HTTP/1.1 %d", row.status) {
				t.Errorf("got %q, %v, want %d", line, err, row.status)
			}
			r := reached.Load()
			if r != nil && strings.Contains(fmt.Sprint(r.Header), good) {
				t.Errorf("the backend saw the token: %v", r.Header)
			}
			switch {
			case row.status < 300 && r == nil:
				t.Error("the backend saw nothing")
			case row.status == 200 && (r.Header.Get("Upgrade") != "" || r.Header.Get("Sec-Websocket-Key") != ""):
				t.Errorf("the backend saw %v", r.Header)
			case row.status >= 400 && r != nil:
				t.Errorf("the backend saw %v", r.Header)
			}
		})
	}
}

// TestBackendThatSwitchesToSomethingElse: its 101 goes nowhere.
func TestBackendThatSwitchesToSomethingElse(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"another protocol":          "Connection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: {}\r\n",
		"no protocol":               "Connection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
		"a wrong accept key":        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
		"no accept key":             "Connection: Upgrade\r\nUpgrade: websocket\r\n",
		"a protocol nobody offered": "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: chat\r\n",
		"an unasked extension":      "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\nSec-WebSocket-Extensions: x\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLive(t, func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer func() { _ = conn.Close() }()
				accept := proxy.AcceptKey(r.Header.Get("Sec-Websocket-Key"))
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"+strings.ReplaceAll(head, "{}", accept)+"\r\n")
			})
			_, response, err := l.open(nil) //nolint:bodyclose // a handshake's answer has none
			if err == nil || response == nil || response.StatusCode != http.StatusBadGateway {
				t.Errorf("got %v, %v, want a 502", response, err)
			}
		})
	}
}

// TestTokenAsSubprotocol: where it is allowed, a browser's WebSocket is let in
// by it; and it is never forwarded.
func TestTokenAsSubprotocol(t *testing.T) {
	t.Parallel()
	other := tokenOf("other")
	for name, row := range map[string]struct {
		off       bool
		header    http.Header
		protocols []string
		status    int
	}{
		"alone":                       {protocols: []string{"gatehouse.token." + good, "chat"}, status: 101},
		"behind another":              {protocols: []string{"chat", "gatehouse.token." + good}, status: 101},
		"beside the same in a header": {header: http.Header{"Api-Token": {good}}, protocols: []string{"gatehouse.token." + good, "chat"}, status: 101},
		"beside the same bearer":      {header: http.Header{"Authorization": {"Bearer " + good}}, protocols: []string{"gatehouse.token." + good, "chat"}, status: 101},
		"beside another in a header":  {header: http.Header{"Api-Token": {other}}, protocols: []string{"gatehouse.token." + good, "chat"}, status: 400},
		"beside another bearer":       {header: http.Header{"Authorization": {"Bearer " + other}}, protocols: []string{"gatehouse.token." + good, "chat"}, status: 400},
		"twice":                       {protocols: []string{"gatehouse.token." + good, "chat", "gatehouse.token." + good}, status: 400},
		"malformed":                   {protocols: []string{"gatehouse.token.x", "chat"}, status: 401},
		"empty":                       {protocols: []string{"gatehouse.token.", "chat"}, status: 401},
		"where it is off":             {off: true, protocols: []string{"gatehouse.token." + good, "chat"}, status: 401},
		"where it is off, and needless": {
			off: true, header: http.Header{"Api-Token": {good}},
			protocols: []string{"gatehouse.token." + other, "chat"}, status: 101,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan *http.Request, 1)
			l := startLive(t, echo(seen), func(s *setup) {
				s.options.ProtocolTokens = !row.off
				s.keys = only(t, good, entry())
			})
			if row.header == nil {
				row.header = http.Header{}
			}
			conn, response, err := l.open(row.header, row.protocols...) //nolint:bodyclose // a handshake's answer has none
			if response == nil || response.StatusCode != row.status {
				t.Fatalf("got %v, %v, want %d", response, err, row.status)
			}
			if row.status != 101 {
				if len(seen) > 0 {
					t.Error("the backend saw it")
				}
				return
			}
			defer func() { _ = conn.CloseNow() }()
			if got := (<-seen).Header["Sec-Websocket-Protocol"]; len(got) != 1 || got[0] != "chat" || conn.Subprotocol() != "chat" {
				t.Errorf("the backend saw %q, the client %q", got, conn.Subprotocol())
			}
		})
	}
}

// endings are the ways in which the right to a live request ends.
var endings = map[string]struct {
	change func(l *liveGate)
	code   string
}{
	"revoked":  {func(l *liveGate) { l.keys.fail(keystore.ErrUnknownToken) }, "invalid_token"},
	"disabled": {func(l *liveGate) { l.keys.set(func(k *policy.Key, _ *policy.Account) { k.Active = false }) }, "key_disabled"},
	"expired": {func(l *liveGate) {
		l.keys.set(func(k *policy.Key, _ *policy.Account) { k.Expiry = policy.ExpiresAt(theTime.Unix() - 1) })
	}, "key_expired"},
	"without the permission": {func(l *liveGate) {
		l.keys.set(func(k *policy.Key, _ *policy.Account) { k.Permissions = policy.NewPermissionSet(deletePermission) })
	}, "permission_denied"},
	"without the subaccount": {func(l *liveGate) {
		l.keys.set(func(k *policy.Key, _ *policy.Account) { k.Subaccounts = policy.OnlySubaccounts(subB) })
	}, "subaccount_not_allowed"},
	"bound to other addresses": {func(l *liveGate) {
		l.keys.set(func(k *policy.Key, _ *policy.Account) {
			k.Addresses = policy.OnlyAddresses(netip.MustParsePrefix("203.0.113.0/24"))
		})
	}, "ip_not_allowed"},
	"suspended": {func(l *liveGate) {
		l.keys.set(func(_ *policy.Key, a *policy.Account) { a.Status = policy.Suspended })
	}, "account_suspended"},
}

// TestWebSocketEndsWithItsRight: with close code 1008 and the code of the
// contract, within a second.
func TestWebSocketEndsWithItsRight(t *testing.T) {
	t.Parallel()
	for name, row := range endings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLive(t, echo(nil))
			conn := l.mustOpen()
			row.change(l)
			begun := time.Now()
			l.live.Changed(keystore.Change{})
			_, _, err := conn.Read(t.Context())
			var closed websocket.CloseError
			if !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation || closed.Reason != row.code {
				t.Fatalf("got %v, want 1008 %s", err, row.code)
			}
			if took := time.Since(begun); took > 2*time.Second { // a promise of one, on a busy machine
				t.Errorf("it took %s", took)
			}
			if record := l.records.next(t); record.Reason != row.code || record.Status != 101 {
				t.Errorf("the record is %+v", record)
			}
		})
	}
}

func TestWebSocketExpiresByTheClock(t *testing.T) {
	t.Parallel()
	l := startLive(t, echo(nil))
	l.keys.set(func(k *policy.Key, _ *policy.Account) { k.Expiry = policy.ExpiresAt(theTime.Unix() + 60) })
	conn := l.mustOpen()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("a")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); err != nil {
		t.Fatalf("before its time: %v", err)
	}
	l.clock.Advance(time.Minute)
	_, _, err := conn.Read(t.Context())
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Reason != "key_expired" {
		t.Errorf("got %v, want key_expired", err)
	}
}

// TestUnavailableStoreEndsNoLiveRequestAtOnce, but does when nothing was known
// of its key for long.
func TestUnavailableStoreEndsNoLiveRequestAtOnce(t *testing.T) {
	t.Parallel()
	l := startLive(t, echo(nil))
	conn := l.mustOpen()
	l.keys.fail(keystore.ErrUnavailable)
	l.live.Changed(keystore.Change{})
	l.clock.Advance(9 * time.Second)
	for range 3 {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte("a")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := conn.Read(t.Context()); err != nil {
			t.Fatalf("a short outage: %v", err)
		}
	}
	ended := make(chan error, 1)
	go func() {
		_, _, err := conn.Read(t.Context())
		ended <- err
	}()
	eventually(t, "it ends", func() bool {
		l.clock.Advance(11 * time.Second)
		return len(ended) > 0
	})
	var closed websocket.CloseError
	if err := <-ended; !errors.As(err, &closed) || closed.Code != websocket.StatusTryAgainLater {
		t.Errorf("got %v, want 1013", err)
	}
}

func TestEventStreamEndsWithItsRight(t *testing.T) {
	t.Parallel()
	for name, row := range endings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLive(t, events(t))
			body := l.events()
			row.change(l)
			l.live.Changed(keystore.Change{})
			if _, err := io.Copy(io.Discard, body); err != nil {
				t.Errorf("it ended with %v", err)
			}
			if record := l.records.next(t); record.Reason != row.code || !record.Lasting {
				t.Errorf("the record is %+v", record)
			}
		})
	}
}

// events is a backend of one event, and then silence.
func events(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-t.Context().Done():
		}
	}
}

// events opens an event stream, and returns what comes behind its first event.
func (l *liveGate) events() io.Reader {
	l.t.Helper()
	r, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, "http://"+l.addr+plainPath, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	r.Header.Set("Api-Token", good)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = response.Body.Close() })
	first := make([]byte, len("data: 1\n\n"))
	if _, err := io.ReadFull(response.Body, first); err != nil {
		l.t.Fatalf("the first event did not come by itself: %v", err)
	}
	return response.Body
}

// TestDrainTellsThemToGo: WebSockets by close code 1001.
func TestDrainTellsThemToGo(t *testing.T) {
	t.Parallel()
	l := startLive(t, echo(nil))
	conn := l.mustOpen()
	drained := make(chan error, 1)
	go func() { drained <- l.live.Drain(t.Context()) }()
	_, _, err := conn.Read(t.Context())
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.StatusGoingAway {
		t.Errorf("got %v, want 1001", err)
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	late, _, err := l.open(nil) //nolint:bodyclose // a handshake's answer has none
	if err == nil {             // one that was on its way
		_, _, err = late.Read(t.Context())
		if !errors.As(err, &closed) || closed.Code != websocket.StatusGoingAway {
			t.Errorf("a late one got %v, want 1001", err)
		}
	}
}
