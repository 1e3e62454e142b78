package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"gatehouse/keystore"
)

// readyPatience is for how long a probe that does not depend on the store waits
// for what is known of it: probers have little patience themselves.
const readyPatience = 300 * time.Millisecond

// serveReady answers whether the node should get new requests: it has started
// and does not drain. Whether the store answers is no part of that: nodes that
// share a store would all be taken out at once, and their clients would get no
// answer where they get one that says what is wrong, or with
// stale_if_unavailable the right one. ?store=1 asks for the store too. What is
// known of the store follows either way, a line each.
func (n *node) serveReady(w http.ResponseWriter, r *http.Request) {
	withStore, ok := asksForStore(r.URL.RawQuery)
	if !ok {
		answerPlain(w, http.StatusBadRequest, "the query may be store=1, and nothing else")
		return
	}
	down := n.askStore(r.Context(), withStore)
	lines := storeLines(n.store.Health(), down)
	switch {
	case n.draining.Load():
		answerPlain(w, http.StatusServiceUnavailable, "not ready: draining", lines...)
	case withStore && down != nil:
		answerPlain(w, http.StatusServiceUnavailable, "not ready: the store cannot be asked", lines...)
	default:
		answerPlain(w, http.StatusOK, "ok", lines...)
	}
}

// askStore returns why lookups cannot be answered; nil when they can. It waits
// for an answer as lookups do, or else for readyPatience.
func (n *node) askStore(ctx context.Context, patient bool) error {
	if patient {
		return n.store.Ready(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	said := make(chan error, 1)
	go func() { said <- n.store.Ready(ctx) }() // ends within the store's own timeout
	select {
	case err := <-said:
		return err
	case <-ctx.Done():
		return errors.New("key store unavailable: no answer yet")
	}
}

// asksForStore reads the query; it is false, false where it is not understood.
func asksForStore(query string) (withStore, ok bool) {
	asked, err := url.ParseQuery(query)
	if err != nil || len(asked) > 1 {
		return false, false
	}
	values := asked["store"]
	return len(values) == 1, len(asked) == 0 || len(values) == 1 && values[0] == "1"
}

// storeLines say what is known of the store. down is why lookups cannot be
// answered; nil when they can.
func storeLines(h keystore.Health, down error) []string {
	state := keystore.StateOf(down)
	if down == nil {
		state = h.State
	}
	var lines []string
	switch {
	case down != nil:
		lines = append(lines, fmt.Sprintf("store: %s: %v", state, down))
	case state == keystore.StateOlder:
		lines = append(lines, "store: older: it lacks changes that were acknowledged, and accepts no new ones: see gatehouse store accept")
	case !h.Writable:
		lines = append(lines, "store: reads work, writes fail")
	default:
		lines = append(lines, "store: "+string(state))
	}
	for _, w := range h.Warnings {
		lines = append(lines, fmt.Sprintf("store warning: %s: %s", w.Warning, w.Detail))
	}
	return lines
}

// answerPlain answers with lines of text; a line break within one ends it.
func answerPlain(w http.ResponseWriter, status int, first string, more ...string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	for _, line := range append([]string{first}, more...) {
		line, _, _ = strings.Cut(line, "\n")
		_, _ = fmt.Fprintln(w, line) // a prober that has gone needs no answer
	}
}
