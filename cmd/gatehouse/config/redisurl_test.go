package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/cmd/gatehouse/config"
)

// TestRedisURLIsTakenApart: what it says is where it would be without one.
func TestRedisURLIsTakenApart(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]config.Redis{
		"redis://redis.internal":                      {Addrs: []string{"redis.internal:6379"}},
		"redis://redis.internal:6380/2":               {Addrs: []string{"redis.internal:6380"}, DB: 2},
		"rediss://:s%40cret@redis.internal/":          {Addrs: []string{"redis.internal:6379"}, Password: "s@cret", TLS: config.RedisTLS{Enabled: true}},
		"redis://gatehouse:secret@[2001:db8::1]:6379": {Addrs: []string{"[2001:db8::1]:6379"}, Username: "gatehouse", Password: "secret"},
		"redis://a:7000?addr=b:7001":                  {Addrs: []string{"a:7000", "b:7001"}},
	} {
		want.URL, want.Prefix = config.Secret(url), "g:"
		got := (&config.Redis{URL: config.Secret(url), Addrs: []string{"127.0.0.1:6379"}, Prefix: "g:"}).Resolved()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
	}
	plain := config.Redis{Addrs: []string{"a:1", "b:2"}, Username: "u", DB: 3}
	if diff := cmp.Diff(plain, plain.Resolved()); diff != "" {
		t.Errorf("without a URL something changes:\n%s", diff)
	}
}

// FuzzRedisURL: whatever is written there, what is accepted names servers, and
// a message shows nothing of it.
func FuzzRedisURL(f *testing.F) {
	for _, url := range []string{"redis://h", "rediss://u:p@h:1/0", "redis://[::1]:6379", "redis://h/-1", "redis://h?db=1", "redis:///0", "://"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		r := (&config.Redis{URL: config.Secret(url), Addrs: []string{"none:1"}}).Resolved()
		if len(r.Addrs) < 1 || r.DB < 0 || r.Username != "" && r.Password == "" {
			t.Errorf("%q is %+v", url, r.Addrs)
		}
	})
}
