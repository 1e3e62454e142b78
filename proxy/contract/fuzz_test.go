package contract_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// checkRefused: whatever is sent, it is never our fault, and the answer is bounded.
func checkRefused(t *testing.T, err error) {
	t.Helper()
	var p *problem.Problem
	if !errors.As(err, &p) || p.Code.Status()/100 != 4 {
		t.Fatalf("got %v, want a 4xx problem", err)
	}
	if len(p.Fields) > 20 {
		t.Errorf("%d faults, want at most 20", len(p.Fields))
	}
	for _, f := range p.Fields {
		if len([]rune(f.Field)) > 140 || len(f.Detail) > 2000 || !utf8.ValidString(f.Field+f.Detail) {
			t.Errorf("the fault %q: %q", f.Field, f.Detail)
		}
	}
}

func checkName(t *testing.T, name string) {
	t.Helper()
	if name != strings.TrimSpace(name) || utf8.RuneCountInString(name) > 100 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		t.Errorf("the name %q was accepted", name)
	}
}

func FuzzNewKey(f *testing.F) {
	for _, s := range []string{
		minimal, `{"name":"CI","permissions":["serp_api:read","account:apikeys:read"],"allowed_subaccounts":["` + subA + `"],` +
			`"allowed_ips":["10.0.0.1/8","::ffff:1.2.3.4","2001:db8::/32","0.0.0.0/0"],"expires_at":1900000000}`,
		`{"name":"\ud800"}`, `{"name":null,"permissions":null}`, `null`, `{"expires_at":1e400}`, `{"name":"a","name":"b"}`, `[[[`, `{"a":{"a":{`,
		`{"name":"\u202e","permissions":[null]}`, `{"name":"x","permissions":["serp_api:read"],"allowed_ips":["fe80::1%1","1.2.3.4/0"]}`,
	} {
		f.Add([]byte(s))
	}
	c, a := catalogue(f), account()
	f.Fuzz(func(t *testing.T, body []byte) {
		k, err := readKey(post(strings.NewReader(string(body))))
		if err != nil {
			checkRefused(t, err)
			return
		}
		if !json.Valid(body) || !utf8.Valid(body) {
			t.Fatalf("%q is no JSON, and was accepted", body)
		}
		got, err := k.Parse(a, c, now)
		if err != nil {
			checkRefused(t, err)
			return
		}
		checkName(t, got.Name)
		if got.Name == "" || len(got.Permissions) == 0 || len(c.All().Missing(got.Permissions)) > 0 {
			t.Errorf("accepted without a name, or with the permissions %v", got.Permissions)
		}
		if len(a.Subaccounts.Missing(policy.OnlySubaccounts(got.Subaccounts...))) > 0 {
			t.Errorf("accepted with the subaccounts %v", got.Subaccounts)
		}
		if got.Expiry.Passed(now) || got.Addresses.Any() != (len(k.AllowedIPs) == 0) || (len(got.Subaccounts) == 0) != (len(k.AllowedSubaccounts) == 0) {
			t.Errorf("accepted as %+v", got)
		}
		checkAddresses(t, k.AllowedIPs, got.Addresses)

		// What is shown of the key asks for the same key again.
		again := contract.NewKey{
			Name: got.Name, Permissions: got.Permissions.Strings(), AllowedIPs: got.Addresses.Strings(),
			AllowedSubaccounts: contract.ShowSubaccounts(policy.OnlySubaccounts(got.Subaccounts...)), ExpiresAt: contract.ShowExpiry(got.Expiry),
		}
		encoded, err := json.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		k, err = readKey(post(strings.NewReader(string(encoded))))
		if err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
		second, err := k.Parse(a, c, now)
		if diff := cmp.Diff(got, second, same); err != nil || diff != "" {
			t.Errorf("%v (-first +second):\n%s", err, diff)
		}
	})
}

// checkAddresses: every address that was accepted means what netip reads in it.
func checkAddresses(t *testing.T, given []string, set policy.AddressSet) {
	t.Helper()
	shown := set.Strings()
	for _, s := range given {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil {
				t.Fatalf("%q is no address, and was accepted", s)
			}
			p = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		}
		if p.Addr().Zone() != "" || !set.Contains(p.Addr()) || !set.Contains(p.Masked().Addr()) {
			t.Errorf("%q became %v", s, shown)
		}
		single := p.Masked().String()
		if p.IsSingleIP() {
			single = p.Addr().String()
		}
		if !slices.Contains(shown, single) {
			t.Errorf("%q is not among %v as %s", s, shown, single)
		}
	}
}

func FuzzNewAccount(f *testing.F) {
	for _, s := range []string{
		`{"name":"Acme","permissions":["*"],"status":"suspended","subaccounts":[{"id":"` + subA + `","label":"x","product":"serp_api"}]}`,
		`{"permissions":[]}`, `{"permissions":null}`, `{"permissions":["serp_api:*",":*"],"subaccounts":[null,{}]}`, `{"status":null,"permissions":["*"]}`,
		`{"permissions":["*"],"plan":"gold"}`, `{"permissions":["*"],"plan":null}`, `{"permissions":["*"],"plan":""}`,
		`{"permissions":["*"],"subaccounts":[{"id":"` + subA + `","id":"` + subB + `"}]}`,
	} {
		f.Add([]byte(s))
	}
	c := catalogue(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := readAccount(post(strings.NewReader(string(body))))
		if err != nil {
			checkRefused(t, err)
			return
		}
		got, err := a.Parse("acme", c, products, plans)
		if err != nil {
			checkRefused(t, err)
			return
		}
		checkName(t, got.Name)
		if a.Permissions == nil || got.ID != "acme" || (got.Status != "" && got.Status != policy.Active && got.Status != policy.Suspended) || (got.Status == "") != (a.Status == nil) {
			t.Errorf("accepted as %+v", got)
		}
		for _, g := range got.Permissions {
			if len(c.Resolve([]string{g})) == 0 {
				t.Errorf("the grant %q stands for nothing", g)
			}
		}
		for i, s := range got.Subaccounts {
			checkName(t, s.Label)
			if id, err := policy.ParseSubaccountID(string(s.ID)); err != nil || id != s.ID || !slices.Contains(products, s.Product) {
				t.Errorf("the subaccount %+v was accepted", s)
			}
			if slices.ContainsFunc(got.Subaccounts[:i], func(o policy.Subaccount) bool { return o.ID == s.ID }) {
				t.Errorf("the subaccount %s is there twice", s.ID)
			}
		}
		if got.Plan != "" && !slices.Contains(plans, got.Plan) {
			t.Errorf("the plan %q was accepted", got.Plan)
		}
		shown := contract.ShowAccount(got)
		again := contract.NewAccount{Name: shown.Name, Permissions: grants(shown.Permissions...), Status: a.Status, Plan: shown.Plan}
		for i := range shown.Subaccounts {
			again.Subaccounts = append(again.Subaccounts, &shown.Subaccounts[i])
		}
		second, err := again.Parse("acme", c, products, plans)
		if diff := cmp.Diff(got, second); err != nil || diff != "" {
			t.Errorf("%v (-first +second):\n%s", err, diff)
		}
	})
}
