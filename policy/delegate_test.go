package policy_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gatehouse/policy"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// handover is one question to CheckGrant. Rows change one thing of one in
// which a limited key hands on a part of what it holds.
type handover struct {
	caller policy.Caller
	grant  policy.Grant
	by     policy.Delegation
}

func allowedHandover() handover {
	c := allowedKase()
	return handover{
		caller: policy.Caller{Account: c.account, Key: c.key, Client: c.req.Client},
		grant: policy.Grant{
			Permissions: policy.NewPermissionSet(readShared),
			Subaccounts: policy.OnlySubaccounts(subA),
			Addresses:   only("203.0.113.0/28"),
			Expiry:      policy.ExpiresAt(expiry - 500),
		},
		by: policy.Delegation{InheritAddresses: true, CapExpiry: true},
	}
}

func prefixes(ranges ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(ranges))
	for i, s := range ranges {
		list[i] = netip.MustParsePrefix(s)
	}
	return list
}

func TestNobodyHandsOnMoreThanTheyHold(t *testing.T) {
	person := func(h *handover) { h.caller.Key = nil }
	rows := []struct {
		name   string
		differ func(h *handover)
		want   *policy.Excess
	}{
		{"nothing differs", func(*handover) {}, nil},
		{"all that the key holds", func(h *handover) { h.grant = h.caller.Key.Grant() }, nil},
		{"nothing at all", func(h *handover) { h.grant = policy.Grant{} }, nil},

		{"permission of the account, not of the key", func(h *handover) {
			h.grant.Permissions = policy.NewPermissionSet(readSerp, readShared)
		}, &policy.Excess{Permissions: policy.PermissionSet{readSerp}}},
		{"permission of the key that the account lost", func(h *handover) {
			h.caller.Account.Permissions = policy.NewPermissionSet(writeShared)
		}, &policy.Excess{Permissions: policy.PermissionSet{readShared}}},
		{"permission of nobody", func(h *handover) {
			h.grant.Permissions = policy.NewPermissionSet(policy.CreateKeys)
		}, &policy.Excess{Permissions: policy.PermissionSet{policy.CreateKeys}}},
		{"two permissions of nobody, in their order", func(h *handover) {
			h.grant.Permissions = policy.NewPermissionSet("z:z", readShared, "a:a")
		}, &policy.Excess{Permissions: policy.PermissionSet{"z:z", "a:a"}}},
		{"empty permission", func(h *handover) {
			h.grant.Permissions = policy.PermissionSet{""}
		}, &policy.Excess{Permissions: policy.PermissionSet{""}}},
		{"what only routes need", func(h *handover) {
			h.grant.Permissions = policy.PermissionSet{policy.AnyValidKey}
		}, &policy.Excess{Permissions: policy.PermissionSet{policy.AnyValidKey}}},
		{"star", func(h *handover) {
			h.grant.Permissions = policy.PermissionSet{"*"}
		}, &policy.Excess{Permissions: policy.PermissionSet{"*"}}},
		{"key without permissions", func(h *handover) {
			h.caller.Key.Permissions = nil
		}, &policy.Excess{Permissions: policy.PermissionSet{readShared}}},
		{"person, permission of the account", func(h *handover) { person(h); h.grant.Permissions = policy.NewPermissionSet(readSerp) }, nil},
		{"person, permission of nobody", func(h *handover) {
			person(h)
			h.grant.Permissions = policy.NewPermissionSet(policy.CreateKeys)
		}, &policy.Excess{Permissions: policy.PermissionSet{policy.CreateKeys}}},

		{"another subaccount of the key", func(h *handover) { h.grant.Subaccounts = policy.OnlySubaccounts(subB) }, nil},
		{"subaccount of the account, not of the key", func(h *handover) {
			h.grant.Subaccounts = policy.OnlySubaccounts(subA, subC)
		}, &policy.Excess{Subaccounts: []policy.SubaccountID{subC}}},
		{"subaccount of the key that the account lost", func(h *handover) {
			h.caller.Account.Subaccounts = policy.OnlySubaccounts(subB, subC)
		}, &policy.Excess{Subaccounts: []policy.SubaccountID{subA}}},
		{"subaccount of nobody, key for all", func(h *handover) {
			h.caller.Key.Subaccounts = policy.AllSubaccounts()
			h.grant.Subaccounts = policy.OnlySubaccounts("ffffffff-ffff-4fff-8fff-ffffffffffff")
		}, &policy.Excess{Subaccounts: []policy.SubaccountID{"ffffffff-ffff-4fff-8fff-ffffffffffff"}}},
		{"empty subaccount, key for all", func(h *handover) {
			h.caller.Key.Subaccounts = policy.AllSubaccounts()
			h.grant.Subaccounts = policy.OnlySubaccounts("")
		}, &policy.Excess{Subaccounts: []policy.SubaccountID{""}}},
		{"all subaccounts by a limited key", func(h *handover) {
			h.grant.Subaccounts = policy.AllSubaccounts()
		}, &policy.Excess{AllSubaccounts: true}},
		{"all subaccounts by a key limited to all there are", func(h *handover) {
			h.caller.Key.Subaccounts = policy.OnlySubaccounts(subA, subB, subC)
			h.grant.Subaccounts = policy.AllSubaccounts()
		}, &policy.Excess{AllSubaccounts: true}},
		{"all subaccounts by a key without any", func(h *handover) {
			h.caller.Key.Subaccounts = policy.SubaccountSet{}
			h.grant.Subaccounts = policy.AllSubaccounts()
		}, &policy.Excess{AllSubaccounts: true}},
		{"all subaccounts by a key for all", func(h *handover) {
			h.caller.Key.Subaccounts = policy.AllSubaccounts()
			h.grant.Subaccounts = policy.AllSubaccounts()
		}, nil},
		{"all subaccounts by a person", func(h *handover) { person(h); h.grant.Subaccounts = policy.AllSubaccounts() }, nil},
		{"subaccount of nobody, by a person", func(h *handover) {
			person(h)
			h.grant.Subaccounts = policy.OnlySubaccounts("ffffffff-ffff-4fff-8fff-ffffffffffff")
		}, &policy.Excess{Subaccounts: []policy.SubaccountID{"ffffffff-ffff-4fff-8fff-ffffffffffff"}}},

		{"range one bit wider", func(h *handover) {
			h.grant.Addresses = only("203.0.113.7", "203.0.112.0/23")
		}, &policy.Excess{Addresses: prefixes("203.0.112.0/23")}},
		{"range one bit wider, not inherited", func(h *handover) {
			h.by.InheritAddresses = false
			h.grant.Addresses = only("203.0.112.0/23")
		}, nil},
		{"exactly the range", func(h *handover) { h.grant.Addresses = only("203.0.113.0/24") }, nil},
		{"any address", func(h *handover) { h.grant.Addresses = policy.AnyAddress() }, &policy.Excess{AnyAddress: true}},
		{"any address, not inherited", func(h *handover) {
			h.by.InheritAddresses = false
			h.grant.Addresses = policy.AnyAddress()
		}, nil},
		{"any address by a key for all of IPv4 and IPv6", func(h *handover) {
			h.caller.Key.Addresses = only("0.0.0.0/0", "::/0")
			h.grant.Addresses = policy.AnyAddress()
		}, &policy.Excess{AnyAddress: true}},
		{"any address by a key for any", func(h *handover) {
			h.caller.Key.Addresses = policy.AnyAddress()
			h.grant.Addresses = policy.AnyAddress()
		}, nil},
		{"any address by a key for none", func(h *handover) {
			h.caller.Key.Addresses = policy.AddressSet{}
			h.grant.Addresses = policy.AnyAddress()
		}, &policy.Excess{AnyAddress: true}},
		{"some address by a key for none", func(h *handover) {
			h.caller.Key.Addresses = policy.AddressSet{}
		}, &policy.Excess{Addresses: prefixes("203.0.113.0/28")}},
		{"any address by a person", func(h *handover) { person(h); h.grant.Addresses = policy.AnyAddress() }, nil},

		{"as long as the key", func(h *handover) { h.grant.Expiry = policy.ExpiresAt(expiry) }, nil},
		{"one second longer", func(h *handover) { h.grant.Expiry = policy.ExpiresAt(expiry + 1) }, &policy.Excess{Expiry: true}},
		{"one second longer, not capped", func(h *handover) {
			h.by.CapExpiry = false
			h.grant.Expiry = policy.ExpiresAt(expiry + 1)
		}, nil},
		{"for ever", func(h *handover) { h.grant.Expiry = policy.NeverExpires() }, &policy.Excess{Expiry: true}},
		{"for ever, not capped", func(h *handover) {
			h.by.CapExpiry = false
			h.grant.Expiry = policy.NeverExpires()
		}, nil},
		{"for ever by a key for ever", func(h *handover) {
			h.caller.Key.Expiry = policy.NeverExpires()
			h.grant.Expiry = policy.NeverExpires()
		}, nil},
		{"some time by a key of forgotten expiry", func(h *handover) { h.caller.Key.Expiry = policy.Expiry{} }, &policy.Excess{Expiry: true}},
		{"for ever by a person", func(h *handover) { person(h); h.grant.Expiry = policy.NeverExpires() }, nil},

		{"too much of everything", func(h *handover) {
			h.grant = policy.Grant{
				Permissions: policy.NewPermissionSet(readSerp),
				Subaccounts: policy.OnlySubaccounts(subC),
				Addresses:   only("10.0.0.0/8"),
				Expiry:      policy.NeverExpires(),
			}
		}, &policy.Excess{
			Permissions: policy.PermissionSet{readSerp},
			Subaccounts: []policy.SubaccountID{subC},
			Addresses:   prefixes("10.0.0.0/8"),
			Expiry:      true,
		}},
		{"zero key", func(h *handover) { h.caller.Key = &policy.Key{} }, &policy.Excess{
			Permissions: policy.PermissionSet{readShared},
			Subaccounts: []policy.SubaccountID{subA},
			Addresses:   prefixes("203.0.113.0/28"),
			Expiry:      true,
		}},
		{"zero account", func(h *handover) { h.caller.Account = &policy.Account{} }, &policy.Excess{
			Permissions: policy.PermissionSet{readShared},
			Subaccounts: []policy.SubaccountID{subA},
		}},
		{"no account", func(h *handover) { h.caller.Account = nil }, &policy.Excess{
			Permissions: policy.PermissionSet{readShared},
			Subaccounts: []policy.SubaccountID{subA},
		}},
		{"nobody, all subaccounts", func(h *handover) {
			h.caller = policy.Caller{}
			h.grant = policy.Grant{Subaccounts: policy.AllSubaccounts()}
		}, &policy.Excess{AllSubaccounts: true}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := allowedHandover()
			row.differ(&h)
			err := h.caller.CheckGrant(h.grant, h.by)
			if row.want == nil {
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				return
			}
			excess, ok := errors.AsType[*policy.Excess](err)
			if !ok {
				t.Fatalf("got %v, want an *Excess", err)
			}
			if diff := cmp.Diff(row.want, excess, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Errorf("excess (-want +got):\n%s", diff)
			}
		})
	}
}

