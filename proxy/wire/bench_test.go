package wire_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"gatehouse/proxy/wire"
)

// BenchmarkGuard compares a connection that is guarded with one that is not:
// both serve the same requests, one after the other, over loopback.
func BenchmarkGuard(b *testing.B) {
	browser := "GET /v4/account/aaaaaaaa-0000-4000-8000-00000000000a/datacenter_shared/proxy-list?country=DE HTTP/1.1\r\nHost: api.example.com\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: application/json\r\nAccept-Encoding: gzip, br\r\n" +
		"api-token: gk_" + strings.Repeat("a", 61) + "\r\nX-A: b\r\nX-B: c\r\n\r\n"
	for _, row := range []struct{ name, raw string }{
		{"get", browser},
		{"length", post("Content-Length: 4096\r\n", strings.Repeat("a", 4096))},
		{"chunks", chunked(strings.Repeat("400\r\n"+strings.Repeat("a", 1024)+"\r\n", 4) + "0\r\n\r\n")},
	} {
		for _, guarded := range []string{"off", "on"} {
			b.Run(row.name+"/guard="+guarded, func(b *testing.B) { benchmark(b, row.raw, guarded == "on") })
		}
	}
}

func benchmark(b *testing.B, raw string, guarded bool) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	l := inner
	if guarded {
		if l, err = wire.Listen(inner, wire.Options{Limits: wire.Limits{Bytes: 32 << 10, Lines: 100}, HeadTimeout: patience}); err != nil {
			b.Fatal(err)
		}
	}
	server := &http.Server{ConnContext: wire.Context, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wire.Refusal(r) != nil {
			b.Error("refused")
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	c, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	in, sent := bufio.NewReader(c), []byte(raw)
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := c.Write(sent); err != nil {
			b.Fatal(err)
		}
		for line := []byte(nil); len(line) != 2; { // 204 ends with an empty line
			if line, err = in.ReadSlice('\n'); err != nil {
				b.Fatal(err)
			}
		}
	}
	_ = c.Close()
	_ = server.Close()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		b.Error(err)
	}
}
