package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var tokenForm = regexp.MustCompile(`^gk_[A-Za-z0-9]{61}$`)

func TestCreate(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		d := newTable(t, settings{Store: store})
		t.Run("answer", d.testCreated)
		t.Run("fields", d.testFields)
		t.Run("body", d.testCreationBody)
		t.Run("delegation", d.testDelegation)
		t.Run("neighbours", d.testKeyAPI)
	})
}

// testCreated: the answer is the documented one, and says what was stored.
func (d *table) testCreated(t *testing.T) {
	expires := time.Now().Unix() + 3600
	begun := time.Now().Unix()
	got := d.send(t, creation(d.root, fmt.Sprintf(`{"name": "  CI pipeline é ", "permissions": ["serp_api:read", "datacenter_shared:read", "serp_api:read"],
		"allowed_subaccounts": [%q, %q, %q], "expires_at": %d,
		"allowed_ips": ["203.0.113.77/24", "203.0.113.0/24", "2001:DB8:0::1/32", "::ffff:198.51.100.7", "198.51.100.7/32", "198.51.100.7", "2001:db8::0001", "0.0.0.0/0"]}`,
		strings.ToUpper(subB), subA, subB, expires)))
	k := created(t, got)
	want := key{
		ID: k.ID, Token: k.Token, Name: "CI pipeline é", Permissions: []string{"serp_api:read", "datacenter_shared:read"}, Subaccounts: []string{subB, subA},
		IPs: []string{"203.0.113.0/24", "2001:db8::/32", "198.51.100.7", "2001:db8::1", "0.0.0.0/0"}, ExpiresAt: &expires, CreatedAt: k.CreatedAt,
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Errorf("the created key (-want +got):\n%s", diff)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(k.ID) || !tokenForm.MatchString(k.Token) {
		t.Errorf("got the id %q and a token of %d characters, want a UUID v4 and 64", k.ID, len(k.Token))
	}
	if k.CreatedAt < begun || k.CreatedAt > time.Now().Unix() {
		t.Errorf("got created_at %d, want %d or a little later", k.CreatedAt, begun)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "Location": keysPath + "/" + k.ID} {
		if got.header.Get(name) != value {
			t.Errorf("got %s %q, want %q", name, got.header.Get(name), value)
		}
	}
	var envelope map[string]json.RawMessage
	if err := json.Unmarshal([]byte(got.body), &envelope); err != nil {
		t.Fatal(err)
	}
	delete(envelope, "data")
	if diff := cmp.Diff(map[string]json.RawMessage{
		"success": json.RawMessage("true"), "message": json.RawMessage(`"API key created successfully"`),
		"warning": json.RawMessage(`"This token will only be shown once. Please copy it now."`),
	}, envelope); diff != "" {
		t.Errorf("the envelope (-want +got):\n%s", diff)
	}
	t.Run("without restrictions", func(t *testing.T) {
		got := d.send(t, creation(d.root, `{"name": "all", "permissions": ["serp_api:read"], "allowed_subaccounts": [], "allowed_ips": [], "expires_at": null}`))
		created(t, got)
		for _, part := range []string{`"allowed_subaccounts":[]`, `"allowed_ips":[]`, `"expires_at":null`} {
			if !strings.Contains(got.body, part) {
				t.Errorf("the answer lacks %s: %s", part, got.body)
			}
		}
	})
	t.Run("is listed without its token", func(t *testing.T) {
		list := d.operate(t, http.MethodGet, "/accounts/acme/keys?limit=2", nil)
		checkNoToken(t, "the list", list.body)
		if preview := k.Token[:7] + "…" + k.Token[60:]; !strings.Contains(list.body, preview) {
			t.Errorf("the list lacks the preview %s: %s", preview, list.body)
		}
	})
}

// wrongField is a body that is refused for one field: the fields that differ
// from a body that is accepted.
type wrongField struct {
	name, members, field string
}

func (d *table) testFields(t *testing.T) {
	const good = `"name": "n", "permissions": ["serp_api:read"]`
	ips := func(list string) string { return good + `, "allowed_ips": ` + list }
	subs := func(list string) string { return good + `, "allowed_subaccounts": ` + list }
	expires := func(at string) string { return good + `, "expires_at": ` + at }
	rows := []wrongField{
		{"unknown field", good + `, "scopes": []`, "scopes"},
		{"misspelt allowed_ip", good + `, "allowed_ip": ["203.0.113.7"]`, "allowed_ip"},
		{"misspelt allowed_ips", good + `, "allowed_ipss": ["203.0.113.7"]`, "allowed_ipss"},
		{"other letter case", good + `, "Allowed_IPs": ["203.0.113.7"]`, "Allowed_IPs"},
		{"long s", good + `, "allowed_ip\u017f": ["203.0.113.7"]`, "allowed_ipſ"},
		{"is_active is for updates", good + `, "is_active": true`, "is_active"},
		{"account of another", good + `, "account_id": "other"`, "account_id"},
		{"no name", `"permissions": ["serp_api:read"]`, "name"},
		{"empty name", `"name": "", "permissions": ["serp_api:read"]`, "name"},
		{"blank name", `"name": " \t\u00a0 ", "permissions": ["serp_api:read"]`, "name"},
		{"long name", `"name": "` + strings.Repeat("é", 101) + `", "permissions": ["serp_api:read"]`, "name"},
		{"newline in the name", `"name": "a\nb", "permissions": ["serp_api:read"]`, "name"},
		{"NUL in the name", `"name": "a\u0000b", "permissions": ["serp_api:read"]`, "name"},
		{"DEL in the name", `"name": "a\u007fb", "permissions": ["serp_api:read"]`, "name"},
		{"C1 in the name", `"name": "a\u0085b", "permissions": ["serp_api:read"]`, "name"},
		{"bidi override in the name", `"name": "a\u202eb", "permissions": ["serp_api:read"]`, "name"},
		{"bidi isolate in the name", `"name": "a\u2066b", "permissions": ["serp_api:read"]`, "name"},
		{"line separator in the name", `"name": "a\u2028b", "permissions": ["serp_api:read"]`, "name"},
		{"name is a number", `"name": 5, "permissions": ["serp_api:read"]`, "name"},
		{"no permissions", `"name": "n"`, "permissions"},
		{"empty permissions", `"name": "n", "permissions": []`, "permissions"},
		{"null permissions", `"name": "n", "permissions": null`, "permissions"},
		{"permissions as text", `"name": "n", "permissions": "serp_api:read"`, "permissions"},
		{"null in permissions", `"name": "n", "permissions": ["serp_api:read", null]`, "permissions[1]"},
		{"a number in permissions", `"name": "n", "permissions": [1]`, "permissions[0]"},
		{"unknown permission", `"name": "n", "permissions": ["serp_api:read", "serp_api:admin"]`, "permissions[1]"},
		{"wildcard", `"name": "n", "permissions": ["*"]`, "permissions[0]"},
		{"wildcard of a product", `"name": "n", "permissions": ["serp_api:*"]`, "permissions[0]"},
		{"permission in capitals", `"name": "n", "permissions": ["SERP_API:READ"]`, "permissions[0]"},
		{"what every key may", `"name": "n", "permissions": ["any-valid-key"]`, "permissions[0]"},
		{"null subaccounts", subs(`null`), "allowed_subaccounts"},
		{"subaccounts as text", subs(`"` + subA + `"`), "allowed_subaccounts"},
		{"bad UUID", subs(`["` + subA + `", "nonsense"]`), "allowed_subaccounts[1]"},
		{"UUID without dashes", subs(`["` + strings.ReplaceAll(subA, "-", "") + `"]`), "allowed_subaccounts[0]"},
		{"UUID in braces", subs(`["{` + subA + `}"]`), "allowed_subaccounts[0]"},
		{"empty UUID", subs(`[""]`), "allowed_subaccounts[0]"},
		{"foreign subaccount", subs(`["` + subForeign + `"]`), "allowed_subaccounts[0]"},
		{"unknown subaccount", subs(`["` + subA + `", "` + subNobodys + `"]`), "allowed_subaccounts[1]"},
		{"null addresses", ips(`null`), "allowed_ips"},
		{"addresses as text", ips(`"203.0.113.7"`), "allowed_ips"},
		{"null in addresses", ips(`["203.0.113.7", null]`), "allowed_ips[1]"},
		{"empty address", ips(`[""]`), "allowed_ips[0]"},
		{"leading zeros", ips(`["203.000.113.007"]`), "allowed_ips[0]"},
		{"leading zeros in a length", ips(`["203.0.113.0/024"]`), "allowed_ips[0]"},
		{"length too large", ips(`["203.0.113.0/33"]`), "allowed_ips[0]"},
		{"IPv6 length too large", ips(`["2001:db8::/129"]`), "allowed_ips[0]"},
		{"negative length", ips(`["203.0.113.0/-1"]`), "allowed_ips[0]"},
		{"a mask", ips(`["203.0.113.0/255.255.255.0"]`), "allowed_ips[0]"},
		{"half an address", ips(`["203.0.113"]`), "allowed_ips[0]"},
		{"a number for an address", ips(`["3405803783"]`), "allowed_ips[0]"},
		{"hex", ips(`["0xcb.0.0x71.7"]`), "allowed_ips[0]"},
		{"zone", ips(`["203.0.113.7", "fe80::1%eth0"]`), "allowed_ips[1]"},
		{"zone in a range", ips(`["fe80::1%eth0/64"]`), "allowed_ips[0]"},
		{"mapped with a length", ips(`["::ffff:203.0.113.0/120"]`), "allowed_ips[0]"},
		{"host name", ips(`["example.com"]`), "allowed_ips[0]"},
		{"with a port", ips(`["203.0.113.7:80"]`), "allowed_ips[0]"},
		{"in brackets", ips(`["[2001:db8::1]"]`), "allowed_ips[0]"},
		{"space", ips(`[" 203.0.113.7"]`), "allowed_ips[0]"},
		{"two in one", ips(`["203.0.113.7,203.0.113.8"]`), "allowed_ips[0]"},
		{"too many addresses", ips(addressList(101)), "allowed_ips"},
		{"now", expires(strconv.FormatInt(time.Now().Unix(), 10)), "expires_at"},
		{"past", expires(`1`), "expires_at"},
		{"zero", expires(`0`), "expires_at"},
		{"negative", expires(`-1`), "expires_at"},
		{"year 10000", expires(`253402300800`), "expires_at"},
		{"milliseconds", expires(strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)), "expires_at"},
		{"too large for any number", expires(`9223372036854775808`), "expires_at"},
		{"fraction", expires(`4102444800.5`), "expires_at"},
		{"a whole fraction", expires(`4102444800.0`), "expires_at"},
		{"exponent", expires(`1e9`), "expires_at"},
		{"exponent in the future", expires(`5e9`), "expires_at"},
		{"text", expires(`"4102444800"`), "expires_at"},
		{"date", expires(`"2100-01-01T00:00:00Z"`), "expires_at"},
		{"true", expires(`true`), "expires_at"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d.turnsAway(t, creation(d.root, "{"+row.members+"}"), refusal{status: 422, code: "validation_failed", field: row.field})
		})
	}
	for name, members := range map[string]string{
		"the base": good, "a name of 100": `"permissions": ["serp_api:read"], "name": "` + strings.Repeat("é", 100) + `"`, "100 addresses": ips(addressList(100)),
		"the last second": expires(`253402300799`), "escaped names": `"n\u0061me": "n", "permissions": ["serp_api:read"]`, "everybody": ips(`["0.0.0.0/0", "::/0"]`),
	} {
		t.Run("just allowed: "+name, func(t *testing.T) { created(t, d.send(t, creation(d.root, "{"+members+"}"))) })
	}
	t.Run("all faults at once", func(t *testing.T) {
		got := d.turnsAway(t, creation(d.root, `{"name": "", "permissions": ["x"], "allowed_ips": ["y"], "expires_at": 1}`), refusal{status: 422, code: "validation_failed"})
		for _, field := range []string{"name", "permissions[0]", "allowed_ips[0]", "expires_at"} {
			refusal{status: 422, code: "validation_failed", field: field}.check(t, got)
		}
	})
}

