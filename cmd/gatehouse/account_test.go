package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAccountBindsItsKeys: what an account loses, all its keys have lost
// before the operator gets the answer.
func TestAccountBindsItsKeys(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		d := newTable(t, settings{Store: store})
		who := d.key.who(subA, "datacenter_shared:read")
		less := func(change func(a *account)) {
			a := acme()
			change(&a)
			d.putAccount(t, "acme", a)
		}
		restored := func(t *testing.T) {
			d.putAccount(t, "acme", acme())
			d.forwards(t, d.base(), who)
		}
		restored(t)
		t.Run("permission removed", func(t *testing.T) {
			less(func(a *account) {
				a.Permissions = []string{"serp_api:*", "datacenter_shared:write", "account:apikeys:*"}
			})
			d.turnsAway(t, d.base(), refusal{status: 403, code: "permission_denied", challenge: lacks("datacenter_shared:read"), detail: "datacenter_shared:read"})
			d.turnsAway(t, creation(d.root, `{"name": "x", "permissions": ["datacenter_shared:read"]}`),
				refusal{status: 403, code: "permission_not_grantable", detail: "datacenter_shared:read"})
			me := dataOf[whoami](t, d.passes(t, get(d.root, whoamiPath)))
			if slices.Contains(me.Permissions, "datacenter_shared:read") || !slices.Contains(me.Permissions, "serp_api:read") {
				t.Errorf("the key still has %v", me.Permissions)
			}
			restored(t)
		})
		t.Run("subaccount removed", func(t *testing.T) {
			onlyA := d.createKey(t, d.root, newKey{Name: "A", Permissions: []string{"datacenter_shared:read", "account:apikeys:create"}, Subaccounts: []string{subA}})
			less(func(a *account) { a.Subaccounts = a.Subaccounts[1:] })
			d.turnsAway(t, d.base(), refusal{status: 403, code: "subaccount_not_allowed"})
			d.turnsAway(t, d.base().by(onlyA.Token), refusal{status: 403, code: "subaccount_not_allowed"})
			d.forwards(t, d.base().at("GET", proxyListOfB), d.key.who(subB, "datacenter_shared:read"))
			// Limited to nothing that is left, it hands on nothing, and never all.
			d.turnsAway(t, creation(onlyA, `{"name": "x", "permissions": ["datacenter_shared:read"]}`), refusal{status: 403, code: "subaccount_not_grantable"})
			restored(t)
		})
		t.Run("subaccount moved to another account", func(t *testing.T) {
			less(func(a *account) { a.Subaccounts = a.Subaccounts[1:] })
			d.putAccount(t, "heir", account{Name: "Heir", Permissions: []string{"*"}, Subaccounts: acme().Subaccounts[:1]})
			heir := d.firstKey(t, "heir", may("datacenter_shared:read"))
			d.turnsAway(t, d.base(), refusal{status: 403, code: "subaccount_not_allowed"})
			id := heir.who(subA, "datacenter_shared:read")
			id.account = "heir"
			d.forwards(t, d.base().by(heir.Token), id)
			if got := d.operate(t, http.MethodDelete, "/accounts/heir", nil); got.status != http.StatusOK {
				t.Fatalf("delete: %d %s", got.status, got.body)
			}
			restored(t)
		})
		t.Run("suspended", func(t *testing.T) {
			less(func(a *account) { a.Status = "suspended" })
			d.turnsAway(t, d.base(), refusal{status: 403, code: "account_suspended"})
			d.turnsAway(t, creation(d.root, `{"name": "x", "permissions": ["serp_api:read"]}`), refusal{status: 403, code: "account_suspended"})
			// A replacement that does not speak of it lifts no suspension.
			d.putAccount(t, "acme", acme())
			d.turnsAway(t, d.base(), refusal{status: 403, code: "account_suspended"})
			less(func(a *account) { a.Status = "active" })
			restored(t)
		})
		t.Run("deleted, and its id used again", func(t *testing.T) {
			invalid := refusal{status: 401, code: "invalid_token", challenge: badToken}
			if got := d.operate(t, http.MethodDelete, "/accounts/acme", nil); got.status != http.StatusOK {
				t.Fatalf("delete: %d %s", got.status, got.body)
			}
			d.turnsAway(t, d.base(), invalid)
			refusal{status: 404, code: "not_found"}.check(t, d.operate(t, http.MethodGet, "/accounts/acme", nil))
			refusal{status: 404, code: "not_found"}.check(t, d.operate(t, http.MethodDelete, "/accounts/acme", nil))
			d.putAccount(t, "acme", acme())
			d.turnsAway(t, d.base(), invalid)
			if got := d.operate(t, http.MethodGet, "/accounts/acme/keys", nil); !strings.Contains(got.body, `"data":[]`) {
				t.Errorf("the new account has keys: %s", got.body)
			}
			next := d.firstKey(t, "acme", may("datacenter_shared:read"))
			d.forwards(t, d.base().by(next.Token), next.who(subA, "datacenter_shared:read"))
		})
	})
}

