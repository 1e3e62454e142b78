// Package problem is the one list of error codes that clients see, and the one
// writer of error answers (RFC 9457). It decides nothing and logs nothing.
package problem

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"gatehouse/policy"
)

// FieldError says what is wrong with one field of a request body.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// Problem is a refusal or a failure as the client is to see it. It is an
// error, so that handlers return it like any other.
type Problem struct {
	Code Code
	// Detail is written for the client: a sentence, with no Go text, no
	// address of ours and no token in it.
	Detail string
	// Fields are the errors of a 422.
	Fields []FieldError
	// Allow lists the methods that a 405 names.
	Allow string
	// RetryAfter is rounded up to whole seconds; 0 sends no header.
	RetryAfter time.Duration
	// RateLimit and RateLimitPolicy are the header values of a 429, as in
	// draft-ietf-httpapi-ratelimit-headers.
	RateLimit, RateLimitPolicy string
	// Limit is the name of the limit that a 429 is for, for records.
	Limit string
	// Permission is what a 403 names as the missing scope (RFC 6750 §3.1).
	Permission policy.Permission
	// Cause is for the log alone.
	Cause error
}

// New makes a problem with the code and the detail.
func New(code Code, detail string) *Problem { return &Problem{Code: code, Detail: detail} }

// Invalid makes a 422 that names fields.
func Invalid(fields ...FieldError) *Problem {
	return &Problem{Code: ValidationFailed, Detail: "The request has fields that cannot be accepted.", Fields: fields}
}

// Internal makes a 500 whose cause is hidden from the client.
func Internal(cause error) *Problem {
	return &Problem{Code: InternalError, Detail: "The gateway could not complete this request.", Cause: cause}
}

// StoreUnavailable makes the 503 of a key store that did not answer.
func StoreUnavailable(cause error) *Problem {
	return &Problem{
		Code: KeyStoreUnavailable, Cause: cause, RetryAfter: time.Second,
		Detail: "The key store does not answer at the moment. Nothing is known about this key; try again shortly.",
	}
}

// Refused makes the problem of a decision that is not Allowed.
func Refused(d policy.Decision) *Problem {
	p := &Problem{Code: Code(d.Reason), Detail: d.Detail()}
	if d.Reason == policy.PermissionDenied {
		p.Permission = d.Needs
	}
	if p.Code.Status() == 0 || d.Allowed() {
		return Internal(nil)
	}
	return p
}

func (p *Problem) Error() string {
	if p.Cause != nil {
		return string(p.Code) + ": " + p.Cause.Error()
	}
	return string(p.Code) + ": " + p.Detail
}

// Unwrap gives the cause.
func (p *Problem) Unwrap() error { return p.Cause }

type document struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Success   bool         `json:"success"`
	Error     Code         `json:"error"`
	RequestID string       `json:"request_id"`
	Errors    []FieldError `json:"errors,omitempty"`
}

// Write answers with the problem as application/problem+json, with the
// headers that belong to it: WWW-Authenticate (RFC 6750 §3), Allow,
// Retry-After, Cache-Control.
func Write(w http.ResponseWriter, p *Problem, requestID string) {
	status := p.Code.Status()
	if status == 0 {
		p = Internal(p)
		status = http.StatusInternalServerError
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.Allow != "" {
		h.Set("Allow", p.Allow)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	if p.RateLimit != "" {
		h.Set("RateLimit", p.RateLimit)
		h.Set("RateLimit-Policy", p.RateLimitPolicy)
	}
	if challenge := p.challenge(); challenge != "" {
		h.Set("WWW-Authenticate", challenge)
	}
	body, err := json.Marshal(document{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: p.Detail,
		Error: p.Code, RequestID: requestID, Errors: p.Fields,
	})
	if err != nil {
		body = []byte(`{"type":"about:blank","success":false,"error":"internal_error"}`)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

// challenge is the WWW-Authenticate value of RFC 6750 §3: plain where no
// token was given, with error="invalid_token" where one was.
func (p *Problem) challenge() string {
	const bearer = `Bearer realm="gatehouse"` // #nosec G101 -- a scheme, and no credential
	switch {
	case p.Code == MissingCredentials:
		return bearer
	case p.Code.Status() == http.StatusUnauthorized:
		return bearer + `, error="invalid_token"`
	case p.Permission != "":
		return bearer + `, error="insufficient_scope", scope="` + string(p.Permission) + `"`
	}
	return ""
}
