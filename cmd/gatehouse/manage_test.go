package main_test

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const auditPath = "/v4/account/audit-log"

// managed is a key as the key API shows it.
type managed struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Permissions   []string `json:"permissions"`
	Subaccounts   []string `json:"allowed_subaccounts"`
	IPs           []string `json:"allowed_ips"`
	ExpiresAt     *int64   `json:"expires_at"`
	IsActive      bool     `json:"is_active"`
	LastUsedAt    *int64   `json:"last_used_at"`
	TokenPreview  string   `json:"token_preview"`
	CreatedAt     int64    `json:"created_at"`
	UpdatedFields []string `json:"updated_fields,omitempty"`
}

type regenerated struct {
	key
	OldID       string `json:"old_id"`
	GraceEndsAt *int64 `json:"grace_ends_at"`
}

type auditEvent struct {
	ID     string `json:"id"`
	Time   int64  `json:"time"`
	Action string `json:"action"`
	Actor  struct {
		Kind    string  `json:"kind"`
		ID      *string `json:"id"`
		Address *string `json:"address"`
	} `json:"actor"`
	KeyID   *string `json:"key_id"`
	Changes []struct {
		Field    string
		Old, New any
	} `json:"changes"`
	RequestID string `json:"request_id"`
	Outcome   string `json:"outcome"`
}

// manage is a management request of a key.
func manage(by key, method, target, body string) request {
	r := request{method: method, target: target, host: "api.example.com", body: body, header: []string{"api-token: " + by.Token}}
	if body != "" {
		r = r.with("Content-Type: application/json")
	}
	return r
}

func keyTarget(id string) string { return keysPath + "/" + id }

// manages makes a management request that must succeed, and returns its data.
func manages[T any](t *testing.T, g *gateway, r request) T {
	t.Helper()
	return dataOf[T](t, g.passes(t, r))
}

func TestManage(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		d := newTable(t, settings{Store: store})
		t.Run("life of a key", d.testLife)
		t.Run("grace", d.testGrace)
		t.Run("escalation", d.testEscalation)
		t.Run("callers", d.testCallers)
		t.Run("foreign", d.testForeign)
		t.Run("audit", d.testAudit)
	})
}

// testLife: what is acknowledged binds the very next request.
func (d *table) testLife(t *testing.T) {
	k := d.createKey(t, d.root, may("datacenter_shared:read"))
	list := d.base().by(k.Token)
	d.forwards(t, list, k.who(subA, "datacenter_shared:read"))
	shown := manages[managed](t, d.gateway, manage(d.root, "GET", keyTarget(k.ID), ""))
	if shown.ID != k.ID || !shown.IsActive || shown.TokenPreview != k.Token[:7]+"…"+k.Token[60:] || shown.CreatedAt != k.CreatedAt {
		t.Errorf("shown is %+v", shown)
	}
	all := manages[[]managed](t, d.gateway, manage(d.root, "GET", keysPath, ""))
	if !slices.ContainsFunc(all, func(m managed) bool { return m.ID == k.ID }) || len(all) < 3 {
		t.Errorf("listed are %+v", all)
	}
	for _, step := range []struct {
		body    string
		changed []string
		want    *refusal
	}{
		{`{"is_active": false}`, []string{"is_active"}, &refusal{status: 401, code: "key_disabled", challenge: badToken}},
		{`{"is_active": true}`, []string{"is_active"}, nil},
		{`{"allowed_ips": ["192.0.2.1"]}`, []string{"allowed_ips"}, &refusal{status: 403, code: "ip_not_allowed"}},
		{`{"allowed_ips": []}`, []string{"allowed_ips"}, nil},
		{fmt.Sprintf(`{"allowed_subaccounts": [%q]}`, subB), []string{"allowed_subaccounts"}, &refusal{status: 403, code: "subaccount_not_allowed"}},
		{`{"allowed_subaccounts": []}`, []string{"allowed_subaccounts"}, nil},
		{`{"permissions": ["serp_api:read"], "name": "a key"}`, []string{"permissions"}, &refusal{status: 403, code: "permission_denied", challenge: lacks("datacenter_shared:read")}},
		{`{"permissions": ["serp_api:read", "datacenter_shared:read"]}`, []string{"permissions"}, nil},
		{`{"permissions": [], "name": "renamed"}`, []string{"name"}, nil},
	} {
		got := manages[managed](t, d.gateway, manage(d.root, "PUT", keyTarget(k.ID), step.body))
		if diff := cmp.Diff(step.changed, got.UpdatedFields); diff != "" {
			t.Errorf("%s: updated fields (-want +got):\n%s", step.body, diff)
		}
		if step.want != nil {
			d.turnsAway(t, list, *step.want)
		} else {
			d.forwards(t, list, k.who(subA, "datacenter_shared:read"))
		}
	}
	next := manages[regenerated](t, d.gateway, manage(d.root, "POST", keyTarget(k.ID)+"/regenerate", ""))
	d.turnsAway(t, list, refusal{status: 401, code: "invalid_token", challenge: badToken})
	d.forwards(t, list.by(next.Token), next.who(subA, "datacenter_shared:read"))
	d.refuses(t, manage(d.root, "GET", keyTarget(k.ID), ""), refusal{status: 404, code: "not_found"})
	d.passes(t, manage(d.root, "DELETE", keyTarget(next.ID), ""))
	d.turnsAway(t, list.by(next.Token), refusal{status: 401, code: "invalid_token", challenge: badToken})
	for _, r := range []request{
		manage(d.root, "DELETE", keyTarget(next.ID), ""), manage(d.root, "PUT", keyTarget(next.ID), `{"is_active": true}`),
		manage(d.root, "POST", keyTarget(next.ID)+"/regenerate", ""),
	} {
		d.refuses(t, r, refusal{status: 404, code: "not_found"})
	}
}

