package problem_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

const requestID = "0198f2a4-7c1e-7b3a-9d2e-1f0a5b6c7d8e"

// answers has one problem for each code, as the gateway makes it, and some
// more that answer with headers of their own. The name is the golden file's.
func answers() map[string]*problem.Problem {
	refused := problem.Refused
	return map[string]*problem.Problem{
		"ambiguous_path":        problem.New(problem.AmbiguousPath, "The path of this request is ambiguous: it has a dot segment."),
		"unknown_route":         problem.New(problem.UnknownRoute, "There is nothing at this path."),
		"method_not_allowed":    {Code: problem.MethodNotAllowed, Detail: "This path does not take this method.", Allow: "GET, HEAD, POST"},
		"ambiguous_query":       problem.New(problem.AmbiguousQuery, "The query parameter type decides what this request needs, and the parameter is missing."),
		"missing_credentials":   problem.New(problem.MissingCredentials, "This request has no API token."),
		"ambiguous_credentials": problem.New(problem.AmbiguousCredentials, "This request has two API tokens."),
		"invalid_token":         problem.From(keystore.ErrUnknownToken),
		"rate_limited": {
			Code: problem.RateLimited, Detail: "This key has used up its requests.", RetryAfter: 1500 * time.Millisecond,
			RateLimit: `"key";r=0;t=2`, RateLimitPolicy: `"key";q=10;w=1`,
		},
		"key_store_unavailable":  problem.StoreUnavailable(errors.New("dial tcp 10.0.0.5:6379: connection refused")),
		"key_disabled":           refused(policy.Decision{Reason: policy.KeyDisabled}),
		"account_suspended":      refused(policy.Decision{Reason: policy.AccountSuspended}),
		"key_expired":            refused(policy.Decision{Reason: policy.KeyExpired}),
		"ip_not_allowed":         refused(policy.Decision{Reason: policy.IPNotAllowed, Client: netip.MustParseAddr("198.51.100.7")}),
		"ip_not_allowed_unknown": refused(policy.Decision{Reason: policy.IPNotAllowed}),
		"subaccount_not_allowed": refused(policy.Decision{Reason: policy.SubaccountNotAllowed}),
		"permission_denied":      refused(policy.Decision{Reason: policy.PermissionDenied, Needs: "datacenter_shared:write"}),

		"upstream_unreachable": problem.New(problem.UpstreamUnreachable, "The product did not answer."),
		"upstream_timeout":     problem.New(problem.UpstreamTimeout, "The product did not answer in time."),
		"upstream_overloaded":  {Code: problem.UpstreamOverloaded, Detail: "The product has too much to do.", RetryAfter: time.Second},

		"permission_not_grantable": problem.From(&policy.Excess{Permissions: policy.PermissionSet{"serp_api:read", "serp_api:write"}}),
		"subaccount_not_grantable": problem.From(&policy.Excess{AllSubaccounts: true}),
		"exceeds_your_access":      problem.From(&policy.Excess{Expiry: true}),
		"key_in_use":               problem.From(keystore.ErrKeyInUse),
		"key_limit_reached":        problem.From(keystore.ErrKeyLimit),
		"conflict":                 problem.From(keystore.ErrConflict),

		"not_found":       problem.From(keystore.ErrNotFound),
		"invalid_request": problem.New(problem.InvalidRequest, "The body of this request is not JSON."),
		"validation_failed": problem.Invalid(
			problem.FieldError{Field: "allowed_ips[1]", Detail: "not an IPv4 or IPv6 address or CIDR range"},
			problem.FieldError{Field: "name", Detail: "must not be empty"},
		),
		"validation_failed_whole": problem.Invalid(),
		"header_too_large":        problem.New(problem.HeaderTooLarge, "This request has more header bytes than this gateway accepts."),
		"method_not_implemented":  problem.New(problem.MethodNotImplemented, "This gateway does not know the method of this request."),
		"request_timeout":         problem.New(problem.RequestTimeout, "The body of this request came too slowly."),
		"body_too_large":          problem.New(problem.BodyTooLarge, "The body of this request is too large."),
		"unsupported_media_type":  problem.New(problem.UnsupportedMediaType, "The Content-Type must be application/json."),
		"internal_error":          problem.Internal(errors.New("runtime error: index out of range [3]")),
	}
}

