package keyapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// check compares an answer with a code, and the text that must be in it.
func (w *world) check(out *httptest.ResponseRecorder, code problem.Code, says string) {
	w.t.Helper()
	if out.Code != code.Status() || !strings.Contains(out.Body.String(), `"error":"`+string(code)+`"`) || !strings.Contains(out.Body.String(), says) {
		w.t.Errorf("answered %d %s, want %d %s and %q", out.Code, out.Body, code.Status(), code, says)
	}
}

func TestKeyThatIsNotAskedForProperlyIsNotMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	with := func(field string) string { return strings.Replace(minimal, "}", ","+field+"}", 1) }
	for _, row := range []struct {
		name, body string
		code       problem.Code
		says       string
	}{
		{"no body", "", problem.InvalidRequest, ""},
		{"no JSON", "name=CI", problem.InvalidRequest, ""},
		{"two bodies", minimal + minimal, problem.InvalidRequest, ""},
		{"a field twice", with(`"allowed_ips":["203.0.113.9"],"allowed_ips":[]`), problem.InvalidRequest, ""},
		{"a misspelt restriction", with(`"allowed_ip":["203.0.113.9"]`), problem.ValidationFailed, "allowed_ip"},
		{"a restriction in another letter case", with(`"Allowed_IPs":["203.0.113.9"]`), problem.ValidationFailed, "Allowed_IPs"},
		{"a restriction that is null", with(`"allowed_ips":null`), problem.ValidationFailed, "allowed_ips"},
		{"a restriction that is a string", with(`"allowed_ips":"203.0.113.9"`), problem.ValidationFailed, "allowed_ips"},
		{"subaccounts that are null", with(`"allowed_subaccounts":null`), problem.ValidationFailed, "allowed_subaccounts"},
		{"a field of updates", with(`"is_active":false`), problem.ValidationFailed, "is_active"},
		{"an id of its own", with(`"id":"11111111-0000-4000-8000-000000000001"`), problem.ValidationFailed, "id"},
		{"another account", with(`"account":"other"`), problem.ValidationFailed, "account"},
		{"no name", `{"permissions":["datacenter_shared:read"]}`, problem.ValidationFailed, "name"},
		{"no permissions", `{"name":"CI"}`, problem.ValidationFailed, "permissions"},
		{"empty permissions", `{"name":"CI","permissions":[]}`, problem.ValidationFailed, "permissions"},
		{"a permission that does not exist", `{"name":"CI","permissions":["datacenter_shared:delete"]}`, problem.ValidationFailed, "permissions[0]"},
		{"a wildcard", `{"name":"CI","permissions":["*"]}`, problem.ValidationFailed, "permissions[0]"},
		{"a subaccount of nobody", with(fmt.Sprintf(`"allowed_subaccounts":[%q]`, subC)), problem.ValidationFailed, "allowed_subaccounts[0]"},
		{"a host name", with(`"allowed_ips":["example.com"]`), problem.ValidationFailed, "allowed_ips[0]"},
		{"an expiry at this second", with(fmt.Sprintf(`"expires_at":%d`, start.Unix())), problem.ValidationFailed, "expires_at"},
		{"too much", minimal + strings.Repeat(" ", contract.KeyBodyLimit), problem.BodyTooLarge, ""},
	} {
		t.Run(row.name, func(t *testing.T) { w.check(w.do(http.MethodPost, keysPath, row.body), row.code, row.says) })
	}
	r := httptest.NewRequest(http.MethodPost, keysPath, strings.NewReader(minimal))
	r.Header.Set("Content-Type", "text/plain")
	out := httptest.NewRecorder()
	w.mux.ServeHTTP(out, r)
	w.check(out, problem.UnsupportedMediaType, "")
	if n := w.keys(); n != 1 {
		t.Errorf("the account has %d keys, want the caller's alone", n)
	}
}

func TestCallerCannotGrantWhatItDoesNotHold(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		caller func(*keystore.NewKey)
		body   string
		code   problem.Code
		says   string
	}{
		{
			"a permission of the account that the caller lacks",
			func(k *keystore.NewKey) { k.Permissions = policy.PermissionSet{read, policy.CreateKeys} },
			`{"name":"x","permissions":["datacenter_shared:read","datacenter_shared:write"]}`, problem.PermissionNotGrantable, "you lack: datacenter_shared:write.",
		},
		{
			"a permission that the account lacks", func(*keystore.NewKey) {},
			`{"name":"x","permissions":["serp_api:read"]}`, problem.PermissionNotGrantable, "you lack: serp_api:read.",
		},
		{
			"key management that the caller lacks",
			func(k *keystore.NewKey) { k.Permissions = policy.PermissionSet{read, policy.CreateKeys} },
			`{"name":"x","permissions":["account:apikeys:regenerate","account:apikeys:update"]}`, problem.PermissionNotGrantable, "account:apikeys:regenerate, account:apikeys:update",
		},
		{
			"a subaccount of the account that the caller cannot reach",
			func(k *keystore.NewKey) { k.Subaccounts = []policy.SubaccountID{subA} },
			fmt.Sprintf(`{"name":"x","permissions":["datacenter_shared:read"],"allowed_subaccounts":[%q,%q]}`, subA, subB), problem.SubaccountNotGrantable, string(subB),
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.by, _ = w.key(row.caller)
			before := w.keys()
			w.t = t
			w.check(w.do(http.MethodPost, keysPath, row.body), row.code, row.says)
			if w.keys() != before {
				t.Error("a key was made")
			}
		})
	}
}

