package proxy_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestContinueIsTheBackendsToSay: a client that waits for 100 before it sends
// its body gets it where the request is let through, and none where it is
// refused.
func TestContinueIsTheBackendsToSay(t *testing.T) {
	t.Parallel()
	g := start(t)
	head := strings.TrimSuffix(request("POST", product+"/settings", "the body", "Expect: 100-continue"), "the body")

	conn := g.dial()
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(conn, "the body"); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(in, nil)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v", r, err)
	}
	_ = r.Body.Close() // only the status counts
	saw, _ := g.backend.one(t)
	if body, err := io.ReadAll(saw.Body); string(body) != "the body" || err != nil {
		t.Errorf("the backend got %q, %v", body, err)
	}

	answered := g.raw(strings.Replace(head, good, tokenOf("bad"), 1)) // and sends no body
	if !strings.HasPrefix(answered, "HTTP/1.1 401 ") {
		t.Errorf("refused, the client got %q", answered)
	}
	if saw := g.backend.saw(); len(saw) != 1 {
		t.Errorf("the backend saw %v", saw)
	}
}