func (d *table) testGrace(t *testing.T) {
	old := d.createKey(t, d.root, may("datacenter_shared:read"))
	begun := time.Now().Unix()
	next := manages[regenerated](t, d.gateway, manage(d.root, "POST", keyTarget(old.ID)+"/regenerate", `{"grace_period_seconds": 2}`))
	if next.OldID != old.ID || next.GraceEndsAt == nil || *next.GraceEndsAt < begun+2 || *next.GraceEndsAt > time.Now().Unix()+2 {
		t.Errorf("got %+v", next)
	}
	got := d.send(t, d.base().by(old.Token))
	ends := time.Unix(*next.GraceEndsAt, 0).UTC().Format(http.TimeFormat)
	if time.Now().Unix() < *next.GraceEndsAt && (got.status != http.StatusOK || got.header.Get("Sunset") != ends || !strings.HasPrefix(got.header.Get("Deprecation"), "@")) {
		t.Errorf("the old token got %d %v, want 200, and Sunset %s", got.status, got.header, ends)
	}
	if got := d.passes(t, d.base().by(next.Token)); got.header.Get("Sunset") != "" {
		t.Errorf("the new token got %v", got.header)
	}
	eventually(t, patience, "the grace ends", func() error {
		begun := time.Now().Unix()
		got := d.send(t, d.base().by(old.Token))
		if got.status == http.StatusOK && begun >= *next.GraceEndsAt {
			t.Fatalf("the old token worked at %d, and its grace had ended at %d", begun, *next.GraceEndsAt)
		}
		return unless(got.status != http.StatusOK, "it works")
	})
	d.turnsAway(t, d.base().by(old.Token), refusal{status: 401, code: "invalid_token", challenge: badToken})
	d.refuses(t, manage(d.root, "GET", keyTarget(old.ID), ""), refusal{status: 404, code: "not_found"})
	d.passes(t, d.base().by(next.Token))
}

