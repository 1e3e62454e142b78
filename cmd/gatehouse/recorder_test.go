package main_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// nonceHeader tells the recorder which of the tests' requests it gets.
const nonceHeader = "X-Nonce"

// recorder is a product that tells which requests came through to it. It
// answers them, and sends a line ten times a second to those of /events.
type recorder struct {
	addr    string
	next    atomic.Int64
	waiting sync.Map // of *atomic.Int64, by nonce: when it arrived, in Unix nanoseconds
}

func startRecorder(t testing.TB) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{addr: l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, request *http.Request) {
		r.note(request)
		_, _ = w.Write([]byte("{}")) // the client may have hung up
	})
	mux.HandleFunc("/events", r.events)
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience, BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() { _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() {
		cancel()
		_ = server.Close()
	})
	return r
}

func (r *recorder) note(request *http.Request) {
	if arrived, ok := r.waiting.Load(request.Header.Get(nonceHeader)); ok {
		arrived.(*atomic.Int64).Store(time.Now().UnixNano())
	}
}

// expect returns a nonce, and whether the request with it has arrived, which may
// be asked once.
func (r *recorder) expect() (nonce string, arrived func() bool) {
	nonce = strconv.FormatInt(r.next.Add(1), 10)
	when := &atomic.Int64{}
	r.waiting.Store(nonce, when)
	return nonce, func() bool {
		r.waiting.Delete(nonce)
		return when.Load() != 0
	}
}

const eventEvery = 100 * time.Millisecond

// events sends when it sends it, in Unix nanoseconds, until its client has gone.
func (r *recorder) events(w http.ResponseWriter, request *http.Request) {
	r.note(request)
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	tick := time.NewTicker(eventEvery)
	defer tick.Stop()
	for {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano()); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-request.Context().Done():
			return
		}
	}
}
