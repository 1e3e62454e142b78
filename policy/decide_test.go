package policy_test

import (
	"net/netip"
	"testing"
	"time"

	"gatehouse/policy"

	"github.com/google/go-cmp/cmp"
)

const (
	readShared  policy.Permission = "datacenter_shared:read"
	writeShared policy.Permission = "datacenter_shared:write"
	readSerp    policy.Permission = "serp_api:read"

	subA policy.SubaccountID = "0b1e6f3c-1111-4222-8333-944455556661"
	subB policy.SubaccountID = "0b1e6f3c-1111-4222-8333-944455556662"
	subC policy.SubaccountID = "0b1e6f3c-1111-4222-8333-944455556663"
)

// expiry is the Unix second from which on the key of an allowed kase is dead.
const expiry int64 = 1_790_000_000

// kase is one question to Decide. Rows spoil one thing of an allowed one.
type kase struct {
	req     policy.Request
	key     *policy.Key
	account *policy.Account
}

func allowedKase() kase {
	return kase{
		req: policy.Request{
			At:         time.Unix(expiry-1000, 0),
			Client:     netip.MustParseAddr("203.0.113.7"),
			Subaccount: subA,
			Needs:      readShared,
		},
		key: &policy.Key{
			ID:          "6a7b8c9d-0000-4000-8000-000000000001",
			Account:     "acme",
			Permissions: policy.NewPermissionSet(readShared, writeShared),
			Subaccounts: policy.OnlySubaccounts(subA, subB),
			Addresses:   only("203.0.113.0/24", "2001:db8::/32"),
			Expiry:      policy.ExpiresAt(expiry),
			Active:      true,
		},
		account: &policy.Account{
			ID:          "acme",
			Status:      policy.Active,
			Permissions: policy.NewPermissionSet(readShared, writeShared, readSerp),
			Subaccounts: policy.OnlySubaccounts(subA, subB, subC),
		},
	}
}

func (c kase) decide() policy.Decision { return policy.Decide(c.req, c.key, c.account) }

func only(ranges ...string) policy.AddressSet {
	prefixes := make([]netip.Prefix, len(ranges))
	for i, s := range ranges {
		p, err := policy.ParsePrefix(s)
		if err != nil {
			panic(err)
		}
		prefixes[i] = p
	}
	return policy.OnlyAddresses(prefixes...)
}

func from(address string) func(*kase) {
	return func(c *kase) { c.req.Client = netip.MustParseAddr(address) }
}

type decideRow struct {
	name   string
	differ func(c *kase)
	want   policy.Reason
}

