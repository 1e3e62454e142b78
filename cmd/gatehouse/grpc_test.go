package main_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// grpcBackend is a product that speaks gRPC.
type grpcBackend struct {
	pb.UnimplementedTestServiceServer
	addr string
	seen chan metadata.MD // of each call
	over chan error       // how each waiting call ended
}

func startGRPC(t *testing.T) *grpcBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &grpcBackend{addr: l.Addr().String(), seen: make(chan metadata.MD, 100), over: make(chan error, 100)}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(32 << 20))
	pb.RegisterTestServiceServer(server, b)
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	return b
}

func (b *grpcBackend) note(ctx context.Context) {
	md, _ := metadata.FromIncomingContext(ctx)
	b.seen <- md
}

// UnaryCall echoes its payload, fails when it is told to, or waits for the end
// of the call.
func (b *grpcBackend) UnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	b.note(ctx)
	if s := r.GetResponseStatus(); s != nil {
		return nil, status.Error(codes.Code(s.GetCode()), s.GetMessage()) // #nosec G115 -- the test's own
	}
	if r.GetFillUsername() { // "wait"
		<-ctx.Done()
		b.over <- ctx.Err()
		return nil, ctx.Err()
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-own", "header", "x-gatehouse-account", "evil"))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-end", "trailer", "x-gatehouse-account", "evil"))
	return &pb.SimpleResponse{Payload: r.GetPayload()}, nil
}

// StreamingInputCall sums the sizes of what it gets.
func (b *grpcBackend) StreamingInputCall(s grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]) error {
	b.note(s.Context())
	var sum int32
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: sum})
		}
		if err != nil {
			b.over <- err
			return err
		}
		sum += int32(len(r.GetPayload().GetBody())) // #nosec G115 -- small
	}
}

// StreamingOutputCall sends what it is asked for.
func (b *grpcBackend) StreamingOutputCall(r *pb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	b.note(s.Context())
	for _, p := range r.GetResponseParameters() {
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}

// FullDuplexCall echoes until the client is done.
func (b *grpcBackend) FullDuplexCall(s grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	b.note(s.Context())
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.Send(&pb.StreamingOutputCallResponse{Payload: r.GetPayload()})
		}
		if err != nil {
			b.over <- err
			return err
		}
	}
}

// grpcTable is a gateway in front of a gRPC backend, and a client of it.
type grpcTable struct {
	*table
	backend *grpcBackend
	api     pb.TestServiceClient
	key     key
}

func newGRPCTable(t *testing.T, s settings) *grpcTable {
	t.Helper()
	b := startGRPC(t)
	s.Upstreams = fmt.Sprintf("  grpc: {targets: [\"h2c://%s\"]}", b.addr)
	s.Routes = `
  - {match: "POST /grpc.testing.TestService/{call}", permission: "serp_api:write", upstream: grpc, max_body: 64MiB}`
	transport := insecure.NewCredentials()
	if s.H2C = s.TLS == ""; !s.H2C {
		certFile, keyFile, roots := certificate(t)
		s.TLS = fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile)
		transport = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots})
	}
	g := &grpcTable{table: newPlainTable(t, s), backend: b}
	g.key = g.firstKey(t, "acme", may(append([]string{"serp_api:write"}, everything[len(everything)-6:]...)...))
	conn, err := grpc.NewClient(g.addr, grpc.WithTransportCredentials(transport), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	g.api = pb.NewTestServiceClient(conn)
	return g
}

// as is a call of the key.
func as(t *testing.T, k key, more ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, append([]string{"api-token", k.Token}, more...)...)
}

func payload(n int) *pb.Payload { return &pb.Payload{Body: make([]byte, n)} }