// testEscalation: no key makes itself, or another one, do more than it may.
func (d *table) testEscalation(t *testing.T) {
	manager := []string{"account:apikeys:create", "account:apikeys:read", "account:apikeys:update", "account:apikeys:delete", "account:apikeys:regenerate"}
	weak := d.createKey(t, d.root, may(append([]string{"datacenter_shared:read"}, manager...)...))
	narrow := d.createKey(t, d.root, newKey{Name: "narrow", Permissions: append([]string{"datacenter_shared:read"}, manager...), Subaccounts: []string{subA}})
	strong := d.createKey(t, d.root, may("datacenter_shared:read", "datacenter_shared:write"))
	wide := d.createKey(t, d.root, may("datacenter_shared:read"))
	child := d.createKey(t, weak, may("datacenter_shared:read"))
	narrowChild := d.createKey(t, narrow, may("datacenter_shared:read"))
	permission := refusal{status: 403, code: "permission_not_grantable"}
	subaccount := refusal{status: 403, code: "subaccount_not_grantable"}
	exceeds := refusal{status: 403, code: "exceeds_your_access"}
	inUse := refusal{status: 409, code: "key_in_use"}
	for _, row := range []struct {
		name string
		r    request
		want refusal
	}{
		{"create with what one lacks", creation(weak, `{"name": "x", "permissions": ["datacenter_shared:write"]}`), permission},
		{"update with what one lacks", manage(weak, "PUT", keyTarget(child.ID), `{"permissions": ["datacenter_shared:read", "datacenter_shared:write"]}`), permission},
		{"regenerate a stronger key", manage(weak, "POST", keyTarget(strong.ID)+"/regenerate", ""), exceeds},
		{"regenerate a stronger key, with a grace", manage(weak, "POST", keyTarget(strong.ID)+"/regenerate", `{"grace_period_seconds": 60}`), exceeds},
		{"update a stronger key", manage(weak, "PUT", keyTarget(strong.ID), `{"name": "x"}`), exceeds},
		{"enable a stronger key", manage(weak, "PUT", keyTarget(strong.ID), `{"is_active": true}`), exceeds},
		{"weaken a stronger key", manage(weak, "PUT", keyTarget(strong.ID), `{"permissions": ["datacenter_shared:read"]}`), exceeds},
		{"create for another subaccount", creation(narrow, fmt.Sprintf(`{"name": "x", "permissions": ["datacenter_shared:read"], "allowed_subaccounts": [%q]}`, subB)), subaccount},
		{"widen a key to another subaccount", manage(narrow, "PUT", keyTarget(narrowChild.ID), fmt.Sprintf(`{"allowed_subaccounts": [%q, %q]}`, subA, subB)), subaccount},
		{"update a wider key", manage(narrow, "PUT", keyTarget(wide.ID), `{"name": "x"}`), exceeds},
		{"regenerate a wider key", manage(narrow, "POST", keyTarget(wide.ID)+"/regenerate", ""), exceeds},
		{"lift one's own restriction", manage(narrow, "PUT", keyTarget(narrow.ID), `{"allowed_subaccounts": []}`), inUse},
		{"revoke oneself", manage(weak, "DELETE", keyTarget(weak.ID), ""), inUse},
		{"regenerate oneself", manage(weak, "POST", keyTarget(weak.ID)+"/regenerate", ""), inUse},
	} {
		t.Run(row.name, func(t *testing.T) { d.turnsAway(t, row.r, row.want) })
	}
	// Empty is not "more than the caller has".
	for _, body := range []string{`{"allowed_subaccounts": []}`, `{"allowed_subaccounts": [], "name": "x"}`} {
		if got := manages[managed](t, d.gateway, manage(narrow, "PUT", keyTarget(narrowChild.ID), body)); !slices.Equal(got.Subaccounts, []string{subA}) {
			t.Errorf("%s: the key reaches %v", body, got.Subaccounts)
		}
	}
	// All of them are as they were.
	d.forwards(t, d.base().by(strong.Token), strong.who(subA, "datacenter_shared:read"))
	d.turnsAway(t, get(narrowChild, proxyListOfB), refusal{status: 403, code: "subaccount_not_allowed"})
	d.passes(t, manage(weak, "DELETE", keyTarget(strong.ID), "")) // revoking needs nothing but its permission
}

// testCallers: a caller that may do nothing any more manages nothing either.
func (d *table) testCallers(t *testing.T) {
	victim := d.createKey(t, d.root, may("datacenter_shared:read"))
	caller := d.createKey(t, d.root, may(everything...))
	revoke := manage(caller, "DELETE", keyTarget(victim.ID), "")
	d.passes(t, manage(d.root, "PUT", keyTarget(caller.ID), `{"is_active": false}`))
	d.turnsAway(t, revoke, refusal{status: 401, code: "key_disabled", challenge: badToken})
	d.passes(t, manage(d.root, "PUT", keyTarget(caller.ID), `{"is_active": true, "permissions": ["datacenter_shared:read", "account:apikeys:read"]}`))
	d.turnsAway(t, revoke, refusal{status: 403, code: "permission_denied", challenge: lacks("account:apikeys:delete")})
	suspended := acme()
	suspended.Status = "suspended"
	d.putAccount(t, "acme", suspended)
	d.turnsAway(t, manage(d.root, "DELETE", keyTarget(victim.ID), ""), refusal{status: 403, code: "account_suspended"})
	// What an account has lost, its keys cannot hand on, though they were made before.
	poorer := acme()
	poorer.Permissions, poorer.Status = []string{"account:apikeys:*", "serp_api:*"}, "active"
	d.putAccount(t, "acme", poorer)
	d.turnsAway(t, d.base(), refusal{status: 403, code: "permission_denied", challenge: lacks("datacenter_shared:read")})
	d.turnsAway(t, creation(d.root, `{"name": "x", "permissions": ["datacenter_shared:read"]}`), refusal{status: 403, code: "permission_not_grantable"})
	d.putAccount(t, "acme", acme())
	d.forwards(t, d.base(), d.key.who(subA, "datacenter_shared:read"))
}