// TestInterruptedDeletion: keys of an account whose deletion broke off behind
// its first step stay dead when its id is used again.
func TestInterruptedDeletion(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	d := newTable(t, settings{Store: redis.yaml()})
	d.forwards(t, d.base(), d.key.who(subA, "datacenter_shared:read"))
	invalid := refusal{status: 401, code: "invalid_token", challenge: badToken}
	if n, err := redis.client.Del(t.Context(), "gatehouse:account:{acme}").Result(); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	if n, err := redis.client.Publish(t.Context(), "gatehouse:changed", "account:acme").Result(); err != nil || n != 1 {
		t.Fatalf("%d nodes heard of it, %v", n, err)
	}
	eventually(t, patience, "the node hears of it", func() error {
		return unless(d.send(t, d.base()).status != http.StatusOK, "it does not")
	})
	d.turnsAway(t, d.base(), invalid)
	d.putAccount(t, "acme", acme())
	d.turnsAway(t, d.base(), invalid)
	d.turnsAway(t, creation(d.root, `{"name": "x", "permissions": ["serp_api:read"]}`), invalid)
	next := d.firstKey(t, "acme", may("datacenter_shared:read"))
	d.forwards(t, d.base().by(next.Token), next.who(subA, "datacenter_shared:read"))
}

// TestTwoNodes: what one node is told binds the other one too.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	one := newTable(t, settings{Store: redis.yaml()})
	two := &table{gateway: startGateway(t, settings{Store: redis.yaml(), Datacenter: one.backends[0].addr}), backends: one.backends, root: one.root, key: one.key}
	who := one.key.who(subA, "datacenter_shared:read")
	one.forwards(t, one.base(), who)
	two.forwards(t, one.base(), who)

	// A key is looked up for every request: revoked is revoked.
	revoked := one.createKey(t, one.root, may("datacenter_shared:read"))
	two.forwards(t, one.base().by(revoked.Token), revoked.who(subA, "datacenter_shared:read"))
	one.operate(t, http.MethodDelete, "/accounts/acme/keys/"+revoked.ID, nil)
	two.turnsAway(t, one.base().by(revoked.Token), refusal{status: 401, code: "invalid_token", challenge: badToken})

	suspended := acme()
	suspended.Status = "suspended"
	one.putAccount(t, "acme", suspended)
	one.turnsAway(t, one.base(), refusal{status: 403, code: "account_suspended"})
	eventually(t, patience, "the other node hears of it", func() error {
		return unless(two.send(t, one.base()).status == http.StatusForbidden, "it does not")
	})
	two.turnsAway(t, one.base(), refusal{status: 403, code: "account_suspended"})
}

// TestKeyLimit: an account has at most so many keys.
func TestKeyLimit(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t), Delegation: "{max_keys_per_account: 3}"})
	third := d.createKey(t, d.root, may("serp_api:read"))
	full := refusal{status: 409, code: "key_limit_reached"}
	d.turnsAway(t, creation(d.root, `{"name": "x", "permissions": ["serp_api:read"]}`), full)
	full.check(t, d.operate(t, http.MethodPost, "/accounts/acme/keys", may("serp_api:read")))
	d.operate(t, http.MethodDelete, "/accounts/acme/keys/"+third.ID, nil)
	d.createKey(t, d.root, may("serp_api:read"))
}

