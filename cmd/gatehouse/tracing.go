package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"

	"gatehouse/cmd/gatehouse/config"
)

const (
	// maxWaitingSpans is how many spans may wait for their export, or be in it.
	maxWaitingSpans = 4096
	// firstRetry and lastRetry are how long an export waits for its next try.
	firstRetry = 250 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// tracing is what spans are made and exported with. A nil *tracing makes none.
type tracing struct {
	provider *sdktrace.TracerProvider
	queue    *spanQueue
}

// openTracing opens what the configuration names; nil where there is no tracing.
// A collector that does not answer is no error.
func openTracing(ctx context.Context, c config.Tracing, registry prometheus.Registerer, log *zap.Logger) (*tracing, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	client, err := otlpClient(c)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	described, err := resource.New(ctx,
		resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "gatehouse"), attribute.String("service.version", version())),
		resource.WithFromEnv()) // what an operator says there counts
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	queue := newSpanQueue(exporter, c.Timeout, registry, log)
	// Whatever else the SDK has to say goes where failed exports go.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(queue.failures.note))
	return &tracing{
		queue: queue,
		provider: sdktrace.NewTracerProvider(
			sdktrace.WithResource(described),
			sdktrace.WithSpanProcessor(queue),
			sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.Sample))),
			sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
				AttributeValueLengthLimit: 1024, AttributeCountLimit: 64, EventCountLimit: 16, LinkCountLimit: 16,
				AttributePerEventCountLimit: 16, AttributePerLinkCountLimit: 16,
			}),
		),
	}, nil
}

// provide is what package proxy makes spans with; nil where there is no tracing.
func (t *tracing) provide() trace.TracerProvider {
	if t == nil {
		return nil
	}
	return t.provider
}

// stop exports what waits, for no longer than ctx says. It may be called again.
func (t *tracing) stop(ctx context.Context) {
	if t == nil {
		return
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		t.queue.failures.note(fmt.Errorf("%d spans were not exported before the end: %w", t.queue.waiting.Load(), err))
	}
}

// abandonTracing exports no more, where that was not done before.
func (n *node) abandonTracing() error {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	n.tracing.stop(ended)
	return nil
}

// otlpClient sends spans as the configuration says. The environment variables of
// OpenTelemetry name no other collector, and no headers.
func otlpClient(c config.Tracing) (otlptrace.Client, error) {
	endpoint, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, err
	}
	var secured *tls.Config
	if endpoint.Scheme == "https" {
		if secured, err = clientTLS(c.TLS.CAFile, c.TLS.CertFile, c.TLS.KeyFile, c.TLS.ServerName); err != nil {
			return nil, err
		}
	}
	headers := make(map[string]string, len(c.Headers))
	for name, value := range c.Headers {
		headers[name] = string(value)
	}
	if c.Protocol == config.OTLPHTTP {
		return httpClient(endpoint, headers, c.Timeout, secured), nil
	}
	return grpcClient(endpoint, headers, c.Timeout, secured), nil
}

func httpClient(endpoint *url.URL, headers map[string]string, timeout time.Duration, secured *tls.Config) otlptrace.Client {
	options := []otlptracehttp.Option{
		otlptracehttp.WithEndpoint(endpoint.Host), otlptracehttp.WithURLPath("/v1/traces"), otlptracehttp.WithHeaders(headers), otlptracehttp.WithTimeout(timeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: timeout}),
	}
	if secured == nil {
		return otlptracehttp.NewClient(append(options, otlptracehttp.WithInsecure())...)
	}
	return otlptracehttp.NewClient(append(options, otlptracehttp.WithTLSClientConfig(secured))...)
}

func grpcClient(endpoint *url.URL, headers map[string]string, timeout time.Duration, secured *tls.Config) otlptrace.Client {
	options := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(endpoint.Host), otlptracegrpc.WithHeaders(headers), otlptracegrpc.WithTimeout(timeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: timeout}),
	}
	if secured == nil {
		return otlptracegrpc.NewClient(append(options, otlptracegrpc.WithInsecure())...)
	}
	return otlptracegrpc.NewClient(append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(secured)))...)
}

// spanQueue takes spans that have ended, and exports them in batches in the
// background. Nobody waits for it: what does not fit is dropped and counted.
type spanQueue struct {
	sdktrace.SpanProcessor // has room for maxWaitingSpans, so that it drops none uncounted
	waiting                atomic.Int64
	failures               *exportFailures
	spans                  *prometheus.CounterVec
}

func newSpanQueue(exporter sdktrace.SpanExporter, timeout time.Duration, registry prometheus.Registerer, log *zap.Logger) *spanQueue {
	q := &spanQueue{
		failures: &exportFailures{log: log, now: time.Now},
		spans: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_tracing_spans_total",
			Help: "Spans that were recorded, by what became of them: exported, failed (the collector did not take them) or dropped (too many waited).",
		}, []string{"result"}),
	}
	registry.MustRegister(q.spans)
	for _, result := range []string{"exported", "failed", "dropped"} {
		q.spans.WithLabelValues(result)
	}
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(countedExporter{exporter, q},
		sdktrace.WithMaxQueueSize(maxWaitingSpans), sdktrace.WithMaxExportBatchSize(maxWaitingSpans/8),
		sdktrace.WithBatchTimeout(time.Second), sdktrace.WithExportTimeout(timeout))
	return q
}

// OnEnd never waits.
func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if q.waiting.Add(1) > maxWaitingSpans {
		q.waiting.Add(-1)
		q.spans.WithLabelValues("dropped").Inc()
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// countedExporter counts what became of spans.
type countedExporter struct {
	sdktrace.SpanExporter
	queue *spanQueue
}

// ExportSpans returns no error: it has been dealt with.
func (e countedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.queue.waiting.Add(int64(-len(spans)))
	if err != nil {
		e.queue.spans.WithLabelValues("failed").Add(float64(len(spans)))
		e.queue.failures.note(err)
		return nil
	}
	e.queue.spans.WithLabelValues("exported").Add(float64(len(spans)))
	e.queue.failures.over()
	return nil
}
