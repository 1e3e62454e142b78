package policy

import (
	"net/netip"
	"strings"
	"time"
)

// Grant is everything a key holds or is to hold.
type Grant struct {
	Permissions PermissionSet
	Subaccounts SubaccountSet
	Addresses   AddressSet
	Expiry      Expiry
}

// Grant returns what the key holds.
func (k *Key) Grant() Grant {
	return Grant{Permissions: k.Permissions, Subaccounts: k.Subaccounts, Addresses: k.Addresses, Expiry: k.Expiry}
}

// Delegation says what a key hands on beside permissions and subaccounts,
// which it always bounds.
type Delegation struct {
	// InheritAddresses: a key made by an address-bound key stays inside its
	// ranges.
	InheritAddresses bool
	// CapExpiry: a key cannot outlive the key that made it.
	CapExpiry bool
}

// Excess is the error of CheckGrant and CheckHolds: what the grant, or the key,
// holds beyond the caller.
type Excess struct {
	// Held: it is a key that holds it already, and not a grant that asks for it.
	Held        bool
	Permissions PermissionSet
	Subaccounts []SubaccountID
	// AllSubaccounts: every subaccount is asked for by a caller who is limited.
	AllSubaccounts bool
	Addresses      []netip.Prefix
	// AnyAddress: every address is asked for by a caller who is limited.
	AnyAddress bool
	Expiry     bool
}

func (e *Excess) Error() string {
	var parts []string
	if len(e.Permissions) > 0 {
		parts = append(parts, "permissions "+strings.Join(e.Permissions.Strings(), ", "))
	}
	if e.AllSubaccounts || len(e.Subaccounts) > 0 {
		parts = append(parts, "subaccounts")
	}
	if e.AnyAddress || len(e.Addresses) > 0 {
		parts = append(parts, "addresses")
	}
	if e.Expiry {
		parts = append(parts, "lifetime")
	}
	return "the grant exceeds its giver: " + strings.Join(parts, "; ")
}

// CheckUsable returns the reason for which the caller can manage nothing at
// this moment; Allowed when it can. It is Decide without a product request.
func (c Caller) CheckUsable(at time.Time) Reason {
	if c.Key != nil {
		return Decide(Request{At: at, Client: c.Client, Needs: AnyValidKey}, c.Key, c.Account).Reason
	}
	if c.Account == nil || c.Account.Status != Active {
		return AccountSuspended
	}
	return Allowed
}

// CheckGrant returns nil when the caller holds all of the grant, and an
// *Excess that names what is too much otherwise. It is the one rule against
// escalation: create, update and regenerate all ask it.
func (c Caller) CheckGrant(g Grant, d Delegation) error {
	excess := &Excess{Permissions: c.Permissions().Missing(g.Permissions)}
	for _, id := range g.Subaccounts.IDs() {
		if !c.MayReach(id) {
			excess.Subaccounts = append(excess.Subaccounts, id)
		}
	}
	excess.AllSubaccounts = g.Subaccounts.All() && !c.Inherit().All()
	if c.Key != nil && d.InheritAddresses {
		excess.Addresses = c.Key.Addresses.Missing(g.Addresses)
		excess.AnyAddress = g.Addresses.Any() && !c.Key.Addresses.Any()
	}
	excess.Expiry = c.Key != nil && d.CapExpiry && g.Expiry.Outlasts(c.Key.Expiry)
	return excess.orNil()
}

// Inherit returns the subaccounts that a new key gets when none are named:
// all that the caller can access, and never more. A caller limited to
// subaccounts that its account no longer has can hand on none.
func (c Caller) Inherit() SubaccountSet {
	if c.Account == nil {
		return SubaccountSet{}
	}
	if c.Key == nil || c.Key.Subaccounts.All() {
		return AllSubaccounts()
	}
	var reachable []SubaccountID
	for _, id := range c.Key.Subaccounts.IDs() {
		if c.MayReach(id) {
			reachable = append(reachable, id)
		}
	}
	return OnlySubaccounts(reachable...)
}

// CheckHolds returns nil when the caller holds everything that the key holds,
// also what the key's account has lost and may get back, and an *Excess
// otherwise. Who manages a key's secret could use all of it, so a weaker key
// must not update or regenerate a stronger one. A person or an operator, whose
// Key is nil, holds all that any key of the account can.
func (c Caller) CheckHolds(k *Key, d Delegation) error {
	if c.Key == nil && c.Account != nil {
		return nil
	}
	if c.Key == nil {
		c.Key = &Key{}
	}
	excess := &Excess{
		Held:           true,
		Permissions:    c.Key.Permissions.Missing(k.Permissions),
		Subaccounts:    c.Key.Subaccounts.Missing(k.Subaccounts),
		AllSubaccounts: k.Subaccounts.All() && !c.Key.Subaccounts.All(),
	}
	if d.InheritAddresses {
		excess.Addresses = c.Key.Addresses.Missing(k.Addresses)
		excess.AnyAddress = k.Addresses.Any() && !c.Key.Addresses.Any()
	}
	excess.Expiry = d.CapExpiry && k.Expiry.Outlasts(c.Key.Expiry)
	return excess.orNil()
}

// orNil keeps an empty excess from becoming an error.
func (e *Excess) orNil() error {
	if len(e.Permissions) > 0 || len(e.Subaccounts) > 0 || e.AllSubaccounts ||
		len(e.Addresses) > 0 || e.AnyAddress || e.Expiry {
		return e
	}
	return nil
}