func TestAdminAPI(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{Store: embeddedStore(t)})
	t.Run("its token", func(t *testing.T) { g.testAdminToken(t) })
	t.Run("bodies", func(t *testing.T) { g.testAdminBodies(t) })
	t.Run("pages", func(t *testing.T) { g.testAdminPages(t) })
	t.Run("paths", func(t *testing.T) {
		wrong := g.operate(t, http.MethodPost, "/accounts/a1", nil)
		refusal{status: 405, code: "method_not_allowed", allow: "DELETE, GET, HEAD, PUT"}.check(t, wrong)
		for _, path := range []string{"/nothing", "/accounts/a1/keys/x/y"} {
			refusal{status: 404, code: "unknown_route"}.check(t, g.operate(t, http.MethodGet, path, nil))
		}
		for _, path := range []string{"/accounts/none", "/accounts/none/keys", "/accounts/a%20b"} {
			refusal{status: 404, code: "not_found"}.check(t, g.operate(t, http.MethodGet, path, nil))
		}
		for _, path := range []string{"/", "/accounts/", "/accounts/a%2Fb", "/accounts/a%2fb"} {
			refusal{status: 400, code: "ambiguous_path"}.check(t, g.operate(t, http.MethodGet, path, nil))
		}
		for _, id := range []string{subA, "nonsense"} {
			refusal{status: 404, code: "not_found"}.check(t, g.operate(t, http.MethodDelete, "/accounts/page1/keys/"+id, nil))
		}
	})
	t.Run("off without a token", func(t *testing.T) {
		off := startGateway(t, settings{Store: embeddedStore(t), AdminToken: "-"})
		for _, token := range []string{"", operatorToken} {
			r, err := http.NewRequest(http.MethodGet, "http://"+off.admin+"/admin/v1/accounts", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			if got := off.do(t, r); got.status != http.StatusNotFound {
				t.Errorf("got %d %s, want 404", got.status, got.body)
			}
		}
	})
}

func (g *gateway) testAdminToken(t *testing.T) {
	for name, row := range map[string]struct {
		header []string
		want   refusal
	}{
		"missing":         {nil, refusal{status: 401, code: "missing_credentials", challenge: challenge}},
		"wrong":           {[]string{"Bearer " + operatorToken[1:]}, refusal{status: 401, code: "invalid_token", challenge: badToken}},
		"empty":           {[]string{"Bearer "}, refusal{status: 401, code: "invalid_token", challenge: badToken}},
		"longer":          {[]string{"Bearer " + operatorToken + "0"}, refusal{status: 401, code: "invalid_token", challenge: badToken}},
		"basic":           {[]string{"Basic " + operatorToken}, refusal{status: 401, code: "invalid_token", challenge: badToken}},
		"bare":            {[]string{operatorToken}, refusal{status: 401, code: "invalid_token", challenge: badToken}},
		"twice":           {[]string{"Bearer " + operatorToken, "Bearer " + operatorToken}, refusal{status: 401, code: "invalid_token", challenge: badToken}},
		"a customer's":    {[]string{"Bearer " + unknownToken()}, refusal{status: 401, code: "invalid_token", challenge: badToken}},
		"of another case": {[]string{"Bearer " + strings.ToUpper(operatorToken)}, refusal{status: 401, code: "invalid_token", challenge: badToken}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/accounts", "/nothing"} {
				r, err := http.NewRequest(http.MethodGet, "http://"+g.admin+"/admin/v1"+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header["Authorization"] = row.header
				row.want.check(t, g.do(t, r))
			}
		})
	}
}

