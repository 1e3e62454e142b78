package policy

import (
	"net/netip"
	"time"
)

type (
	// AccountID names an account: 1–64 characters of [A-Za-z0-9._-].
	AccountID string
	// KeyID is the UUID of a key. It is no secret, and opens nothing.
	KeyID string
)

// ValidAccountID reports whether s can be the id of an account. "." and ".."
// cannot: they have another meaning in a path.
func ValidAccountID(s string) bool {
	if s == "" || len(s) > 64 || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// Status says whether an account's keys work at all. The zero value does not.
type Status string

// The two states of an account.
const (
	Active    Status = "active"
	Suspended Status = "suspended"
)

// Expiry is the second from which on a key no longer works. The zero value
// has passed at every time, so that a forgotten one opens nothing.
type Expiry struct {
	never bool
	at    int64
}

// NeverExpires is the expiry of a key without one.
func NeverExpires() Expiry { return Expiry{never: true} }

// ExpiresAt is the expiry at the given Unix second.
func ExpiresAt(unixSeconds int64) Expiry { return Expiry{at: unixSeconds} }

// Never reports whether there is no expiry.
func (e Expiry) Never() bool { return e.never }

// Unix is the Unix second of the expiry; 0 for NeverExpires.
func (e Expiry) Unix() int64 { return e.at }

// Passed reports whether the key has expired at that moment: at the very
// second of the expiry it has.
func (e Expiry) Passed(at time.Time) bool {
	return !e.never && (at.Unix() >= e.at || at.Unix() <= 0 || e.at <= 0)
}

// Outlasts reports whether e ends later than other.
func (e Expiry) Outlasts(other Expiry) bool {
	return !other.never && (e.never || e.at > other.at)
}

// Key is what the rules know of a key. Its zero value allows nothing.
type Key struct {
	ID          KeyID
	Account     AccountID
	Name        string
	Permissions PermissionSet
	Subaccounts SubaccountSet
	Addresses   AddressSet
	Expiry      Expiry
	Active      bool
	Preview     string
	CreatedAt   time.Time
	// ReplacedAt is when the key was replaced by another one, zero for a key
	// that was not: it works on until its Expiry, and then is gone.
	ReplacedAt time.Time
	// LastUsedAt is when a request with the key was last let through, to the
	// minute or so, zero for never. It is a statistic, and no rule looks at it.
	LastUsedAt time.Time
}

// Replaced reports whether the key was replaced by another one.
func (k *Key) Replaced() bool { return !k.ReplacedAt.IsZero() }

// Subaccount is one product instance of an account.
type Subaccount struct {
	ID      SubaccountID
	Label   string
	Product string
}

// Account is what the rules know of a customer. Its zero value allows
// nothing.
type Account struct {
	ID          AccountID
	Status      Status
	Permissions PermissionSet
	Subaccounts SubaccountSet
	// Plan names the rate of its keys, "" for none. No rule looks at it.
	Plan string
}

// ActorKind says what kind of caller made a change.
type ActorKind string

// The kinds of actors.
const (
	ActorKey      ActorKind = "key"
	ActorSession  ActorKind = "session"
	ActorOperator ActorKind = "operator"
	ActorCLI      ActorKind = "cli"
)

// Actor names a caller for the audit trail.
type Actor struct {
	Kind ActorKind
	// ID is the key's id, or who is signed in; "" for an operator.
	ID string
}

// Caller is who makes a management request: a key, or a person with a
// session or an operator, for whom Key is nil. What a caller may do is
// bounded by its account as it is now.
type Caller struct {
	Account *Account
	Key     *Key
	Client  netip.Addr
	// Person is who the caller is where it is no key. It gives no rights.
	Person Actor
	// Session is the id of the session that the person acts in, "" for an operator.
	Session string
	// RequestID is that of the request, for the audit trail.
	RequestID string
}

// Actor names the caller: its key, or else the person; an operator where
// nothing is known.
func (c Caller) Actor() Actor {
	switch {
	case c.Key != nil:
		return Actor{Kind: ActorKey, ID: string(c.Key.ID)}
	case c.Person.Kind == "":
		return Actor{Kind: ActorOperator}
	}
	return c.Person
}

// Permissions returns what the caller may do: what its account holds and,
// where it is a key, what the key holds too, in the key's order.
func (c Caller) Permissions() PermissionSet {
	if c.Account == nil {
		return nil
	}
	if c.Key == nil {
		return c.Account.Permissions
	}
	return c.Key.Permissions.Intersect(c.Account.Permissions)
}

// MayReach reports whether the caller may use the subaccount: it is one of
// the account's and one of the key's.
func (c Caller) MayReach(id SubaccountID) bool {
	return c.Account != nil && c.Account.Subaccounts.Contains(id) &&
		(c.Key == nil || c.Key.Subaccounts.Contains(id))
}
