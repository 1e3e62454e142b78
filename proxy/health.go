package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// HealthCheck asks each target on its own with GET Path, at once and then at
// each Interval. Any answer from 200 to 399 within the Timeout is a good one.
// After Unhealthy bad answers one after the other a target gets no requests,
// and after Healthy good ones it does again. Nothing of a client is sent.
type HealthCheck struct {
	Path               string
	Interval, Timeout  time.Duration
	Healthy, Unhealthy int
}

// maxHealthBody is how much of an answer to a health check is read, in bytes;
// the connection of one with more is not used again.
const maxHealthBody = 64 << 10

// watch checks the target until ctx ends.
func (t *target) watch(ctx context.Context, h HealthCheck, now func() time.Time) {
	tick := time.NewTicker(h.Interval)
	defer tick.Stop()
	good, bad := 0, 0
	for {
		err := t.check(ctx, h, now())
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			good, bad = good+1, 0
		default:
			good, bad = 0, bad+1
		}
		if bad >= h.Unhealthy {
			t.setSick(true, err)
		}
		if good >= h.Healthy {
			t.setSick(false, nil)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (t *target) check(ctx context.Context, h HealthCheck, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.scheme+"://"+t.host+h.Path, http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", "gatehouse-health-check")
	answer, err := t.transport(now).RoundTrip(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("the health check was answered with %d", answer.StatusCode)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, maxHealthBody))
	return err
}
