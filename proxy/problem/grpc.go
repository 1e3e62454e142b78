package problem

import (
	"net/http"
	"strconv"
	"strings"
)

// The status codes of gRPC that refusals have.
const (
	grpcInvalidArgument   = 3
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcAborted           = 10
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// GRPC returns the problem as the values of grpc-status and grpc-message, the
// latter with the code of the contract in front.
func GRPC(p *Problem) (status, message string) {
	return strconv.Itoa(p.grpcStatus()), encodeMessage(string(p.Code) + ": " + p.Detail)
}

// grpcStatus follows the mapping of HTTP statuses that gRPC clients use for
// answers of proxies, but names bad requests and limits more closely, and what
// was late: clients send again what was UNAVAILABLE, and a backend that was late
// may have acted on it.
func (p *Problem) grpcStatus() int {
	switch p.Code.Status() {
	case http.StatusUnauthorized:
		return grpcUnauthenticated
	case http.StatusForbidden:
		return grpcPermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusNotImplemented:
		return grpcUnimplemented
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge:
		return grpcResourceExhausted
	case http.StatusConflict:
		return grpcAborted
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusRequestTimeout:
		return grpcUnavailable
	case http.StatusGatewayTimeout:
		return grpcDeadlineExceeded
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return grpcInvalidArgument
	}
	return grpcInternal
}

// WriteGRPC answers a gRPC call with the problem: a response of trailers only,
// as the gRPC protocol has it over HTTP/2.
func WriteGRPC(w http.ResponseWriter, p *Problem) {
	h := w.Header()
	status, message := GRPC(p)
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", status)
	h.Set("Grpc-Message", message)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// encodeMessage percent-encodes what grpc-message may not hold: everything but
// printable ASCII, and the percent sign.
func encodeMessage(s string) string {
	var out strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			out.WriteByte(c)
		} else {
			const hex = "0123456789ABCDEF"
			out.WriteString("%" + string(hex[c>>4]) + string(hex[c&0xf]))
		}
	}
	return out.String()
}
