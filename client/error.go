package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is an error answer (RFC 9457) of the gateway.
type Error struct {
	// Status is that of HTTP.
	Status int
	// Code is what programs go by, such as "permission_denied"; "" where it was
	// not the gateway that answered.
	Code string
	// Detail is a sentence for people.
	Detail string
	// RequestID finds the request in the gateway's log and audit log.
	RequestID string
	// Fields are the faults of a 422.
	Fields []FieldError
	// RetryAfter is for how long the gateway asks to wait; 0 where it does not.
	RetryAfter time.Duration
}

// FieldError says what is wrong with one field of a request.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("the gateway answered %d %s", e.Status, http.StatusText(e.Status))
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s, request %s)", e.Detail, e.Code, e.RequestID)
	for _, f := range e.Fields {
		fmt.Fprintf(&text, "\n  %s: %s", f.Field, f.Detail)
	}
	return text.String()
}

// CodeOf returns the code of an *Error in err's chain, "" where there is none.
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// networkError: there was no answer, or not all of it. What it says has no
// token: that is in a header.
type networkError struct{ err error }

func (e *networkError) Error() string { return "no answer of the gateway: " + e.err.Error() }
func (e *networkError) Unwrap() error { return e.err }

func errorOf(answer *http.Response, raw []byte) *Error {
	e := &Error{Status: answer.StatusCode, RequestID: answer.Header.Get("X-Request-Id")}
	var problem struct {
		Detail    string       `json:"detail"`
		Error     string       `json:"error"`
		RequestID string       `json:"request_id"`
		Errors    []FieldError `json:"errors"`
	}
	media, _, _ := strings.Cut(answer.Header.Get("Content-Type"), ";")
	if media == "application/problem+json" && json.Unmarshal(raw, &problem) == nil {
		e.Code, e.Detail, e.RequestID, e.Fields = problem.Error, problem.Detail, problem.RequestID, problem.Errors
	}
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}

// repeatable reports whether a request that failed so may be made again without
// doing something twice.
func repeatable(method string, err error) bool {
	var network *networkError
	var e *Error
	reads := method == http.MethodGet
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &network):
		return reads
	case !errors.As(err, &e):
		return false
	case e.Status == http.StatusTooManyRequests:
		return true // it was refused before anything was done
	}
	return reads && (e.Status == http.StatusBadGateway || e.Status == http.StatusServiceUnavailable || e.Status == http.StatusGatewayTimeout)
}

const (
	firstPause = 200 * time.Millisecond
	maxPause   = 30 * time.Second
)

// pause is for how long to wait before the next try: as the gateway asks, or
// twice as long each time, and up to half of that less.
func pause(try int, err error) time.Duration {
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		return min(e.RetryAfter, maxPause)
	}
	longest := min(firstPause<<min(try, 10), maxPause)
	return longest - rand.N(longest/2) // #nosec G404 -- spreading needs no secrecy
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
