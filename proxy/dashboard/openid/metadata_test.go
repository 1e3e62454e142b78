package openid_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/policy"
	"gatehouse/proxy/dashboard/openid"
)

const issuer = "https://sso.example"

// moody is a provider that says who it is, or accepts requests and never
// answers, in the clock of a bubble.
type moody struct {
	*openid.Provider
	hangs atomic.Bool
	asked atomic.Int64
}

func newMoody(t *testing.T) *moody {
	t.Helper()
	m := &moody{}
	var err error
	m.Provider, err = openid.New(openid.Options{
		Name: "sso", Issuer: issuer, ClientID: "gatehouse", RedirectURL: redirect, Accounts: openid.Accounts{Fixed: policy.AccountID("acme")}, Now: time.Now,
		Transport: transport(func(r *http.Request) (*http.Response, error) {
			m.asked.Add(1)
			if m.hangs.Load() {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return recorded(http.HandlerFunc(describe), r), nil
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func describe(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{
		"issuer": issuer, "authorization_endpoint": issuer + "/authorize", "token_endpoint": issuer + "/token", "jwks_uri": issuer + "/keys",
	})
}

// begins asks the provider, and wants that error after that time, and that
// many requests to it since the start.
func (m *moody) begins(ctx context.Context, t *testing.T, want error, after time.Duration, asked int64) {
	t.Helper()
	at := time.Now()
	if _, _, err := m.Begin(ctx); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	if took := time.Since(at); took != after {
		t.Errorf("took %s, want %s", took, after)
	}
	if n := m.asked.Load(); n != asked {
		t.Errorf("asked %d times, want %d", n, asked)
	}
}

// inBubble runs the test with a clock of its own, and on one processor: the
// race detector and bubbles do not go together on more.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, test)
}

// TestHangingProviderMakesNoQueue: all wait for one try, no longer than they
// want to, and then it is left alone for longer than anybody has waited.
func TestHangingProviderMakesNoQueue(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := newMoody(t)
		m.hangs.Store(true)
		var people sync.WaitGroup
		for range 50 {
			people.Go(func() { m.begins(t.Context(), t, openid.ErrUnavailable, 5*time.Second, 1) })
		}
		people.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			m.begins(ctx, t, openid.ErrUnavailable, time.Second, 1)
		})
		people.Wait()
		m.begins(t.Context(), t, openid.ErrUnavailable, 0, 1)
		<-time.After(9 * time.Second)
		m.begins(t.Context(), t, openid.ErrUnavailable, 0, 1)
		<-time.After(time.Second)
		m.begins(t.Context(), t, openid.ErrUnavailable, 5*time.Second, 2)
		m.hangs.Store(false)
		<-time.After(10 * time.Second)
		m.begins(t.Context(), t, nil, 0, 3)
	})
}

// TestTryOutlivesWhoBeganIt: others wait for it too.
func TestTryOutlivesWhoBeganIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := newMoody(t)
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, _, err := m.Begin(gone); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		m.begins(t.Context(), t, nil, 0, 1)
	})
}

// TestWhatAProviderSaidIsServedWhileItIsAskedAgain: nobody waits for that.
func TestWhatAProviderSaidIsServedWhileItIsAskedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := newMoody(t)
		m.begins(t.Context(), t, nil, 0, 1)
		m.hangs.Store(true)
		<-time.After(time.Hour)
		for range 3 {
			if _, _, err := m.Begin(t.Context()); err != nil {
				t.Errorf("got %v", err)
			}
			synctest.Wait()
			m.begins(t.Context(), t, nil, 0, 2)
		}
		<-time.After(6 * time.Second)
		m.begins(t.Context(), t, nil, 0, 2)
		m.hangs.Store(false)
		<-time.After(10 * time.Second)
		for range 2 {
			if _, _, err := m.Begin(t.Context()); err != nil {
				t.Errorf("got %v", err)
			}
			synctest.Wait()
		}
		m.begins(t.Context(), t, nil, 0, 3)
	})
}
