package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestHeadersThatAreNoneAreNotHandedOn: what a backend says in them reaches no
// client. An answer that begins with one is garbage; behind one, it is left out.
func TestHeadersThatAreNoneAreNotHandedOn(t *testing.T) {
	t.Parallel()
	for _, c := range []string{"\x00", "\x01", "\x0b", "\x1b", "\x7f"} {
		bad := "X-Bad: a" + c + "evil\r\n"
		for _, row := range []struct {
			name, text string
			status     int
		}{
			{"an answer", "HTTP/1.1 200 OK\r\n" + bad + "Content-Length: 2\r\n\r\nok", http.StatusBadGateway},
			{"an early hint", "HTTP/1.1 103 Early Hints\r\n" + bad + "\r\n" + okAnswer, http.StatusBadGateway},
			{"a name that is none", "HTTP/1.1 200 OK\r\nX(Evil): evil" + c + "\r\nContent-Length: 2\r\n\r\nok", http.StatusBadGateway},
			{"an announced trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Bad\r\n\r\n2\r\nok\r\n0\r\n" + bad + "\r\n", http.StatusOK},
			{"a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + bad + "X-Good: fine\r\n\r\n", http.StatusOK},
		} {
			g := start(t)
			g.backend.says(row.text)
			if said := g.raw(get(product + "/proxy-list")); strings.Contains(said, "evil") || !strings.HasPrefix(said, fmt.Sprintf("HTTP/1.1 %d ", row.status)) {
				t.Errorf("%s with %q: the client saw %q, want %d", row.name, c, said, row.status)
			}
		}
	}
}

// TestRefusalOfTheGuardIsAProblemAndIsRecorded, in its place among the answers
// to other requests.
func TestRefusalOfTheGuardIsAProblemAndIsRecorded(t *testing.T) {
	t.Parallel()
	g := start(t)
	keep := strings.Replace(get(product+"/proxy-list"), "Connection: close\r\n", "", 1)
	conn := g.dial()
	if _, err := conn.Write([]byte(keep + strings.ReplaceAll(keep, "\r\n", "\n"))); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for _, want := range []struct {
		status int
		reason string
	}{{http.StatusOK, "allowed"}, {http.StatusBadRequest, "invalid_request"}} {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
		record := g.records.next(t)
		if r.StatusCode != want.status || record.Reason != want.reason || r.Header.Get("X-Request-Id") != record.RequestID {
			t.Errorf("answered %d, recorded %s, want %d %s", r.StatusCode, record.Reason, want.status, want.reason)
		}
		if want.status != http.StatusOK && (!r.Close || r.Header.Get("Content-Type") != "application/problem+json" || record.Method != "other" || record.Route != "") {
			t.Errorf("answered %v, recorded %+v", r.Header, record)
		}
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("the connection is open")
	}
}

// TestRefusedUploadGetsItsAnswer: a client that goes on sending is not reset
// before it has read why it was refused.
func TestRefusedUploadGetsItsAnswer(t *testing.T) {
	t.Parallel()
	g := start(t)
	conn := g.dial()
	go func() { // ends with the connection
		_, _ = conn.Write([]byte("POST " + product + "/settings HTTP/1.1\r\nHost : x\r\nContent-Length: 9999999\r\n\r\n"))
		for {
			if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || r.StatusCode != http.StatusBadRequest {
		t.Fatalf("answered %+v, %v, want 400", r, err)
	}
	_ = r.Body.Close()
}
