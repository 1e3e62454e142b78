package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/client"
)

const (
	token = "gk_0000000000000000000000000000000000000000000000000000000secret"
	id    = "0d4a0b6e-6f0c-4b5e-9d3f-2f1a7c9b8e10"
)

// transport answers requests without a network, and remembers them.
type transport struct {
	mu       sync.Mutex
	requests []string
	answers  []reply // the last one again and again
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	body := ""
	if r.Body != nil {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(raw)
	}
	if r.Header.Get("Api-Token") != token {
		return nil, errors.New("a request without its token")
	}
	tr.requests = append(tr.requests, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+body))
	answer := tr.answers[min(len(tr.requests), len(tr.answers))-1]
	if answer.err != nil {
		return nil, answer.err
	}
	return &http.Response{StatusCode: answer.status, Header: answer.header.Clone(), Body: io.NopCloser(strings.NewReader(answer.body))}, nil
}

// reply is what comes back of a request: an answer, or an error.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

func answering(status int, body string, header ...string) reply {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return reply{status: status, header: h, body: body}
}

func refusing(status int, code string, header ...string) reply {
	body := fmt.Sprintf(`{"detail": "No.", "error": %q, "request_id": "r1", "errors": [{"field": "name", "detail": "bad"}]}`, code)
	return answering(status, body, append([]string{"Content-Type", "application/problem+json"}, header...)...)
}

func silent() reply { return reply{err: errors.New("connection reset")} }

