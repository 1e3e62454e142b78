package proxy_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"gatehouse/proxy"
	"gatehouse/proxy/wire"
)

// What a backend says before its answer, to be left out but for the link.
const earlyHints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Named, X-Request-Id, keep-alive\r\nX-Named: evil\r\n" +
	"Keep-Alive: evil\r\nProxy-Connection: evil\r\nProxy-Authenticate: evil\r\nUpgrade: evil\r\nTrailer: evil\r\n\r\n"

// TestInterimAnswersSayNothingOfTheConnection, which is not the backend's. What
// the server around the gateway said of it before stands in the answer itself,
// and nowhere else: HTTP/2 has no such header (RFC 9113 §8.2.2).
func TestInterimAnswersSayNothingOfTheConnection(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	g.backend.says(earlyHints + okAnswer)
	last := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Connection"] = []string{"close"}
		g.gateway.ServeHTTP(w, r)
	})
	server := httptest.NewUnstartedServer(nil)
	options := serverOptions()
	options.H2C = true
	server.Config = proxy.NewServer(last, options)
	server.Listener = guarded(t, server.Listener, wire.Options{H2C: true})
	server.Start()
	t.Cleanup(server.Close)
	for _, multiplexed := range []bool{false, true} {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(!multiplexed)
		transport.Protocols.SetUnencryptedHTTP2(multiplexed)
		t.Cleanup(transport.CloseIdleConnections)
		var early http.Header
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
				early = http.Header(h)
				return nil
			},
		})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+product+"/proxy-list", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Api-Token", good)
		answer, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || string(body) != "ok" {
			t.Errorf("%s: answered %d %q, %v", answer.Proto, answer.StatusCode, body, err)
		}
		if len(early) != 2 || early.Get("Link") != "</a>" || early.Get("X-Request-Id") != g.records.next(t).RequestID {
			t.Errorf("%s: the interim answer had %v", answer.Proto, early)
		}
		if !multiplexed && !answer.Close {
			t.Error("the answer does not say that it is the last one")
		}
		if said := strings.Join(answer.Header["Connection"], ""); multiplexed && said != "" {
			t.Errorf("HTTP/2: the answer had Connection: %s", said)
		}
	}
}
