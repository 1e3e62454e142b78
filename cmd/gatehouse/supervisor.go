package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

// tell has systemd know what the process is doing (sd_notify(3)), where systemd
// started it and asks to be told.
func (n *node) tell(state string) {
	if err := notify(os.Getenv("NOTIFY_SOCKET"), state); err != nil {
		n.log.Warn("systemd could not be told", zap.String("state", state), zap.Error(err))
	}
}

// notify is daemon.SdNotify, which waits for ever where nobody reads.
func notify(socket, state string) error {
	const patience = 200 * time.Millisecond
	if socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	err = c.SetWriteDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = c.Write([]byte(state))
	}
	return errors.Join(err, c.Close())
}

// stopping asks for as long as draining may take, whatever TimeoutStopSec says.
func stopping(grace time.Duration) string {
	const closing = 10 * time.Second
	return fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, (grace + closing).Microseconds())
}

// feedWatchdog tells systemd again and again, where it has a watchdog
// (WatchdogSec=), that the operators' listener answers, until the node is closed.
func (n *node) feedWatchdog() error {
	const keep, timesInTime = false, 3
	within, err := daemon.SdWatchdogEnabled(keep)
	if err != nil {
		return fmt.Errorf("watchdog of systemd: %w", err)
	}
	if within <= 0 {
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(within / timesInTime)
		defer tick.Stop()
		for {
			// A node that drains has stopped listening, and TimeoutStopSec bounds it.
			if err := n.alive(ctx, within/timesInTime); err == nil || n.draining.Load() {
				n.tell(daemon.SdNotifyWatchdog)
			} else if ctx.Err() == nil {
				n.log.Warn("the gateway does not answer itself: systemd is not told that it is alive", zap.Error(err))
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	n.closers = append(n.closers, func() error {
		stop()
		<-done
		return nil
	})
	return nil
}

// alive asks /livez as any prober does, over a connection of its own.
func (n *node) alive(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+dialable(n.private.Addr())+"/livez", nil)
	if err != nil {
		return err
	}
	request.Close = true
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxHealthAnswer)) // the status says it
	if err := answer.Body.Close(); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("/livez: %s", answer.Status)
	}
	return nil
}
