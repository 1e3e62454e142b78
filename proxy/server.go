package proxy

import (
	"log"
	"net/http"
	"strconv"
	"time"

	"gatehouse/proxy/problem"
	"gatehouse/proxy/wire"
)

// ServerOptions are the limits of the server around a Gateway.
type ServerOptions struct {
	// MaxHeader is how many bytes the head of a request may have.
	MaxHeader int
	// HeaderTimeout is how long a head may take, and IdleTimeout how long a
	// connection may be without a request.
	HeaderTimeout, IdleTimeout time.Duration
	// MaxStreams is how many requests one HTTP/2 connection may carry at a time.
	MaxStreams int
	// H2C serves HTTP/2 without TLS too, to clients that begin with it.
	H2C bool
	// ErrorLog is what the server complains to.
	ErrorLog *log.Logger
}

const (
	// maxFrame is the largest HTTP/2 frame that is read, in bytes: the least
	// that RFC 9113 §4.2 asks for.
	maxFrame = 16 << 10
	// pingAfter is when a silent HTTP/2 connection is asked whether it lives,
	// and pingTimeout how long it may take to say so.
	pingAfter, pingTimeout = time.Minute, 15 * time.Second
)

// NewServer makes the server that a Gateway needs around it, for the
// connections of a wire.Listener. The write timeout is for the beginning of an
// answer: the gateway moves the deadline for as long as a client goes on
// sending its body and taking its answer.
func NewServer(h http.Handler, o ServerOptions) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(o.H2C)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: o.HeaderTimeout,
		WriteTimeout:      ioPatience,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeader,
		ErrorLog:          o.ErrorLog,
		ConnContext:       wire.Context,
		Protocols:         protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: o.MaxStreams, MaxReadFrameSize: maxFrame,
			SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: ioPatience,
		},
		// Otherwise the server says 200 to OPTIONS * by itself.
		DisableGeneralOptionsHandler: true,
	}
}

// isRequest returns why what came over the connection is no request, or asks
// for what this gateway does not do.
func (g *Gateway) isRequest(x *exchange) error {
	if refusal := wire.Refusal(x.r); refusal != nil {
		return refusal
	}
	if x.record.Method == otherMethod && x.r.Method != http.MethodTrace {
		return problem.New(problem.MethodNotImplemented, "This gateway does not know the method of this request.")
	}
	if fault := framesFault(x.r); fault != "" {
		return problem.New(problem.InvalidRequest, "This request is malformed: "+fault+".")
	}
	lines := 0
	for _, values := range x.r.Header {
		lines += len(values)
	}
	if g.o.MaxHeaderLines > 0 && lines > g.o.MaxHeaderLines {
		return problem.New(problem.HeaderTooLarge, "This request has more header lines than this gateway accepts.")
	}
	return nil
}

// framesFault says what is wrong with a request of HTTP/2 that net/http lets
// pass: what is said twice and differently, which is a Host beside the authority
// (RFC 9113 §8.3.1) and a length beside that of the frames, where one that it
// cannot read it takes for 0; and an expectation that no server knows.
func framesFault(r *http.Request) string {
	if r.ProtoMajor < 2 {
		return "" // was judged by its bytes
	}
	if hosts := r.Header["Host"]; len(hosts) > 1 || len(hosts) == 1 && hosts[0] != r.Host {
		return "its Host is not its authority"
	}
	if len(r.Header["Expect"]) > 0 {
		return "there is an unknown expectation" // net/http has taken the known one out
	}
	if lengths := r.Header["Content-Length"]; len(lengths) > 1 || len(lengths) == 1 && lengths[0] != strconv.FormatInt(r.ContentLength, 10) {
		return "its Content-Length is not the length of its body"
	}
	return ""
}
