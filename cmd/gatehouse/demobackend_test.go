package main_test

import (
	"fmt"
	"net/http"
	"regexp"
	"syscall"
	"testing"
)

// TestDemoBackend answers for the products by itself, until it is told to stop.
func TestDemoBackend(t *testing.T) {
	t.Parallel()
	p := startProcess(t, gatehouse(t, "demo-backend", "--listen", "127.0.0.1:0"))
	var addr string
	eventually(t, patience, "it says where it listens", func() error {
		found := regexp.MustCompile(`"listen":"([^"]+)"`).FindStringSubmatch(p.stdout.String())
		if found == nil {
			return fmt.Errorf("%s%s", p.stdout.String(), p.stderr.String())
		}
		addr = found[1]
		return nil
	})
	client := &http.Client{Timeout: patience}
	response, err := client.Get("http://" + addr + proxyListOfA)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("it answers %s", response.Status)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t, patience); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	busy := gatehouse(t, "demo-backend", "--listen", "127.0.0.1:-1")
	if err := busy.Run(); err == nil {
		t.Error("an address that is none is taken")
	}
}
