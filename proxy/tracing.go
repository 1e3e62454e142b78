package proxy

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"gatehouse/proxy/problem"
)

// tracerName is the instrumentation scope of the spans.
const tracerName = "gatehouse/proxy"

// The steps of a request that have spans of their own.
const (
	spanLookup   = "lookup"
	spanDecision = "decision"
)

// spans are those of one request. Their attributes are those of OpenTelemetry's
// semantic conventions for HTTP, and others below gatehouse; none of them holds a
// query, a header but the user agent, or a token. A nil *spans makes none.
type spans struct {
	tracer trace.Tracer
	ctx    context.Context // holds the request's span
	server trace.Span
	step   trace.Span // the one under way; nil between steps
}

// newTracer returns nil for no provider: there is no tracing.
func newTracer(provider trace.TracerProvider) trace.Tracer {
	if provider == nil {
		return nil
	}
	return provider.Tracer(tracerName)
}

// beginSpans continues the trace of a trusted proxy, or begins one.
func beginSpans(tracer trace.Tracer, x *exchange) *spans {
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
	ctx := x.r.Context()
	if given := givenTrace(x.r.Header, x.from.trusted); given != nil {
		ctx = propagation.TraceContext{}.Extract(ctx, given)
	} else {
		options = append(options, trace.WithNewRoot())
	}
	s := &spans{tracer: tracer}
	s.ctx, s.server = tracer.Start(ctx, spanName(x.record.Method, ""), options...)
	x.record.TraceID, x.record.SpanID = s.server.SpanContext().TraceID(), s.server.SpanContext().SpanID()
	return s
}

// givenTrace is what a trusted proxy says of the trace that the request belongs
// to; nil where there is none (W3C Trace Context §3.2, §3.3).
func givenTrace(h http.Header, trusted bool) propagation.TextMapCarrier {
	given := h["Traceparent"]
	if !trusted || len(given) != 1 || !isTraceparent(given[0]) {
		return nil
	}
	return propagation.MapCarrier{"traceparent": given[0], "tracestate": strings.Join(h["Tracestate"], ",")}
}

// spanName has few values: methods and routes of the configuration.
func spanName(method, template string) string {
	if method == otherMethod {
		method = "HTTP"
	}
	if template == "" {
		return method
	}
	return method + " " + template
}

// begin begins a step, and ends the one before.
func (s *spans) begin(step string, r *Record) {
	if s == nil {
		return
	}
	s.endStep(r, nil)
	_, s.step = s.tracer.Start(s.ctx, step)
}

// endStep ends the step under way, if there is one, which failed with err.
func (s *spans) endStep(r *Record, err error) {
	if s == nil || s.step == nil {
		return
	}
	if s.step.IsRecording() {
		reason := r.Reason // of a panic, or allowed
		switch {
		case errors.Is(err, errClientGone):
			reason = reasonClientGone
		case err != nil:
			reason = string(problem.From(err).Code)
		}
		s.step.SetAttributes(attribute.String("gatehouse.reason", reason))
		s.step.SetAttributes(texts([][2]string{{"gatehouse.lookup", string(r.Source)}})...)
	}
	s.step.End()
	s.step = nil
}

// end ends the request's span, with all that is in its record.
func (s *spans) end(r *Record) {
	if s == nil {
		return
	}
	s.endStep(r, nil) // of a step that panicked
	if s.server.IsRecording() {
		s.server.SetName(spanName(r.Method, r.Template))
		s.server.SetAttributes(recordAttributes(r)...)
		if r.Status >= http.StatusInternalServerError {
			s.server.SetAttributes(attribute.String("error.type", r.Reason))
			s.server.SetStatus(codes.Error, "")
		}
	}
	s.server.End()
}

// recordAttributes are what the access log has too.
func recordAttributes(r *Record) []attribute.KeyValue {
	asked := r.Asked.Clean()
	return append(texts([][2]string{
		{"http.request.method", semanticMethod(r.Method)},
		{"http.route", r.Template},
		{"url.path", asked.Path},
		{"url.scheme", asked.Scheme},
		{"client.address", addressText(r.Client)},
		{"network.peer.address", addressText(r.Peer)},
		{"server.address", asked.Host},
		{"network.protocol.version", asked.Protocol},
		{"user_agent.original", asked.UserAgent},
		{"gatehouse.request_id", r.RequestID},
		{"gatehouse.reason", r.Reason},
		{"gatehouse.key_id", string(r.Key)},
		{"gatehouse.account", string(r.Account)},
		{"gatehouse.permission", string(r.Permission)},
		{"gatehouse.lookup", string(r.Source)},
	}),
		attribute.Int("http.response.status_code", r.Status),
		attribute.Int64("http.request.body.size", r.BytesIn),
		attribute.Int64("http.response.body.size", r.BytesOut),
	)
}

// texts makes attributes of names and values, without those that are empty.
func texts(pairs [][2]string) []attribute.KeyValue {
	attributes := make([]attribute.KeyValue, 0, len(pairs)+3)
	for _, pair := range pairs {
		if pair[1] != "" {
			attributes = append(attributes, attribute.String(pair[0], pair[1]))
		}
	}
	return attributes
}

// beginTry begins the span of one try to reach a target, and has the backend
// know of it. A transport may still be reading the headers of the try before.
func (t *attempt) beginTry(out *http.Request) {
	if t.spans == nil {
		return
	}
	method := methodName(out.Method)
	ctx, span := t.spans.tracer.Start(t.spans.ctx, spanName(method, ""), trace.WithSpanKind(trace.SpanKindClient))
	t.span = span
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("http.request.method", semanticMethod(method)), attribute.String("gatehouse.upstream", t.u.name),
			attribute.String("server.address", hostName(t.chosen.host)), attribute.Int("server.port", t.chosen.port),
		)
		if t.repeated {
			span.SetAttributes(attribute.Int("http.request.resend_count", 1))
		}
	}
	out.Header = maps.Clone(out.Header)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(out.Header))
}

// endTry ends the span of a try without an answer. With one, the span lasts as
// long as the answer does; see end.
func (t *attempt) endTry(res *http.Response, err error) {
	switch {
	case t.span == nil:
	case err == nil:
		t.span.SetAttributes(attribute.Int("http.response.status_code", res.StatusCode))
		if res.StatusCode >= http.StatusBadRequest {
			t.span.SetStatus(codes.Error, "")
		}
	default:
		kind := string(problem.UpstreamUnreachable)
		if t.client.Err() != nil {
			kind = reasonClientGone
		} else if t.isLate() {
			kind = string(problem.UpstreamTimeout)
		}
		t.span.SetAttributes(attribute.String("error.type", kind))
		t.span.SetStatus(codes.Error, "")
		t.endSpan()
	}
}

func (t *attempt) endSpan() {
	if t.span != nil {
		t.span.End()
		t.span = nil
	}
}