func decideRows() []decideRow {
	return []decideRow{
		{"nothing differs", func(*kase) {}, policy.Allowed},

		{"disabled key", func(c *kase) { c.key.Active = false }, policy.KeyDisabled},
		{"no key", func(c *kase) { c.key = nil }, policy.KeyDisabled},
		{"zero key", func(c *kase) { c.key = &policy.Key{} }, policy.KeyDisabled},
		{"zero key that is active", func(c *kase) { c.key = &policy.Key{Active: true} }, policy.AccountSuspended},

		{"suspended account", func(c *kase) { c.account.Status = policy.Suspended }, policy.AccountSuspended},
		{"account without a status", func(c *kase) { c.account.Status = "" }, policy.AccountSuspended},
		{"account of an unknown status", func(c *kase) { c.account.Status = "ACTIVE" }, policy.AccountSuspended},
		{"no account", func(c *kase) { c.account = nil }, policy.AccountSuspended},
		{"zero account", func(c *kase) { c.account = &policy.Account{} }, policy.AccountSuspended},
		{"key of another account", func(c *kase) { c.key.Account = "other" }, policy.AccountSuspended},
		{"key of an account of another letter case", func(c *kase) { c.key.Account = "Acme" }, policy.AccountSuspended},
		{"key without an account", func(c *kase) { c.key.Account = "" }, policy.AccountSuspended},
		{"the same account by another name", func(c *kase) { c.key.Account, c.account.ID = "other", "other" }, policy.Allowed},

		{"expired at this very second", func(c *kase) { c.req.At = time.Unix(expiry, 0) }, policy.KeyExpired},
		{"expired within this very second", func(c *kase) { c.req.At = time.Unix(expiry, 999_999_999) }, policy.KeyExpired},
		{"expired one second ago", func(c *kase) { c.req.At = time.Unix(expiry+1, 0) }, policy.KeyExpired},
		{"one second before it expires", func(c *kase) { c.req.At = time.Unix(expiry-1, 0) }, policy.Allowed},
		{"one nanosecond before it expires", func(c *kase) { c.req.At = time.Unix(expiry, -1) }, policy.Allowed},
		{"expired, asked from far east", func(c *kase) { c.req.At = time.Unix(expiry, 0).In(time.FixedZone("", 14*3600)) }, policy.KeyExpired},
		{"not expired, asked from far east", func(c *kase) { c.req.At = time.Unix(expiry-1, 0).In(time.FixedZone("", 14*3600)) }, policy.Allowed},
		{"forgotten expiry", func(c *kase) { c.key.Expiry = policy.Expiry{} }, policy.KeyExpired},
		{"forgotten time of the request", func(c *kase) { c.req.At = time.Time{} }, policy.KeyExpired},
		{"never expires, long after", func(c *kase) { c.key.Expiry, c.req.At = policy.NeverExpires(), time.Unix(1<<40, 0) }, policy.Allowed},

		{"first address of the range", from("203.0.113.0"), policy.Allowed},
		{"last address of the range", from("203.0.113.255"), policy.Allowed},
		{"one before the range", from("203.0.112.255"), policy.IPNotAllowed},
		{"one behind the range", from("203.0.114.0"), policy.IPNotAllowed},
		{"address of the second range", from("2001:db8::1"), policy.Allowed},
		{"one behind the second range", from("2001:db9::"), policy.IPNotAllowed},
		{"mapped address of the range", from("::ffff:203.0.113.7"), policy.Allowed},
		{"mapped address one behind the range", from("::ffff:203.0.114.0"), policy.IPNotAllowed},
		{"mapped address of the range with a zone", from("::ffff:203.0.113.7%eth0"), policy.Allowed},
		{"address of the range with a zone", from("2001:db8::1%eth0"), policy.Allowed},
		{"address one behind the range with a zone", from("2001:db9::%eth0"), policy.IPNotAllowed},
		{"IPv4-compatible spelling of the range", from("::203.0.113.7"), policy.IPNotAllowed},
		{"undetermined address", func(c *kase) { c.req.Client = netip.Addr{} }, policy.IPNotAllowed},
		{"undetermined address, key for any", func(c *kase) { c.req.Client, c.key.Addresses = netip.Addr{}, policy.AnyAddress() }, policy.Allowed},
		{"undetermined address, key for all of IPv4 and IPv6", func(c *kase) {
			c.req.Client, c.key.Addresses = netip.Addr{}, only("0.0.0.0/0", "::/0")
		}, policy.IPNotAllowed},
		{"IPv6 client, key for all of IPv4", func(c *kase) { from("2001:db8::1")(c); c.key.Addresses = only("0.0.0.0/0") }, policy.IPNotAllowed},
		{"IPv4 client, key for all of IPv6", func(c *kase) { c.key.Addresses = only("::/0") }, policy.IPNotAllowed},
		{"mapped client, key for all of IPv6", func(c *kase) { from("::ffff:203.0.113.7")(c); c.key.Addresses = only("::/0") }, policy.IPNotAllowed},
		{"forgotten addresses", func(c *kase) { c.key.Addresses = policy.AddressSet{} }, policy.IPNotAllowed},
		{"no addresses", func(c *kase) { c.key.Addresses = policy.OnlyAddresses() }, policy.IPNotAllowed},

		{"another subaccount of the key", func(c *kase) { c.req.Subaccount = subB }, policy.Allowed},
		{"subaccount of the account, not of the key", func(c *kase) { c.req.Subaccount = subC }, policy.SubaccountNotAllowed},
		{"the same, key for all", func(c *kase) { c.req.Subaccount, c.key.Subaccounts = subC, policy.AllSubaccounts() }, policy.Allowed},
		{"account lost the subaccount", func(c *kase) { c.account.Subaccounts = policy.OnlySubaccounts(subB, subC) }, policy.SubaccountNotAllowed},
		{"account lost the subaccount, key for all", func(c *kase) {
			c.account.Subaccounts, c.key.Subaccounts = policy.OnlySubaccounts(subB, subC), policy.AllSubaccounts()
		}, policy.SubaccountNotAllowed},
		{"account lost another subaccount", func(c *kase) { c.account.Subaccounts = policy.OnlySubaccounts(subA) }, policy.Allowed},
		{"subaccount in capitals", func(c *kase) { c.req.Subaccount = "0B1E6F3C-1111-4222-8333-944455556661" }, policy.SubaccountNotAllowed},
		{"no UUID as subaccount, key for all", func(c *kase) { c.req.Subaccount, c.key.Subaccounts = "..", policy.AllSubaccounts() }, policy.SubaccountNotAllowed},
		{"forgotten subaccounts of the key", func(c *kase) { c.key.Subaccounts = policy.SubaccountSet{} }, policy.SubaccountNotAllowed},
		{"forgotten subaccounts of the account", func(c *kase) { c.account.Subaccounts = policy.SubaccountSet{} }, policy.SubaccountNotAllowed},
		{"no subaccount in the path", func(c *kase) { c.req.Subaccount = "" }, policy.Allowed},
		{"no subaccount in the path, none on the key", func(c *kase) { c.req.Subaccount, c.key.Subaccounts = "", policy.SubaccountSet{} }, policy.Allowed},

		{"another permission of the key", func(c *kase) { c.req.Needs = writeShared }, policy.Allowed},
		{"permission of the account, not of the key", func(c *kase) { c.req.Needs = readSerp }, policy.PermissionDenied},
		{"permission of the key that the account lost", func(c *kase) { c.account.Permissions = policy.NewPermissionSet(writeShared) }, policy.PermissionDenied},
		{"account lost another permission", func(c *kase) { c.account.Permissions = policy.NewPermissionSet(readShared) }, policy.Allowed},
		{"permission of nobody", func(c *kase) { c.req.Needs = "datacenter_shared:delete" }, policy.PermissionDenied},
		{"permission in another letter case", func(c *kase) { c.req.Needs = "datacenter_shared:READ" }, policy.PermissionDenied},
		{"the beginning of a permission", func(c *kase) { c.req.Needs = "datacenter_shared" }, policy.PermissionDenied},
		{"star on the key", func(c *kase) { c.key.Permissions = policy.PermissionSet{"*", "datacenter_shared:*"} }, policy.PermissionDenied},
		{"star on the account", func(c *kase) { c.account.Permissions = policy.PermissionSet{"*", "datacenter_shared:*"} }, policy.PermissionDenied},
		{"forgotten need", func(c *kase) { c.req.Needs = "" }, policy.PermissionDenied},
		{"forgotten need, held by both", func(c *kase) {
			c.req.Needs, c.key.Permissions, c.account.Permissions = "", policy.PermissionSet{""}, policy.PermissionSet{""}
		}, policy.PermissionDenied},
		{"forgotten permissions of the key", func(c *kase) { c.key.Permissions = nil }, policy.PermissionDenied},
		{"forgotten permissions of the account", func(c *kase) { c.account.Permissions = nil }, policy.PermissionDenied},
		{"any valid key", func(c *kase) { c.req.Needs = policy.AnyValidKey }, policy.Allowed},
		{"any valid key, without a permission", func(c *kase) { c.req.Needs, c.key.Permissions = policy.AnyValidKey, nil }, policy.Allowed},
		{"any valid key, but disabled", func(c *kase) { c.req.Needs, c.key.Active = policy.AnyValidKey, false }, policy.KeyDisabled},
		{"any valid key, from elsewhere", func(c *kase) { from("198.51.100.1")(c); c.req.Needs = policy.AnyValidKey }, policy.IPNotAllowed},

		{"zero request, unlimited key", func(c *kase) {
			c.req, c.key.Expiry, c.key.Addresses = policy.Request{}, policy.NeverExpires(), policy.AnyAddress()
		}, policy.PermissionDenied},
		{"nothing at all", func(c *kase) { *c = kase{} }, policy.KeyDisabled},
	}
}