func addressList(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"192.0.2.%d"`, i)
	}
	return "[" + strings.Join(list, ",") + "]"
}

func (d *table) testCreationBody(t *testing.T) {
	const good = `{"name": "n", "permissions": ["serp_api:read"]}`
	invalid := refusal{status: 400, code: "invalid_request"}
	for name, body := range map[string]string{
		"empty": "", "blank": "  ", "not JSON": "name=n", "broken": good[:20], "trailing data": good + "x", "two objects": good + good, "trailing comma": `{"name": "n",}`,
		"a comment": good + "// x", "duplicate member": `{"name": "n", "permissions": ["serp_api:read"], "allowed_ips": ["203.0.113.7"], "allowed_ips": []}`,
		"escaped duplicate": `{"name": "n", "permissions": ["serp_api:read"], "n\u0061me": "m"}`, "single quotes": `{'name': 'n'}`, "NaN": `{"expires_at": NaN}`,
		"invalid UTF-8": `{"name": "` + "\xff" + `", "permissions": ["serp_api:read"]}`, "half a surrogate": `{"name": "\ud800", "permissions": ["serp_api:read"]}`,
		"byte order mark": "\ufeff" + good, "raw newline in text": "{\"name\": \"a\nb\", \"permissions\": [\"serp_api:read\"]}",
	} {
		t.Run(name, func(t *testing.T) { d.turnsAway(t, creation(d.root, body), invalid) })
	}
	for name, body := range map[string]string{"an array": "[]", "null": "null", "deep": strings.Repeat("[", 20000), "text": `"x"`, "a number": "1"} {
		t.Run(name, func(t *testing.T) {
			got := d.send(t, creation(d.root, body))
			if got.status != http.StatusBadRequest && got.status != http.StatusUnprocessableEntity {
				t.Errorf("got %d %s, want 400 or 422", got.status, got.body)
			}
		})
	}
	pad := func(n int) string { return good + strings.Repeat(" ", n-len(good)) }
	t.Run("64 KiB", func(t *testing.T) { created(t, d.send(t, creation(d.root, pad(64<<10)))) })
	t.Run("64 KiB and one", func(t *testing.T) {
		d.turnsAway(t, creation(d.root, pad(64<<10+1)), refusal{status: 413, code: "body_too_large"})
		chunked := creation(d.root, pad(64<<10+1))
		chunked.chunked = true
		d.turnsAway(t, chunked, refusal{status: 413, code: "body_too_large"})
	})
	bare := creation(d.root, good).without("Content-Type")
	for _, lines := range [][]string{
		{},
		{"Content-Type: text/plain"},
		{"Content-Type: application/x-www-form-urlencoded"},
		{"Content-Type: application/jsonx"},
		{"Content-Type: text/json"},
		{"Content-Type: application/json, text/plain"},
		{"Content-Type: application/json", "Content-Type: application/json"},
		{"Content-Type: application/json; charset=utf-16"},
		{"Content-Type: application/problem+json"},
		{"Content-Type: "},
	} {
		t.Run(strings.Join(lines, " and "), func(t *testing.T) {
			d.turnsAway(t, bare.with(lines...), refusal{status: 415, code: "unsupported_media_type"})
		})
	}
	for _, line := range []string{"Content-Type: application/json; charset=utf-8", "content-type: Application/JSON"} {
		created(t, d.send(t, bare.with(line)))
	}
}

// testDelegation: a key hands on at most what it holds.
func (d *table) testDelegation(t *testing.T) {
	limited := may("account:apikeys:create", "datacenter_shared:read")
	limited.Subaccounts = []string{subA}
	parent := d.createKey(t, d.root, limited)
	body := func(permission, members string) string {
		return `{"name": "child", "permissions": ["datacenter_shared:read", "` + permission + `"]` + members + "}"
	}
	const same = "account:apikeys:create"
	for name, members := range map[string]string{"omitted": "", "empty": `, "allowed_subaccounts": []`, "named": `, "allowed_subaccounts": ["` + subA + `"]`} {
		t.Run(name, func(t *testing.T) {
			child := created(t, d.send(t, creation(parent, body(same, members))))
			if diff := cmp.Diff([]string{subA}, child.Subaccounts); diff != "" {
				t.Errorf("a key made by one that is limited to A (-want +got):\n%s", diff)
			}
			d.forwards(t, d.base().by(child.Token), child.who(subA, "datacenter_shared:read"))
			d.turnsAway(t, d.base().by(child.Token).at("GET", proxyListOfB), refusal{status: 403, code: "subaccount_not_allowed"})
			grandchild := d.createKey(t, child, may("datacenter_shared:read"))
			d.turnsAway(t, d.base().by(grandchild.Token).at("GET", proxyListOfB), refusal{status: 403, code: "subaccount_not_allowed"})
		})
	}
	for _, list := range []string{`["` + subB + `"]`, `["` + subA + `", "` + subB + `"]`} {
		d.turnsAway(t, creation(parent, body(same, `, "allowed_subaccounts": `+list)), refusal{status: 403, code: "subaccount_not_grantable", detail: subB})
	}
	for _, permission := range []string{"datacenter_shared:write", "account:apikeys:read", "serp_api:read"} {
		d.turnsAway(t, creation(parent, body(permission, "")), refusal{status: 403, code: "permission_not_grantable", detail: permission})
	}
	t.Run("a key without create creates nothing", func(t *testing.T) {
		d.turnsAway(t, creation(d.key, body(same, "")), refusal{status: 403, code: "permission_denied", challenge: lacks("account:apikeys:create"), detail: "account:apikeys:create"})
	})
	t.Run("every key makes keys of its own account", func(t *testing.T) {
		other := d.firstKey(t, "other", may("account:apikeys:create", "serp_api:read"))
		d.turnsAway(t, creation(other, `{"name": "x", "permissions": ["serp_api:read"], "allowed_subaccounts": ["`+subA+`"]}`),
			refusal{status: 422, code: "validation_failed", field: "allowed_subaccounts[0]"})
		child := d.createKey(t, other, may("serp_api:read"))
		if me := dataOf[whoami](t, d.passes(t, get(child, whoamiPath))); me.AccountID != "other" || me.KeyID != child.ID {
			t.Errorf("the key is %+v", me)
		}
	})
}

// testKeyAPI: what there is beside the creation, and what there is not.
func (d *table) testKeyAPI(t *testing.T) {
	limited := newKey{Name: "me", Permissions: []string{"serp_api:write", "datacenter_shared:read"}, Subaccounts: []string{subA}}
	k := d.createKey(t, d.root, limited)
	got := d.passes(t, get(k, whoamiPath))
	want := whoami{AccountID: "acme", KeyID: k.ID, Name: "me", Permissions: limited.Permissions, Subaccounts: []string{subA}, ClientIP: "127.0.0.1"}
	if diff := cmp.Diff(want, dataOf[whoami](t, got)); diff != "" {
		t.Errorf("whoami (-want +got):\n%s", diff)
	}
	if got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("whoami may be cached: %v", got.header)
	}
	got = d.passes(t, get(k, keysPath+"/allowed-permissions"))
	if want := `{"allowed_permissions":["serp_api:write","datacenter_shared:read"]}`; got.body != want {
		t.Errorf("got %s, want %s", got.body, want)
	}
	for _, target := range []string{whoamiPath, keysPath + "/allowed-permissions"} {
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			d.turnsAway(t, get(k, target).at(method, target), refusal{status: 405, code: "method_not_allowed", allow: "GET, HEAD"})
		}
		d.turnsAway(t, get(k, target).without("api-token"), refusal{status: 401, code: "missing_credentials", challenge: challenge})
		d.turnsAway(t, get(k, target).by("bad"), refusal{status: 401, code: "invalid_token", challenge: badToken})
	}
	for _, method := range []string{"PATCH", "OPTIONS"} {
		got := d.send(t, get(k, keysPath).at(method, keysPath))
		refusal{status: 405, code: "method_not_allowed", allow: got.header.Get("Allow")}.check(t, got)
		if !strings.Contains(got.header.Get("Allow"), "POST") {
			t.Errorf("%s: got Allow %q, want POST in it", method, got.header.Get("Allow"))
		}
	}
	for _, target := range []string{keysPath + "/", keysPath + "/" + k.ID + "/nothing", keysPath + "/allowed-permissions/x", whoamiPath + "/x", keysPath + "/a/b/c"} {
		d.turnsAway(t, get(d.root, target), refusal{status: 404, code: "unknown_route"})
	}
}
