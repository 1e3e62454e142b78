package main_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
)

// TestGRPCBackendEndsWhatIsOverdue: the backend ends a call whose time is over
// without an answer, and the client is told that, and not that the product could
// not be reached. Its own client would have given up at the same moment, so the
// call is made by hand.
func TestGRPCBackendEndsWhatIsOverdue(t *testing.T) {
	t.Parallel()
	g := newGRPCTable(t, settings{Store: embeddedStore(t)})
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &h2c}
	t.Cleanup(transport.CloseIdleConnections)
	message, err := proto.Marshal(&pb.SimpleRequest{FillUsername: true}) // "wait"
	if err != nil {
		t.Fatal(err)
	}
	framed := []byte{0, 0, 0, 0, byte(len(message))}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.addr+"/grpc.testing.TestService/UnaryCall", bytes.NewReader(append(framed, message...)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Timeout": {"50m"}, "Api-Token": {g.key.Token}}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close() // it was read to its end
	status := answer.Header.Get("Grpc-Status") + answer.Trailer.Get("Grpc-Status")
	if want := codes.DeadlineExceeded; err != nil || status != "4" {
		t.Errorf("got status %q, want %d: %v, %v, %v", status, want, err, answer.Header, answer.Trailer)
	}
	if err := <-g.backend.over; err == nil {
		t.Error("the backend was not told of the deadline")
	}
}
