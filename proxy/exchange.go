package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"gatehouse/policy"
)

// ioPatience is for how long a client may send nothing of a body it owes, or
// take nothing of an answer, before it is given up.
const ioPatience = 30 * time.Second

// wallClock is for the deadlines of sockets, which know no other clock.
func wallClock() time.Time {
	return time.Now() //nolint:forbidigo // see above
}

// errClientGone: the client closed its connection before there was an answer.
var errClientGone = errors.New("the client has gone")

// responseWriter counts an answer, and gives the client more time as long as
// it goes on taking it. It has Unwrap, so that http.ResponseController works.
type responseWriter struct {
	http.ResponseWriter
	now       func() time.Time
	requestID []string // the value of X-Request-Id
	// connection is what the server around the gateway has the answer say of its
	// connection; nil for nothing.
	connection []string
	status     int // 0: nothing was answered yet
	written    int64
	// multiplexed: the answer shares its connection with others (HTTP/2).
	multiplexed bool
	// old: the client speaks HTTP/1.0, whose 1xx answers and framing of
	// bodies are not those of today.
	old      bool
	stalled  *time.Timer   // runs while an HTTP/2 client is written to
	renewed  time.Time     // when the client last got more time
	backend  time.Time     // when the backend got the request
	upstream time.Duration // from then until its answer began
	// deprecation and sunset are header values of every answer to a key that
	// was replaced; nil for other keys.
	deprecation, sunset []string
}

// retiring tells the client of a key that was replaced since when it is
// deprecated (RFC 9745 §2.1) and when it stops working (RFC 8594 §3).
func (w *responseWriter) retiring(k *policy.Key) {
	if k.Replaced() {
		w.deprecation = []string{"@" + strconv.FormatInt(k.ReplacedAt.Unix(), 10)}
		w.sunset = []string{time.Unix(k.Expiry.Unix(), 0).UTC().Format(http.TimeFormat)}
	}
}

// Unwrap gives http.ResponseController the writer below.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *responseWriter) WriteHeader(status int) {
	w.renew()
	// ReverseProxy passes 1xx answers on as they are, and forgets every header
	// behind them.
	h := w.Header()
	if status < http.StatusOK {
		stripHop(h)
		stripIdentity(h)
	} else if w.connection != nil {
		h["Connection"] = w.connection
	}
	h["X-Request-Id"] = w.requestID
	if w.old {
		if status < http.StatusOK {
			return
		}
		// net/http overlooks Transfer-Encoding here, and would take the body
		// for the next request.
		h["Connection"] = []string{"close"}
	}
	if _, given := h["Content-Type"]; !given && status >= http.StatusOK {
		h["Content-Type"] = nil // or the server would guess one
	}
	if status >= http.StatusOK && w.status == 0 {
		w.status = status
		if w.deprecation != nil {
			h["Deprecation"], h["Sunset"] = w.deprecation, w.sunset
		}
		if !w.backend.IsZero() {
			w.upstream = w.now().Sub(w.backend)
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// switched notes that the connection was taken over for another protocol.
func (w *responseWriter) switched() {
	w.status = http.StatusSwitchingProtocols
	if !w.backend.IsZero() {
		w.upstream = w.now().Sub(w.backend)
	}
}

func (w *responseWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.renew()
	w.mayStall(true)
	n, err := w.ResponseWriter.Write(b)
	w.mayStall(false)
	w.written += int64(n)
	return n, err
}

// FlushError sends what is there, for http.ResponseController.
func (w *responseWriter) FlushError() error {
	w.renew()
	w.mayStall(true)
	defer w.mayStall(false)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// mayStall gives an HTTP/2 client up that takes nothing of what is written to it
// for too long. A deadline would count on while the backend is slow.
func (w *responseWriter) mayStall(writing bool) {
	switch {
	case !w.multiplexed:
	case !writing:
		w.stalled.Stop()
	case w.stalled == nil:
		w.stalled = time.AfterFunc(ioPatience, w.giveUp)
	default:
		w.stalled.Reset(ioPatience)
	}
}

func (w *responseWriter) giveUp() {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(wallClock())
}

// finish gives an HTTP/2 client time to take the rest, which the server sends
// behind the gateway's back.
func (w *responseWriter) finish() {
	if w.multiplexed {
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(wallClock().Add(ioPatience))
	}
}

// renew moves the deadline that the server set when the request began. Once a
// second is enough, and keeps a short answer free of it. In HTTP/2 the deadline
// would also end an answer that is only slow to begin; see begin.
func (w *responseWriter) renew() {
	now := w.now()
	if w.multiplexed || now.Sub(w.renewed) < time.Second {
		return
	}
	w.renewed = now
	// A writer without deadlines, as in tests, has nobody to wait for.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(wallClock().Add(ioPatience))
}

// maxRequestID bounds a request id from a trusted proxy.
const maxRequestID = 128

// requestID keeps the id that a trusted proxy gave, if it is a plain one, and
// makes a UUID v7 (RFC 9562 §5.7) otherwise.
//
// An id in which there could be a token would be logged, and is not kept.
func requestID(h http.Header, trusted bool, tokenPrefix string) string {
	if given := h["X-Request-Id"]; trusted && len(given) == 1 && isPlainID(given[0]) && !strings.Contains(given[0], tokenPrefix) {
		return given[0]
	}
	id, err := uuid.NewV7()
	if err != nil {
		id = uuid.New()
	}
	return id.String()
}

func isPlainID(s string) bool {
	if s == "" || len(s) > maxRequestID {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isUnreserved(c) || c == '~' {
			return false
		}
	}
	return true
}

// otherMethod stands for every method that no route can name.
const otherMethod = "other"

// methodName is the method for logs: one that a route can name, or otherMethod.
// A client could put anything there, a token too.
func methodName(method string) string {
	if slices.Contains(routeMethods(), method) {
		return method
	}
	return otherMethod
}

// traceparent continues the trace of a trusted proxy, or begins one that is
// not sampled (W3C Trace Context §3.2). It reports which.
func traceparent(h http.Header, trusted bool) (value string, continued bool) {
	if given := h["Traceparent"]; trusted && len(given) == 1 && isTraceparent(given[0]) {
		return given[0], true
	}
	var id [24]byte
	_, _ = rand.Read(id[:]) // never fails
	return "00-" + hex.EncodeToString(id[:16]) + "-" + hex.EncodeToString(id[16:]) + "-00", false
}

// isTraceparent: version 00 exactly, and neither id all zero.
func isTraceparent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	for _, part := range []string{s[3:35], s[36:52], s[53:]} {
		for i := range len(part) {
			if c := part[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return s[3:35] != "00000000000000000000000000000000" && s[36:52] != "0000000000000000"
}
