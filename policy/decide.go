// Package policy says what is allowed. It is pure: it does no I/O, reads no
// clock, knows nothing of HTTP and imports nothing of ours. Zero values refuse.
package policy

import (
	"net/netip"
	"strings"
	"time"
)

// Request is what the rules need to know of a request: when and from where it
// came, which subaccount its path names ("" where the route has none), and
// the permission that its route needs. An empty Needs refuses.
type Request struct {
	At         time.Time
	Client     netip.Addr
	Subaccount SubaccountID
	Needs      Permission
}

// Reason says how a decision came out. A refusing reason is the error code
// that the client sees, the metric label and the log field. The zero value
// refuses.
type Reason string

// The reasons, in the order in which Decide looks for them.
const (
	KeyDisabled          Reason = "key_disabled"
	AccountSuspended     Reason = "account_suspended"
	KeyExpired           Reason = "key_expired"
	IPNotAllowed         Reason = "ip_not_allowed"
	SubaccountNotAllowed Reason = "subaccount_not_allowed"
	PermissionDenied     Reason = "permission_denied"
	Allowed              Reason = "allowed"
)

// Reasons returns every reason in the order in which Decide looks for them.
func Reasons() []Reason {
	return []Reason{
		KeyDisabled, AccountSuspended, KeyExpired, IPNotAllowed,
		SubaccountNotAllowed, PermissionDenied, Allowed,
	}
}

// Decision is the answer to a Request. Its zero value refuses.
type Decision struct {
	Reason Reason
	// Client is the address that was seen, for IPNotAllowed.
	Client netip.Addr
	// Needs is the permission that was missing, for PermissionDenied.
	Needs Permission
}

// Allowed reports whether the request may pass.
func (d Decision) Allowed() bool { return d.Reason == Allowed }

// Detail explains a refusal to the client, in a sentence.
func (d Decision) Detail() string {
	switch d.Reason {
	case KeyDisabled:
		return "This key is disabled."
	case AccountSuspended:
		return "The account of this key is suspended."
	case KeyExpired:
		return "This key has expired."
	case IPNotAllowed:
		if !d.Client.IsValid() {
			return "This key may only be used from certain addresses, and the address of this request could not be determined."
		}
		return "This key may not be used from " + d.Client.String() + "."
	case SubaccountNotAllowed:
		return "This key may not be used for this subaccount."
	case PermissionDenied:
		return "This key lacks the permission " + string(d.Needs) + "."
	case Allowed:
		return ""
	}
	return "This request is not allowed."
}

// Decide is the only place that says yes: whether the key of the account may
// make the request. It returns the first reason that refuses, in the order of
// Reasons. A missing key or account, or a key of another account, is refused.
// Decide allocates nothing, and may be called concurrently.
func Decide(req Request, key *Key, account *Account) Decision {
	switch {
	case key == nil || !key.Active:
		return Decision{Reason: KeyDisabled}
	case account == nil || account.Status != Active || key.Account != account.ID:
		return Decision{Reason: AccountSuspended}
	case key.Expiry.Passed(req.At):
		return Decision{Reason: KeyExpired}
	case !key.Addresses.Contains(req.Client):
		return Decision{Reason: IPNotAllowed, Client: req.Client.Unmap().WithZone("")}
	case req.Subaccount != "" && !reaches(req.Subaccount, key, account):
		return Decision{Reason: SubaccountNotAllowed}
	case !holds(req.Needs, key, account):
		return Decision{Reason: PermissionDenied, Needs: req.Needs}
	}
	return Decision{Reason: Allowed}
}

func reaches(id SubaccountID, key *Key, account *Account) bool {
	return account.Subaccounts.Contains(id) && key.Subaccounts.Contains(id)
}

// holds: AnyValidKey is a need that no set can hold, so it is asked first.
func holds(needs Permission, key *Key, account *Account) bool {
	return needs == AnyValidKey || (key.Permissions.Has(needs) && account.Permissions.Has(needs))
}

// SafeToRepeat reports whether a request that was let through by this
// permission changes nothing, so that it may be sent to a backend again.
func (p Permission) SafeToRepeat() bool {
	return strings.HasSuffix(string(p), ":"+ReadAction)
}
