package keyapi_test

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/keyapi"
)

// TestEndpointsNeedWhatTheContractSays: what the gateway checks before it asks.
func TestEndpointsNeedWhatTheContractSays(t *testing.T) {
	t.Parallel()
	contract := map[string]policy.Permission{
		"POST /v4/account/api-keys":                    policy.CreateKeys,
		"GET /v4/account/api-keys":                     policy.ReadKeys,
		"GET /v4/account/api-keys/{id}":                policy.ReadKeys,
		"PUT /v4/account/api-keys/{id}":                policy.UpdateKeys,
		"DELETE /v4/account/api-keys/{id}":             policy.DeleteKeys,
		"POST /v4/account/api-keys/{id}/regenerate":    policy.RegenerateKeys,
		"GET /v4/account/api-keys/allowed-permissions": policy.AnyValidKey,
		"GET /v4/account/api-keys/permission-context":  policy.AnyValidKey,
		"GET /v4/account/audit-log":                    policy.ReadAudit,
		"GET /v4/account/usage":                        policy.ReadUsage,
		"GET /v4/account/whoami":                       policy.AnyValidKey,
	}
	api, err := keyapi.New(keyapi.Options{Keys: &keystore.Store{}, Audit: &keystore.Store{}, Usage: &keystore.Store{}, Catalogue: catalogue(t), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range api.Endpoints() {
		if needs, known := contract[e.Match]; !known || e.Needs != needs || e.Serve == nil || seen[e.Match] {
			t.Errorf("%s needs %s, want %s, once", e.Match, e.Needs, needs)
		}
		seen[e.Match] = true
		if changes := e.Needs != policy.AnyValidKey && e.Needs.Action() != policy.ReadAction; changes != (e.Action != "") {
			t.Errorf("%s has the audited action %q", e.Match, e.Action)
		}
		_, path, _ := strings.Cut(e.Match, " ")
		if !slices.ContainsFunc(keyapi.Reserved(), func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }) {
			t.Errorf("%s is not below a reserved path", e.Match)
		}
	}
	if len(seen) != len(contract) {
		t.Errorf("%d endpoints, want %d", len(seen), len(contract))
	}
}

func catalogue(t *testing.T) policy.Catalogue {
	t.Helper()
	c, err := policy.NewCatalogue(read)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAPINeedsItsOptions(t *testing.T) {
	t.Parallel()
	whole := keyapi.Options{Keys: &keystore.Store{}, Audit: &keystore.Store{}, Usage: &keystore.Store{}, Catalogue: catalogue(t), Now: time.Now}
	for name, remove := range map[string]func(*keyapi.Options){
		"keys": func(o *keyapi.Options) { o.Keys = nil }, "clock": func(o *keyapi.Options) { o.Now = nil },
		"audit": func(o *keyapi.Options) { o.Audit = nil }, "usage": func(o *keyapi.Options) { o.Usage = nil }, "catalogue": func(o *keyapi.Options) { o.Catalogue = policy.Catalogue{} },
	} {
		o := whole
		remove(&o)
		if _, err := keyapi.New(o); err == nil {
			t.Errorf("an API without %s, want an error", name)
		}
	}
}

func TestGoldenRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	golden(t, "allowed_permissions", w.do(http.MethodGet, keysPath+"/allowed-permissions", ""))
	golden(t, "whoami", w.do(http.MethodGet, "/v4/account/whoami", ""))
	w.by, _ = w.key(func(k *keystore.NewKey) {
		k.Name, k.Permissions, k.Subaccounts = "limited", policy.PermissionSet{write, read}, []policy.SubaccountID{subB, subA}
		k.Addresses, k.Expiry = policy.OnlyAddresses(office), policy.ExpiresAt(1_900_000_000)
	})
	golden(t, "allowed_permissions_limited", w.do(http.MethodGet, keysPath+"/allowed-permissions", ""))
	golden(t, "whoami_limited", w.do(http.MethodGet, "/v4/account/whoami", ""))
}

// TestWhatTheAccountLostIsNotAllowedAnyMore, though the key still has it.
func TestWhatTheAccountLostIsNotAllowedAnyMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.by.Account = &policy.Account{ID: "acme", Permissions: policy.PermissionSet{serp, read}}
	for _, path := range []string{keysPath + "/allowed-permissions", "/v4/account/whoami"} {
		body := w.do(http.MethodGet, path, "").Body.String()
		if !strings.Contains(body, `ermissions":["datacenter_shared:read"]`) {
			t.Errorf("%s shows %s", path, body)
		}
	}
	w.by.Account = &policy.Account{ID: "acme"}
	if body := w.do(http.MethodGet, keysPath+"/allowed-permissions", "").Body.String(); body != `{"allowed_permissions":[]}` {
		t.Errorf("with nothing left it shows %s", body)
	}
}

func TestWhoamiShowsTheAddressThatWasSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, row := range []struct {
		seen netip.Addr
		want string
	}{
		{netip.MustParseAddr("198.51.100.7"), `"client_ip":"198.51.100.7"`},
		{netip.MustParseAddr("2001:db8::1"), `"client_ip":"2001:db8::1"`},
		{netip.Addr{}, `"client_ip":""`},
	} {
		w.by.Client = row.seen
		if body := w.do(http.MethodGet, "/v4/account/whoami", "").Body.String(); !strings.Contains(body, row.want) {
			t.Errorf("shown is %s, want %s", body, row.want)
		}
	}
}

// TestReservedPathsAreTheAPIsOwn keeps the list that no product route may enter.
func TestReservedPathsAreTheAPIsOwn(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff([]string{"/v4/account/api-keys", "/v4/account/audit-log", "/v4/account/usage", "/v4/account/whoami", "/v4/openapi.json", "/docs"}, keyapi.Reserved()); diff != "" {
		t.Error(diff)
	}
}
