package policy_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"gatehouse/policy"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParsePermissionTakesOnlyResourceAndAction(t *testing.T) {
	rows := []struct {
		name     string
		s        string
		ok       bool
		resource string
		action   string
	}{
		{"product", "datacenter_shared:read", true, "datacenter_shared", "read"},
		{"key management", "account:apikeys:create", true, "account:apikeys", "create"},
		{"shortest", "a:b", true, "a", "b"},
		{"digits and underscores", "_0:9_", true, "_0", "9_"},
		{"edges of the ranges", "az09:az09", true, "az09", "az09"},
		{"many parts", "a:b:c:d", true, "a:b:c", "d"},
		{"128 bytes", strings.Repeat("a", 126) + ":b", true, strings.Repeat("a", 126), "b"},
		{"129 bytes", strings.Repeat("a", 127) + ":b", false, "", ""},
		{"empty", "", false, "", ""},
		{"only a colon", ":", false, "", ""},
		{"no colon", "datacenter_shared", false, "", ""},
		{"no resource", ":read", false, "", ""},
		{"no action", "datacenter_shared:", false, "", ""},
		{"empty part", "account::create", false, "", ""},
		{"star", "*", false, "", ""},
		{"star as action", "datacenter_shared:*", false, "", ""},
		{"star as resource", "*:read", false, "", ""},
		{"capital", "datacenter_shared:Read", false, "", ""},
		{"dash", "datacenter-shared:read", false, "", ""},
		{"dot", "datacenter.shared:read", false, "", ""},
		{"slash, one before 0", "a/:b", false, "", ""},
		{"backtick, one before a", "a`:b", false, "", ""},
		{"brace, one behind z", "a{:b", false, "", ""},
		{"space in front", " a:b", false, "", ""},
		{"space behind", "a:b ", false, "", ""},
		{"newline behind", "a:b\n", false, "", ""},
		{"NUL", "a:b\x00", false, "", ""},
		{"quote", `a:b"`, false, "", ""},
		{"umlaut", "ä:b", false, "", ""},
		{"full-width colon", "a：b", false, "", ""},
		{"what a route for every key needs", string(policy.AnyValidKey), false, "", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := policy.ParsePermission(row.s)
			if !row.ok {
				if !errors.Is(err, policy.ErrBadPermission) || got != "" {
					t.Errorf("got %q, %v, want nothing and ErrBadPermission", got, err)
				}
				return
			}
			if err != nil || string(got) != row.s {
				t.Fatalf("got %q, %v, want %q", got, err, row.s)
			}
			if got.Resource() != row.resource || got.Action() != row.action {
				t.Errorf("got %q and %q, want %q and %q", got.Resource(), got.Action(), row.resource, row.action)
			}
		})
	}
}

func TestPermissionWithoutColonHasNoParts(t *testing.T) {
	for _, p := range []policy.Permission{"", "read", policy.AnyValidKey} {
		if p.Resource() != "" || p.Action() != "" {
			t.Errorf("%q: got %q and %q, want nothing", p, p.Resource(), p.Action())
		}
	}
}

func FuzzParsePermission(f *testing.F) {
	for _, s := range []string{"datacenter_shared:read", "account:apikeys:create", "a:b", "*", "a:*", ":", "a::b", "A:b", "ä:b", strings.Repeat("a", 127) + ":b"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`\A[a-z0-9_]+(:[a-z0-9_]+)+\z`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := policy.ParsePermission(s)
		if want := form.MatchString(s) && len(s) <= 128; (err == nil) != want {
			t.Fatalf("%q: got error %v, want accepted %v", s, err, want)
		}
		if err != nil {
			if p != "" {
				t.Fatalf("%q: got %q with an error", s, p)
			}
			return
		}
		if string(p) != s || p.Resource()+":"+p.Action() != s || strings.Contains(p.Action(), ":") {
			t.Fatalf("%q: got %q with resource %q and action %q", s, p, p.Resource(), p.Action())
		}
		_, err = policy.NewCatalogue(p)
		if builtIn := strings.HasPrefix(s, "account:"); (err != nil) != builtIn {
			t.Fatalf("%q: got catalogue error %v, want one: %v", s, err, builtIn)
		}
	})
}