func (g *gateway) testAdminBodies(t *testing.T) {
	const good = `"name": "Acme", "permissions": ["*"]`
	sub := func(members string) string { return good + `, "subaccounts": [` + members + `]` }
	for _, row := range []wrongField{
		{"unknown field", good + `, "tariff": "x"`, "tariff"},
		{"unknown plan", good + `, "plan": "golden"`, "plan"},
		{"empty plan", good + `, "plan": ""`, "plan"},
		{"other letter case", good + `, "Status": "active"`, "Status"},
		{"no permissions", `"name": "Acme"`, "permissions"},
		{"null permissions", `"permissions": null`, "permissions"},
		{"unknown permission", `"permissions": ["serp_api:read", "nothing:read"]`, "permissions[1]"},
		{"wildcard of nothing", `"permissions": ["nothing:*"]`, "permissions[0]"},
		{"wildcard in the middle", `"permissions": ["*:read"]`, "permissions[0]"},
		{"unknown status", good + `, "status": "closed"`, "status"},
		{"empty status", good + `, "status": ""`, "status"},
		{"control character in the name", `"name": "a\nb", "permissions": []`, "name"},
		{"null subaccount", sub(`null`), "subaccounts[0]"},
		{"bad UUID", sub(`{"id": "x", "label": "l", "product": "serp_api"}`), "subaccounts[0].id"},
		{"the same twice", sub(`{"id": "` + subA + `", "product": "serp_api"}, {"id": "` + strings.ToUpper(subA) + `", "product": "serp_api"}`), "subaccounts[1].id"},
		{"unknown product", sub(`{"id": "` + subA + `", "label": "l", "product": "nothing"}`), "subaccounts[0].product"},
		{"unknown field of a subaccount", sub(`{"id": "` + subA + `", "product": "serp_api", "owner": 1}`), "subaccounts[0].owner"},
		{"name of the wrong type", `"name": 1, "permissions": []`, "name"},
	} {
		t.Run(row.name, func(t *testing.T) {
			refusal{status: 422, code: "validation_failed", field: row.field}.check(t, g.operate(t, http.MethodPut, "/accounts/strict", "{"+row.members+"}"))
		})
	}
	for name, body := range map[string]string{
		"trailing data": "{" + good + "} {}", "duplicate member": "{" + good + `, "permissions": []}`, "empty": "", "not JSON": "x",
	} {
		t.Run(name, func(t *testing.T) {
			refusal{status: 400, code: "invalid_request"}.check(t, g.operate(t, http.MethodPut, "/accounts/strict", body))
		})
	}
	refusal{status: 404, code: "not_found"}.check(t, g.operate(t, http.MethodGet, "/accounts/strict", nil))
	for _, id := range []string{strings.Repeat("a", 65), "a%20b", "%C3%A9", "a:b", "{a}"} {
		refusal{status: 422, code: "validation_failed", field: "id"}.check(t, g.operate(t, http.MethodPut, "/accounts/"+id, "{"+good+"}"))
	}
	t.Run("just allowed", func(t *testing.T) {
		id := strings.Repeat("a.B_-9", 11)[:64]
		got := g.operate(t, http.MethodPut, "/accounts/"+id, `{"permissions": []}`)
		if got.status != http.StatusCreated || got.header.Get("Location") != "/admin/v1/accounts/"+id {
			t.Errorf("got %d with Location %q", got.status, got.header.Get("Location"))
		}
		if again := g.operate(t, http.MethodPut, "/accounts/"+id, `{"permissions": []}`); again.status != http.StatusOK {
			t.Errorf("got %d for a replacement, want 200", again.status)
		}
		g.operate(t, http.MethodDelete, "/accounts/"+id, nil)
	})
}

// testAdminPages: a listing in pages has everything once, the newest first.
func (g *gateway) testAdminPages(t *testing.T) {
	const accounts = 7
	want := make([]string, accounts)
	for i := range accounts {
		id := fmt.Sprintf("page%d", i)
		want[i] = id
		g.putAccount(t, id, account{Name: id, Permissions: []string{"*"}})
	}
	// Within a millisecond the order is by id.
	for _, limit := range []int{1, 2, 3, 7, 1000} {
		var ids []string
		pages := g.pages(t, fmt.Sprintf("/accounts?limit=%d", limit), limit)
		for _, item := range pages {
			ids = append(ids, item.ID)
		}
		slices.Sort(ids)
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("in pages of %d (-want +got):\n%s", limit, diff)
		}
		if !slices.IsSortedFunc(pages, func(a, b listed) int { return int(b.CreatedAt - a.CreatedAt) }) {
			t.Errorf("in pages of %d: not the newest first: %v", limit, pages)
		}
	}
	for range 3 {
		g.firstKey(t, "page0", may("serp_api:read"))
	}
	if keys := g.pages(t, "/accounts/page0/keys?limit=2", 2); len(keys) != 3 {
		t.Errorf("got %d keys, want 3", len(keys))
	}
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "limit=-1": "limit", "limit=1&limit=2": "limit", "cursor=nonsense": "cursor", "offset=3": "offset",
	} {
		refusal{status: 422, code: "validation_failed", field: field}.check(t, g.operate(t, http.MethodGet, "/accounts?"+query, nil))
	}
}

type listed struct {
	ID        string `json:"id"`
	CreatedAt int64  `json:"created_at"`
}

// pages follows the cursor to the end.
func (g *gateway) pages(t *testing.T, path string, limit int) []listed {
	t.Helper()
	var all []listed
	for cursor := ""; ; {
		got := g.operate(t, http.MethodGet, path+"&cursor="+cursor, nil)
		var page struct {
			Data []listed `json:"data"`
			Next *string  `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || got.status != http.StatusOK {
			t.Fatalf("%v in %d %s", err, got.status, got.body)
		}
		if len(page.Data) > limit || (page.Next != nil && len(page.Data) < limit) {
			t.Errorf("a page of %d has %d entries", limit, len(page.Data))
		}
		all = append(all, page.Data...)
		if page.Next == nil {
			return all
		}
		if cursor = *page.Next; len(all) > 100 {
			t.Fatal("the listing does not end")
		}
	}
}
