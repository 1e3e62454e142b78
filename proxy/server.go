package proxy

import (
	"log"
	"net/http"
	"time"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
)

// NewServer makes the server that a Gateway needs around it. Headers must
// arrive within ten seconds, and have at most maxHeader bytes. The write
// timeout is for the beginning of an answer: the gateway moves the deadline for
// as long as a client goes on sending its body and taking its answer.
func NewServer(h http.Handler, maxHeader int, errorLog *log.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		WriteTimeout:      ioPatience,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          errorLog,
		// Otherwise the server says 200 to OPTIONS * by itself.
		DisableGeneralOptionsHandler: true,
	}
}
