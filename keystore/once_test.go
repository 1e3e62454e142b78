package keystore_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gatehouse/keystore"
)

func TestOnceIsOnce(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, w *world) {
		store := w.node()
		var first atomic.Int64
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if is, err := store.Once(t.Context(), "a-form"); err != nil {
					t.Error(err)
				} else if is {
					first.Add(1)
				}
			})
		}
		all.Wait()
		if first.Load() != 1 {
			t.Errorf("it was the first time %d times", first.Load())
		}
		if is, err := store.Once(t.Context(), "another"); !is || err != nil {
			t.Errorf("got %v, %v for another name", is, err)
		}
		for _, name := range []string{"", "a b", "a:b", strings.Repeat("a", 65)} {
			if is, err := store.Once(t.Context(), name); is || !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("%q: got %v, %v", name, is, err)
			}
		}
	})
}

func TestForgottenIsOnceMore(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, w *world) {
		store := w.node()
		for _, name := range []string{"a-form", "another"} {
			if is, err := store.Once(t.Context(), name); !is || err != nil {
				t.Fatalf("got %v, %v", is, err)
			}
		}
		if err := store.Forget(t.Context(), "a-form"); err != nil {
			t.Fatal(err)
		}
		if is, err := store.Once(t.Context(), "a-form"); !is || err != nil {
			t.Errorf("the forgotten one got %v, %v", is, err)
		}
		if is, err := store.Once(t.Context(), "another"); is || err != nil {
			t.Errorf("the other one got %v, %v", is, err)
		}
		if err := store.Forget(t.Context(), "a:b"); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("a name that is none got %v", err)
		}
	})
}
