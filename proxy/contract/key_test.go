package contract_test

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// same compares keys and accounts by what they mean.
var same = cmp.Options{
	cmp.AllowUnexported(policy.AddressSet{}, policy.Expiry{}),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func newKey() contract.NewKey {
	return contract.NewKey{Name: "CI", Permissions: []string{"datacenter_shared:read"}}
}

func seconds(at int64) *int64 { return &at }

func TestNewKey(t *testing.T) {
	t.Parallel()
	asked := func() keystore.NewKey {
		return keystore.NewKey{
			Name: "CI", Permissions: policy.NewPermissionSet("datacenter_shared:read"),
			Subaccounts: []policy.SubaccountID{}, Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
		}
	}
	addresses := func(list ...string) policy.AddressSet {
		prefixes := make([]netip.Prefix, len(list))
		for i, s := range list {
			prefixes[i] = netip.MustParsePrefix(s)
		}
		return policy.OnlyAddresses(prefixes...)
	}
	for _, row := range []struct {
		name   string
		change func(*contract.NewKey)
		want   func(*keystore.NewKey)
	}{
		{"minimal", func(*contract.NewKey) {}, func(*keystore.NewKey) {}},
		{"a name is trimmed", func(k *contract.NewKey) { k.Name = " \t\u00a0CI pipeline \n" }, func(k *keystore.NewKey) { k.Name = "CI pipeline" }},
		{"a name of 1 character", func(k *contract.NewKey) { k.Name = "ä" }, func(k *keystore.NewKey) { k.Name = "ä" }},
		{"a name of 100 characters", func(k *contract.NewKey) { k.Name = " " + strings.Repeat("😀", 100) }, func(k *keystore.NewKey) { k.Name = strings.Repeat("😀", 100) }},
		{
			"permissions keep their order, less duplicates",
			func(k *contract.NewKey) {
				k.Permissions = []string{"serp_api:read", "account:apikeys:create", "serp_api:read", "datacenter_shared:read"}
			},
			func(k *keystore.NewKey) {
				k.Permissions = policy.PermissionSet{"serp_api:read", "account:apikeys:create", "datacenter_shared:read"}
			},
		},
		{
			"subaccounts in any letter case, less duplicates",
			func(k *contract.NewKey) { k.AllowedSubaccounts = []string{subB, strings.ToUpper(subA), subA, subB} },
			func(k *keystore.NewKey) { k.Subaccounts = []policy.SubaccountID{subB, subA} },
		},
		{"empty lists", func(k *contract.NewKey) { k.AllowedSubaccounts, k.AllowedIPs = []string{}, []string{} }, func(*keystore.NewKey) {}},
		{
			"addresses in canonical form, less duplicates",
			func(k *contract.NewKey) {
				k.AllowedIPs = []string{"203.0.113.9/24", "203.0.113.0/24", "198.51.100.7", "198.51.100.7/32", "::ffff:198.51.100.7", "2001:DB8::1", "2001:db8::/32"}
			},
			func(k *keystore.NewKey) {
				k.Addresses = addresses("203.0.113.0/24", "198.51.100.7/32", "2001:db8::1/128", "2001:db8::/32")
			},
		},
		{"100 addresses", func(k *contract.NewKey) { k.AllowedIPs = manyAddresses(100) }, func(k *keystore.NewKey) {
			var list []string
			for _, a := range manyAddresses(100) {
				list = append(list, a+"/32")
			}
			k.Addresses = addresses(list...)
		}},
		{
			"every address, said aloud", func(k *contract.NewKey) { k.AllowedIPs = []string{"0.0.0.0/0", "::/0"} },
			func(k *keystore.NewKey) { k.Addresses = addresses("0.0.0.0/0", "::/0") },
		},
		{
			"an expiry in the next second", func(k *contract.NewKey) { k.ExpiresAt = seconds(now.Unix() + 1) },
			func(k *keystore.NewKey) { k.Expiry = policy.ExpiresAt(now.Unix() + 1) },
		},
		{
			"an expiry in the last second there is", func(k *contract.NewKey) { k.ExpiresAt = seconds(253402300799) },
			func(k *keystore.NewKey) { k.Expiry = policy.ExpiresAt(253402300799) },
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k, want := newKey(), asked()
			row.change(&k)
			row.want(&want)
			got, err := k.Parse(account(), catalogue(t), now)
			if diff := cmp.Diff(want, got, same); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func manyAddresses(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("10.0.%d.%d", i/256, i%256)
	}
	return list
}

func TestNewKeyIsRefused(t *testing.T) {
	t.Parallel()
	name := func(s string) func(*contract.NewKey) { return func(k *contract.NewKey) { k.Name = s } }
	permissions := func(list ...string) func(*contract.NewKey) {
		return func(k *contract.NewKey) { k.Permissions = list }
	}
	subaccounts := func(list ...string) func(*contract.NewKey) {
		return func(k *contract.NewKey) { k.AllowedSubaccounts = list }
	}
	ips := func(list ...string) func(*contract.NewKey) { return func(k *contract.NewKey) { k.AllowedIPs = list } }
	expiry := func(at int64) func(*contract.NewKey) { return func(k *contract.NewKey) { k.ExpiresAt = &at } }
	for _, row := range []struct {
		name   string
		change func(*contract.NewKey)
		fields []string
	}{
		{"no name", name(""), []string{"name"}},
		{"a name of white space", name(" \t\u2003\n"), []string{"name"}},
		{"a name of 101 characters", name(strings.Repeat("ä", 101)), []string{"name"}},
		{"a line in a name", name("a\nb"), []string{"name"}},
		{"a NUL in a name", name("a\x00b"), []string{"name"}},
		{"DEL in a name", name("a\x7fb"), []string{"name"}},
		{"an upper control character in a name", name("a\u0085b"), []string{"name"}},
		{"a line separator in a name", name("a\u2028b"), []string{"name"}},
		{"text that runs backwards", name("a\u202eb"), []string{"name"}},
		{"an isolate", name("a\u2066b"), []string{"name"}},
		{"a mark of direction", name("a\u200fb"), []string{"name"}},

		{"no permissions", permissions(), []string{"permissions"}},
		{"an unknown permission", permissions("datacenter_shared:read", "datacenter_shared:delete"), []string{"permissions[1]"}},
		{"a wildcard", permissions("*"), []string{"permissions[0]"}},
		{"a wildcard of a resource", permissions("datacenter_shared:*"), []string{"permissions[0]"}},
		{"another letter case", permissions("Datacenter_shared:read"), []string{"permissions[0]"}},
		{"a space", permissions(" datacenter_shared:read"), []string{"permissions[0]"}},
		{"an empty permission", permissions(""), []string{"permissions[0]"}},
		{"what every key may do is no permission", permissions(string(policy.AnyValidKey)), []string{"permissions[0]"}},

		{"a subaccount that is no UUID", subaccounts(subA, "x"), []string{"allowed_subaccounts[1]"}},
		{"a subaccount in braces", subaccounts("{" + subA + "}"), []string{"allowed_subaccounts[0]"}},
		{"a subaccount without dashes", subaccounts(strings.ReplaceAll(subA, "-", "")), []string{"allowed_subaccounts[0]"}},
		{"an empty subaccount", subaccounts(""), []string{"allowed_subaccounts[0]"}},
		{"a subaccount of another account", subaccounts(subA, subC), []string{"allowed_subaccounts[1]"}},
		{"all of them in words", subaccounts("*"), []string{"allowed_subaccounts[0]"}},

		{"a host name", ips("localhost"), []string{"allowed_ips[0]"}},
		{"an empty address", ips("1.2.3.4", ""), []string{"allowed_ips[1]"}},
		{"an address with a port", ips("1.2.3.4:80"), []string{"allowed_ips[0]"}},
		{"leading zeros", ips("010.0.0.1"), []string{"allowed_ips[0]"}},
		{"a length with leading zeros", ips("10.0.0.0/08"), []string{"allowed_ips[0]"}},
		{"a short address", ips("10.0.1"), []string{"allowed_ips[0]"}},
		{"a number", ips("167772161"), []string{"allowed_ips[0]"}},
		{"a zone", ips("fe80::1%eth0"), []string{"allowed_ips[0]"}},
		{"a zone with a length", ips("fe80::1%eth0/64"), []string{"allowed_ips[0]"}},
		{"a mapped range", ips("::ffff:10.0.0.0/104"), []string{"allowed_ips[0]"}},
		{"a length too long", ips("10.0.0.0/33"), []string{"allowed_ips[0]"}},
		{"a negative length", ips("10.0.0.0/-1"), []string{"allowed_ips[0]"}},
		{"a netmask", ips("10.0.0.0/255.0.0.0"), []string{"allowed_ips[0]"}},
		{"a wildcard address", ips("10.0.0.*"), []string{"allowed_ips[0]"}},
		{"a span", ips("10.0.0.1-10.0.0.9"), []string{"allowed_ips[0]"}},
		{"white space", ips(" 10.0.0.1"), []string{"allowed_ips[0]"}},
		{"101 addresses", ips(manyAddresses(101)...), []string{"allowed_ips"}},

		{"an expiry at this second", expiry(now.Unix()), []string{"expires_at"}},
		{"an expiry in the past", expiry(1), []string{"expires_at"}},
		{"an expiry of 0", expiry(0), []string{"expires_at"}},
		{"a negative expiry", expiry(math.MinInt64), []string{"expires_at"}},
		{"an expiry in the year 10000", expiry(253402300800), []string{"expires_at"}},
		{"an expiry in milliseconds", expiry(now.UnixMilli() * 1000), []string{"expires_at"}},
		{"an expiry at the end of 64 bits", expiry(math.MaxInt64), []string{"expires_at"}},

		{"everything at once", func(k *contract.NewKey) {
			*k = contract.NewKey{Permissions: []string{"x"}, AllowedSubaccounts: []string{"x"}, AllowedIPs: []string{"x"}, ExpiresAt: seconds(1)}
		}, []string{"name", "permissions[0]", "allowed_subaccounts[0]", "allowed_ips[0]", "expires_at"}},
		{"nothing at all", func(k *contract.NewKey) { *k = contract.NewKey{} }, []string{"name", "permissions"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := newKey()
			row.change(&k)
			_, err := k.Parse(account(), catalogue(t), now)
			refused(problem.ValidationFailed, row.fields...).check(t, err)
		})
	}
}

func TestFaultsAreAtMostTwenty(t *testing.T) {
	t.Parallel()
	many := slices.Repeat([]string{"x"}, 50)
	for name, k := range map[string]contract.NewKey{
		"permissions": {Name: "x", Permissions: many},
		"subaccounts": {Name: "x", Permissions: []string{"serp_api:read"}, AllowedSubaccounts: many},
		"addresses":   {Name: "x", Permissions: []string{"serp_api:read"}, AllowedIPs: many},
		"everything":  {Permissions: many, AllowedSubaccounts: many, AllowedIPs: many, ExpiresAt: seconds(0)},
	} {
		_, err := k.Parse(account(), catalogue(t), now)
		if n := len(problem.From(err).Fields); n != 20 {
			t.Errorf("%s: %d faults, want 20", name, n)
		}
	}
}

// TestExpiryThatIsRefusedIsNone: what comes with an error must not be a key
// that lives for ever.
func TestExpiryThatIsRefusedIsNone(t *testing.T) {
	t.Parallel()
	k := newKey()
	k.ExpiresAt = seconds(1)
	if got, err := k.Parse(account(), catalogue(t), now); err == nil || !got.Expiry.Passed(now) {
		t.Errorf("got %+v, %v", got.Expiry, err)
	}
}
