package main

import (
	"log"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gatehouse/proxy/adminapi"
)

const (
	adminReadTimeout = 30 * time.Second
	// adminWriteTimeout leaves time for a profile.
	adminWriteTimeout = 3 * time.Minute
)

// newAdmin makes the operators' server. Without an admin token it has no
// /admin/v1.
func (n *node) newAdmin(errorLog *log.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answerPlain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", n.serveReady)
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(n.registry, promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{})))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc(adminapi.Prefix, func(w http.ResponseWriter, r *http.Request) {
		api := n.current.Load().admin
		if api == nil {
			http.NotFound(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
	return &http.Server{
		Handler: mux, ErrorLog: errorLog, ReadHeaderTimeout: adminReadTimeout, ReadTimeout: adminReadTimeout,
		WriteTimeout: adminWriteTimeout, IdleTimeout: 2 * time.Minute,
	}
}
