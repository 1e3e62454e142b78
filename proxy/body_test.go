package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// dripping is the body of a client that sends so many bytes after each pause,
// over a connection that keeps deadlines.
type dripping struct {
	*deadlines
	pause time.Duration
	each  int
	times int // so many are sent in all
}

func (d *dripping) Read(p []byte) (int, error) {
	if d.times == 0 {
		return 0, io.EOF
	}
	d.mu.Lock()
	var deadline time.Time
	if len(d.read) > 0 {
		deadline = d.read[len(d.read)-1]
	}
	d.mu.Unlock()
	if arrives := time.Now().Add(d.pause); !deadline.IsZero() && deadline.Before(arrives) {
		<-time.After(time.Until(deadline))
		return 0, os.ErrDeadlineExceeded
	}
	<-time.After(d.pause)
	d.times--
	return copy(p, strings.Repeat("a", d.each)), nil
}

// TestBodyMustComeFastEnough while the gateway waits for it, but for its first
// ten seconds. What a backend takes is not the client's fault, and a gRPC call
// may rest.
func TestBodyMustComeFastEnough(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name        string
		rate        int64
		pause       time.Duration
		each, times int
		lag         time.Duration // of the backend before each read
		major       int
		contentType string
		status      int
		after       time.Duration // when it was answered
	}{
		{name: "fast enough", rate: 240, pause: time.Second, each: 240, times: 100, major: 1, status: 200, after: 100 * time.Second},
		{name: "too slow", rate: 240, pause: time.Second, each: 120, times: 100, major: 1, status: 408, after: 19 * time.Second},
		{name: "too slow over HTTP/2", rate: 240, pause: time.Second, each: 120, times: 100, major: 2, status: 408, after: 19 * time.Second},
		{name: "nothing", rate: 240, pause: time.Hour, each: 1, times: 1, major: 1, status: 408, after: 10 * time.Second},
		{name: "a byte at a time", rate: 240, pause: time.Second, each: 1, times: 100, major: 1, status: 408, after: 10 * time.Second},
		{name: "much at once, but late", rate: 240, pause: 29 * time.Second, each: 30_000, times: 4, major: 1, status: 408, after: 10 * time.Second},
		{name: "a backend that is slow", rate: 240, pause: 0, each: 10, times: 5, lag: time.Minute, major: 1, status: 200, after: 6 * time.Minute},
		{name: "no rate", rate: 0, pause: 29 * time.Second, each: 1, times: 5, major: 1, status: 200, after: 145 * time.Second},
		{name: "no rate, but silence", rate: 0, pause: 31 * time.Second, each: 1, times: 5, major: 1, status: 408, after: 30 * time.Second},
		{name: "a gRPC call that rests", rate: 240, pause: time.Hour, each: 5, times: 3, major: 2, contentType: "application/grpc", status: 200, after: 3 * time.Hour},
		{name: "a gRPC call of protobuf", rate: 240, pause: time.Hour, each: 5, times: 1, major: 2, contentType: "application/grpc+proto", status: 200, after: time.Hour},
		{name: "gRPC over HTTP/1, which there is not", rate: 240, pause: time.Hour, each: 5, times: 1, major: 1, contentType: "application/grpc", status: 408, after: 10 * time.Second},
		{name: "something else that begins so", rate: 240, pause: time.Hour, each: 5, times: 1, major: 2, contentType: "application/grpc-web", status: 408, after: 10 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t, func(s *setup) {
				s.options.MaxBody, s.options.MinBodyRate = 1<<20, row.rate
				backendFunc(func(w http.ResponseWriter, r *http.Request) error {
					for {
						if row.lag > 0 {
							<-time.After(row.lag)
						}
						if _, err := r.Body.Read(make([]byte, 64<<10)); err == io.EOF {
							w.WriteHeader(http.StatusOK)
							return nil
						} else if err != nil {
							return err
						}
					}
				})(s)
			})
			synctest.Test(t, func(t *testing.T) {
				w := newDeadlines()
				r := upload(nil, row.major)
				r.Body = io.NopCloser(&dripping{deadlines: w, pause: row.pause, each: row.each, times: row.times})
				if row.contentType != "" {
					r.Header.Set("Content-Type", row.contentType)
				}
				begun := time.Now()
				g.gateway.ServeHTTP(w, r)
				if took := time.Since(begun); w.Code != row.status || took < row.after-time.Second || took > row.after+time.Second {
					t.Errorf("answered %d after %s, want %d after %s: %s", w.Code, took, row.status, row.after, w.Body)
				}
			})
		})
	}
}

// TestHeaderLinesAreCountedInHTTP2Too, where the guard sees none.
func TestHeaderLinesAreCountedInHTTP2Too(t *testing.T) {
	t.Parallel()
	g := newGate(t, func(s *setup) { s.options.MaxHeaderLines = 10 }, backendFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		return nil
	}))
	for lines, status := range map[int]int{9: http.StatusOK, 10: http.StatusRequestHeaderFieldsTooLarge} {
		r := httptest.NewRequest(http.MethodGet, product+"/proxy-list", nil)
		r.ProtoMajor = 2
		r.Header.Set("Api-Token", good)
		for range lines {
			r.Header.Add("X-A", "b")
		}
		if w, _ := g.serve(t, r); w.Code != status {
			t.Errorf("%d more lines: answered %d, want %d", lines, w.Code, status)
		}
	}
}