func TestPermissionSetHoldsExactlyWhatItWasGiven(t *testing.T) {
	set := policy.NewPermissionSet("b:x", "a:x", "b:x", "c:x", "a:x")
	if diff := cmp.Diff([]string{"b:x", "a:x", "c:x"}, set.Strings()); diff != "" {
		t.Errorf("duplicates dropped, order kept (-want +got):\n%s", diff)
	}
	for _, p := range []policy.Permission{"a:x", "b:x", "c:x"} {
		if !set.Has(p) {
			t.Errorf("Has(%q): got false, want true", p)
		}
	}
	for _, p := range []policy.Permission{"d:x", "a", "a:", "a:x ", "A:x", ""} {
		if set.Has(p) {
			t.Errorf("Has(%q): got true, want false", p)
		}
	}
	if (policy.PermissionSet{""}).Has("") {
		t.Error("got a set that has the zero permission")
	}
}

func TestZeroPermissionSetGrantsNothing(t *testing.T) {
	var zero policy.PermissionSet
	if zero.Has(readShared) || zero.Has("") || zero.Has(policy.AnyValidKey) {
		t.Error("got a zero set that has a permission")
	}
	if got := zero.Strings(); got == nil || len(got) != 0 {
		t.Errorf("got %#v, want an empty list that is not nil", got)
	}
	if got := zero.Intersect(policy.NewPermissionSet(readShared)); len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
	wanted := policy.NewPermissionSet(readShared, readSerp)
	if diff := cmp.Diff(wanted, zero.Missing(wanted)); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	if got := zero.Missing(nil); got != nil {
		t.Errorf("got %v missing of nothing, want nil", got)
	}
}

