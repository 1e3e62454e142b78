package problem_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"gatehouse/proxy/problem"
)

// TestEveryCodeHasAGRPCStatus that says the same.
func TestEveryCodeHasAGRPCStatus(t *testing.T) {
	t.Parallel()
	want := map[int]string{
		400: "3", 401: "16", 403: "7", 404: "12", 405: "12", 408: "14", 409: "10", 413: "8", 415: "12", 422: "3", 429: "8", 431: "8",
		500: "13", 501: "12", 502: "14", 503: "14", 504: "4",
	}
	for _, code := range problem.Codes() {
		if got, _ := problem.GRPC(problem.New(code, "x")); got != want[code.Status()] {
			t.Errorf("%s (%d): got %s, want %q", code, code.Status(), got, want[code.Status()])
		}
	}
}

func TestGRPCAnswerIsOfTrailersOnly(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	problem.WriteGRPC(w, problem.New(problem.InvalidToken, "ü 100%\n"))
	h := w.Header()
	if w.Code != http.StatusOK || h.Get("Content-Type") != "application/grpc" || w.Body.Len() != 0 ||
		h.Get("Grpc-Status") != "16" || h.Get("Grpc-Message") != "invalid_token: %C3%BC 100%25%0A" {
		t.Errorf("got %d %v %q", w.Code, h, w.Body)
	}
}
