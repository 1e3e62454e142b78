package proxy

import (
	"context"
	"io"
	"mime"
	"net/http"
	"strings"

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

// watch begins to watch over the exchange as a live request. What was begun
// ends with the exchange.
func (x *exchange) watch(kind liveKind, cut func()) {
	if x.live == nil {
		return
	}
	x.lasting = &liveRequest{kind: kind, token: x.token, account: x.caller.Account.ID, asked: x.asked, cut: cut}
	x.live.add(x.lasting)
}

// unwatch ends the watch, and has the record say why the request was ended.
func (x *exchange) unwatch() {
	if x.lasting == nil {
		return
	}
	x.live.remove(x.lasting)
	if p := x.ending(); p != nil && !x.lasting.goingAway.Load() {
		x.record.Reason = string(p.Code)
	}
}

// ending is why the exchange must end before its time; nil for no reason.
func (x *exchange) ending() *problem.Problem {
	if x.lasting == nil {
		return nil
	}
	return x.lasting.ending.Load()
}

// beginCall watches over a gRPC call from its beginning: its answer may be long
// in coming. It returns the request to forward, and what ends the call.
func (x *exchange) beginCall(r *http.Request) (*http.Request, context.CancelFunc) {
	if x.live == nil || !isGRPC(r) {
		return r, func() {}
	}
	ctx, cancel := context.WithCancel(r.Context())
	x.watch(liveGRPC, func() {
		cancel()
		// While it waits for the client to go on, HTTP/2 does not look at ctx.
		if body := x.lasting.answer.Load(); body != nil {
			_ = (*body).Close()
		}
	})
	return r.WithContext(ctx), cancel
}

// watchAnswer watches over an event stream, from where its answer begins, and
// has a live answer end cleanly when it must.
func (x *exchange) watchAnswer(answer *http.Response) {
	body := answer.Body
	switch {
	case x.lasting != nil:
		x.lasting.answer.Store(&body)
	case isEventStream(answer.Header):
		x.watch(liveEvents, func() { _ = body.Close() })
	}
	if x.lasting != nil {
		answer.Body = &lastingBody{ReadCloser: body, x: x, answer: answer}
	}
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
	if p == nil || x.lasting.kind != liveGRPC {
		return
	}
	status, message := problem.GRPC(p)
	h := x.w.Header()
	delete(h, "Grpc-Status") // announced by the backend, and not its to say now
	delete(h, "Grpc-Message")
	h.Set(http.TrailerPrefix+"Grpc-Status", status)
	h.Set(http.TrailerPrefix+"Grpc-Message", message)
}
