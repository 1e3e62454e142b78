package main_test

import (
	"hash/crc32"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDecisionTable(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		hanging := startBackend(t, func(net.Conn, received) bool {
			<-t.Context().Done()
			return false
		})
		switching := startBackend(t, func(c net.Conn, _ received) bool {
			_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nunjudged"))
			return true
		})
		d := newTable(t, settings{Store: store, Others: map[string]string{
			"dead": closedPort(t), "hanging": hanging.addr, "switching": switching.addr,
		}})
		d.explains = true

		t.Run("order", d.testOrder)
		t.Run("path", d.testPath)
		t.Run("route", d.testRoute)
		t.Run("query", d.testQuery)
		t.Run("credentials", d.testCredentials)
		t.Run("token", d.testToken)
		t.Run("account", d.testAccount)
		t.Run("expiry", d.testExpiry)
		t.Run("address", d.testAddress)
		t.Run("subaccount", d.testSubaccount)
		t.Run("permission", d.testPermission)
		t.Run("body", d.testBody)
		t.Run("upgrade", func(t *testing.T) { d.testUpgrade(t, switching) })
		t.Run("upstream", func(t *testing.T) { d.testUpstream(t, hanging) })
	})
}

// testOrder: of several faults the first in the contract's order is named.
func (d *table) testOrder(t *testing.T) {
	far := may("serp_api:read")
	far.IPs = []string{"192.0.2.1"}
	as := func(account string) func(k newKey) answer {
		return func(k newKey) answer { return d.operate(t, http.MethodPost, "/accounts/"+account+"/keys", k) }
	}
	d.putAccount(t, "asleep", account{Name: "Asleep", Permissions: []string{"*"}})
	asleep, expired := d.expiring(t, as("asleep"), far), d.expiring(t, as("acme"), far)
	d.putAccount(t, "asleep", account{Name: "Asleep", Permissions: []string{"*"}, Status: "suspended"})
	elsewhere := d.createKey(t, d.root, far)
	weak := d.createKey(t, d.root, may("serp_api:read"))
	eventually(t, patience, "a key expires", func() error {
		return unless(d.send(t, get(expired, proxyListOfA)).status == http.StatusUnauthorized, "it works")
	})
	foreign := "/v4/account/" + subForeign + "/datacenter_shared/whitelist"
	nobody := request{method: http.MethodGet, host: "api.example.com"}
	for _, step := range []struct {
		name string
		r    request
		want refusal
	}{
		{"path", nobody.at("PUT", "//nowhere"), refusal{status: 400, code: "ambiguous_path"}},
		{"route", nobody.at("PUT", "/nowhere"), refusal{status: 404, code: "unknown_route"}},
		{"method", nobody.at("PUT", foreign), refusal{status: 405, code: "method_not_allowed", allow: "GET, HEAD"}},
		{"query", nobody.at("GET", foreign), refusal{status: 400, code: "ambiguous_query"}},
		{"no credential", nobody.at("GET", foreign+"?type=add"), refusal{status: 401, code: "missing_credentials", challenge: challenge}},
		{"bad token", nobody.by("bad").at("GET", foreign+"?type=add"), refusal{status: 401, code: "invalid_token", challenge: badToken}},
		{"account", get(asleep, foreign+"?type=add"), refusal{status: 403, code: "account_suspended"}},
		{"expiry", get(expired, foreign+"?type=add"), refusal{status: 401, code: "key_expired", challenge: badToken}},
		{"address", get(elsewhere, foreign+"?type=add"), refusal{status: 403, code: "ip_not_allowed"}},
		{"subaccount", get(weak, foreign+"?type=add"), refusal{status: 403, code: "subaccount_not_allowed"}},
		{"permission", get(weak, whitelistOfA+"?type=add"), refusal{status: 403, code: "permission_denied", challenge: lacks("datacenter_shared:write")}},
	} {
		t.Run(step.name, func(t *testing.T) { d.turnsAway(t, step.r, step.want) })
	}
}

