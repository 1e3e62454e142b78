package stage

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"
)

// loadPause is how long each kind of client waits between two requests, so that
// the load is a small one.
const loadPause = 40 * time.Millisecond

// Load asks the gateway for some of everything, until the test ends or stop is
// called: what is allowed, refused, limited and failing, what lasts, and
// changes of keys.
func (g *Gatehouse) Load(t testing.TB) (stop func()) {
	t.Helper()
	all, slow, revoked := g.keys()
	base, list := g.Public(), g.List()
	get := func(url, token string) func(context.Context) {
		return func(ctx context.Context) { _, _, _ = g.ask(ctx, http.MethodGet, url, token, nil) }
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var clients sync.WaitGroup
	for _, client := range []func(context.Context){
		get(list, all.Token), get(list, all.Token),
		func(ctx context.Context) {
			_, _, _ = g.ask(ctx, http.MethodPost, base+"/serp/v1/search", all.Token, "a body")
		},
		get(base+"/serp/v1/broken", all.Token), get(base+"/serp/v1/events", all.Token),
		get(list, slow.Token), get(list, revoked.Token), get(list, "malformed"), get(list, ""),
		get(base+"/residential/v1/list", all.Token), get(base+"/nowhere", all.Token),
		func(ctx context.Context) { g.manage(ctx, base+"/v4/account/api-keys", all.Token) },
	} {
		clients.Go(func() { repeat(ctx, client) })
	}
	stop = func() {
		cancel()
		clients.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// repeat asks again and again, until ctx ends.
func repeat(ctx context.Context, ask func(context.Context)) {
	tick := time.NewTicker(loadPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			ask(ctx)
		}
	}
}

// manage makes a key, changes it and takes it away again.
func (g *Gatehouse) manage(ctx context.Context, url, token string) {
	var created struct{ Data Key }
	said, status, err := g.ask(ctx, http.MethodPost, url, token, map[string]any{"name": "short-lived", "permissions": []string{"serp_api:read"}})
	if err != nil || status != http.StatusCreated || json.Unmarshal(said, &created) != nil {
		return // the store may be away
	}
	one := url + "/" + created.Data.ID
	_, _, _ = g.ask(ctx, http.MethodPut, one, token, map[string]any{"name": "renamed"})
	_, _, _ = g.ask(ctx, http.MethodDelete, one, token, nil)
}

// keys makes those that the load is of: one that may do most, one with a slow
// plan, and one that was revoked.
func (g *Gatehouse) keys() (all, slow, revoked Key) {
	g.t.Helper()
	err := errors.Join(g.PutAccount("acme", ""), g.PutAccount("slow", "slow"))
	create := func(account string, permissions ...string) Key {
		k, failed := g.CreateKey(account, permissions...)
		err = errors.Join(err, failed)
		return k
	}
	all = create("acme", "datacenter_shared:read", "serp_api:read", "serp_api:write",
		"account:apikeys:create", "account:apikeys:read", "account:apikeys:update", "account:apikeys:delete", "account:apikeys:regenerate")
	slow, revoked = create("slow", "datacenter_shared:read"), create("acme", "datacenter_shared:read")
	if err = errors.Join(err, g.RevokeKey("acme", revoked)); err != nil {
		g.t.Fatal(err)
	}
	return all, slow, revoked
}
