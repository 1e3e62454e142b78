package proxy_test

import (
	"math"
	"net/http"
	"testing"
	"time"

	"gatehouse/proxy"
)

func TestCallTimeout(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "30S": 30 * time.Second, "250m": 250 * time.Millisecond, "7u": 7 * time.Microsecond, "99999999n": 99_999_999,
		"0m": 0, "99999999H": math.MaxInt64 / time.Hour * time.Hour,
		"": -1, "m": -1, "1": -1, "1h": -1, "-1m": -1, "+1m": -1, "1.5S": -1, " 1S": -1, "1S ": -1, "123456789n": -1, "1_0S": -1, "٣S": -1,
	} {
		got, ok := proxy.CallTimeout(http.Header{"Grpc-Timeout": {value}})
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d, want %d", value, got, want)
		}
	}
	if _, ok := proxy.CallTimeout(http.Header{"Grpc-Timeout": {"1S", "1S"}}); ok {
		t.Error("two of them are one")
	}
}

func FuzzCallTimeout(f *testing.F) {
	f.Add("99999999H")
	f.Add("1n")
	f.Fuzz(func(t *testing.T, value string) {
		got, ok := proxy.CallTimeout(http.Header{"Grpc-Timeout": {value}})
		if got < 0 || !ok && got != 0 || ok && (len(value) < 2 || len(value) > 9) {
			t.Errorf("%q: got %s, %t", value, got, ok)
		}
	})
}