func (d *table) testPath(t *testing.T) {
	ambiguous := refusal{status: 400, code: "ambiguous_path"}
	list := func(segment string) string { return "/v4/account/" + segment + "/datacenter_shared/proxy-list" }
	var rows []row
	for _, path := range []string{
		list(subA + "%2Fx"), list(subA + "%2fx"), list(subA + `\x`), list(subA + "%5Cx"), list(subA + "%5c"), list(".."), list("."),
		list("%2e%2e"), list("%2E"), list(""), list(subA + ";x=1"), list(subA + "%3B"), list(subA + "%00"), list(subA + "%0A"), list(subA + "%7F"),
		list("%61" + subA[1:]), list(subA + "%2D"), list("%FF"), list("%C3%28"), list("%ED%A0%80"), list("%c3%a9"), list("%252F"), list("%252e"),
		list("é"), list("\xff"), list("a|b"), list("a\"b"), list("{x}"), list("a^b"), "//v4/account/" + subA + "/datacenter_shared/proxy-list",
		proxyListOfA + "/..", proxyListOfA + "//", proxyListOfA + "/../proxy-list", "/serp/v1/../../v4", "/serp/v1/a//b", "/serp/v1/.",
		"http://api.example.com" + proxyListOfA, "https://evil.example" + proxyListOfA,
	} {
		rows = append(rows, target(path, ambiguous))
	}
	for _, path := range []string{
		"/V4/account/" + subA + "/datacenter_shared/proxy-list", "/v4/account/" + subA + "/Datacenter_shared/proxy-list",
		proxyListOfA + "/", proxyListOfA + "%20",
	} {
		rows = append(rows, target(path, refusal{status: 404, code: "unknown_route"}))
	}
	rows = append(rows,
		row{"the server itself", func(r request) request { return r.at("OPTIONS", "*") }, ambiguous},
		row{"CONNECT", func(r request) request { return r.at("CONNECT", "127.0.0.1:22") }, notImplemented},
		row{"fragment", func(r request) request { return r.at("GET", proxyListOfA+"?a=1#b") }, refusal{status: 400, code: "ambiguous_query"}},
	)
	d.run(t, d.base(), d.key.who(subA, "datacenter_shared:read"), rows)
	for _, path := range []string{"/serp/v1/%zz", "/serp/v1/%", "/serp/v1/%4", "/serp/v1/a\x00b", "/serp/v1/a\tb", "/serp/v1/a b", "serp", ""} {
		before := d.counts()
		if got := d.send(t, d.base().at("GET", path)); got.status != http.StatusBadRequest || got.header.Get("Location") != "" {
			t.Errorf("%q: got %d, want 400", path, got.status)
		}
		if after := d.counts(); !slices.Equal(before, after) {
			t.Errorf("%q: a backend saw it", path)
		}
	}
	searcher := d.createKey(t, d.root, may("serp_api:read"))
	for _, path := range []string{
		"/serp/v1/", "/serp/v1/caf%C3%A9/a%20b/%E4%B8%80?q=%zz&&a=;b&c", "/serp/v1/100%25", "/serp/v1/a@b:c,d=e!$&'()*+~_-.x?", "/serp/v1/x/", "/serp/v1/%7Bx%7D",
	} {
		t.Run("passes "+path, func(t *testing.T) {
			d.forwards(t, d.base().by(searcher.Token).without("Api_Token").at("GET", path), searcher.who("", "serp_api:read"))
		})
	}
}

// notImplemented is the answer to a method that nobody could ask for.
var notImplemented = refusal{status: 501, code: "method_not_implemented"}

