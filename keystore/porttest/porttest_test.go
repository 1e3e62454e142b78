package porttest_test

import (
	"net"
	"strconv"
	"testing"

	"gatehouse/keystore/porttest"
)

// TestPortsAreFreeAndGivenOnce, and none is one that somebody listens on.
func TestPortsAreFreeAndGivenOnce(t *testing.T) {
	t.Parallel()
	ports := porttest.New()
	first, err := ports.Free(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first+1)))
	if err != nil {
		t.Skipf("somebody else listens there: %v", err)
	}
	defer func() { _ = taken.Close() }() // that was all
	given := map[int]bool{first: true}
	for range 100 {
		port, err := ports.Free(t.Context())
		if err != nil || given[port] || port == first+1 || port < 10_000 || port >= 20_000 {
			t.Fatalf("got %d after %v, %v", port, given, err)
		}
		given[port] = true
	}
}