// testForeign: another account's key is like none.
func (d *table) testForeign(t *testing.T) {
	foreign := d.firstKey(t, "other", may("serp_api:read"))
	for _, r := range []struct{ method, rest, body string }{
		{"GET", "", ""}, {"PUT", "", `{"name": "mine"}`}, {"DELETE", "", ""}, {"POST", "/regenerate", ""},
	} {
		var bodies []string
		for _, id := range []string{foreign.ID, subNobodys, "nonsense"} {
			got := d.turnsAway(t, manage(d.root, r.method, keyTarget(id)+r.rest, r.body), refusal{status: 404, code: "not_found"})
			bodies = append(bodies, strings.Replace(got.body, got.header.Get("X-Request-Id"), "", 1))
		}
		if bodies[0] != bodies[1] || bodies[1] != bodies[2] {
			t.Errorf("%s %s tells keys apart:\n%s", r.method, r.rest, strings.Join(bodies, "\n"))
		}
	}
	d.passes(t, manage(foreign, "GET", whoamiPath, ""))
}

// testAudit: every action is in the trail, by whom, and refused ones too.
func (d *table) testAudit(t *testing.T) {
	auditor := d.createKey(t, d.root, may("account:audit:read", "account:apikeys:read"))
	k := d.createKey(t, d.root, may("datacenter_shared:read"))
	updated := d.passes(t, manage(d.root, "PUT", keyTarget(k.ID), `{"name": "renamed"}`))
	refused := d.turnsAway(t, manage(auditor, "DELETE", keyTarget(k.ID), ""), refusal{status: 403, code: "permission_denied", challenge: lacks("account:apikeys:delete")})
	if got := d.operate(t, http.MethodDelete, "/accounts/acme/keys/"+k.ID, nil); got.status != http.StatusOK {
		t.Fatalf("revoke: %d %s", got.status, got.body)
	}
	d.turnsAway(t, manage(d.key, "GET", auditPath, ""), refusal{status: 403, code: "permission_denied", challenge: lacks("account:audit:read")})

	events := manages[[]auditEvent](t, d.gateway, manage(auditor, "GET", auditPath+"?key="+k.ID, ""))
	var told []string
	for _, e := range events {
		id := "nobody"
		if e.Actor.ID != nil {
			id = map[string]string{d.root.ID: "root", auditor.ID: "auditor"}[*e.Actor.ID]
		}
		told = append(told, strings.Join([]string{e.Action, e.Actor.Kind, id, e.Outcome}, " "))
		if e.Actor.Address == nil || *e.Actor.Address != "127.0.0.1" || e.RequestID == "" {
			t.Errorf("got %+v", e)
		}
	}
	want := []string{"key.revoke operator nobody done", "key.update key root done", "key.create key root done"}
	// The refused one is in a stream of its own: within a millisecond the order is not promised.
	if diff := cmp.Diff(want, slices.DeleteFunc(slices.Clone(told), func(s string) bool { return strings.HasSuffix(s, "permission_denied") })); diff != "" {
		t.Errorf("the trail (-want +got):\n%s", diff)
	}
	if !slices.Contains(told, "key.revoke key auditor permission_denied") {
		t.Errorf("the refused action is not in the trail: %q", told)
	}
	for _, e := range events {
		if e.Action == "key.update" && (e.RequestID != updated.header.Get("X-Request-Id") || len(e.Changes) != 1 || e.Changes[0].Field != "name" || e.Changes[0].New != "renamed") {
			t.Errorf("got %+v", e)
		}
		if e.Outcome == "permission_denied" && e.RequestID != refused.header.Get("X-Request-Id") {
			t.Errorf("got %+v", e)
		}
	}
	asOperator := d.operate(t, http.MethodGet, "/accounts/acme/audit-log?key="+k.ID, nil)
	if got := dataOf[[]auditEvent](t, asOperator); len(got) != len(events) {
		t.Errorf("the operator sees %d events, and the customer %d", len(got), len(events))
	}
	checkNoToken(t, "the audit log", asOperator.body)
	refusedByOperator := d.operate(t, http.MethodPost, "/accounts/acme/keys", `{"name": "x"}`)
	if refusedByOperator.status != http.StatusUnprocessableEntity {
		t.Errorf("got %d", refusedByOperator.status)
	}
	latest := dataOf[[]auditEvent](t, d.operate(t, http.MethodGet, "/accounts/acme/audit-log?limit=1&action=key.create", nil))
	if len(latest) != 1 || latest[0].Outcome != "validation_failed" || latest[0].Actor.Kind != "operator" {
		t.Errorf("got %+v", latest)
	}
	eventually(t, patience, "the log has the events", func() error {
		log := d.stdout.String()
		return unless(strings.Contains(log, `"gatehouse.action":"key.update","gatehouse.outcome":"done"`) && strings.Contains(log, `"gatehouse.action":"key.revoke","gatehouse.outcome":"permission_denied"`), "it has not")
	})
}