func TestPermissionSetArithmetic(t *testing.T) {
	set := policy.NewPermissionSet("a:x", "b:x", "c:x")
	other := policy.NewPermissionSet("d:x", "c:x", "a:x", "e:x")
	if diff := cmp.Diff(policy.PermissionSet{"a:x", "c:x"}, set.Intersect(other)); diff != "" {
		t.Errorf("intersection, in the order of the set (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(policy.PermissionSet{"d:x", "e:x"}, set.Missing(other)); diff != "" {
		t.Errorf("missing, in the order of the wanted (-want +got):\n%s", diff)
	}
	if got := set.Missing(policy.NewPermissionSet("c:x", "a:x")); got != nil {
		t.Errorf("got %v missing, want nil", got)
	}
	if diff := cmp.Diff(policy.PermissionSet{""}, set.Missing(policy.PermissionSet{""})); diff != "" {
		t.Errorf("the zero permission is always missing (-want +got):\n%s", diff)
	}
}

// documented is the catalogue of API.md, "Permissions".
func documented(t *testing.T) policy.Catalogue {
	t.Helper()
	var products []policy.Permission
	for _, product := range []string{"datacenter_shared", "datacenter_dedicated", "residential", "residential_unlimited", "serp_api"} {
		for _, action := range []string{"read", "write", "delete"} {
			products = append(products, policy.Permission(product+":"+action))
		}
	}
	c, err := policy.NewCatalogue(append(products, "subaccount:read", "subaccount:write")...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCatalogueHoldsTheDocumentedPermissions(t *testing.T) {
	want := []string{
		"datacenter_shared:read", "datacenter_shared:write", "datacenter_shared:delete",
		"datacenter_dedicated:read", "datacenter_dedicated:write", "datacenter_dedicated:delete",
		"residential:read", "residential:write", "residential:delete",
		"residential_unlimited:read", "residential_unlimited:write", "residential_unlimited:delete",
		"serp_api:read", "serp_api:write", "serp_api:delete",
		"subaccount:read", "subaccount:write",
		"account:apikeys:create", "account:apikeys:read", "account:apikeys:update",
		"account:apikeys:delete", "account:apikeys:regenerate", "account:audit:read", "account:usage:read",
	}
	c := documented(t)
	if diff := cmp.Diff(want, c.All().Strings()); diff != "" {
		t.Errorf("catalogue (-want +got):\n%s", diff)
	}
	if got := len(c.All()); got != 24 {
		t.Errorf("got %d permissions, want 24", got)
	}
	for _, p := range c.All() {
		if !c.Has(p) {
			t.Errorf("Has(%q): got false, want true", p)
		}
		if _, err := policy.ParsePermission(string(p)); err != nil {
			t.Errorf("ParsePermission(%q): got %v, want none", p, err)
		}
	}
	for _, p := range []policy.Permission{"subaccount:delete", "account:apikeys", "account:apikeys:*", "*", "", policy.AnyValidKey} {
		if c.Has(p) {
			t.Errorf("Has(%q): got true, want false", p)
		}
	}
}

func TestCatalogueRefusesWhatCouldCollide(t *testing.T) {
	rows := []struct {
		name    string
		product policy.Permission
		want    string
	}{
		{"resource account", "account:read", `permission "account:read": the resource account is built in`},
		{"below account", "account:users:read", `permission "account:users:read": the resource account is built in`},
		{"built in", policy.CreateKeys, `permission "account:apikeys:create": the resource account is built in`},
		{"another word with the same beginning", "accounts:read", ""},
		{"account as an action", "billing:account", ""},
		{"account further behind", "billing:account:read", ""},
		{"no permission", "serp_api", `permission "serp_api": not a permission of the form resource:action`},
		{"wildcard", "serp_api:*", `permission "serp_api:*": not a permission of the form resource:action`},
		{"empty", "", `permission "": not a permission of the form resource:action`},
		{"any valid key", policy.AnyValidKey, `permission "any-valid-key": not a permission of the form resource:action`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, err := policy.NewCatalogue("serp_api:read", row.product)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("got error %q, want %q", got, row.want)
			}
			if err != nil && len(c.All()) > 0 {
				t.Errorf("got %v beside the error, want no catalogue", c.All())
			}
		})
	}
}

func TestCatalogueDoesNotChangeItsArguments(t *testing.T) {
	products := make([]policy.Permission, 1, 10)
	products[0] = "serp_api:read"
	if _, err := policy.NewCatalogue(products...); err != nil {
		t.Fatal(err)
	}
	if spare := products[:10]; spare[1] != "" {
		t.Errorf("got %q behind the end of the argument, want nothing written there", spare[1])
	}
}

func TestZeroCatalogueKnowsNothing(t *testing.T) {
	var zero policy.Catalogue
	if len(zero.All()) != 0 || zero.Has(readShared) || zero.Has(policy.CreateKeys) || zero.Has("") {
		t.Error("got a zero catalogue that has a permission")
	}
	if err := zero.ParseAccountGrant("*"); !errors.Is(err, policy.ErrUnknownPermission) {
		t.Errorf("got %v, want ErrUnknownPermission", err)
	}
	if got := zero.Resolve([]string{"*"}); len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
}

func TestAccountGrantStandsForWhatTheCatalogueHolds(t *testing.T) {
	c := documented(t)
	apikeys := []string{
		"account:apikeys:create", "account:apikeys:read", "account:apikeys:update",
		"account:apikeys:delete", "account:apikeys:regenerate",
	}
	rows := []struct {
		name  string
		grant string
		want  []string
	}{
		{"one permission", "serp_api:read", []string{"serp_api:read"}},
		{"everything", "*", c.All().Strings()},
		{"a resource", "residential:*", []string{"residential:read", "residential:write", "residential:delete"}},
		{"a resource of two actions", "subaccount:*", []string{"subaccount:read", "subaccount:write"}},
		{"key management", "account:apikeys:*", apikeys},
		{"one of key management", "account:apikeys:read", []string{"account:apikeys:read"}},
		{"half a resource", "account:*", nil},
		{"the beginning of a resource", "datacenter_*", nil},
		{"the beginning of another resource", "residential_:*", nil},
		{"resource alone", "residential", nil},
		{"star as resource", "*:read", nil},
		{"star twice", "*:*", nil},
		{"star within", "account:*:read", nil},
		{"unknown action", "subaccount:delete", nil},
		{"unknown resource", "billing:*", nil},
		{"no resource", ":*", nil},
		{"capitals", "SERP_API:read", nil},
		{"space", " *", nil},
		{"empty", "", nil},
		{"any valid key", string(policy.AnyValidKey), nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			err := c.ParseAccountGrant(row.grant)
			if row.want == nil && !errors.Is(err, policy.ErrUnknownPermission) {
				t.Errorf("got error %v, want ErrUnknownPermission", err)
			}
			if row.want != nil && err != nil {
				t.Errorf("got error %v, want none", err)
			}
			got := c.Resolve([]string{row.grant}).Strings()
			if diff := cmp.Diff(row.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("resolved (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResolveKeepsTheOrderOfTheCatalogue(t *testing.T) {
	got := documented(t).Resolve([]string{"gone:read", "serp_api:write", "residential:*", "serp_api:write", "residential:read", "serp_api:read"})
	want := policy.PermissionSet{"residential:read", "residential:write", "residential:delete", "serp_api:read", "serp_api:write"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resolved (-want +got):\n%s", diff)
	}
	if got := documented(t).Resolve(nil); got == nil || len(got) != 0 {
		t.Errorf("got %#v for no grants, want an empty set", got)
	}
}
