package proxy

import (
	"hash/fnv"
	"math"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// AccessLog is the Recorder that writes a line a request. Its fields are those
// of OpenTelemetry's semantic conventions for HTTP, and others below gatehouse.
type AccessLog struct {
	log    *zap.Logger
	sample atomic.Uint64 // the bits of a share
}

// NewAccessLog makes an access log of all requests.
func NewAccessLog(log *zap.Logger) *AccessLog {
	a := &AccessLog{log: log}
	a.Sample(1)
	return a
}

// Sample has requests that were allowed and went well logged in this share, from
// 0 to 1. It may be called at any time.
func (a *AccessLog) Sample(share float64) { a.sample.Store(math.Float64bits(share)) }

// Record writes the line. A problem on our side is an error, every other request
// is information. It is safe for concurrent use.
func (a *AccessLog) Record(r *Record) {
	level := zap.InfoLevel
	if r.Cause != nil && r.Status >= http.StatusInternalServerError {
		level = zap.ErrorLevel
	}
	if !a.wants(r) {
		return
	}
	line := a.log.Check(level, "request")
	if line == nil {
		return
	}
	asked := r.Asked.Clean()
	fields := [...]zap.Field{
		zap.String("http.request.method", semanticMethod(r.Method)),
		zap.String("http.route", r.Template),
		zap.String("url.path", asked.Path),
		zap.String("url.scheme", asked.Scheme),
		zap.Int("http.response.status_code", r.Status),
		zap.String("gatehouse.reason", r.Reason),
		zap.String("client.address", addressText(r.Client)),
		zap.String("network.peer.address", addressText(r.Peer)),
		zap.String("server.address", asked.Host),
		zap.String("network.protocol.version", asked.Protocol),
		zap.String("user_agent.original", asked.UserAgent),
		zap.Int64("http.request.body.size", r.BytesIn),
		zap.Int64("http.response.body.size", r.BytesOut),
		zap.String("gatehouse.request_id", r.RequestID),
		zap.String("gatehouse.key_id", string(r.Key)),
		zap.String("gatehouse.account", string(r.Account)),
		zap.String("gatehouse.permission", string(r.Permission)),
		zap.String("gatehouse.lookup", string(r.Source)),
		zap.Float64("gatehouse.duration_ms", milliseconds(r.Duration)),
		zap.Float64("gatehouse.lookup_ms", milliseconds(r.Lookup)),
		zap.Float64("gatehouse.upstream_ms", milliseconds(r.Upstream)),
		zap.Error(r.Cause), zap.Skip(), zap.Skip(),
	}
	if r.TraceID.IsValid() {
		fields[len(fields)-2] = zap.String("trace_id", r.TraceID.String())
		fields[len(fields)-1] = zap.String("span_id", r.SpanID.String())
	}
	line.Write(fields[:]...)
}

// wants: what was refused, failed or broke off is logged always. What was not is
// chosen by its request id, so that all nodes on the way of a request choose alike.
func (a *AccessLog) wants(r *Record) bool {
	wentWell := (r.Reason == reasonAllowed || r.Reason == reasonPreflight) && r.Status < http.StatusInternalServerError
	share := math.Float64frombits(a.sample.Load())
	if !wentWell || share >= 1 {
		return true
	}
	if share <= 0 {
		return false
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(r.RequestID)) // never fails
	return float64(mixed(sum.Sum32())) < share*(1<<32)
}

// mixed spreads a sum over all its bits, which FNV does to the last ones alone
// (MurmurHash3's finalizer).
func mixed(h uint32) uint32 {
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}

// semanticMethod is the method as OpenTelemetry wants it.
func semanticMethod(method string) string {
	if method == otherMethod {
		return "_OTHER"
	}
	return method
}

// addressText is "" for no address.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