func (d *table) testRoute(t *testing.T) {
	nothing := refusal{status: 404, code: "unknown_route"}
	wrong := func(method, target, allow string) row {
		return row{method + " " + target, func(r request) request { return r.at(method, target) }, refusal{status: 405, code: "method_not_allowed", allow: allow}}
	}
	unknown := func(method, target string) row {
		return row{method + " " + target, func(r request) request { return r.at(method, target) }, notImplemented}
	}
	d.run(t, d.base(), d.key.who(subA, "datacenter_shared:read"), []row{
		target("/", nothing), target("/v4", nothing), target("/serp/v1", nothing), target("/serp/v2/x", nothing), target("/admin/v1/accounts", nothing),
		target("/metrics", nothing), target("/readyz", nothing), target("/debug/pprof/", nothing), target("/v4/account/"+subA, nothing),
		wrong("POST", proxyListOfA, "GET, HEAD"),
		unknown("get", proxyListOfA),
		wrong("OPTIONS", proxyListOfA, "GET, HEAD"),
		wrong("PUT", "/serp/v1/x", "DELETE, GET, HEAD, POST"),
		wrong("GET", subusersOfA+"/7", "DELETE"),
		wrong("DELETE", whitelistOfA+"?type=remove", "GET, HEAD"),
		unknown("PURGE", "/v4/account/"+subA+"/details"),
		wrong("TRACE", "/v4/account/"+subA+"/details", "GET, HEAD, PUT"),
	})
	d.forwards(t, d.base().at("HEAD", proxyListOfA), d.key.who(subA, "datacenter_shared:read"))
}

func (d *table) testQuery(t *testing.T) {
	ambiguous := refusal{status: 400, code: "ambiguous_query", detail: "type"}
	base := d.base().at("GET", whitelistOfA+"?ip=203.0.113.7&type=get&x=%41")
	var rows []row
	for _, query := range []string{
		"", "?", "?ip=1", "?type", "?type=", "?type=GET", "?type=Get", "?type=read", "?type=get&type=get", "?type=get&type=add", "?type=add&type=get",
		"?Type=get", "?type=get&Type=add", "?type[]=get", "?type=get&type[]=add", "?type=get&type%5B%5D=add", "?type=%67et", "?t%79pe=get",
		"?type=get&t%79pe=add", "?type=get;type=add", "?type=get&x=%zz", "?type=get&%zz=x", "?type=get%20", "?+type=get", "?type=get&type%00=add",
		"?type=get&TYPE=", "?type=get&type.x=1&Type", "?type==get", "?type=get,add", "?type=get?type=add",
	} {
		rows = append(rows, target(whitelistOfA+query, ambiguous))
	}
	for _, form := range []string{"application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json", "text/plain"} {
		inBody := func(r request) request { r.body = "type=add"; return r.with("Content-Type: " + form) }
		rows = append(rows, row{form, inBody, ambiguous},
			row{form + " in chunks", func(r request) request { r.chunked = true; return inBody(r) }, ambiguous})
	}
	d.run(t, base, d.key.who(subA, "datacenter_shared:read"), rows)
}

func (d *table) testCredentials(t *testing.T) {
	missing := refusal{status: 401, code: "missing_credentials", challenge: challenge}
	ambiguous := refusal{status: 400, code: "ambiguous_credentials"}
	bare := d.base().without("api-token").without("Api_Token")
	token, other := d.key.Token, d.root.Token
	none := func(lines ...string) func(request) request {
		return func(request) request { return bare.with(lines...) }
	}
	d.run(t, d.base(), d.key.who(subA, "datacenter_shared:read"), []row{
		{"none", none(), missing},
		{"in the query", func(request) request {
			return bare.at("GET", proxyListOfA+"?api-token="+token+"&api_token="+token+"&access_token="+token)
		}, missing},
		{"in a cookie", none("Cookie: api-token=" + token), missing},
		{"in a similar header", none("Api_Token: "+token, "X-Api-Token: "+token, "api-token2: "+token), missing},
		{"basic", none("Authorization: Basic " + token), missing},
		{"bare", none("Authorization: " + token), missing},
		{"proxy", none("Proxy-Authorization: Bearer " + token), missing},
		{"two different", none("api-token: "+token, "Authorization: Bearer "+other), ambiguous},
		{"own and basic", none("api-token: "+token, "Authorization: Basic eDp5"), ambiguous},
		{"own twice", none("api-token: "+token, "Api-Token: "+token), ambiguous},
		{"own twice, different", none("api-token: "+other, "api-token: "+token), ambiguous},
		{"bearer twice", none("Authorization: Bearer "+token, "authorization: Bearer "+token), ambiguous},
	})
	for _, lines := range [][]string{
		{"api-token: " + token},
		{"API-TOKEN: " + token},
		{"Authorization: Bearer " + token},
		{"authorization: bearer " + token},
		{"Authorization: Bearer " + token, "api-token: " + token},
	} {
		d.forwards(t, bare.with(lines...), d.key.who(subA, "datacenter_shared:read"))
	}
}