// TestWhatTheAccountLostCannotBeGranted: the caller is judged by what is true
// at the commit, and not by what the gateway looked up.
func TestWhatTheAccountLostCannotBeGranted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.putAccount(func(a *keystore.Account) { a.Permissions = []string{"account:apikeys:*"} })
	w.check(w.do(http.MethodPost, keysPath, minimal), problem.PermissionNotGrantable, string(read))
}

// TestKeyThatCouldReachNothingIsNotMade: its empty list would read as "all".
func TestKeyThatCouldReachNothingIsNotMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.by, _ = w.key(func(k *keystore.NewKey) { k.Subaccounts = []policy.SubaccountID{subA} })
	w.putAccount(func(a *keystore.Account) { a.Subaccounts = a.Subaccounts[1:] })
	w.check(w.do(http.MethodPost, keysPath, minimal), problem.SubaccountNotGrantable, "")
}

// TestCallerThatMayDoNothingAnyMoreMakesNoKey, though it passed the gateway.
func TestCallerThatMayDoNothingAnyMoreMakesNoKey(t *testing.T) {
	t.Parallel()
	operator := policy.Caller{Account: &policy.Account{ID: "acme"}}
	for _, row := range []struct {
		name   string
		happen func(w *world)
		code   problem.Code
	}{
		{"revoked", func(w *world) {
			if _, err := w.store.Revoke(w.t.Context(), operator, w.by.Key.ID); err != nil {
				w.t.Fatal(err)
			}
		}, problem.InvalidToken},
		{"disabled", func(w *world) {
			no := false
			if _, _, err := w.store.Update(w.t.Context(), operator, w.by.Key.ID, keystore.Update{Active: &no}); err != nil {
				w.t.Fatal(err)
			}
		}, problem.KeyDisabled},
		{"bound to another address", func(w *world) {
			elsewhere := policy.OnlyAddresses(office)
			if _, _, err := w.store.Update(w.t.Context(), operator, w.by.Key.ID, keystore.Update{Addresses: &elsewhere}); err != nil {
				w.t.Fatal(err)
			}
			w.by.Client = office.Addr().Prev()
		}, problem.IPNotAllowed},
		{"expired", func(w *world) {
			soon := policy.ExpiresAt(start.Unix() + 1)
			if _, _, err := w.store.Update(w.t.Context(), operator, w.by.Key.ID, keystore.Update{Expiry: &soon}); err != nil {
				w.t.Fatal(err)
			}
			w.now.Add(1)
		}, problem.KeyExpired},
		{"its account suspended", func(w *world) { w.putAccount(func(a *keystore.Account) { a.Status = policy.Suspended }) }, problem.AccountSuspended},
		{"its account deleted", func(w *world) {
			if err := w.store.DeleteAccount(w.t.Context(), policy.Caller{}, "acme"); err != nil {
				w.t.Fatal(err)
			}
		}, problem.NotFound},
		{"its account deleted and made again", func(w *world) {
			if err := w.store.DeleteAccount(w.t.Context(), policy.Caller{}, "acme"); err != nil {
				w.t.Fatal(err)
			}
			w.putAccount(func(*keystore.Account) {})
		}, problem.InvalidToken},
		{"the store away", func(w *world) { w.redis.SetError("LOADING") }, problem.KeyStoreUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			row.happen(w)
			out := w.do(http.MethodPost, keysPath, minimal)
			w.check(out, row.code, "")
			if retry := out.Header().Get("Retry-After"); (retry != "") != (row.code == problem.KeyStoreUnavailable) {
				t.Errorf("Retry-After is %q", retry)
			}
			if strings.Contains(out.Body.String(), "LOADING") || out.Header().Get("Location") != "" {
				t.Errorf("answered %v %s", out.Header(), out.Body)
			}
			w.redis.SetError("")
			if dump := w.redis.Dump(); strings.Contains(dump, `"CI"`) {
				t.Errorf("a key was made: %s", dump)
			}
		})
	}
}

func TestAccountHasALimitOfKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *keystore.Options) { o.MaxKeys = 3 })
	w.create(minimal)
	c := w.create(minimal)
	w.check(w.do(http.MethodPost, keysPath, minimal), problem.KeyLimitReached, "")
	if n := w.keys(); n != 3 {
		t.Errorf("the account has %d keys, want 3", n)
	}
	if _, err := w.store.Revoke(t.Context(), w.by, policy.KeyID(c.Data.ID)); err != nil {
		t.Fatal(err)
	}
	w.create(minimal)
}

// TestHardenedDelegation: with both options on, a key stays inside of the one
// that made it.
func TestHardenedDelegation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *keystore.Options) {
		o.Delegation = policy.Delegation{InheritAddresses: true, CapExpiry: true}
	})
	expiry := start.Unix() + 3600
	w.by, _ = w.key(func(k *keystore.NewKey) {
		k.Addresses, k.Expiry = policy.OnlyAddresses(office), policy.ExpiresAt(expiry)
	})
	body := func(ips string, expiry any) string {
		return fmt.Sprintf(`{"name":"CI","permissions":["datacenter_shared:read"],"allowed_ips":%s,"expires_at":%v}`, ips, expiry)
	}
	w.create(body(`["203.0.113.9"]`, expiry))
	w.create(body(`["203.0.113.128/25","203.0.113.0/24"]`, expiry-1))
	for _, refused := range []string{
		body(`[]`, expiry), body(`["203.0.112.0/23"]`, expiry), body(`["203.0.113.9","198.51.100.7"]`, expiry), body(`["2001:db8::1"]`, expiry),
		body(`["203.0.113.9"]`, "null"), body(`["203.0.113.9"]`, expiry+1),
	} {
		w.check(w.do(http.MethodPost, keysPath, refused), problem.ExceedsYourAccess, "")
	}
}
