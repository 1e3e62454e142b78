package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"gatehouse/proxy/problem"
	"gatehouse/proxy/wire"
)

// bodyGrace is for how long a body may come as slowly as it likes.
const bodyGrace = 10 * time.Second

// errSlowBody: the client sent less of its body than it must in that time.
var errSlowBody = errors.New("the body came too slowly")

// requestBody bounds the body of a request in size, silence and slowness,
// counts it, and remembers what went wrong with it: a backend sees only that it
// broke off.
type requestBody struct {
	body    io.ReadCloser
	request *http.Request
	control *http.ResponseController
	header  http.Header // of the answer
	// multiplexed: as in responseWriter.
	multiplexed bool
	// patient: the client may be silent for as long as it likes.
	patient bool
	read    atomic.Int64
	// minRate is how many bytes a second must come, and waited the time in
	// which nothing kept the client from sending.
	minRate int64
	waited  time.Duration

	trailer  http.Header // what the backend gets behind the body
	mu       sync.Mutex
	finished bool
	failure  error
}

// newRequestBody puts itself in the place of the request's body. A request
// without one is left alone.
func newRequestBody(x *exchange, maxBody, minRate int64) *requestBody {
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return nil
	}
	b := &requestBody{
		request: x.r,
		body:    http.MaxBytesReader(x.w.ResponseWriter, x.r.Body, maxBody),
		control: http.NewResponseController(x.w.ResponseWriter), header: x.w.Header(), multiplexed: x.w.multiplexed,
		patient: isGRPC(x.r), minRate: minRate,
	}
	// The server's own request keeps its body: by its type the server knows
	// whether the connection can carry another request.
	copied := *x.r
	copied.Body = b
	x.r = &copied
	return b
}

// checkEmpty returns an error where a body of length 0 was promised, and another
// one comes. In HTTP/2 that shows only behind the headers, when a backend would
// have the request already.
func (b *requestBody) checkEmpty() error {
	if b == nil || b.request.ContentLength != 0 {
		return nil
	}
	n, err := b.Read(make([]byte, 1))
	switch {
	case n > 0:
		return problem.New(problem.InvalidRequest, "The body of this request is longer than its Content-Length.")
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// announceTrailers returns the trailers that the backend is told to expect: those
// that the client announced, less what would be withheld as a header. They have
// their values when the body was read to its end.
func (b *requestBody) announceTrailers(f headerFilter) http.Header {
	if b == nil || len(b.request.Trailer) == 0 {
		return nil
	}
	b.trailer = make(http.Header, len(b.request.Trailer))
	for name := range b.request.Trailer {
		if !f.withholds(name) && httpguts.ValidTrailerHeader(name) {
			b.trailer[name] = nil
		}
	}
	return b.trailer
}

func (b *requestBody) Read(p []byte) (int, error) {
	begun := wallClock()
	if !b.patient {
		b.deadline(begun.Add(b.patience()))
	}
	n, err := b.body.Read(p)
	b.waited += wallClock().Sub(begun)
	b.read.Add(int64(n))
	whole := errors.Is(err, io.EOF)
	if whole || b.multiplexed {
		// Behind a whole body only the end of the connection is waited for,
		// without limit. In HTTP/2 a deadline would end the body while the
		// backend takes its time.
		b.deadline(time.Time{})
	}
	if whole {
		for name := range b.trailer {
			b.trailer[name] = b.request.Trailer[name]
		}
	}
	if err != nil && !whole {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errors.Join(errSlowBody, err)
		}
		// The deadline stays: the server reads what is left before it answers.
		b.mu.Lock()
		b.failure = err
		b.mu.Unlock()
	}
	return n, err
}

// patience is how long the client may take until it sends something: what it
// has left of its time in all, and never long.
func (b *requestBody) patience() time.Duration {
	if b.minRate <= 0 {
		return ioPatience
	}
	earned := time.Duration(float64(b.read.Load()) / float64(b.minRate) * float64(time.Second))
	return min(ioPatience, bodyGrace+earned-b.waited)
}

func (b *requestBody) Close() error { return b.body.Close() }

// deadline is set only while the request is served: a transport may go on
// reading when the connection already carries the next request.
func (b *requestBody) deadline(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.finished {
		_ = b.control.SetReadDeadline(at) // not every writer in tests has one
	}
}

// finish ends what the body may do to its connection, and counts it.
func (b *requestBody) finish(r *Record) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished = true
	r.BytesIn = b.read.Load()
}

// explain returns the client's own fault where reading its body is what
// failed, and err otherwise.
func (b *requestBody) explain(err error) error {
	if b == nil || err == nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var tooLarge *http.MaxBytesError
	switch {
	case b.failure == nil:
		return err
	case errors.As(b.failure, &tooLarge):
		return bodyTooLarge()
	}
	if !b.multiplexed {
		b.header.Set("Connection", "close") // nobody knows where the next request begins
	}
	switch malformed := wire.BodyFault(b.request); {
	case malformed != nil:
		return malformed
	case errors.Is(b.failure, errSlowBody):
		return &problem.Problem{Code: problem.RequestTimeout, Detail: "The body of this request came too slowly.", Cause: b.failure}
	}
	return &problem.Problem{Code: problem.InvalidRequest, Detail: "The body of this request broke off.", Cause: b.failure}
}

func bodyTooLarge() error {
	return problem.New(problem.BodyTooLarge, "The body of this request is larger than this gateway accepts.")
}