func TestDecideAllowsOnlyWhatKeyAndAccountBothAllow(t *testing.T) {
	for _, row := range decideRows() {
		t.Run(row.name, func(t *testing.T) {
			c := allowedKase()
			row.differ(&c)
			got := c.decide()
			if got.Reason != row.want {
				t.Errorf("got reason %q, want %q", got.Reason, row.want)
			}
			if got.Allowed() != (row.want == policy.Allowed) {
				t.Errorf("got Allowed() %v for reason %q", got.Allowed(), got.Reason)
			}
		})
	}
}

func TestEveryReasonHasARow(t *testing.T) {
	seen := make(map[policy.Reason]bool)
	for _, row := range decideRows() {
		seen[row.want] = true
	}
	for _, reason := range policy.Reasons() {
		if !seen[reason] {
			t.Errorf("got no row with reason %q, want one", reason)
		}
		delete(seen, reason)
	}
	for reason := range seen {
		t.Errorf("got a row with reason %q, which Reasons() does not name", reason)
	}
}

func TestOfTwoFaultsTheEarlierReasonIsGiven(t *testing.T) {
	spoil := map[policy.Reason]func(*kase){
		policy.KeyDisabled:          func(c *kase) { c.key.Active = false },
		policy.AccountSuspended:     func(c *kase) { c.account.Status = policy.Suspended },
		policy.KeyExpired:           func(c *kase) { c.req.At = time.Unix(expiry, 0) },
		policy.IPNotAllowed:         func(c *kase) { c.req.Client = netip.MustParseAddr("198.51.100.7") },
		policy.SubaccountNotAllowed: func(c *kase) { c.req.Subaccount = subC },
		policy.PermissionDenied:     func(c *kase) { c.req.Needs = readSerp },
		policy.Allowed:              func(*kase) {},
	}
	reasons := policy.Reasons()
	for i, earlier := range reasons {
		for _, later := range reasons[i:] {
			c := allowedKase()
			spoil[later](&c)
			spoil[earlier](&c)
			if got := c.decide().Reason; got != earlier {
				t.Errorf("with %q and %q: got %q, want %q", earlier, later, got, earlier)
			}
		}
	}
}

