package password_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/proxy/password"
)

// TestNobodyWaitsForAHashWithoutEnd: neither for long, nor behind too many.
func TestNobodyWaitsForAHashWithoutEnd(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // for the race detector in a bubble
	synctest.Test(t, func(t *testing.T) {
		h := hasher(t, cheap(), 1)
		leave, err := h.Occupy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		refused := make(chan time.Duration, 33)
		for range 33 {
			go func() {
				if _, _, err := h.Match(context.Background(), "x", ""); !errors.Is(err, password.ErrBusy) {
					t.Errorf("got %v", err)
				}
				refused <- time.Since(begun)
			}()
		}
		synctest.Wait()
		if n := len(refused); n != 1 {
			t.Errorf("%d of 33 were refused at once, want 1", n)
		}
		for range 33 {
			if took := <-refused; took != 0 && took != 5*time.Second {
				t.Errorf("refused after %s", took)
			}
		}
		leave()
		if _, err := h.Hash(t.Context(), "kV9 mutton chop"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
