package problem_test

import (
	"net/http"
	"regexp"
	"testing"

	"gatehouse/policy"
	"gatehouse/proxy/problem"

	"github.com/google/go-cmp/cmp"
)

func TestEveryCodeHasAStatus(t *testing.T) {
	form := regexp.MustCompile(`\A[a-z]+(_[a-z]+)*\z`)
	seen := make(map[problem.Code]bool)
	for _, code := range problem.Codes() {
		if status := code.Status(); status < 400 || status > 599 || http.StatusText(status) == "" {
			t.Errorf("%s: got status %d, want one of an error", code, status)
		}
		if !form.MatchString(string(code)) {
			t.Errorf("%q: got a code that is not in the form of the contract", code)
		}
		if seen[code] {
			t.Errorf("%s: got it twice in Codes()", code)
		}
		seen[code] = true
	}
}

func TestStatusesAreThoseOfTheContract(t *testing.T) {
	want := map[int][]problem.Code{
		http.StatusBadRequest:   {"ambiguous_path", "ambiguous_query", "ambiguous_credentials", "invalid_request"},
		http.StatusUnauthorized: {"missing_credentials", "invalid_token", "key_disabled", "key_expired"},
		http.StatusForbidden: {
			"account_suspended", "ip_not_allowed", "subaccount_not_allowed", "permission_denied",
			"permission_not_grantable", "subaccount_not_grantable", "exceeds_your_access",
		},
		http.StatusNotFound:              {"unknown_route", "not_found"},
		http.StatusMethodNotAllowed:      {"method_not_allowed"},
		http.StatusConflict:              {"key_in_use", "key_limit_reached", "conflict"},
		http.StatusRequestEntityTooLarge: {"body_too_large"},
		http.StatusUnsupportedMediaType:  {"unsupported_media_type"},
		http.StatusUnprocessableEntity:   {"validation_failed"},
		http.StatusTooManyRequests:       {"rate_limited"},
		http.StatusRequestTimeout:        {"request_timeout"},
		http.StatusInternalServerError:   {"internal_error"},
		http.StatusNotImplemented:        {"method_not_implemented"},

		http.StatusRequestHeaderFieldsTooLarge: {"header_too_large"},
		http.StatusBadGateway:                  {"upstream_unreachable"},
		http.StatusServiceUnavailable:          {"key_store_unavailable", "upstream_overloaded"},
		http.StatusGatewayTimeout:              {"upstream_timeout"},
	}
	got := map[int][]problem.Code{}
	for _, code := range problem.Codes() {
		got[code.Status()] = append(got[code.Status()], code)
	}
	sameSet := cmp.Transformer("set", func(codes []problem.Code) map[problem.Code]bool {
		set := make(map[problem.Code]bool)
		for _, code := range codes {
			set[code] = true
		}
		return set
	})
	if diff := cmp.Diff(want, got, sameSet); diff != "" {
		t.Errorf("codes by status (-want +got):\n%s", diff)
	}
}

func TestUnknownCodeHasNoStatus(t *testing.T) {
	for _, code := range []problem.Code{"", "allowed", "Key_Expired", "key_expired ", "teapot"} {
		if got := code.Status(); got != 0 {
			t.Errorf("%q: got status %d, want 0", code, got)
		}
	}
}

func TestEveryRefusingReasonIsACodeOfTheSameWord(t *testing.T) {
	codes := make(map[problem.Code]bool)
	for _, code := range problem.Codes() {
		codes[code] = true
	}
	for _, reason := range policy.Reasons() {
		if got, want := codes[problem.Code(reason)], reason != policy.Allowed; got != want {
			t.Errorf("%s: got code %v, want %v", reason, got, want)
		}
	}
}