// TestGRPC: the four kinds of calls, over TLS and without, with what belongs to
// them.
func TestGRPC(t *testing.T) {
	t.Parallel()
	for name, secured := range map[string]string{"over TLS": "yes", "h2c": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGRPCTable(t, settings{Store: embeddedStore(t), TLS: secured})
			t.Run("unary", g.testUnary)
			t.Run("client streams", g.testClientStreams)
			t.Run("server streams", g.testServerStreams)
			t.Run("both stream", g.testBothStream)
			t.Run("statuses", g.testStatuses)
			t.Run("deadline and cancellation", g.testEnds)
			t.Run("refusals", g.testRefusals)
		})
	}
}

func (g *grpcTable) testUnary(t *testing.T) {
	for _, size := range []int{0, 1000, 8 << 20} {
		var header, trailer metadata.MD
		got, err := g.api.UnaryCall(as(t, g.key, "x-mine", "1", "x-gatehouse-account", "evil", "x-bin-bin", "\x00\xff"),
			&pb.SimpleRequest{Payload: payload(size)}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil || len(got.GetPayload().GetBody()) != size {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got := header.Get("x-own"); len(got) != 1 || len(header.Get("x-gatehouse-account"))+len(trailer.Get("x-gatehouse-account")) != 0 || len(trailer.Get("x-end")) != 1 {
			t.Errorf("the client saw %v and %v", header, trailer)
		}
		seen := <-g.backend.seen
		if strings.Join(seen.Get("x-gatehouse-account"), " ") != "acme" || len(seen.Get("api-token")) != 0 ||
			strings.Join(seen.Get("x-mine"), "") != "1" || strings.Join(seen.Get("x-bin-bin"), "") != "\x00\xff" {
			t.Errorf("the backend saw %v", seen)
		}
	}
}

func (g *grpcTable) testClientStreams(t *testing.T) {
	s, err := g.api.StreamingInputCall(as(t, g.key))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := s.Send(&pb.StreamingInputCallRequest{Payload: payload(100_000)}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.CloseAndRecv(); err != nil || got.GetAggregatedPayloadSize() != 1_000_000 {
		t.Errorf("got %v, %v", got, err)
	}
	<-g.backend.seen
}

func (g *grpcTable) testServerStreams(t *testing.T) {
	r := &pb.StreamingOutputCallRequest{}
	for range 10 {
		r.ResponseParameters = append(r.ResponseParameters, &pb.ResponseParameters{Size: 100_000})
	}
	s, err := g.api.StreamingOutputCall(as(t, g.key), r)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = s.Recv()
	}
	if n != 11 || !errors.Is(err, io.EOF) {
		t.Errorf("got %d messages, %v", n-1, err)
	}
	<-g.backend.seen
}

// testBothStream: every message comes as soon as it was sent.
func (g *grpcTable) testBothStream(t *testing.T) {
	s, err := g.api.FullDuplexCall(as(t, g.key))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if err := s.Send(&pb.StreamingOutputCallRequest{Payload: payload(n)}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Recv(); err != nil || len(got.GetPayload().GetBody()) != n {
			t.Fatalf("message %d: %v, %v", n, got, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
	<-g.backend.seen
}

// testStatuses: the backend's own pass as they are.
func (g *grpcTable) testStatuses(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		_, err := g.api.UnaryCall(as(t, g.key), &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(code), Message: "ünd % so"}}) // #nosec G115 -- 16 at the most
		if s := status.Convert(err); s.Code() != code || s.Message() != "ünd % so" {
			t.Errorf("%s: got %v", code, err)
		}
		<-g.backend.seen
	}
	_, err := g.api.EmptyCall(as(t, g.key), &pb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a call that the backend lacks: %v", err)
	}
}

func (g *grpcTable) testEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(as(t, g.key), 300*time.Millisecond)
	defer cancel()
	if _, err := g.api.UnaryCall(ctx, &pb.SimpleRequest{FillUsername: true}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
	if err := <-g.backend.over; err == nil {
		t.Error("the backend was not told of the deadline")
	}
	<-g.backend.seen
	ctx, cancel = context.WithCancel(as(t, g.key))
	s, err := g.api.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	<-g.backend.seen
	cancel()
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("cancellation: %v", err)
	}
	if err := <-g.backend.over; err == nil {
		t.Error("the backend was not told of the cancellation")
	}
}

// testRefusals: they have a status that the client understands.
func (g *grpcTable) testRefusals(t *testing.T) {
	weak := g.firstKey(t, "acme", may("serp_api:read"))
	for name, row := range map[string]struct {
		ctx  context.Context
		code codes.Code
		says string
	}{
		"no key":        {metadata.NewOutgoingContext(t.Context(), nil), codes.Unauthenticated, "missing_credentials"},
		"bad key":       {as(t, key{Token: "bad"}), codes.Unauthenticated, "invalid_token"},
		"weak key":      {as(t, weak), codes.PermissionDenied, "permission_denied"},
		"two different": {as(t, g.key, "authorization", "Bearer other"), codes.InvalidArgument, "ambiguous_credentials"},
	} {
		_, err := g.api.UnaryCall(row.ctx, &pb.SimpleRequest{})
		if s := status.Convert(err); s.Code() != row.code || !strings.Contains(s.Message(), row.says) {
			t.Errorf("%s: got %v, want %s %s", name, err, row.code, row.says)
		}
	}
	if len(g.backend.seen) != 0 {
		t.Error("the backend saw a refused call")
	}
}

// TestGRPCLimitsAndOutages: they too.
func TestGRPCLimitsAndOutages(t *testing.T) {
	t.Parallel()
	g := newGRPCTable(t, settings{Store: embeddedStore(t), Key: "{rate: 0.001, burst: 1}"})
	if _, err := g.api.UnaryCall(as(t, g.key), &pb.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.api.UnaryCall(as(t, g.key), &pb.SimpleRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("rate limit: %v", err)
	}
	redis := startRedis(t)
	g = newGRPCTable(t, settings{Store: redis.yaml(), Timeout: "250ms"})
	redis.kill()
	if _, err := g.api.UnaryCall(as(t, g.key), &pb.SimpleRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("no store: %v", err)
	}
}

// TestGRPCStreamEndsWithItsRight, with a status that says why.
func TestGRPCStreamEndsWithItsRight(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		g := newGRPCTable(t, settings{Store: store})
		for name, row := range map[string]struct {
			end  func(k key)
			code codes.Code
			says string
		}{
			"revoked": {func(k key) { g.operate(t, http.MethodDelete, "/accounts/acme/keys/"+k.ID, nil) }, codes.Unauthenticated, "invalid_token"},
		} {
			k := g.firstKey(t, "acme", may("serp_api:write"))
			talking, err := g.api.FullDuplexCall(as(t, k))
			if err != nil {
				t.Fatal(err)
			}
			if err := talking.Send(&pb.StreamingOutputCallRequest{Payload: payload(1)}); err != nil {
				t.Fatal(err)
			}
			if _, err := talking.Recv(); err != nil {
				t.Fatalf("before: %v", err)
			}
			silent, err := g.api.StreamingInputCall(as(t, k)) // no answer has begun
			if err != nil {
				t.Fatal(err)
			}
			if err := silent.Send(&pb.StreamingInputCallRequest{Payload: payload(1)}); err != nil {
				t.Fatal(err)
			}
			<-g.backend.seen
			<-g.backend.seen
			begun := time.Now()
			row.end(k)
			_, err = talking.Recv()
			if s := status.Convert(err); s.Code() != row.code || !strings.Contains(s.Message(), row.says) {
				t.Errorf("%s, talking: got %v", name, err)
			}
			var nothing pb.StreamingInputCallResponse
			err = silent.RecvMsg(&nothing)
			if s := status.Convert(err); s.Code() != row.code || !strings.Contains(s.Message(), row.says) {
				t.Errorf("%s, silent: got %v", name, err)
			}
			if took := time.Since(begun); took > slack*time.Second {
				t.Errorf("%s: it took %s", name, took)
			}
			for range 2 {
				if err := <-g.backend.over; err == nil {
					t.Errorf("%s: the backend was not told", name)
				}
			}
		}
	})
}
