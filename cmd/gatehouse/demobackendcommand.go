package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"gatehouse/cmd/gatehouse/config"
)

// demoBackendGrace is how long requests may go on after the signal to stop.
const demoBackendGrace = 5 * time.Second

type demoBackendCommand struct {
	Listen string `help:"Where the gateway connects." default:":9001" placeholder:"HOST:PORT"`
}

// Run serves the products of the example configuration until it is told to
// stop.
func (c *demoBackendCommand) Run(t *terminal) error {
	log, flush, err := newLogger(config.Log{Level: "info", Format: config.LogJSON}, t.out)
	if err != nil {
		return err
	}
	defer flush()
	var l net.ListenConfig
	listener, err := l.Listen(t.ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("demo backend: %w", err)
	}
	server := &http.Server{Handler: newDemoBackend(time.Now), ReadHeaderTimeout: adminReadTimeout}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.Info("serving", zap.Stringer("listen", listener.Addr()))
	select {
	case err := <-failed:
		return fmt.Errorf("demo backend: %w", err)
	case <-t.ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), demoBackendGrace)
	defer cancel()
	err = server.Shutdown(grace)
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
