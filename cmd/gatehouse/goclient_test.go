package main_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"gatehouse/client"
)

// TestGoClient: the Go client and the gateway understand one another.
func TestGoClient(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t)})
	c, err := client.New(client.Options{BaseURL: "http://" + d.addr, Token: d.root.Token})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	created, err := c.Create(ctx, client.NewKey{Name: "CI", Permissions: []string{"datacenter_shared:read"}, AllowedIPs: []string{"127.0.0.1"}, ExpiresAt: expires})
	if err != nil {
		t.Fatal(err)
	}
	d.passes(t, get(key{Token: created.Token}, proxyListOfA))
	got, err := c.Get(ctx, created.ID)
	if err != nil || got.Name != "CI" || !got.ExpiresAt.Equal(expires) || !got.Active || !slices.Equal(got.AllowedIPs, []string{"127.0.0.1"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	name, never, none := "CI 2", time.Time{}, []string{}
	updated, err := c.Update(ctx, created.ID, client.Update{Name: &name, ExpiresAt: &never, AllowedIPs: &none})
	if err != nil || updated.Name != "CI 2" || !updated.ExpiresAt.IsZero() || !slices.Equal(updated.UpdatedFields, []string{"name", "allowed_ips", "expires_at"}) {
		t.Errorf("got %+v, %v", updated, err)
	}
	next, err := c.Regenerate(ctx, created.ID, time.Hour)
	if err != nil || next.OldID != created.ID || next.GraceEndsAt.Before(time.Now()) {
		t.Errorf("got %+v, %v", next, err)
	}
	d.passes(t, get(key{Token: next.Token}, proxyListOfA))
	d.passes(t, get(key{Token: created.Token}, proxyListOfA))
	if _, err := c.Revoke(ctx, created.ID); err != nil {
		t.Error(err)
	}
	d.refuses(t, get(key{Token: created.Token}, proxyListOfA), refusal{status: http.StatusUnauthorized, code: "invalid_token", challenge: badToken})
	if _, err := c.Get(ctx, created.ID); client.CodeOf(err) != "not_found" {
		t.Errorf("got %v", err)
	}
	listed := 0
	for _, err := range c.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		listed++
	}
	if listed != 3 {
		t.Errorf("%d keys are listed, want 3", listed)
	}
	if me, err := c.Whoami(ctx); err != nil || me.KeyID != d.root.ID || me.AccountID != "acme" {
		t.Errorf("got %+v, %v", me, err)
	}
	if allowed, err := c.AllowedPermissions(ctx); err != nil || len(allowed) != len(everything) {
		t.Errorf("got %v, %v", allowed, err)
	}
	if p, err := c.PermissionContext(ctx); err != nil || len(p.Account) != 3 || len(p.Product) != 4 || p.Product[0].Name != "Shared datacenter" {
		t.Errorf("got %+v, %v", p, err)
	}
	events, _, err := c.AuditLog(ctx, client.EventFilter{KeyID: created.ID}, "", 0)
	if err != nil || len(events) != 4 || events[0].Action != "key.revoke" || events[0].ActorID != d.root.ID {
		t.Errorf("got %+v, %v", events, err)
	}
	if rows, err := c.Usage(ctx, client.UsageFilter{ByHour: true, ByKey: true, ByPermission: true, From: time.Now().Add(-time.Hour)}); err != nil || len(rows) != 0 {
		t.Errorf("got %+v, %v, want nothing before a minute is over", rows, err)
	}
}
