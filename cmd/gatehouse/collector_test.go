package main_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// collector is an OTLP collector, over gRPC and HTTP, that keeps what it gets.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	grpc, http string // endpoints

	mu       sync.Mutex
	spans    []*tracepb.Span
	text     strings.Builder // all that came, as JSON
	services map[string]bool
	tokens   map[string]bool // that came as authorization
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{services: map[string]bool{}, tokens: map[string]bool{}}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	onGRPC, onHTTP := listen(), listen()
	c.grpc, c.http = "http://"+onGRPC.Addr().String(), "http://"+onHTTP.Addr().String()
	calls := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(calls, c)
	requests := &http.Server{Handler: http.HandlerFunc(c.serveHTTP)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = calls.Serve(onGRPC) })    // ends with Stop
	serving.Go(func() { _ = requests.Serve(onHTTP) }) // ends with Close
	t.Cleanup(func() {
		calls.Stop()
		_ = requests.Close() // all of it ends here
		serving.Wait()
	})
	return c
}

// endpoint is where to send to by the protocol.
func (c *collector) endpoint(protocol string) string {
	if protocol == "http" {
		return c.http
	}
	return c.grpc
}

// Export is the call of OTLP over gRPC.
func (c *collector) Export(ctx context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	sent, _ := metadata.FromIncomingContext(ctx)
	c.keep(r, sent.Get("authorization"))
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func (c *collector) serveHTTP(w http.ResponseWriter, r *http.Request) {
	var sent collectorpb.ExportTraceServiceRequest
	body, err := io.ReadAll(r.Body)
	if err = errors.Join(err, proto.Unmarshal(body, &sent)); err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, fmt.Sprintf("%s %s: %v", r.URL, r.Header, err), http.StatusBadRequest)
		return
	}
	c.keep(&sent, r.Header.Values("Authorization"))
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (c *collector) keep(r *collectorpb.ExportTraceServiceRequest, tokens []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[strings.Join(tokens, ",")] = true
	c.text.WriteString(protojson.Format(r))
	for _, from := range r.GetResourceSpans() {
		for _, a := range from.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				c.services[a.GetValue().GetStringValue()] = true
			}
		}
		for _, scope := range from.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
}

// ofTrace are the spans of one trace, by name and kind.
func (c *collector) ofTrace(id string) map[string]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]*tracepb.Span{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == id {
			found[strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_")+" "+s.GetName()] = s
		}
	}
	return found
}

// count is how many spans came.
func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.spans)
}

func (c *collector) all() (text string, services, tokens map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String(), c.services, c.tokens
}
