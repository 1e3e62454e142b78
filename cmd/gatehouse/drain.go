package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"
)

// serve begins to answer on both listeners.
func (n *node) serve() {
	go func() { n.failed <- n.gateway.Serve(n.guarded) }()
	go func() { n.failed <- n.admin.Serve(n.private) }()
}

// wait serves until ctx ends, and then drains: not ready first, clients are told,
// connections that were made get their first answer, requests under way get the
// configured grace, those of operators too, and everything is closed. It returns
// an error when a listener broke, or when requests had to be cut off.
func (n *node) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case err := <-n.failed:
		return errors.Join(fmt.Errorf("serve: %w", err), n.close())
	}
	n.draining.Store(true)
	n.tell(stopping(n.config.ShutdownGrace))
	n.log.Info("draining", zap.Duration("grace", n.config.ShutdownGrace))
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.config.ShutdownGrace)
	defer cancel()
	n.part(grace)
	// A server does not know of the WebSockets that were opened through it.
	left := make(chan error, 1)
	go func() { left <- n.live.Load().Drain(grace) }()
	err := errors.Join(n.gateway.Shutdown(grace), <-left)
	// Operators can watch until the last request has ended. What they have begun
	// is not cut off either: nobody would know whether a change was made.
	n.operators.closeSilent()
	err = errors.Join(err, n.admin.Shutdown(grace))
	if err != nil {
		err = errors.Join(fmt.Errorf("drain: requests were cut off after %s: %w", n.config.ShutdownGrace, err), n.gateway.Close(), n.admin.Close())
	}
	n.tracing.stop(grace)
	err = errors.Join(err, n.close())
	for range cap(n.failed) {
		if served := <-n.failed; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	}
	n.log.Info("stopped")
	return err
}

// close closes what was opened, the last first.
func (n *node) close() error {
	var err error
	for i := len(n.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, n.closers[i]())
	}
	n.closers = nil
	return err
}
