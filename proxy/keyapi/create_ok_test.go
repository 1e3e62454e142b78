package keyapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

const minimal = `{"name":"CI","permissions":["datacenter_shared:read"]}`

func TestGoldenCreate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, body := range map[string]string{
		"create_minimal": minimal,
		"create_whole": fmt.Sprintf(`{"name":" CI pipeline ","permissions":["datacenter_shared:write","datacenter_shared:read"],`+
			`"allowed_subaccounts":[%q],"allowed_ips":["203.0.113.9/24","::ffff:198.51.100.7"],"expires_at":1900000000}`, strings.ToUpper(string(subB))),
	} {
		out := w.do(http.MethodPost, keysPath, body)
		golden(t, name, out)
		if location := out.Header().Get("Location"); !strings.Contains(out.Body.String(), `"id":"`+strings.TrimPrefix(location, keysPath+"/")+`"`) {
			t.Errorf("Location is %q in an answer with %s", location, out.Body)
		}
	}
}

// TestCreatedTokenOpensWhatWasAskedForAndNoMore: the answer, the listing and
// the lookup show one and the same key.
func TestCreatedTokenOpensWhatWasAskedForAndNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.create(fmt.Sprintf(`{"name":"CI","permissions":["datacenter_shared:read"],"allowed_subaccounts":[%q],"allowed_ips":["203.0.113.0/24"],"expires_at":1900000000}`, subA))
	k := w.lookup(c.Data.Token).Key
	if string(k.ID) != c.Data.ID || k.Account != "acme" || !k.Active || k.Name != "CI" || k.Expiry != policy.ExpiresAt(1900000000) || !k.CreatedAt.Equal(start) {
		t.Errorf("stored is %+v", k)
	}
	if diff := cmp.Diff(policy.PermissionSet{read}, k.Permissions); diff != "" {
		t.Error(diff)
	}
	if !k.Subaccounts.Contains(subA) || k.Subaccounts.Contains(subB) || !k.Addresses.Contains(office.Addr()) || k.Addresses.Contains(office.Addr().Prev()) {
		t.Errorf("stored is %+v", k)
	}
}

func TestTokenIsShownOnceAndNeverStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.create(minimal)
	if dump := w.redis.Dump(); strings.Contains(dump, c.Data.Token) {
		t.Error("the token itself is in the store")
	}
	for _, path := range []string{keysPath + "/allowed-permissions", "/v4/account/whoami"} {
		if out := w.do(http.MethodGet, path, ""); strings.Contains(out.Body.String(), c.Data.Token) {
			t.Errorf("%s shows the token: %s", path, out.Body)
		}
	}
}

// TestKeyWithoutSubaccountsInheritsThoseOfItsCreator, also when the list is
// empty: it is never wider than the creator.
func TestKeyWithoutSubaccountsInheritsThoseOfItsCreator(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		creator []policy.SubaccountID
		want    []string
	}{
		{"limited to one", []policy.SubaccountID{subB}, []string{string(subB)}},
		{"limited to all there are", []policy.SubaccountID{subB, subA}, []string{string(subB), string(subA)}},
		{"not limited", nil, []string{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.by, _ = w.key(func(k *keystore.NewKey) { k.Subaccounts = row.creator })
			for _, body := range []string{minimal, strings.Replace(minimal, "}", `,"allowed_subaccounts":[]}`, 1)} {
				c := w.create(body)
				if diff := cmp.Diff(row.want, c.Data.AllowedSubaccounts); diff != "" {
					t.Errorf("%s: shown (-want +got):\n%s", body, diff)
				}
				k := w.lookup(c.Data.Token).Key
				if k.Subaccounts.All() != (row.creator == nil) || k.Subaccounts.Contains(subC) != (row.creator == nil) {
					t.Errorf("%s: stored is %+v", body, k.Subaccounts)
				}
			}
		})
	}
}

// TestKeyOfACreatorThatLostSubaccountsGetsWhatIsLeft of them.
func TestKeyOfACreatorThatLostSubaccountsGetsWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.by, _ = w.key(func(k *keystore.NewKey) { k.Subaccounts = []policy.SubaccountID{subA, subB} })
	w.putAccount(func(a *keystore.Account) { a.Subaccounts = a.Subaccounts[1:] })
	if c := w.create(minimal); len(c.Data.AllowedSubaccounts) != 1 || c.Data.AllowedSubaccounts[0] != string(subB) {
		t.Errorf("the key got %v", c.Data.AllowedSubaccounts)
	}
}

func TestEmptyAddressListIsNoRestriction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, body := range []string{minimal, strings.Replace(minimal, "}", `,"allowed_ips":[]}`, 1)} {
		if c := w.create(body); len(c.Data.AllowedIPs) != 0 || !w.lookup(c.Data.Token).Key.Addresses.Any() {
			t.Errorf("%s: restricted to %v", body, c.Data.AllowedIPs)
		}
	}
}

func TestTwoKeysMayHaveOneName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.create(minimal), w.create(minimal)
	if first.Data.ID == second.Data.ID || first.Data.Token == second.Data.Token || w.keys() != 3 {
		t.Errorf("%+v and %+v", first, second)
	}
}

// TestAddressesAndExpiryMayExceedTheCreatorByDefault, as the documented API has it.
func TestAddressesAndExpiryMayExceedTheCreatorByDefault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.by, _ = w.key(func(k *keystore.NewKey) {
		k.Addresses, k.Expiry = policy.OnlyAddresses(office), policy.ExpiresAt(start.Unix()+60)
	})
	if c := w.create(minimal); len(c.Data.AllowedIPs) != 0 || c.Data.ExpiresAt != nil {
		t.Errorf("created %+v", c)
	}
}

// TestKeyManagementMayBeHandedOn, to a key that then may do no more.
func TestKeyManagementMayBeHandedOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.create(`{"name":"maker","permissions":["account:apikeys:create"]}`)
	e := w.lookup(c.Data.Token)
	w.by = policy.Caller{Account: e.Account, Key: e.Key, Client: client}
	w.create(`{"name":"maker too","permissions":["account:apikeys:create"]}`)
	if out := w.do(http.MethodPost, keysPath, minimal); out.Code != http.StatusForbidden {
		t.Errorf("a key that may only make keys made one that reads: %d %s", out.Code, out.Body)
	}
}