// unknownToken is one that is well-formed, and that no key has.
func unknownToken() string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	body := "gk_" + strings.Repeat("Az09", 14)[:55]
	sum := crc32.ChecksumIEEE([]byte(body))
	check := make([]byte, 6)
	for i := 5; i >= 0; i-- {
		check[i] = digits[sum%62]
		sum /= 62
	}
	return body + string(check)
}

func (d *table) testToken(t *testing.T) {
	invalid := refusal{status: 401, code: "invalid_token", challenge: badToken}
	revoked := d.createKey(t, d.root, may("datacenter_shared:read"))
	d.forwards(t, d.base().by(revoked.Token), revoked.who(subA, "datacenter_shared:read"))
	if got := d.operate(t, http.MethodDelete, "/accounts/acme/keys/"+revoked.ID, nil); got.status != http.StatusOK {
		t.Fatalf("revoke: %d %s", got.status, got.body)
	}
	token := d.key.Token
	swapped := token[:10] + string(token[11]) + string(token[10]) + token[12:]
	if token[10] == token[11] {
		swapped = token[:20] + "!" + token[21:]
	}
	var rows []row
	var bodies []string
	for name, bad := range map[string]string{
		"unknown": unknownToken(), "revoked": revoked.Token, "malformed": "x", "empty": "", "too short": token[:63], "too long": token + "0", "two swapped": swapped,
		"other prefix": "gx_" + token[3:], "capital prefix": "GK_" + token[3:], "spaces": token[:30] + " " + token[31:], "not ASCII": token[:62] + "é",
		"the id": d.key.ID, "huge": strings.Repeat("a", 8000), "two with a comma": token + ", " + token, "quoted": `"` + token + `"`,
		"a preview": token[:7] + "…" + token[60:],
	} {
		rows = append(rows, row{name, func(r request) request { return r.by(bad) }, invalid})
		a := d.send(t, d.base().by(bad))
		bodies = append(bodies, strings.Replace(a.body, a.header.Get("X-Request-Id"), "", 1))
	}
	d.run(t, d.base(), d.key.who(subA, "datacenter_shared:read"), rows)
	for _, body := range bodies {
		if body != bodies[0] {
			t.Errorf("the answer tells bad tokens apart:\n%s\n%s", body, bodies[0])
		}
	}
}

func (d *table) testAccount(t *testing.T) {
	suspended := acme()
	suspended.Status = "suspended"
	d.forwards(t, d.base(), d.key.who(subA, "datacenter_shared:read"))
	d.putAccount(t, "acme", suspended)
	d.turnsAway(t, d.base(), refusal{status: 403, code: "account_suspended"})
	d.turnsAway(t, d.base().at("GET", whoamiPath), refusal{status: 403, code: "account_suspended"})
	suspended.Status = "active"
	d.putAccount(t, "acme", suspended)
	d.forwards(t, d.base(), d.key.who(subA, "datacenter_shared:read"))
}

