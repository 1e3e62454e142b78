package main_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// chatBackend echoes the messages of WebSockets, and sends an event each time
// it is told to.
func chatBackend(t *testing.T) (addr string, tell chan<- string) {
	t.Helper()
	said := make(chan string)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /chat", func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }() // the test's own
		for {
			kind, message, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case event := <-said:
				_, _ = fmt.Fprintf(w, "data: %s\n\n", event)
				_ = http.NewResponseController(w).Flush()
			}
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String(), said
}

func chatSettings(store, addr string) settings {
	return settings{
		Store: store, Upstreams: fmt.Sprintf("  chat: {targets: [\"http://%s\"]}", addr),
		Routes: `
  - {match: GET /chat, permission: "serp_api:read", upstream: chat, websocket: true}
  - {match: GET /events, permission: "serp_api:read", upstream: chat}`,
	}
}

// chat opens a WebSocket and sends a message there and back.
func (g *gateway) chat(t *testing.T, k key) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+g.addr+"/chat", &websocket.DialOptions{HTTPHeader: http.Header{"Api-Token": {k.Token}}}) //nolint:bodyclose // a handshake's answer has none
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(ctx); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	return conn
}

// events opens an event stream.
func (g *gateway) events(t *testing.T, k key) *bufio.Reader {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.addr+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("api-token", k.Token)
	response, err := (&http.Client{}).Do(r) // which has no timeout
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatalf("events: %d", response.StatusCode)
	}
	return bufio.NewReader(response.Body)
}

// TestLiveRequestsEndOnEveryNode within a second of the moment in which their
// right does, whichever node was told.
func TestLiveRequestsEndOnEveryNode(t *testing.T) {
	t.Parallel()
	addr, tell := chatBackend(t)
	redis := startRedis(t)
	d := newTable(t, chatSettings(redis.yaml(), addr))
	there := startGateway(t, func() settings {
		s := chatSettings(redis.yaml(), addr)
		s.Datacenter, s.Residential = d.set.Datacenter, d.set.Residential
		return s
	}())
	change := func(k key, body string) {
		d.passes(t, manage(d.root, http.MethodPut, keyTarget(k.ID), body))
	}
	for name, row := range map[string]struct {
		end  func(k key)
		code string
	}{
		"revoked":     {func(k key) { d.passes(t, manage(d.root, http.MethodDelete, keyTarget(k.ID), "")) }, "invalid_token"},
		"regenerated": {func(k key) { d.passes(t, manage(d.root, http.MethodPost, keyTarget(k.ID)+"/regenerate", "")) }, "invalid_token"},
		"disabled":    {func(k key) { change(k, `{"is_active": false}`) }, "key_disabled"},
		"narrowed":    {func(k key) { change(k, `{"permissions": ["serp_api:write"]}`) }, "permission_denied"},
		"bound":       {func(k key) { change(k, `{"allowed_ips": ["203.0.113.7"]}`) }, "ip_not_allowed"},
		"expired": {func(k key) {
			change(k, fmt.Sprintf(`{"expires_at": %d}`, time.Now().Unix()+1))
		}, "key_expired"},
	} {
		k := d.createKey(t, d.root, may("serp_api:read", "serp_api:write"))
		socket, events := there.chat(t, k), there.events(t, k)
		tell <- "before"
		if line, err := events.ReadString('\n'); err != nil || line != "data: before\n" {
			t.Fatalf("%s: an event came as %q, %v", name, line, err)
		}
		row.end(k)
		begun := time.Now()
		_, _, err := socket.Read(t.Context())
		var closed websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation || closed.Reason != row.code {
			t.Errorf("%s: the WebSocket ended with %v, want 1008 %s", name, err, row.code)
		}
		if rest, err := io.ReadAll(events); err != nil || strings.TrimSpace(string(rest)) != "" {
			t.Errorf("%s: the events ended with %q, %v", name, rest, err)
		}
		took := time.Since(begun)
		if t.Logf("%s: after %s", name, took.Round(time.Millisecond)); took > slack*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
	k := d.createKey(t, d.root, may("serp_api:read"))
	socket := there.chat(t, k)
	suspended := acme()
	suspended.Status = "suspended"
	d.putAccount(t, "acme", suspended)
	var closed websocket.CloseError
	if _, _, err := socket.Read(t.Context()); !errors.As(err, &closed) || closed.Reason != "account_suspended" {
		t.Errorf("suspended: the WebSocket ended with %v", err)
	}
}

// TestLiveRequestsAreWatchedWithoutNews: while Redis does not tell of changes,
// they are looked for.
func TestLiveRequestsAreWatchedWithoutNews(t *testing.T) {
	t.Parallel()
	addr, _ := chatBackend(t)
	redis := startRedis(t)
	d := newTable(t, chatSettings(redis.yaml(), addr))
	k := d.createKey(t, d.root, may("serp_api:read"))
	socket := d.chat(t, k)
	for _, command := range [][]any{
		{"ACL", "SETUSER", "default", "-subscribe"},
		{"CLIENT", "KILL", "TYPE", "PUBSUB"},
		{"DEL", fmt.Sprintf("gatehouse:key:%x", sha256.Sum256([]byte(k.Token)))},
	} {
		if err := redis.client.Do(t.Context(), command...).Err(); err != nil {
			t.Fatalf("%v: %v", command, err)
		}
	}
	var closed websocket.CloseError
	if _, _, err := socket.Read(t.Context()); !errors.As(err, &closed) || closed.Reason != "invalid_token" {
		t.Errorf("the WebSocket ended with %v", err)
	}
}

// TestLiveRequestsEndWithoutAnyMessage, within ten seconds: a key that is gone
// from Redis ends them also where no change of it was ever announced.
func TestLiveRequestsEndWithoutAnyMessage(t *testing.T) {
	t.Parallel()
	addr, _ := chatBackend(t)
	redis := startRedis(t)
	d := newTable(t, chatSettings(redis.yaml(), addr))
	k := d.createKey(t, d.root, may("serp_api:read"))
	socket := d.chat(t, k)
	if err := redis.client.Del(t.Context(), fmt.Sprintf("gatehouse:key:%x", sha256.Sum256([]byte(k.Token)))).Err(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	var closed websocket.CloseError
	if _, _, err := socket.Read(t.Context()); !errors.As(err, &closed) || closed.Reason != "invalid_token" {
		t.Errorf("the WebSocket ended with %v", err)
	}
	if took := time.Since(begun); took > slack*10*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestDrainTellsLiveRequestsToGo, and does not wait for them.
func TestDrainTellsLiveRequestsToGo(t *testing.T) {
	t.Parallel()
	addr, _ := chatBackend(t)
	d := newTable(t, chatSettings(embeddedStore(t), addr))
	k := d.createKey(t, d.root, may("serp_api:read"))
	socket, events := d.chat(t, k), d.events(t, k)
	begun := time.Now()
	d.signal(t, syscall.SIGTERM)
	var closed websocket.CloseError
	if _, _, err := socket.Read(t.Context()); !errors.As(err, &closed) || closed.Code != websocket.StatusGoingAway {
		t.Errorf("the WebSocket ended with %v, want 1001", err)
	}
	if _, err := io.ReadAll(events); err != nil {
		t.Errorf("the events ended with %v", err)
	}
	if code := d.wait(t, patience); code != 0 || time.Since(begun) > 10*time.Second {
		t.Errorf("it ended with %d after %s", code, time.Since(begun))
	}
}
