package keystore_test

import (
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gatehouse/keystore"
)

func TestParseRedisURL(t *testing.T) {
	for text, want := range map[string]keystore.Redis{
		"redis://localhost":                                    {Addrs: []string{"localhost:6379"}},
		"redis://localhost/":                                   {Addrs: []string{"localhost:6379"}},
		"redis://10.0.0.7:7000/3":                              {Addrs: []string{"10.0.0.7:7000"}, DB: 3},
		"redis://[::1]":                                        {Addrs: []string{"[::1]:6379"}},
		"redis://[::1]:7000":                                   {Addrs: []string{"[::1]:7000"}},
		"redis://:secret@redis_1":                              {Addrs: []string{"redis_1:6379"}, Password: "secret"},
		"redis://gate:p%40ss%2F%3A%23@h:1/0":                   {Addrs: []string{"h:1"}, Username: "gate", Password: "p@ss/:#"},
		"redis://h?db=2&user=gate&password=secret":             {Addrs: []string{"h:6379"}, Username: "gate", Password: "secret", DB: 2},
		"redis://gate:secret@a:1?addr=b:2&addr=c&addr=[::2]:5": {Addrs: []string{"a:1", "b:2", "c:6379", "[::2]:5"}, Username: "gate", Password: "secret"},
	} {
		for scheme, tls := range map[string]bool{"redis": false, "rediss": true} {
			got, err := keystore.ParseRedisURL(scheme + strings.TrimPrefix(text, "redis"))
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			if (got.TLS != nil) != tls {
				t.Errorf("%s with %s: TLS %v", text, scheme, got.TLS)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(keystore.Redis{}, "TLS")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", text, diff)
			}
		}
	}
}

func TestParseRedisURLRefuses(t *testing.T) {
	for _, text := range []string{
		"", "localhost:6379", "//h", "http://h", "unix:///run/redis.sock", "redis:h", "redis://", "redis://:6379", "redis:///0",
		"redis://h:0", "redis://h:65536", "redis://h:", "redis://h:08", "redis://h:x", "redis://[::1", "redis://::1", "redis://a b",
		"redis://h/-1", "redis://h/01", "redis://h/x", "redis://h/0/1", "redis://h//0", "redis://h/4294967296", "redis://h/%30", "redis://h/0?db=0",
		"redis://h?db=", "redis://h?db=1&db=1", "redis://h/1?addr=b", "redis://h?addr=h", "redis://h?addr=", "redis://h?addr=a,b",
		"redis://user@h", "redis://user:@h", "redis://h?user=u", "redis://u:s3cret@h?password=s3cret", "redis://u:s3cret@h?user=u",
		"redis://h?password=s3cret&password=s3cret", "redis://h?timeout=1s", "redis://h?skip_verify=true", "redis://h?DB=1", "redis://h?%zz",
		"redis://u:s3cret@h#0", "redis://u:s3cret#x@h", "redis://u:s3cret/x@h", "redis://u:s3cret%zz@h", "redis://u:s3cret?x@h", "redis://h#",
	} {
		got, err := keystore.ParseRedisURL(text)
		if err == nil {
			t.Errorf("%s: got %+v", text, got)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What is accepted can be written down and read again, and means the same.
func FuzzParseRedisURL(f *testing.F) {
	for _, seed := range []string{
		"redis://localhost", "rediss://gate:p%40ss@[::1]:7000/3", "redis://a:1?addr=b:2&addr=c", "redis://h?db=2&user=u&password=p",
		"redis://u:p@h:99999", "redis://h/?x=1", "redis://[fe80::1%25eth0]:1", "redis://%68",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := keystore.ParseRedisURL(text)
		if err != nil {
			return
		}
		if len(got.Addrs) == 0 || got.MasterName != "" || got.DB < 0 || (got.DB > 0 && len(got.Addrs) > 1) {
			t.Fatalf("%q: %+v", text, got)
		}
		for _, addr := range got.Addrs {
			host, port, err := net.SplitHostPort(addr)
			if n, bad := strconv.Atoi(port); err != nil || bad != nil || host == "" || n < 1 || n > 65535 {
				t.Fatalf("%q: address %q", text, addr)
			}
		}
		u := url.URL{Scheme: "redis", Host: got.Addrs[0], Path: "/" + strconv.Itoa(got.DB)}
		if got.TLS != nil {
			u.Scheme = "rediss"
		}
		if got.Password != "" {
			u.User = url.UserPassword(got.Username, got.Password)
		}
		u.RawQuery = url.Values{"addr": got.Addrs[1:]}.Encode()
		again, err := keystore.ParseRedisURL(u.String())
		if diff := cmp.Diff(got, again, cmpopts.IgnoreFields(keystore.Redis{}, "TLS")); err != nil || diff != "" || (got.TLS == nil) != (again.TLS == nil) {
			t.Fatalf("%q, written as %q: %v\n%s", text, u.String(), err, diff)
		}
	})
}