func newClient(t *testing.T, answers ...reply) (*client.Client, *transport) {
	t.Helper()
	tr := &transport{answers: answers}
	c, err := client.New(client.Options{BaseURL: "https://api.example.com/", Token: token, HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	return c, tr
}

const keyJSON = `{"id": "` + id + `", "token": "gk_new", "name": "CI", "permissions": ["a:read"], "allowed_subaccounts": [], "allowed_ips": ["203.0.113.0/24"],
	"expires_at": 1893456000, "is_active": false, "last_used_at": null, "token_preview": "gk_…", "created_at": 1780000000, "updated_fields": ["name"],
	"old_id": "old", "grace_ends_at": 1780086400, "revoked_at": 1780000000}`

// TestRequests: what each method asks for, and what it makes of the answer.
func TestRequests(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	one := answering(200, `{"success": true, "data": `+keyJSON+`, "note": "n"}`)
	for name, row := range map[string]struct {
		answer reply
		call   func(c *client.Client) (any, error)
		want   string
		got    string
	}{
		"create": {one, func(c *client.Client) (any, error) {
			k, err := c.Create(ctx, client.NewKey{Name: "CI", Permissions: []string{"a:read"}, ExpiresAt: time.Unix(1893456000, 0)})
			return []any{k.ID, k.Token, k.Name, k.ExpiresAt.Unix(), k.LastUsedAt.IsZero()}, err
		}, `POST /v4/account/api-keys {"allowed_ips":[],"allowed_subaccounts":[],"expires_at":1893456000,"name":"CI","permissions":["a:read"]}`, "[" + id + " gk_new CI 1893456000 true]"},
		"list": {answering(200, `{"data": [`+keyJSON+`], "next_cursor": "next"}`), func(c *client.Client) (any, error) {
			keys, next, err := c.List(ctx, "a b", 2)
			return []any{len(keys), keys[0].Active, next}, err
		}, "GET /v4/account/api-keys?cursor=a+b&limit=2", "[1 false next]"},
		"get": {one, func(c *client.Client) (any, error) {
			k, err := c.Get(ctx, id)
			return []any{k.Name, k.AllowedIPs, k.CreatedAt.Unix()}, err
		}, "GET /v4/account/api-keys/" + id, "[CI [203.0.113.0/24] 1780000000]"},
		"update": {one, func(c *client.Client) (any, error) {
			name, none, never, on := "x", []string{}, time.Time{}, true
			k, err := c.Update(ctx, id, client.Update{Name: &name, AllowedIPs: &none, ExpiresAt: &never, Active: &on})
			return k.UpdatedFields, err
		}, "PUT /v4/account/api-keys/" + id + ` {"allowed_ips":[],"expires_at":null,"is_active":true,"name":"x"}`, "[name]"},
		"update nothing": {one, func(c *client.Client) (any, error) {
			k, err := c.Update(ctx, id, client.Update{})
			return k.Name, err
		}, "PUT /v4/account/api-keys/" + id + ` {}`, "CI"},
		"revoke": {answering(200, `{"data": {"revoked_at": 1780000000}}`), func(c *client.Client) (any, error) {
			at, err := c.Revoke(ctx, id)
			return at.Unix(), err
		}, "DELETE /v4/account/api-keys/" + id, "1780000000"},
		"regenerate": {one, func(c *client.Client) (any, error) {
			k, err := c.Regenerate(ctx, id, 24*time.Hour)
			return []any{k.Token, k.OldID, k.GraceEndsAt.Unix(), k.Note}, err
		}, "POST /v4/account/api-keys/" + id + `/regenerate {"grace_period_seconds":86400}`, "[gk_new old 1780086400 n]"},
		"allowed permissions": {
			answering(200, `{"allowed_permissions": ["a:read"]}`), func(c *client.Client) (any, error) { return c.AllowedPermissions(ctx) },
			"GET /v4/account/api-keys/allowed-permissions", "[a:read]",
		},
		"permission context": {
			answering(200, `{"structure": {"account": {"sub_types": []}, "product": {"sub_types": [{"name": "A", "permissions": [{"id": "a:read"}]}]}}, "allowed_permissions": ["a:read"]}`),
			func(c *client.Client) (any, error) {
				p, err := c.PermissionContext(ctx)
				return []any{len(p.Account), p.Product[0].Permissions[0].ID, p.AllowedPermissions}, err
			}, "GET /v4/account/api-keys/permission-context", "[0 a:read [a:read]]",
		},
		"whoami": {answering(200, `{"data": {"account_id": "acme", "key_id": "k", "name": "n", "expires_at": null, "client_ip": "203.0.113.7"}}`), func(c *client.Client) (any, error) {
			w, err := c.Whoami(ctx)
			return []any{w.AccountID, w.KeyID, w.ClientIP, w.ExpiresAt.IsZero()}, err
		}, "GET /v4/account/whoami", "[acme k 203.0.113.7 true]"},
		"audit log": {
			answering(200, `{"data": [{"id": "e", "time": 1780000000, "action": "key.update", "actor": {"kind": "operator", "id": null, "address": "::1"}, "key_id": null, "changes": [{"field": "name", "old": null, "new": "x"}], "outcome": "done"}], "next_cursor": null}`),
			func(c *client.Client) (any, error) {
				events, next, err := c.AuditLog(ctx, client.EventFilter{KeyID: id, Action: "key.update", From: time.Unix(1, 0), To: time.Unix(2, 0)}, "", 5)
				return []any{len(events), events[0].ActorKind, events[0].ActorID, events[0].ActorAddress, string(events[0].Changes[0].New), next}, err
			}, "GET /v4/account/audit-log?action=key.update&from=1&key=" + id + "&limit=5&to=2", `[1 operator  ::1 "x" ]`,
		},
		"usage": {
			answering(200, `{"data": [{"at": 1780000000, "key_id": "k", "permission": null, "product": "a", "route": "GET /a", "outcome": "allowed", "requests": 7}]}`),
			func(c *client.Client) (any, error) {
				f := client.UsageFilter{
					KeyID: id, Permission: "a:read", Product: "a", Route: "GET /a", Outcome: "allowed", From: time.Unix(1, 0), To: time.Unix(2, 0),
					ByHour: true, ByKey: true, ByPermission: true, ByProduct: true, ByRoute: true,
				}
				rows, err := c.Usage(ctx, f)
				return []any{len(rows), rows[0].At.Unix(), rows[0].KeyID, rows[0].Permission, rows[0].Product, rows[0].Route, rows[0].Outcome, rows[0].Requests}, err
			}, "GET /v4/account/usage?from=1&group_by=key%2Cpermission%2Cproduct%2Croute&key=" + id + "&outcome=allowed&permission=a%3Aread&product=a&route=GET+%2Fa&step=hour&to=2", `[1 1780000000 k  a GET /a allowed 7]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, tr := newClient(t, row.answer)
			got, err := row.call(c)
			if err != nil || fmt.Sprint(got) != row.got {
				t.Errorf("got %v, %v, want %s", got, err, row.got)
			}
			if !slices.Equal(tr.requests, []string{row.want}) {
				t.Errorf("asked for %q, want %q", tr.requests, row.want)
			}
		})
	}
}

func TestAllReadsEveryPage(t *testing.T) {
	t.Parallel()
	two := func(next string) reply {
		return answering(200, `{"data": [`+keyJSON+`,`+keyJSON+`], "next_cursor": `+next+`}`)
	}
	c, tr := newClient(t, two(`"c1"`), two(`null`))
	seen := 0
	for _, err := range c.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
	}
	if seen != 4 || len(tr.requests) != 2 || !strings.HasSuffix(tr.requests[1], "cursor=c1") {
		t.Errorf("%d keys of %q", seen, tr.requests)
	}
	broken, _ := newClient(t, refusing(403, "permission_denied"))
	for _, err := range broken.All(t.Context()) {
		if client.CodeOf(err) != "permission_denied" {
			t.Errorf("got %v", err)
		}
	}
}

func TestErrorsSayWhatTheGatewaySaid(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, refusing(422, "validation_failed"))
	_, err := c.Create(t.Context(), client.NewKey{})
	var e *client.Error
	if !errors.As(err, &e) || e.Status != 422 || e.Code != "validation_failed" || e.RequestID != "r1" || e.Detail != "No." || len(e.Fields) != 1 || e.Fields[0].Field != "name" {
		t.Errorf("got %+v", err)
	}
	if client.CodeOf(err) != "validation_failed" || client.CodeOf(errors.New("x")) != "" {
		t.Errorf("got the code %q", client.CodeOf(err))
	}
	foreign, _ := newClient(t, answering(500, "<html>"+strings.Repeat("x", 10_000), "Content-Type", "text/html"))
	_, err = foreign.Whoami(t.Context())
	if !errors.As(err, &e) || e.Status != 500 || e.Code != "" || len(err.Error()) > 200 {
		t.Errorf("got %v", err)
	}
	nonsense, _ := newClient(t, answering(200, "<html>"))
	if _, err := nonsense.Whoami(t.Context()); err == nil {
		t.Error("what is no JSON was taken")
	}
	redirected, tr := newClient(t, answering(302, "", "Location", "https://evil.example/"))
	if _, err := redirected.Whoami(t.Context()); !errors.As(err, &e) || e.Status != 302 || len(tr.requests) != 1 {
		t.Errorf("got %v after %q", err, tr.requests)
	}
}

// TestOnlyWhatIsSafeIsRepeated: reads after every passing failure, changes
// after 429 alone.
func TestOnlyWhatIsSafeIsRepeated(t *testing.T) {
	t.Parallel()
	fine := answering(200, `{"data": `+keyJSON+`}`)
	for name, row := range map[string]struct {
		failure       reply
		reads, writes int
	}{
		"network":    {silent(), 2, 1},
		"502":        {refusing(502, "upstream_unreachable"), 2, 1},
		"503":        {refusing(503, "key_store_unavailable", "Retry-After", "1"), 2, 1},
		"504":        {refusing(504, "upstream_timeout"), 2, 1},
		"429":        {refusing(429, "rate_limited", "Retry-After", "3"), 2, 2},
		"500":        {refusing(500, "internal_error"), 1, 1},
		"409":        {refusing(409, "conflict"), 1, 1},
		"401":        {refusing(401, "invalid_token"), 1, 1},
		"other HTML": {answering(403, "<html>", "Content-Type", "text/html"), 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for method, want := range map[string]int{"get": row.reads, "create": row.writes, "update": row.writes, "revoke": row.writes, "regenerate": row.writes} {
					c, tr := newClient(t, row.failure, fine)
					begun := time.Now()
					var err error
					switch method {
					case "get":
						_, err = c.Get(t.Context(), id)
					case "create":
						_, err = c.Create(t.Context(), client.NewKey{})
					case "update":
						_, err = c.Update(t.Context(), id, client.Update{})
					case "revoke":
						_, err = c.Revoke(t.Context(), id)
					case "regenerate":
						_, err = c.Regenerate(t.Context(), id, 0)
					}
					if len(tr.requests) != want || (err == nil) != (want == 2) {
						t.Errorf("%s: %d requests, %v, want %d", method, len(tr.requests), err, want)
					}
					if waited := time.Since(begun); name == "429" && waited != 3*time.Second || want == 1 && waited != 0 {
						t.Errorf("%s: waited for %s", method, waited)
					}
				}
			})
		})
	}
}

func TestRepeatingEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, tr := newClient(t, silent())
		if _, err := c.Whoami(t.Context()); err == nil || len(tr.requests) != 3 {
			t.Errorf("%d requests, %v, want 3", len(tr.requests), err)
		}
		slow, tr := newClient(t, refusing(429, "rate_limited", "Retry-After", "86400"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := slow.Whoami(ctx); !errors.Is(err, context.DeadlineExceeded) || len(tr.requests) != 1 || time.Since(begun) != 5*time.Second {
			t.Errorf("%d requests in %s, %v", len(tr.requests), time.Since(begun), err)
		}
	})
}

// TestSuccessWithoutAKeyIsNone: whoever answers {} in the gateway's place.
func TestSuccessWithoutAKeyIsNone(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, answering(200, `{}`))
	_, created := c.Create(t.Context(), client.NewKey{})
	_, got := c.Get(t.Context(), id)
	_, updated := c.Update(t.Context(), id, client.Update{})
	_, revoked := c.Revoke(t.Context(), id)
	_, regenerated := c.Regenerate(t.Context(), id, 0)
	for i, err := range []error{created, got, updated, revoked, regenerated} {
		if err == nil {
			t.Errorf("call %d: success", i)
		}
	}
	again, tr := newClient(t, answering(200, `{"data": [], "next_cursor": "c"}`))
	for _, err := range again.All(t.Context()) {
		if err == nil || len(tr.requests) != 2 {
			t.Errorf("%v after %d pages", err, len(tr.requests))
		}
	}
}

func TestIDsThatAreOtherPathsAreRefused(t *testing.T) {
	t.Parallel()
	c, tr := newClient(t, answering(200, `{}`))
	for _, bad := range []string{"", ".", "..", "a/b", "allowed-permissions", "%2e", id + "?x", "../whoami", "x y"} {
		if _, err := c.Get(t.Context(), bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if len(tr.requests) != 0 {
		t.Errorf("asked for %q", tr.requests)
	}
}

func TestNewRefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	for _, o := range []client.Options{
		{},
		{Token: token},
		{BaseURL: "https://api.example.com"},
		{BaseURL: "api.example.com", Token: token},
		{BaseURL: "ftp://a", Token: token},
		{BaseURL: "https://a/path", Token: token},
		{BaseURL: "https://a?x=1", Token: token},
		{BaseURL: "https://u:p@a", Token: token},
		{BaseURL: "https://a", Token: "a b"},
		{BaseURL: "https://a", Token: "a\r\nX: y"},
	} {
		if _, err := client.New(o); err == nil {
			t.Errorf("%+v was accepted", o)
		} else if o.Token == token && strings.Contains(err.Error(), token) {
			t.Errorf("the error has the token: %v", err)
		}
	}
}

// TestTokenIsNeverPrinted, whatever is printed.
func TestTokenIsNeverPrinted(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, silent())
	_, err := c.Create(t.Context(), client.NewKey{})
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", c, c, c), fmt.Sprint(err), fmt.Sprintf("%+v", *c), fmt.Sprintf("%v %+v %#v", client.Options{Token: token}, client.Options{Token: token}, client.Options{Token: token})} {
		if strings.Contains(text, token) {
			t.Errorf("printed: %s", text)
		}
	}
}

func Example() {
	// In real life this is the gateway.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"detail": "This key lacks the permission account:apikeys:read.", "error": "permission_denied", "request_id": "r1"}`)
	}))
	defer server.Close()

	c, err := client.New(client.Options{BaseURL: server.URL, Token: token})
	if err != nil {
		fmt.Println(err)
		return
	}
	for k, err := range c.All(context.Background()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(k.Name)
	}
	// Output: This key lacks the permission account:apikeys:read. (permission_denied, request r1)
}

func ExampleClient_Create() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"success": true, "data": {"id": "`+id+`", "token": "gk_shown_once", "name": "CI", "permissions": ["serp_api:read"]}}`)
	}))
	defer server.Close()

	c, err := client.New(client.Options{BaseURL: server.URL, Token: token})
	if err != nil {
		fmt.Println(err)
		return
	}
	created, err := c.Create(context.Background(), client.NewKey{
		Name: "CI", Permissions: []string{"serp_api:read"}, AllowedIPs: []string{"203.0.113.0/24"}, ExpiresAt: time.Now().AddDate(1, 0, 0),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(created.Name, created.Token)
	// Output: CI gk_shown_once
}
