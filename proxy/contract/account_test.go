package contract_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

var (
	products = []string{"datacenter_shared", "serp_api"}
	plans    = []string{"gold", "silver"}
)

func grants(list ...string) *contract.Strings {
	s := contract.Strings(list)
	return &s
}

func status(s string) *string { return &s }

func newAccount() contract.NewAccount {
	return contract.NewAccount{
		Name: "Acme", Permissions: grants("datacenter_shared:*"),
		Subaccounts: []*contract.Subaccount{{ID: subA, Label: "EU scraping", Product: "datacenter_shared"}},
	}
}

func TestNewAccount(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*contract.NewAccount)
		want   func(*keystore.Account)
	}{
		{"as documented", func(*contract.NewAccount) {}, func(*keystore.Account) {}},
		{"a status that is left out stays open", func(a *contract.NewAccount) { a.Status = nil }, func(a *keystore.Account) { a.Status = "" }},
		{"active", func(a *contract.NewAccount) { a.Status = status("active") }, func(a *keystore.Account) { a.Status = policy.Active }},
		{"suspended", func(a *contract.NewAccount) { a.Status = status("suspended") }, func(a *keystore.Account) { a.Status = policy.Suspended }},
		{"a name is trimmed", func(a *contract.NewAccount) { a.Name = " Acme\t" }, func(*keystore.Account) {}},
		{"no permissions, said aloud", func(a *contract.NewAccount) { a.Permissions = grants() }, func(a *keystore.Account) { a.Permissions = []string{} }},
		{
			"grants are kept as they are, less duplicates",
			func(a *contract.NewAccount) {
				a.Permissions = grants("*", "account:apikeys:*", "serp_api:read", "*", "datacenter_shared:*")
			},
			func(a *keystore.Account) {
				a.Permissions = []string{"*", "account:apikeys:*", "serp_api:read", "datacenter_shared:*"}
			},
		},
		{"no subaccounts", func(a *contract.NewAccount) { a.Subaccounts = nil }, func(a *keystore.Account) { a.Subaccounts = []policy.Subaccount{} }},
		{"a subaccount in capitals", func(a *contract.NewAccount) { a.Subaccounts[0].ID = strings.ToUpper(subA) }, func(*keystore.Account) {}},
		{"a plan", func(a *contract.NewAccount) { a.Plan = status("gold") }, func(a *keystore.Account) { a.Plan = "gold" }},
		{"a label is trimmed", func(a *contract.NewAccount) { a.Subaccounts[0].Label = " EU scraping " }, func(*keystore.Account) {}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := newAccount()
			want := keystore.Account{
				ID: "acme", Name: "Acme", Permissions: []string{"datacenter_shared:*"},
				Subaccounts: []policy.Subaccount{{ID: subA, Label: "EU scraping", Product: "datacenter_shared"}},
			}
			row.change(&a)
			row.want(&want)
			got, err := a.Parse("acme", catalogue(t), products, plans)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestNewAccountIsRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*contract.NewAccount)
		fields []string
	}{
		{"permissions left out", func(a *contract.NewAccount) { a.Permissions = nil }, []string{"permissions"}},
		{"an unknown permission", func(a *contract.NewAccount) { a.Permissions = grants("serp_api:read", "serp_api:write") }, []string{"permissions[1]"}},
		{"an unknown resource", func(a *contract.NewAccount) { a.Permissions = grants("serp:*") }, []string{"permissions[0]"}},
		{"half a resource", func(a *contract.NewAccount) { a.Permissions = grants("account:*") }, []string{"permissions[0]"}},
		{"a wildcard of actions", func(a *contract.NewAccount) { a.Permissions = grants("*:read") }, []string{"permissions[0]"}},
		{"two wildcards", func(a *contract.NewAccount) { a.Permissions = grants("*:*") }, []string{"permissions[0]"}},
		{"an empty grant", func(a *contract.NewAccount) { a.Permissions = grants("") }, []string{"permissions[0]"}},
		{"a wildcard of nothing", func(a *contract.NewAccount) { a.Permissions = grants(":*") }, []string{"permissions[0]"}},
		{"an unknown status", func(a *contract.NewAccount) { a.Status = status("paused") }, []string{"status"}},
		{"an empty status", func(a *contract.NewAccount) { a.Status = status("") }, []string{"status"}},
		{"a status in capitals", func(a *contract.NewAccount) { a.Status = status("Active") }, []string{"status"}},
		{"an unknown plan", func(a *contract.NewAccount) { a.Plan = status("golden") }, []string{"plan"}},
		{"an empty plan", func(a *contract.NewAccount) { a.Plan = status("") }, []string{"plan"}},
		{"a plan in capitals", func(a *contract.NewAccount) { a.Plan = status("Gold") }, []string{"plan"}},
		{"a name of 101 characters", func(a *contract.NewAccount) { a.Name = strings.Repeat("a", 101) }, []string{"name"}},
		{"a line in a name", func(a *contract.NewAccount) { a.Name = "a\r\nb" }, []string{"name"}},
		{"a subaccount that is no UUID", func(a *contract.NewAccount) { a.Subaccounts[0].ID = "eu" }, []string{"subaccounts[0].id"}},
		{"a subaccount without an id", func(a *contract.NewAccount) { a.Subaccounts[0].ID = "" }, []string{"subaccounts[0].id"}},
		{"a subaccount twice", func(a *contract.NewAccount) {
			a.Subaccounts = append(a.Subaccounts, &contract.Subaccount{ID: strings.ToUpper(subA), Product: "serp_api"})
		}, []string{"subaccounts[1].id"}},
		{"a subaccount that is null", func(a *contract.NewAccount) { a.Subaccounts = append(a.Subaccounts, nil) }, []string{"subaccounts[1]"}},
		{"an unknown product", func(a *contract.NewAccount) { a.Subaccounts[0].Product = "serp" }, []string{"subaccounts[0].product"}},
		{"no product", func(a *contract.NewAccount) { a.Subaccounts[0].Product = "" }, []string{"subaccounts[0].product"}},
		{"a line in a label", func(a *contract.NewAccount) { a.Subaccounts[0].Label = "a\nb" }, []string{"subaccounts[0].label"}},
		{"a label of 101 characters", func(a *contract.NewAccount) { a.Subaccounts[0].Label = strings.Repeat("a", 101) }, []string{"subaccounts[0].label"}},
		{"everything at once", func(a *contract.NewAccount) {
			*a = contract.NewAccount{Name: "\n\x00x", Status: status("x"), Permissions: grants("x"), Subaccounts: []*contract.Subaccount{{Label: "a\x00b"}}}
		}, []string{"name", "status", "permissions[0]", "subaccounts[0].id", "subaccounts[0].label", "subaccounts[0].product"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := newAccount()
			row.change(&a)
			_, err := a.Parse("acme", catalogue(t), products, plans)
			refused(problem.ValidationFailed, row.fields...).check(t, err)
		})
	}
}

func TestAccountFaultsAreAtMostTwenty(t *testing.T) {
	t.Parallel()
	a := contract.NewAccount{Permissions: grants(strings.Split(strings.Repeat("x,", 50), ",")...)}
	for range 50 {
		a.Subaccounts = append(a.Subaccounts, &contract.Subaccount{ID: strings.Repeat("ä", 1000)})
	}
	_, err := a.Parse("acme", catalogue(t), products, plans)
	if n := len(problem.From(err).Fields); n != 20 {
		t.Errorf("%d faults, want 20", n)
	}
}

func TestShownAccountHasEveryField(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_780_000_000, 999)
	got := contract.ShowAccount(keystore.Account{ID: "acme", Status: policy.Suspended, CreatedAt: at, UpdatedAt: at.Add(time.Hour)})
	want := contract.Account{
		ID: "acme", Status: "suspended", Permissions: []string{}, Subaccounts: []contract.Subaccount{},
		CreatedAt: 1_780_000_000, UpdatedAt: 1_780_003_600,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