// TestManagementIsLimited by key, with the contract's 429; products are not.
func TestManagementIsLimited(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t), Management: "{rate: 0.01, burst: 3}"})
	caller := d.firstKey(t, "acme", may(everything...))
	for range 3 {
		d.passes(t, manage(caller, "GET", whoamiPath, ""))
	}
	d.turnsAway(t, manage(caller, "GET", whoamiPath, ""), refusal{status: 429, code: "rate_limited", retry: true})
	d.turnsAway(t, creation(caller, `{"name": "x", "permissions": ["serp_api:read"]}`), refusal{status: 429, code: "rate_limited", retry: true})
	d.forwards(t, d.base().by(caller.Token), caller.who(subA, "datacenter_shared:read"))
	d.passes(t, manage(d.firstKey(t, "acme", may(everything...)), "GET", whoamiPath, ""))
}

// TestBrowsersMayUseTheKeyAPI from the configured origins.
func TestBrowsersMayUseTheKeyAPI(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t), Origins: `["https://app.example.com"]`})
	asked := request{method: "OPTIONS", target: keyTarget(d.key.ID), host: "api.example.com", header: []string{
		"Origin: https://app.example.com", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: api-token,content-type",
	}}
	if got := d.send(t, asked); got.status != http.StatusNoContent || got.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
		got.header.Get("Access-Control-Allow-Methods") != "DELETE, GET, HEAD, PUT" {
		t.Errorf("got %d %v", got.status, got.header)
	}
	for _, r := range []request{manage(d.root, "GET", keysPath, ""), manage(key{Token: unknownToken()}, "GET", keysPath, ""), manage(d.key, "GET", keysPath, "")} {
		if got := d.send(t, r.with("Origin: https://app.example.com")); got.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
			t.Errorf("got %d %v", got.status, got.header)
		}
		if got := d.send(t, r.with("Origin: https://evil.example")); got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("got %d %v", got.status, got.header)
		}
	}
}

// TestLastUseIsKept when the gateway stops, and shown by the next one.
func TestLastUseIsKept(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		s := settings{Store: store}
		first := newTable(t, s)
		begun := time.Now().Unix()
		first.passes(t, first.base())
		idle := first.createKey(t, first.root, may("serp_api:read"))
		stop(t, first.process)
		second := startGateway(t, s)
		shown := manages[managed](t, second, manage(first.root, "GET", keyTarget(first.key.ID), ""))
		if shown.LastUsedAt == nil || *shown.LastUsedAt < begun || *shown.LastUsedAt > time.Now().Unix() {
			t.Errorf("used at %d, shown is %+v", begun, shown)
		}
		if shown := manages[managed](t, second, manage(first.root, "GET", keyTarget(idle.ID), "")); shown.LastUsedAt != nil {
			t.Errorf("shown is %+v", shown)
		}
		listed, err := gatehouse(t, "key", "list", "--account", "acme", "--admin", "http://"+second.admin).Output()
		used := regexp.MustCompile(`(?m)^` + first.key.ID + ` .* never +20\d\d-\S+Z +`)
		if idle := regexp.MustCompile(`(?m)^` + idle.ID + ` .* never +never +`); err != nil || !used.Match(listed) || !idle.Match(listed) {
			t.Errorf("%v, and the list is\n%s", err, listed)
		}
	})
}
