package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Permission names one thing a key may do, as "resource:action"
// ("datacenter_shared:read", "account:apikeys:create"). The last colon
// separates the action. The zero value is held by nobody.
type Permission string

// AnyValidKey is what a route needs that every valid key may use. It has no
// colon, so no catalogue and no key can ever hold it as a permission.
const AnyValidKey Permission = "any-valid-key"

// The built-in permissions, which every catalogue holds: key management, and
// reading the account's audit trail and the use of its keys.
const (
	CreateKeys     Permission = "account:apikeys:create"
	ReadKeys       Permission = "account:apikeys:read"
	UpdateKeys     Permission = "account:apikeys:update"
	DeleteKeys     Permission = "account:apikeys:delete"
	RegenerateKeys Permission = "account:apikeys:regenerate"
	ReadAudit      Permission = "account:audit:read"
	ReadUsage      Permission = "account:usage:read"
)

// ReadAction is the action that makes a request safe to send again: it
// changes nothing at the backend.
const ReadAction = "read"

// maxPermissionLength bounds what a configuration, and so a record, can name.
const maxPermissionLength = 128

// ErrBadPermission is what ParsePermission returns for anything that is not
// "resource:action".
var ErrBadPermission = errors.New("not a permission of the form resource:action")

// ParsePermission reads "resource:action". Both parts are non-empty, of
// [a-z0-9_] (the resource also ':'), at most 128 bytes in all, without empty
// parts between colons. There are no wildcards.
func ParsePermission(s string) (Permission, error) {
	if len(s) > maxPermissionLength || !strings.Contains(s, ":") {
		return "", ErrBadPermission
	}
	for part := range strings.SplitSeq(s, ":") {
		if !isName(part) {
			return "", ErrBadPermission
		}
	}
	return Permission(s), nil
}

func isName(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// Resource is what stands before the last colon.
func (p Permission) Resource() string {
	i := strings.LastIndexByte(string(p), ':')
	if i < 0 {
		return ""
	}
	return string(p[:i])
}

// Action is what stands behind the last colon; "" when there is none.
func (p Permission) Action() string {
	i := strings.LastIndexByte(string(p), ':')
	if i < 0 {
		return ""
	}
	return string(p[i+1:])
}

// PermissionSet is a set of permissions in the order they were given. The
// zero value grants nothing. It is never changed after it was made, so it may
// be shared.
type PermissionSet []Permission

// NewPermissionSet drops duplicates and "", and keeps the order.
func NewPermissionSet(permissions ...Permission) PermissionSet {
	set := make(PermissionSet, 0, len(permissions))
	for _, p := range permissions {
		if p != "" && !set.Has(p) {
			set = append(set, p)
		}
	}
	return set
}

// Has reports whether p is in the set. Sets hold some twenty permissions, for
// which a scan is faster than a map and allocates nothing.
func (s PermissionSet) Has(p Permission) bool {
	return p != "" && slices.Contains(s, p)
}

// Missing returns those of wanted that are not in the set, in their order;
// nil when the set covers all of them.
func (s PermissionSet) Missing(wanted PermissionSet) PermissionSet {
	var missing PermissionSet
	for _, p := range wanted {
		if !s.Has(p) {
			missing = append(missing, p)
		}
	}
	return missing
}

// Intersect returns what both sets hold, in the order of s.
func (s PermissionSet) Intersect(other PermissionSet) PermissionSet {
	both := make(PermissionSet, 0, len(s))
	for _, p := range s {
		if other.Has(p) {
			both = append(both, p)
		}
	}
	return both
}

// Strings returns the permissions as strings; never nil.
func (s PermissionSet) Strings() []string {
	out := make([]string, len(s))
	for i, p := range s {
		out[i] = string(p)
	}
	return out
}

// Catalogue is the list of all permissions there are: those of the products
// in the configuration and the built-in ones. The zero
// value holds none.
type Catalogue struct{ all PermissionSet }

// NewCatalogue makes the catalogue of the given product permissions and the
// built-in ones, in this order. A product permission below "account:" would
// collide with those that are built in and is refused.
func NewCatalogue(products ...Permission) (Catalogue, error) {
	for _, p := range products {
		if _, err := ParsePermission(string(p)); err != nil {
			return Catalogue{}, fmt.Errorf("permission %q: %w", p, err)
		}
		if p.Resource() == "account" || strings.HasPrefix(string(p), "account:") {
			return Catalogue{}, fmt.Errorf("permission %q: the resource account is built in", p)
		}
	}
	all := append(slices.Clone(products), CreateKeys, ReadKeys, UpdateKeys, DeleteKeys, RegenerateKeys, ReadAudit, ReadUsage)
	return Catalogue{all: NewPermissionSet(all...)}, nil
}

// All returns every permission, product permissions first.
func (c Catalogue) All() PermissionSet { return c.all }

// Has reports whether p exists.
func (c Catalogue) Has(p Permission) bool { return c.all.Has(p) }

// ErrUnknownPermission is wrapped by ParseAccountGrant for a grant that
// stands for nothing in the catalogue.
var ErrUnknownPermission = errors.New("not in the catalogue of permissions")

// ParseAccountGrant checks one entry of an account's permissions: a
// permission of the catalogue, "resource:*" of a resource that the catalogue
// knows, or "*". Only accounts may hold the last two.
func (c Catalogue) ParseAccountGrant(s string) error {
	for _, p := range c.all {
		if grantCovers(s, p) {
			return nil
		}
	}
	return fmt.Errorf("%q: %w", s, ErrUnknownPermission)
}

// Resolve returns what the account grants stand for in this catalogue, in
// the catalogue's order. Grants that it does not know stand for nothing, so
// that a product that was taken out of the configuration opens nothing.
func (c Catalogue) Resolve(grants []string) PermissionSet {
	resolved := make(PermissionSet, 0, len(c.all))
	for _, p := range c.all {
		if slices.ContainsFunc(grants, func(g string) bool { return grantCovers(g, p) }) {
			resolved = append(resolved, p)
		}
	}
	return resolved
}

func grantCovers(grant string, p Permission) bool {
	if grant == "*" || grant == string(p) {
		return true
	}
	resource, ok := strings.CutSuffix(grant, ":*")
	return ok && resource == p.Resource()
}