// testExpiry polls a key across the second of its expiry.
func (d *table) testExpiry(t *testing.T) {
	k := d.expiring(t, func(k newKey) answer { return d.send(t, creation(d.root, string(encode(t, k)))) }, may("datacenter_shared:read"))
	base := d.base().by(k.Token)
	eventually(t, patience, "the key expires", func() error {
		begun := time.Now().Unix()
		got := d.send(t, base)
		switch {
		case got.status == http.StatusOK && begun >= *k.ExpiresAt:
			t.Fatalf("a key worked at %d, and had expired at %d", begun, *k.ExpiresAt)
		case got.status != http.StatusOK && time.Now().Unix() < *k.ExpiresAt:
			t.Fatalf("a key did not work before its expiry: %d %s", got.status, got.body)
		}
		return unless(got.status != http.StatusOK, "it works")
	})
	d.turnsAway(t, base, refusal{status: 401, code: "key_expired", challenge: badToken})
	d.turnsAway(t, base.at("GET", whoamiPath), refusal{status: 401, code: "key_expired", challenge: badToken})
}

func (d *table) testAddress(t *testing.T) {
	limited := newKey{Name: "here", Permissions: []string{"datacenter_shared:read"}, IPs: []string{"127.0.0.0/30", "192.0.2.0/24"}}
	here := d.createKey(t, d.root, limited)
	who := here.who(subA, "datacenter_shared:read")
	from := func(address string) func(request) request {
		return func(r request) request { r.from = address; return r }
	}
	d.run(t, d.base().by(here.Token), who, []row{
		{"from elsewhere", from("127.0.0.4"), refusal{status: 403, code: "ip_not_allowed", detail: "127.0.0.4"}},
		{"from elsewhere, with a forged header", func(r request) request {
			r.from = "127.0.0.4"
			return r.with("X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 192.0.2.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1")
		}, refusal{status: 403, code: "ip_not_allowed", detail: "127.0.0.4"}},
		{"whoami from elsewhere", func(r request) request {
			r.from = "127.0.0.4"
			return r.at("GET", whoamiPath)
		}, refusal{status: 403, code: "ip_not_allowed", detail: "127.0.0.4"}},
	})
	neighbour := from("127.0.0.3")(d.base().by(here.Token))
	who.client = "127.0.0.3"
	d.forwards(t, neighbour, who)
}

func (d *table) testSubaccount(t *testing.T) {
	onlyA := d.createKey(t, d.root, newKey{Name: "A", Permissions: []string{"datacenter_shared:read"}, Subaccounts: []string{subA}})
	refused := refusal{status: 403, code: "subaccount_not_allowed"}
	base := d.base().by(onlyA.Token)
	list := func(id string) string { return "/v4/account/" + id + "/datacenter_shared/proxy-list" }
	d.run(t, base, onlyA.who(subA, "datacenter_shared:read"), []row{
		target(proxyListOfB, refused), target(list(subForeign), refused), target(list(subNobodys), refused), target(list("nonsense"), refused),
		target(list(strings.ToUpper(subA)), refused), target(list(subA+"%20"), refused), target(list("%20"), refused), target(list("*"), refused),
	})
	var bodies []string
	for _, id := range []string{subB, subForeign, subNobodys, "nonsense"} {
		a := d.send(t, base.at("GET", list(id)))
		bodies = append(bodies, strings.Replace(a.body, a.header.Get("X-Request-Id"), "", 1))
	}
	for _, body := range bodies {
		if body != bodies[0] {
			t.Errorf("the answer tells subaccounts apart:\n%s\n%s", body, bodies[0])
		}
	}
	// Without a limit a key reaches its own account's subaccounts, and no other.
	d.forwards(t, d.base().at("GET", proxyListOfB), d.key.who(subB, "datacenter_shared:read"))
	d.turnsAway(t, d.base().at("GET", list(subForeign)), refused)
}