func TestZeroRequestIsRefusedWhateverTheKeyHolds(t *testing.T) {
	c := allowedKase()
	c.req = policy.Request{}
	if c.decide().Allowed() {
		t.Error("limited key: got allowed, want a refusal")
	}
	c.account.Subaccounts = policy.AllSubaccounts()
	c.key = &policy.Key{
		Account: "acme", Active: true, Expiry: policy.NeverExpires(), Addresses: policy.AnyAddress(),
		Subaccounts: policy.AllSubaccounts(), Permissions: c.account.Permissions,
	}
	if c.decide().Allowed() {
		t.Error("unlimited key: got allowed, want a refusal")
	}
}

func TestZeroDecisionRefuses(t *testing.T) {
	if (policy.Decision{}).Allowed() {
		t.Error("got a zero Decision that is allowed")
	}
	if got, want := (policy.Decision{}).Detail(), "This request is not allowed."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRefusalExplainsItself(t *testing.T) {
	rows := []struct {
		name   string
		differ func(c *kase)
		want   string
	}{
		{"allowed", func(*kase) {}, ""},
		{"disabled key", func(c *kase) { c.key.Active = false }, "This key is disabled."},
		{"suspended account", func(c *kase) { c.account.Status = policy.Suspended }, "The account of this key is suspended."},
		{"expired key", func(c *kase) { c.req.At = time.Unix(expiry, 0) }, "This key has expired."},
		{"address", from("198.51.100.7"), "This key may not be used from 198.51.100.7."},
		{"mapped address, as the IPv4 address that was judged", from("::ffff:198.51.100.7"), "This key may not be used from 198.51.100.7."},
		{"zoned address, without our interface's name", from("fe80::1%eth0"), "This key may not be used from fe80::1."},
		{
			"undetermined address", func(c *kase) { c.req.Client = netip.Addr{} },
			"This key may only be used from certain addresses, and the address of this request could not be determined.",
		},
		{"subaccount of the account", func(c *kase) { c.req.Subaccount = subC }, "This key may not be used for this subaccount."},
		{
			"subaccount that does not exist, in the same words",
			func(c *kase) { c.req.Subaccount = "ffffffff-ffff-4fff-8fff-ffffffffffff" },
			"This key may not be used for this subaccount.",
		},
		{"permission", func(c *kase) { c.req.Needs = readSerp }, "This key lacks the permission serp_api:read."},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := allowedKase()
			row.differ(&c)
			if diff := cmp.Diff(row.want, c.decide().Detail()); diff != "" {
				t.Errorf("detail (-want +got):\n%s", diff)
			}
		})
	}
}

