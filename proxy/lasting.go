package proxy

import (
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"gatehouse/keystore"
	"gatehouse/proxy/problem"
)

// isGRPC reports whether the request is a gRPC call, whose client wants to be
// told of a refusal by a gRPC status. gRPC-Web is another protocol.
func isGRPC(r *http.Request) bool {
	if r.ProtoMajor < 2 || r.Method != http.MethodPost {
		return false
	}
	kind := r.Header["Content-Type"]
	if len(kind) != 1 {
		return false
	}
	rest, ok := strings.CutPrefix(kind[0], "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

func isEventStream(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && kind == "text/event-stream"
}

// lasting is an exchange as a live request, from the moment on from which it is
// watched over.
type lasting struct {
	live    *Live       // nil: nobody watches
	later   *time.Timer // from when on it is watched anyway
	request liveRequest

	mu            sync.Mutex
	watched, over bool
	cancel        func()        // gives the backend up
	answer        io.ReadCloser // the body of its answer; nil before it has begun
	tunnel        *tunnel       // nil before it is one
}

// mayLast has the exchange watched over if it takes longer than liveAfter.
// unwatch must be called.
func (x *exchange) mayLast(live *Live) {
	if live == nil {
		return
	}
	l := &x.lasting
	l.live = live
	l.request.account, l.request.asked = x.caller.Account.ID, x.asked
	l.request.known.Store(&keystore.Entry{Key: x.caller.Key, Account: x.caller.Account})
	l.request.cut = x.cutOff
	l.later = time.AfterFunc(liveAfter, func() { x.watch(liveOther) })
}

// watch begins to watch over the exchange, as a request of that kind.
func (x *exchange) watch(kind liveKind) {
	l := &x.lasting
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.live == nil || l.over || l.watched && kind == liveOther:
		return
	case l.watched:
		l.live.remove(&l.request) // it was of no kind so far
	}
	l.watched, l.request.kind = true, kind
	l.live.add(&l.request)
}

// unwatch ends the watch, and has the record say why the request was ended.
func (x *exchange) unwatch() {
	l := &x.lasting
	if l.live == nil {
		return
	}
	l.later.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if !l.watched {
		return
	}
	l.live.remove(&l.request)
	x.record.Lasting = l.request.kind == liveWebSocket || l.request.kind == liveEvents
	if p := x.ending(); p != nil && !l.request.goingAway.Load() {
		x.record.Reason = string(p.Code)
	}
}

// ending is why the exchange must end before its time; nil for no reason.
func (x *exchange) ending() *problem.Problem { return x.lasting.request.ending.Load() }

// cutOff gives the backend up, and the client a moment to take what is left: one
// that takes nothing must not hold on to what it has no right to.
func (x *exchange) cutOff() {
	l := &x.lasting
	l.mu.Lock()
	cancel, answer, tunnel := l.cancel, l.answer, l.tunnel
	if !l.over && tunnel == nil {
		_ = http.NewResponseController(x.w.ResponseWriter).SetWriteDeadline(wallClock().Add(closePatience))
	}
	l.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	if tunnel != nil {
		tunnel.hurry()
	}
	if answer != nil {
		// While it waits for the client to go on, HTTP/2 does not look at a
		// context. Closing may wait until the backend takes something.
		_ = answer.Close()
	}
}

// onCut is what gives the backend up.
func (x *exchange) onCut(cancel func()) {
	x.lasting.mu.Lock()
	x.lasting.cancel = cancel
	x.lasting.mu.Unlock()
	if x.ending() != nil {
		cancel()
	}
}

// answered notes the answer, and has event streams watched over, which end
// cleanly when they must, as gRPC calls do.
func (x *exchange) answered(answer *http.Response) {
	if x.lasting.live == nil {
		return
	}
	body := answer.Body
	x.lasting.mu.Lock()
	x.lasting.answer = body
	x.lasting.mu.Unlock()
	if x.ending() != nil {
		_ = body.Close() // it has just come
	}
	if isEventStream(answer.Header) {
		x.watch(liveEvents)
	} else if !isGRPC(x.r) {
		return
	}
	answer.Body = &lastingBody{ReadCloser: body, x: x, answer: answer}
}

// lastingBody ends where the exchange must end.
type lastingBody struct {
	io.ReadCloser
	x      *exchange
	answer *http.Response
}

func (b *lastingBody) Read(p []byte) (int, error) {
	if b.x.ending() != nil {
		b.answer.Trailer = nil // the backend's would be for an answer that is whole
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.x.ending() != nil {
		b.answer.Trailer = nil
		err = io.EOF
	}
	return n, err
}

// endCall says in the trailers why a gRPC call was ended whose answer had begun.
func (x *exchange) endCall() {
	p := x.ending()
	if p == nil || !isGRPC(x.r) {
		return
	}
	status, message := problem.GRPC(p)
	h := x.w.Header()
	delete(h, "Grpc-Status") // announced by the backend, and not its to say now
	delete(h, "Grpc-Message")
	h.Set(http.TrailerPrefix+"Grpc-Status", status)
	h.Set(http.TrailerPrefix+"Grpc-Message", message)
}
