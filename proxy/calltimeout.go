package proxy

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// maxTimeoutDigits is how many digits the value of Grpc-Timeout may have.
const maxTimeoutDigits = 8

// callTimeout is what the client of a gRPC call has said that the call may take
// (Grpc-Timeout, as gRPC's "PROTOCOL-HTTP2.md" has it); ok is false where it has
// not, or not understandably. The backend goes by it, not the gateway: it only
// explains how a call has ended.
func callTimeout(h http.Header) (timeout time.Duration, ok bool) {
	values := h["Grpc-Timeout"]
	if len(values) != 1 || len(values[0]) < 2 || len(values[0]) > maxTimeoutDigits+1 {
		return 0, false
	}
	digits := values[0][:len(values[0])-1]
	n, err := strconv.ParseUint(digits, 10, 32)
	unit := timeoutUnit(values[0][len(values[0])-1])
	if err != nil || unit == 0 {
		return 0, false
	}
	if most := uint64(math.MaxInt64 / unit); n > most { // #nosec G115 -- positive
		n = most
	}
	return time.Duration(n) * unit, true // #nosec G115 -- at most MaxInt64
}

// timeoutUnit is 0 for what is no unit.
func timeoutUnit(c byte) time.Duration {
	switch c {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}

// isOverdue reports whether the time of a gRPC call is over.
func (x *exchange) isOverdue(now time.Time) bool {
	if !isGRPC(x.r) {
		return false
	}
	timeout, ok := callTimeout(x.r.Header)
	return ok && now.Sub(x.record.Start) >= timeout
}