// A refusal for a permission or an address must carry what the answer names,
// and no other decision may carry either.
func TestDecisionNamesWhatWasRefused(t *testing.T) {
	for _, row := range decideRows() {
		c := allowedKase()
		row.differ(&c)
		got := c.decide()
		want := policy.Decision{Reason: row.want}
		switch row.want {
		case policy.IPNotAllowed:
			want.Client = c.req.Client.Unmap().WithZone("")
		case policy.PermissionDenied:
			want.Needs = c.req.Needs
		case policy.KeyDisabled, policy.AccountSuspended, policy.KeyExpired, policy.SubaccountNotAllowed, policy.Allowed:
		}
		if got != want {
			t.Errorf("%s: got %+v, want %+v", row.name, got, want)
		}
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	for _, row := range decideRows() {
		c := allowedKase()
		row.differ(&c)
		if allocs := testing.AllocsPerRun(100, func() { c.decide() }); allocs != 0 {
			t.Errorf("%s: got %v allocations, want 0", row.name, allocs)
		}
	}
	many := allowedKase()
	ids := manySubaccounts(1000)
	many.key.Subaccounts, many.account.Subaccounts = policy.OnlySubaccounts(ids...), policy.OnlySubaccounts(ids...)
	many.req.Subaccount = ids[999]
	if allocs := testing.AllocsPerRun(100, func() { many.decide() }); allocs != 0 || !many.decide().Allowed() {
		t.Errorf("1,000 subaccounts: got %v allocations and %q, want 0 and %q", allocs, many.decide().Reason, policy.Allowed)
	}
}

func TestOnlyReadsAreSafeToRepeat(t *testing.T) {
	rows := []struct {
		permission policy.Permission
		want       bool
	}{
		{readShared, true},
		{policy.ReadKeys, true},
		{writeShared, false},
		{"datacenter_shared:delete", false},
		{policy.RegenerateKeys, false},
		{"read:write", false},
		{"product:spread", false},
		{"product:READ", false},
		{"read", false},
		{policy.AnyValidKey, false},
		{"", false},
	}
	for _, row := range rows {
		if got := row.permission.SafeToRepeat(); got != row.want {
			t.Errorf("%q: got %v, want %v", row.permission, got, row.want)
		}
	}
}