// written is the whole answer as text: status line, sorted headers, body.
func written(p *problem.Problem) string {
	recorder := httptest.NewRecorder()
	problem.Write(recorder, p, requestID)
	answer := recorder.Result()
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s\n", answer.Proto, answer.Status)
	if err := answer.Header.Write(&text); err != nil { // sorts
		panic(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	return strings.ReplaceAll(text.String(), "\r\n", "\n") + "\n" + string(body) + "\n"
}

func TestAnswersAreThoseOfTheContract(t *testing.T) {
	for name, p := range answers() {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", name+".golden")
			got := written(p)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("got %v; write it with: go test ./proxy/problem -update", err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryCodeHasAGoldenAnswer(t *testing.T) {
	var want []string
	for name := range answers() {
		want = append(want, filepath.Join("testdata", name+".golden"))
	}
	for _, code := range problem.Codes() {
		if p := answers()[string(code)]; p == nil || p.Code != code {
			t.Errorf("%s: got no answer of this code, want one", code)
		}
	}
	got, err := filepath.Glob(filepath.Join("testdata", "*.golden"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("golden files, none left over (-want +got):\n%s", diff)
	}
}

// The golden files could be wrong all alike, so what holds for all is said
// once more, from the contract.
func TestEveryAnswerKeepsTheRulesOfAll(t *testing.T) {
	for name, p := range answers() {
		t.Run(name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			problem.Write(recorder, p, requestID)
			h := recorder.Header()
			for header, want := range map[string]string{
				"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
				"Content-Length": fmt.Sprint(recorder.Body.Len()),
			} {
				if got := h.Get(header); got != want {
					t.Errorf("%s: got %q, want %q", header, got, want)
				}
			}
			if got, want := recorder.Code, p.Code.Status(); got != want {
				t.Errorf("got status %d, want %d", got, want)
			}
			if got, want := h.Get("WWW-Authenticate") != "", recorder.Code == http.StatusUnauthorized || p.Code == problem.PermissionDenied; got != want {
				t.Errorf("got a WWW-Authenticate header %v, want %v", got, want)
			}
			want := map[string]any{
				"type": "about:blank", "title": http.StatusText(p.Code.Status()), "status": float64(p.Code.Status()),
				"detail": p.Detail, "success": false, "error": string(p.Code), "request_id": requestID,
			}
			var got map[string]any
			if err := json.Unmarshal(recorder.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if fields, ok := got["errors"].([]any); ok != (len(p.Fields) > 0) || len(fields) != len(p.Fields) {
				t.Errorf("got errors %v, want %d", got["errors"], len(p.Fields))
			}
			delete(got, "errors")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("document (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChallengeSaysWhetherATokenWasGiven(t *testing.T) {
	const (
		plain   = `Bearer realm="gatehouse"`
		invalid = `Bearer realm="gatehouse", error="invalid_token"`
	)
	rows := []struct {
		name    string
		problem *problem.Problem
		want    string
	}{
		{"no token", problem.New(problem.MissingCredentials, ""), plain},
		{"wrong token", problem.New(problem.InvalidToken, ""), invalid},
		{"disabled key", problem.New(problem.KeyDisabled, ""), invalid},
		{"expired key", problem.New(problem.KeyExpired, ""), invalid},
		{
			"missing permission", problem.Refused(policy.Decision{Reason: policy.PermissionDenied, Needs: "serp_api:read"}),
			`Bearer realm="gatehouse", error="insufficient_scope", scope="serp_api:read"`,
		},
		{"two tokens", problem.New(problem.AmbiguousCredentials, ""), ""},
		{"suspended account", problem.New(problem.AccountSuspended, ""), ""},
		{"address", problem.New(problem.IPNotAllowed, ""), ""},
		{"subaccount", problem.New(problem.SubaccountNotAllowed, ""), ""},
		{"permission that cannot be granted", problem.New(problem.PermissionNotGrantable, ""), ""},
		{"store is down", problem.StoreUnavailable(nil), ""},
		{"unknown code", problem.New("teapot", ""), ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			problem.Write(recorder, row.problem, requestID)
			var want []string
			if row.want != "" {
				want = []string{row.want}
			}
			if diff := cmp.Diff(want, recorder.Header()["Www-Authenticate"]); diff != "" {
				t.Errorf("WWW-Authenticate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRetryAfterNeverComesTooEarly(t *testing.T) {
	rows := []struct {
		after time.Duration
		want  string // "" sends no header
	}{
		{0, ""},
		{-time.Second, ""},
		{1, "1"},
		{time.Millisecond, "1"},
		{time.Second - 1, "1"},
		{time.Second, "1"},
		{time.Second + 1, "2"},
		{1500 * time.Millisecond, "2"},
		{2 * time.Second, "2"},
		{59*time.Second + 999*time.Millisecond, "60"},
		{time.Hour, "3600"},
		{time.Hour + 1, "3601"},
		{1000 * time.Hour, "3600000"},
	}
	for _, row := range rows {
		t.Run(row.after.String(), func(t *testing.T) {
			recorder := httptest.NewRecorder()
			problem.Write(recorder, &problem.Problem{Code: problem.RateLimited, RetryAfter: row.after}, requestID)
			if got := recorder.Header().Get("Retry-After"); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestHostileTextStaysInItsJSONString(t *testing.T) {
	rows := []struct {
		name string
		text string
		want string // as the client reads it
	}{
		{"end of the string", `","success":true,"x":"`, `","success":true,"x":"`},
		{"backslash at the end", `\`, `\`},
		{"line break", "a\r\nSet-Cookie: a=b\r\n\r\n", "a\r\nSet-Cookie: a=b\r\n\r\n"},
		{"NUL and escape", "\x00\x1b[2J", "\x00\x1b[2J"},
		{"script", "</script><script>alert(1)</script><!--", "</script><script>alert(1)</script><!--"},
		{"line separators of JavaScript", "\u2028\u2029", "\u2028\u2029"},
		{"invalid UTF-8", "a\xff", "a\ufffd"},
		{"other scripts", "Zugriff verweigert: ключ 🔑", "Zugriff verweigert: ключ 🔑"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := problem.Invalid(problem.FieldError{Field: row.text, Detail: row.text})
			p.Detail = row.text
			recorder := httptest.NewRecorder()
			problem.Write(recorder, p, row.text)
			body := recorder.Body.String()
			if strings.ContainsAny(body, "<>\r\n\x00\x1b\u2028\u2029") {
				t.Errorf("got %q, want such characters escaped", body)
			}
			var got struct {
				Success   bool   `json:"success"`
				Error     string `json:"error"`
				Detail    string `json:"detail"`
				RequestID string `json:"request_id"`
				Errors    []problem.FieldError
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("got %q: %v", body, err)
			}
			if got.Success || got.Error != "validation_failed" {
				t.Errorf("got success %v, error %q, want false, validation_failed", got.Success, got.Error)
			}
			if got.Detail != row.want || got.RequestID != row.want {
				t.Errorf("got detail %q and request id %q, want %q", got.Detail, got.RequestID, row.want)
			}
			if diff := cmp.Diff([]problem.FieldError{{Field: row.want, Detail: row.want}}, got.Errors); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnswerShowsNoCause(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.5:6379: connection refused")
	for name, p := range map[string]*problem.Problem{
		"internal":      problem.Internal(cause),
		"unavailable":   problem.StoreUnavailable(cause),
		"unforeseen":    problem.From(fmt.Errorf("list keys: %w", cause)),
		"no answer":     problem.From(fmt.Errorf("lookup: %w: %w", keystore.ErrUnavailable, cause)),
		"unknown code":  {Code: "teapot", Detail: "10.0.0.5", Cause: cause},
		"no code":       {Detail: "10.0.0.5", Cause: cause},
		"any with one":  {Code: problem.UpstreamUnreachable, Detail: "The product did not answer.", Cause: cause},
		"zero problem":  {},
		"zero decision": problem.Refused(policy.Decision{}),
	} {
		if text := written(p); strings.Contains(text, "10.0.0.5") || strings.Contains(text, "tcp") {
			t.Errorf("%s: got an answer that shows its cause:\n%s", name, text)
		}
	}
}

func TestProblemOfNoKnownCodeIsAnInternalError(t *testing.T) {
	want := written(problem.Internal(nil))
	for name, p := range map[string]*problem.Problem{
		"zero problem":     {},
		"unknown code":     {Code: "teapot", Detail: "short and stout", Permission: "a:b", Allow: "GET", RetryAfter: time.Second},
		"allowed":          {Code: problem.Code(policy.Allowed)},
		"zero decision":    problem.Refused(policy.Decision{}),
		"unknown reason":   problem.Refused(policy.Decision{Reason: "teapot"}),
		"allowed decision": problem.Refused(policy.Decision{Reason: policy.Allowed}),
		"no error":         problem.From(nil),
		"unforeseen error": problem.From(io.ErrUnexpectedEOF),
	} {
		if diff := cmp.Diff(want, written(p)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestProblemTellsTheLogItsCause(t *testing.T) {
	cause := errors.New("connection refused")
	rows := []struct {
		problem *problem.Problem
		want    string
	}{
		{problem.New(problem.UnknownRoute, "There is nothing at this path."), "unknown_route: There is nothing at this path."},
		{problem.Internal(cause), "internal_error: connection refused"},
		{problem.StoreUnavailable(cause), "key_store_unavailable: connection refused"},
	}
	for _, row := range rows {
		if got := row.problem.Error(); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
		if got, want := errors.Is(row.problem, cause), row.problem.Cause != nil; got != want {
			t.Errorf("%s: got errors.Is %v, want %v", row.problem.Code, got, want)
		}
	}
}

func TestEveryErrorOfTheInsideHasOneProblem(t *testing.T) {
	rows := []struct {
		name   string
		err    error
		code   problem.Code
		detail string // where the error itself says something
	}{
		{"problem", problem.New(problem.UnknownRoute, "There is nothing at this path."), problem.UnknownRoute, "There is nothing at this path."},
		{"unknown token", keystore.ErrUnknownToken, problem.InvalidToken, ""},
		{"store is down", keystore.ErrUnavailable, problem.KeyStoreUnavailable, ""},
		{"not found", keystore.ErrNotFound, problem.NotFound, ""},
		{"key in use", keystore.ErrKeyInUse, problem.KeyInUse, ""},
		{"key limit", keystore.ErrKeyLimit, problem.KeyLimitReached, ""},
		{"conflict", keystore.ErrConflict, problem.Conflict, ""},
		{"bad cursor", keystore.ErrBadCursor, problem.ValidationFailed, ""},
		{"caller refused", &keystore.RefusedError{Decision: policy.Decision{Reason: policy.KeyExpired}}, problem.KeyExpired, "This key has expired."},
		{
			"permissions", &policy.Excess{Permissions: policy.PermissionSet{"a:b", "c:d"}, AllSubaccounts: true, Expiry: true},
			problem.PermissionNotGrantable, "You can only grant what you hold yourself, and you lack: a:b, c:d.",
		},
		{
			"subaccounts", &policy.Excess{Subaccounts: []policy.SubaccountID{"x", "y"}, Expiry: true},
			problem.SubaccountNotGrantable, "You cannot grant access to subaccounts that you cannot access yourself: x, y.",
		},
		{"all subaccounts", &policy.Excess{AllSubaccounts: true}, problem.SubaccountNotGrantable, "You can only grant access to subaccounts that you can access yourself."},
		{"addresses", &policy.Excess{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, problem.ExceedsYourAccess, ""},
		{"any address", &policy.Excess{AnyAddress: true}, problem.ExceedsYourAccess, ""},
		{"lifetime", &policy.Excess{Expiry: true}, problem.ExceedsYourAccess, "A key cannot outlive the key that makes it; give it an earlier expiry."},
		{"anything else", io.ErrUnexpectedEOF, problem.InternalError, ""},
		{"malformed token that nobody mapped", keystore.ErrBadToken, problem.InternalError, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			for _, err := range []error{row.err, fmt.Errorf("revoke key 1: %w", row.err)} {
				got := problem.From(err)
				if got.Code != row.code {
					t.Errorf("%v: got %s, want %s", err, got.Code, row.code)
				}
				if row.detail != "" && got.Detail != row.detail {
					t.Errorf("%v: got detail %q, want %q", err, got.Detail, row.detail)
				}
			}
		})
	}
}

// A store that is down must never look like a bad token, whatever else the
// error wraps: clients throw a refused token away.
func TestOutageIsNeverABadToken(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("%w: %w", keystore.ErrUnavailable, keystore.ErrUnknownToken),
		fmt.Errorf("%w: %w", keystore.ErrUnknownToken, keystore.ErrUnavailable),
		errors.Join(keystore.ErrNotFound, keystore.ErrUnavailable),
	} {
		if got := problem.From(err).Code; got != problem.KeyStoreUnavailable {
			t.Errorf("%v: got %s, want %s", err, got, problem.KeyStoreUnavailable)
		}
	}
}