// A key that is updated or regenerated hands its secret to the caller, so the
// caller must hold it all, also what the account has lost for now.
func TestWeakKeyHoldsNoStrongerKey(t *testing.T) {
	type pair struct {
		caller policy.Caller
		key    *policy.Key
		by     policy.Delegation
	}
	rows := []struct {
		name   string
		differ func(p *pair)
		want   *policy.Excess
	}{
		{"a key of the same power", func(*pair) {}, nil},
		{"itself", func(p *pair) { p.key = p.caller.Key }, nil},
		{"a zero key", func(p *pair) { p.key = &policy.Key{} }, nil},
		{"one permission less", func(p *pair) { p.key.Permissions = policy.NewPermissionSet(readShared) }, nil},
		{"one permission more", func(p *pair) {
			p.key.Permissions = policy.NewPermissionSet(readShared, readSerp, writeShared)
		}, &policy.Excess{Permissions: policy.PermissionSet{readSerp}}},
		{"one permission more, which the account has not", func(p *pair) {
			p.key.Permissions = policy.NewPermissionSet(policy.CreateKeys)
		}, &policy.Excess{Permissions: policy.PermissionSet{policy.CreateKeys}}},
		{"permissions of both that the account lost", func(p *pair) { p.caller.Account.Permissions = nil }, nil},
		{"one subaccount less", func(p *pair) { p.key.Subaccounts = policy.OnlySubaccounts(subB) }, nil},
		{"one subaccount more", func(p *pair) {
			p.key.Subaccounts = policy.OnlySubaccounts(subC, subA)
		}, &policy.Excess{Subaccounts: []policy.SubaccountID{subC}}},
		{"all subaccounts", func(p *pair) { p.key.Subaccounts = policy.AllSubaccounts() }, &policy.Excess{AllSubaccounts: true}},
		{"all subaccounts by a key for all", func(p *pair) {
			p.key.Subaccounts, p.caller.Key.Subaccounts = policy.AllSubaccounts(), policy.AllSubaccounts()
		}, nil},
		{"subaccounts of both that the account lost", func(p *pair) { p.caller.Account.Subaccounts = policy.SubaccountSet{} }, nil},
		{"a wider range", func(p *pair) { p.key.Addresses = only("203.0.112.0/23") }, &policy.Excess{Addresses: prefixes("203.0.112.0/23")}},
		{"a wider range, not inherited", func(p *pair) { p.key.Addresses, p.by.InheritAddresses = only("203.0.112.0/23"), false }, nil},
		{"any address", func(p *pair) { p.key.Addresses = policy.AnyAddress() }, &policy.Excess{AnyAddress: true}},
		{"any address, not inherited", func(p *pair) { p.key.Addresses, p.by.InheritAddresses = policy.AnyAddress(), false }, nil},
		{"one second longer", func(p *pair) { p.key.Expiry = policy.ExpiresAt(expiry + 1) }, &policy.Excess{Expiry: true}},
		{"one second longer, not capped", func(p *pair) { p.key.Expiry, p.by.CapExpiry = policy.ExpiresAt(expiry+1), false }, nil},
		{"for ever", func(p *pair) { p.key.Expiry = policy.NeverExpires() }, &policy.Excess{Expiry: true}},
		{"a disabled stronger key", func(p *pair) {
			p.key.Active, p.key.Permissions = false, policy.NewPermissionSet(readSerp)
		}, &policy.Excess{Permissions: policy.PermissionSet{readSerp}}},
		{"by a zero key", func(p *pair) { p.caller.Key = &policy.Key{} }, &policy.Excess{
			Permissions: policy.PermissionSet{readShared, writeShared},
			Subaccounts: []policy.SubaccountID{subA, subB},
			Addresses:   prefixes("203.0.113.0/24", "2001:db8::/32"),
			Expiry:      true,
		}},
		{"any key, by a person", func(p *pair) {
			p.caller.Key = nil
			p.key = &policy.Key{Permissions: policy.NewPermissionSet(policy.CreateKeys), Subaccounts: policy.AllSubaccounts(), Expiry: policy.NeverExpires()}
		}, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := pair{allowedHandover().caller, allowedKase().key, policy.Delegation{InheritAddresses: true, CapExpiry: true}}
			row.differ(&p)
			err := p.caller.CheckHolds(p.key, p.by)
			if row.want == nil {
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				return
			}
			row.want.Held = true
			excess, ok := errors.AsType[*policy.Excess](err)
			if !ok {
				t.Fatalf("got %v, want an *Excess", err)
			}
			if diff := cmp.Diff(row.want, excess, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Errorf("excess (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNobodyHoldsNoKey(t *testing.T) {
	for name, caller := range map[string]policy.Caller{"zero caller": {}, "key without an account": {Key: &policy.Key{}}} {
		if err := caller.CheckHolds(allowedKase().key, policy.Delegation{}); err == nil {
			t.Errorf("%s: got nil, want an *Excess", name)
		}
	}
}

func TestExcessNamesEachAxis(t *testing.T) {
	rows := []struct {
		excess policy.Excess
		want   string
	}{
		{policy.Excess{Permissions: policy.PermissionSet{readSerp, writeShared}}, "the grant exceeds its giver: permissions serp_api:read, datacenter_shared:write"},
		{policy.Excess{Subaccounts: []policy.SubaccountID{subA}}, "the grant exceeds its giver: subaccounts"},
		{policy.Excess{AllSubaccounts: true}, "the grant exceeds its giver: subaccounts"},
		{policy.Excess{Addresses: prefixes("10.0.0.0/8")}, "the grant exceeds its giver: addresses"},
		{policy.Excess{AnyAddress: true}, "the grant exceeds its giver: addresses"},
		{policy.Excess{Expiry: true}, "the grant exceeds its giver: lifetime"},
		{
			policy.Excess{Permissions: policy.PermissionSet{readSerp}, AllSubaccounts: true, AnyAddress: true, Expiry: true},
			"the grant exceeds its giver: permissions serp_api:read; subaccounts; addresses; lifetime",
		},
	}
	for _, row := range rows {
		if got := row.excess.Error(); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
}

func TestCallerWhoCouldMakeNoRequestCanManageNothing(t *testing.T) {
	rows := []struct {
		name   string
		differ func(c *kase)
		want   policy.Reason
	}{
		{"nothing differs", func(*kase) {}, policy.Allowed},
		{"disabled key", func(c *kase) { c.key.Active = false }, policy.KeyDisabled},
		{"zero key", func(c *kase) { c.key = &policy.Key{} }, policy.KeyDisabled},
		{"suspended account", func(c *kase) { c.account.Status = policy.Suspended }, policy.AccountSuspended},
		{"key of another account", func(c *kase) { c.key.Account = "other" }, policy.AccountSuspended},
		{"no account", func(c *kase) { c.account = nil }, policy.AccountSuspended},
		{"expired key", func(c *kase) { c.req.At = time.Unix(expiry, 0) }, policy.KeyExpired},
		{"one second before it expires", func(c *kase) { c.req.At = time.Unix(expiry-1, 0) }, policy.Allowed},
		{"another address", from("198.51.100.7"), policy.IPNotAllowed},
		{"key without permissions and subaccounts", func(c *kase) {
			c.key.Permissions, c.key.Subaccounts = nil, policy.SubaccountSet{}
		}, policy.Allowed},
		{"person", func(c *kase) { c.key = nil }, policy.Allowed},
		{"person from anywhere", func(c *kase) { from("198.51.100.7")(c); c.key = nil }, policy.Allowed},
		{"person of a suspended account", func(c *kase) { c.key, c.account.Status = nil, policy.Suspended }, policy.AccountSuspended},
		{"person of a zero account", func(c *kase) { c.key, c.account = nil, &policy.Account{} }, policy.AccountSuspended},
		{"nobody", func(c *kase) { c.key, c.account = nil, nil }, policy.AccountSuspended},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := allowedKase()
			row.differ(&c)
			caller := policy.Caller{Account: c.account, Key: c.key, Client: c.req.Client}
			if got := caller.CheckUsable(c.req.At); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestNewKeyInheritsNoMoreSubaccountsThanItsMakerReaches(t *testing.T) {
	all := policy.AllSubaccounts()
	rows := []struct {
		name   string
		differ func(c *policy.Caller)
		want   policy.SubaccountSet
	}{
		{"limited key", func(*policy.Caller) {}, policy.OnlySubaccounts(subA, subB)},
		{"limited key in another order", func(c *policy.Caller) { c.Key.Subaccounts = policy.OnlySubaccounts(subB, subA) }, policy.OnlySubaccounts(subB, subA)},
		{"key for all", func(c *policy.Caller) { c.Key.Subaccounts = all }, all},
		{"key limited to all there are", func(c *policy.Caller) {
			c.Key.Subaccounts = policy.OnlySubaccounts(subA, subB, subC)
		}, policy.OnlySubaccounts(subA, subB, subC)},
		{"key without subaccounts", func(c *policy.Caller) { c.Key.Subaccounts = policy.SubaccountSet{} }, policy.SubaccountSet{}},
		{"account lost one", func(c *policy.Caller) { c.Account.Subaccounts = policy.OnlySubaccounts(subB, subC) }, policy.OnlySubaccounts(subB)},
		{"account lost all of the key's", func(c *policy.Caller) { c.Account.Subaccounts = policy.OnlySubaccounts(subC) }, policy.SubaccountSet{}},
		{"person", func(c *policy.Caller) { c.Key = nil }, all},
		{"person of an account without subaccounts", func(c *policy.Caller) { c.Key, c.Account.Subaccounts = nil, policy.SubaccountSet{} }, all},
		{"no account", func(c *policy.Caller) { c.Account = nil }, policy.SubaccountSet{}},
		{"no account, key for all", func(c *policy.Caller) { c.Account, c.Key.Subaccounts = nil, all }, policy.SubaccountSet{}},
		{"nobody", func(c *policy.Caller) { *c = policy.Caller{} }, policy.SubaccountSet{}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			caller := allowedHandover().caller
			row.differ(&caller)
			got := caller.Inherit()
			if got.All() != row.want.All() {
				t.Errorf("got all %v, want %v", got.All(), row.want.All())
			}
			if diff := cmp.Diff(row.want.IDs(), got.IDs(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("subaccounts (-want +got):\n%s", diff)
			}
			if err := caller.CheckGrant(policy.Grant{Subaccounts: got}, policy.Delegation{}); err != nil {
				t.Errorf("what is inherited may be granted: got %v, want nil", err)
			}
		})
	}
}

// dice turns fuzz input into choices; when it is used up, all are 0.
type dice struct{ data []byte }

func (d *dice) below(n int) int {
	if len(d.data) == 0 {
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return int(b) % n
}

func (d *dice) permissions() policy.PermissionSet {
	return policy.NewPermissionSet(some(d, []policy.Permission{readShared, writeShared, readSerp, policy.CreateKeys})...)
}

func (d *dice) subaccounts() policy.SubaccountSet {
	if d.below(4) == 3 {
		return policy.AllSubaccounts()
	}
	return policy.OnlySubaccounts(some(d, []policy.SubaccountID{subA, subB, subC})...)
}

func (d *dice) addresses() policy.AddressSet {
	if d.below(4) == 3 {
		return policy.AnyAddress()
	}
	var list []netip.Prefix
	for range d.below(4) {
		addr := netip.MustParseAddr([]string{"203.0.113.0", "203.0.113.255", "203.0.112.129", "2001:db8::", "::"}[d.below(5)])
		bits := addr.BitLen() - d.below(12)
		if d.below(8) == 7 {
			bits = d.below(3)
		}
		list = append(list, netip.PrefixFrom(addr, bits).Masked())
	}
	return policy.OnlyAddresses(list...)
}

func (d *dice) expiry() policy.Expiry {
	if d.below(4) == 3 {
		return policy.NeverExpires()
	}
	return policy.ExpiresAt(expiry + int64(d.below(4)))
}

func (d *dice) grant() policy.Grant {
	return policy.Grant{Permissions: d.permissions(), Subaccounts: d.subaccounts(), Addresses: d.addresses(), Expiry: d.expiry()}
}

func some[T any](d *dice, from []T) []T {
	var chosen []T
	for mask, i := d.below(256), 0; i < len(from); i++ {
		if mask>>i&1 == 1 {
			chosen = append(chosen, from[i])
		}
	}
	return chosen
}

func keyOf(account *policy.Account, g policy.Grant) *policy.Key {
	return &policy.Key{
		Account: account.ID, Active: true,
		Permissions: g.Permissions, Subaccounts: g.Subaccounts, Addresses: g.Addresses, Expiry: g.Expiry,
	}
}

// FuzzCheckGrant: whatever a key may do that CheckGrant let through, the key
// that made it may do, too, now and when the account grows or shrinks. Decide
// is asked, so the two rules are held against each other.
func FuzzCheckGrant(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("a limited key hands on all of what it holds and more"))
	f.Add([]byte{0xff, 0xff, 3, 3, 3, 0xff, 3, 3, 3, 0xff, 3, 3, 3, 1, 1, 1})
	f.Add([]byte{15, 0, 7, 15, 0, 7, 0, 1, 0, 8, 0, 0, 1, 15, 0, 7, 0, 1, 0, 9, 0, 0, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &dice{data}
		account := &policy.Account{ID: "acme", Status: policy.Active, Permissions: d.permissions(), Subaccounts: d.subaccounts()}
		parent := keyOf(account, d.grant())
		grant := d.grant()
		by := policy.Delegation{InheritAddresses: d.below(2) == 1, CapExpiry: d.below(2) == 1}
		caller := policy.Caller{Account: account, Key: parent}
		if d.below(4) == 3 {
			caller.Key = nil
			parent = keyOf(account, policy.Grant{Permissions: account.Permissions, Subaccounts: policy.AllSubaccounts()})
			by = policy.Delegation{}
		}

		err := caller.CheckGrant(grant, by)
		if err != nil {
			excess, ok := errors.AsType[*policy.Excess](err)
			if !ok {
				t.Fatalf("got %v, want an *Excess", err)
			}
			grant = without(grant, excess, parent)
			if err := caller.CheckGrant(grant, by); err != nil {
				t.Fatalf("got %v for a grant less the excess %+v, want nil", err, excess)
			}
		}
		if !by.InheritAddresses {
			parent.Addresses = policy.AnyAddress()
		}
		if !by.CapExpiry {
			parent.Expiry = policy.NeverExpires()
		}
		checkAttenuated(t, account, parent, keyOf(account, grant))
	})
}

// FuzzCheckHolds: whatever a key may do that a caller may take over, the
// caller's own key may do, too, now and when the account grows or shrinks.
func FuzzCheckHolds(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{15, 0, 7, 15, 0, 7, 0, 1, 0, 8, 0, 0, 1, 15, 0, 7, 0, 1, 0, 9, 0, 0, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &dice{data}
		account := &policy.Account{ID: "acme", Status: policy.Active, Permissions: d.permissions(), Subaccounts: d.subaccounts()}
		own, grant := keyOf(account, d.grant()), d.grant()
		by := policy.Delegation{InheritAddresses: d.below(2) == 1, CapExpiry: d.below(2) == 1}
		caller := policy.Caller{Account: account, Key: own}
		if err := caller.CheckHolds(keyOf(account, grant), by); err != nil {
			excess, ok := errors.AsType[*policy.Excess](err)
			if !ok {
				t.Fatalf("got %v, want an *Excess", err)
			}
			grant = without(grant, excess, own)
			if err := caller.CheckHolds(keyOf(account, grant), by); err != nil {
				t.Fatalf("got %v for a key less the excess %+v, want nil", err, excess)
			}
		}
		if !by.InheritAddresses {
			own.Addresses = policy.AnyAddress()
		}
		if !by.CapExpiry {
			own.Expiry = policy.NeverExpires()
		}
		checkAttenuated(t, account, own, keyOf(account, grant))
	})
}

// without takes from the grant exactly what the excess names.
func without(g policy.Grant, e *policy.Excess, parent *policy.Key) policy.Grant {
	g.Permissions = slices.DeleteFunc(slices.Clone(g.Permissions), e.Permissions.Has)
	if e.AllSubaccounts {
		g.Subaccounts = policy.SubaccountSet{}
	} else if len(e.Subaccounts) > 0 {
		g.Subaccounts = policy.OnlySubaccounts(policy.OnlySubaccounts(e.Subaccounts...).Missing(g.Subaccounts)...)
	}
	if e.AnyAddress {
		g.Addresses = parent.Addresses
	} else if len(e.Addresses) > 0 {
		g.Addresses = policy.OnlyAddresses(slices.DeleteFunc(prefixesOf(g.Addresses), func(p netip.Prefix) bool {
			return slices.Contains(e.Addresses, p)
		})...)
	}
	if e.Expiry {
		g.Expiry = parent.Expiry
	}
	return g
}

// prefixesOf: the empty set lacks every prefix of s.
func prefixesOf(s policy.AddressSet) []netip.Prefix {
	return policy.AddressSet{}.Missing(s)
}

func checkAttenuated(t *testing.T, now *policy.Account, parent, child *policy.Key) {
	t.Helper()
	needs := []policy.Permission{readShared, writeShared, readSerp, policy.CreateKeys, policy.AnyValidKey, ""}
	subaccounts := []policy.SubaccountID{"", subA, subB, subC}
	grown := &policy.Account{ID: "acme", Status: policy.Active, Permissions: policy.NewPermissionSet(needs[:4]...), Subaccounts: policy.AllSubaccounts()}
	shrunk := &policy.Account{ID: "acme", Status: policy.Active, Permissions: needs[:1], Subaccounts: policy.OnlySubaccounts(subA)}
	clients := []netip.Addr{{}}
	for _, p := range append(prefixesOf(parent.Addresses), prefixesOf(child.Addresses)...) {
		for _, addr := range []netip.Addr{p.Addr(), p.Addr().Prev(), lastOf(p), lastOf(p).Next()} {
			clients = append(clients, formsOf(addr)...)
		}
	}
	for _, account := range []*policy.Account{now, grown, shrunk} {
		for at := expiry - 1; at <= expiry+4; at++ {
			for _, client := range clients {
				for _, subaccount := range subaccounts {
					for _, need := range needs {
						req := policy.Request{At: time.Unix(at, 0), Client: client, Subaccount: subaccount, Needs: need}
						if policy.Decide(req, child, account).Allowed() && !policy.Decide(req, parent, account).Allowed() {
							t.Fatalf("the new key may do what its maker may not: %+v\nmaker %+v\nnew key %+v", req, parent, child)
						}
					}
				}
			}
		}
	}
}
