package proxy

import (
	"net/http"
	"net/netip"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// IsHost is for tests.
var IsHost = isHost

// AcceptKey is for backends of the tests that answer handshakes.
var AcceptKey = acceptKey

// FailureSlots is how many budgets for failures there are.
const FailureSlots = failureSlots

// Fails counts a failure, and reports whether there were not too many.
func (l *FailureLimiter) Fails(client netip.Addr, now time.Time) bool {
	return l.take(client, now) == nil
}

// Keys is how many keys are remembered.
func (f *InFlight) Keys() int {
	n := 0
	for i := range f.shards {
		f.shards[i].mu.Lock()
		n += len(f.shards[i].requests)
		f.shards[i].mu.Unlock()
	}
	return n
}

// Boundaries returns after how many bytes of the chunks, taken together, a
// WebSocket's stream stands between two frames; of the ends of chunks alone.
func Boundaries(chunks ...[]byte) []int {
	var f frames
	var ends []int
	n := 0
	for _, chunk := range chunks {
		f.pass(chunk)
		if n += len(chunk); f.between() {
			ends = append(ends, n)
		}
	}
	return ends
}

// CloseFrame is for tests.
var CloseFrame = closeFrame

// SplitProtocols is for tests.
var SplitProtocols = splitProtocols

// CallTimeout is what a gRPC client says that a call may take.
func CallTimeout(h http.Header) (time.Duration, bool) { return callTimeout(h) }

// Watch has a Live watch over a request with that key as if it was under way.
// cut is called when the request must end; remove ends the watch.
func (l *Live) Watch(t keystore.Token, e keystore.Entry, asked policy.Request, cut func()) (remove func()) {
	r := &liveRequest{kind: liveEvents, token: t, asked: asked, account: e.Account.ID, cut: cut}
	r.known.Store(&e)
	l.add(r)
	return func() { l.remove(r) }
}
