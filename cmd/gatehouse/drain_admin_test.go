package main_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// beginOperatorWrite sends a change of an account but for its end, and returns
// how to go on.
func (g *gateway) beginOperatorWrite(t *testing.T) (c net.Conn, rest string) {
	t.Helper()
	const body = `{"name": "Late", "permissions": ["*"]}`
	c, err := net.Dial("tcp", g.admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the gateway closes it too
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(c, "PUT /admin/v1/accounts/late HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", operatorToken, len(body))
	if err != nil {
		t.Fatal(err)
	}
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	if said, err := bufio.NewReaderSize(c, len(goOn)).Peek(len(goOn)); err != nil || string(said) != goOn {
		t.Fatalf("the gateway said %q, %v", said, err) // it reads the body now
	}
	return c, body
}

// TestDrainAnswersOperators: what they have begun is carried out and answered,
// also where no request of a client is under way. A write that is cut off leaves
// nobody who knows whether it was done.
func TestDrainAnswersOperators(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	g := startGateway(t, settings{Store: embeddedStore(t), Env: append(m.environment(), "WATCHDOG_USEC=300000")})
	c, rest := g.beginOperatorWrite(t)
	g.signal(t, syscall.SIGTERM)
	eventually(t, patience, "no operator can connect", func() error {
		other, err := net.Dial("tcp", g.admin)
		if err == nil {
			_ = other.Close() // it was one too many
		}
		return unless(err != nil, "it is still listening")
	})
	m.hears(t, "STOPPING=1")
	m.hears(t, "WATCHDOG=1") // or systemd would kill it while it waits
	m.hears(t, "WATCHDOG=1")
	got, err := exchangeOn(c, bufio.NewReader(c), http.MethodPut, []byte(rest))
	if err != nil || got.status != http.StatusCreated {
		t.Errorf("the operator got %d %s, %v", got.status, got.body, err)
	}
	if code := g.wait(t, patience); code != 0 {
		t.Errorf("it ended with %d, want 0", code)
	}
}

// TestDrainCutsOperatorsOffPastTheGrace, and says so.
func TestDrainCutsOperatorsOffPastTheGrace(t *testing.T) {
	t.Parallel()
	const grace = time.Second
	g := startGateway(t, settings{Store: embeddedStore(t), Grace: grace.String()})
	g.beginOperatorWrite(t)
	signalled := time.Now()
	g.signal(t, syscall.SIGTERM)
	code := g.wait(t, patience)
	if took := time.Since(signalled); code == 0 || took < grace/2 || took > slack*grace {
		t.Errorf("it ended with %d after %s, want another code than 0 after %s", code, took, grace)
	}
	if !strings.Contains(g.stderr.String(), "cut off") {
		t.Errorf("stderr does not say that a request was cut off: %s", g.stderr.String())
	}
}
