package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// SubaccountID is the UUID of one product instance of an account, in its
// canonical lower-case form.
type SubaccountID string

// ErrBadSubaccountID is what ParseSubaccountID returns for anything that is
// not a UUID.
var ErrBadSubaccountID = errors.New("not a UUID")

// ParseSubaccountID reads a UUID in its 36-character form (RFC 9562 §4) and
// returns it in lower case.
func ParseSubaccountID(s string) (SubaccountID, error) {
	if len(s) != 36 {
		return "", ErrBadSubaccountID
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return "", ErrBadSubaccountID
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F'):
			return "", ErrBadSubaccountID
		}
	}
	return SubaccountID(strings.ToLower(s)), nil
}

// SubaccountSet says which subaccounts of an account are meant. The zero
// value contains none. It is never changed after it was made.
type SubaccountSet struct {
	all   bool
	ids   []SubaccountID
	index map[SubaccountID]struct{} // of ids, where a scan would be slow
}

// scanLimit is the number of ids up to which a scan beats a map.
const scanLimit = 16

// AllSubaccounts is every subaccount of the account, now and later.
func AllSubaccounts() SubaccountSet { return SubaccountSet{all: true} }

// OnlySubaccounts is exactly these; without ids it contains none.
// Duplicates are dropped and the order is kept.
func OnlySubaccounts(ids ...SubaccountID) SubaccountSet {
	set := SubaccountSet{ids: make([]SubaccountID, 0, len(ids))}
	if len(ids) > scanLimit {
		set.index = make(map[SubaccountID]struct{}, len(ids))
	}
	for _, id := range ids {
		if set.Contains(id) {
			continue
		}
		set.ids = append(set.ids, id)
		if set.index != nil {
			set.index[id] = struct{}{}
		}
	}
	return set
}

// All reports whether the set is every subaccount of the account.
func (s SubaccountSet) All() bool { return s.all }

// IDs returns the ids of a limited set, in the order they were given; nil
// for AllSubaccounts. The caller must not change it.
func (s SubaccountSet) IDs() []SubaccountID { return s.ids }

// Contains reports whether id is in the set; "" never is.
func (s SubaccountSet) Contains(id SubaccountID) bool {
	if id == "" || s.all {
		return id != ""
	}
	if s.index != nil {
		_, ok := s.index[id]
		return ok
	}
	return slices.Contains(s.ids, id)
}

// Covers reports whether everything in other is also in s. Only the set of
// all covers the set of all.
func (s SubaccountSet) Covers(other SubaccountSet) bool {
	return s.all || (!other.all && len(s.Missing(other)) == 0)
}

// Missing returns the ids of other that s does not contain, in their order.
func (s SubaccountSet) Missing(other SubaccountSet) []SubaccountID {
	var missing []SubaccountID
	for _, id := range other.ids {
		if !s.Contains(id) {
			missing = append(missing, id)
		}
	}
	return missing
}

// AddressSet says from which client addresses a key may be used. The zero
// value contains none. It is never changed after it was made.
type AddressSet struct {
	any      bool
	prefixes []netip.Prefix
}

// AnyAddress is every address, also one that could not be determined.
func AnyAddress() AddressSet { return AddressSet{any: true} }

// OnlyAddresses is exactly what the prefixes contain; without prefixes it
// contains none. Prefixes must be canonical, as ParsePrefix returns them.
// Duplicates are dropped and the order is kept.
func OnlyAddresses(prefixes ...netip.Prefix) AddressSet {
	only := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if !slices.Contains(only, p) {
			only = append(only, p)
		}
	}
	return AddressSet{prefixes: only}
}

// Any reports whether the set is every address.
func (s AddressSet) Any() bool { return s.any }

// Prefixes returns the prefixes of a limited set, in the order they were given;
// nil for AnyAddress. The caller must not change it.
func (s AddressSet) Prefixes() []netip.Prefix { return s.prefixes }

// Contains reports whether the client address is in the set. An IPv4-mapped
// IPv6 address counts as the IPv4 address in it, and a zone is ignored.
func (s AddressSet) Contains(client netip.Addr) bool {
	if s.any {
		return true
	}
	client = client.Unmap().WithZone("")
	for _, p := range s.prefixes {
		if p.Contains(client) {
			return true
		}
	}
	return false
}

// Covers reports whether every address of other is also in s, one prefix of
// other inside one prefix of s.
func (s AddressSet) Covers(other AddressSet) bool {
	return s.any || (!other.any && len(s.Missing(other)) == 0)
}

// Missing returns the prefixes of other that lie in no prefix of s.
func (s AddressSet) Missing(other AddressSet) []netip.Prefix {
	if s.any {
		return nil
	}
	var missing []netip.Prefix
	for _, p := range other.prefixes {
		inside := func(outer netip.Prefix) bool { return outer.Bits() <= p.Bits() && outer.Contains(p.Addr()) }
		if !slices.ContainsFunc(s.prefixes, inside) {
			missing = append(missing, p)
		}
	}
	return missing
}

// Strings returns the prefixes in canonical form, a single address without
// its length; empty for AnyAddress, and never nil.
func (s AddressSet) Strings() []string {
	out := make([]string, len(s.prefixes))
	for i, p := range s.prefixes {
		if p.IsSingleIP() {
			out[i] = p.Addr().String()
		} else {
			out[i] = p.String()
		}
	}
	return out
}

// ErrBadPrefix is wrapped by ParsePrefix.
var ErrBadPrefix = errors.New("not an IPv4 or IPv6 address or CIDR range")

// ParsePrefix reads an IPv4 or IPv6 address or CIDR range (RFC 4632, RFC
// 4291) and returns it canonical: host bits masked, a single IPv4-mapped IPv6
// address unmapped. Zones, leading zeros, host names, and mapped addresses
// with a length, whose meaning two readers could see differently, are
// refused.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, ErrBadPrefix
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, ErrBadPrefix
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%w: write an IPv4-mapped range as the IPv4 range", ErrBadPrefix)
	}
	return p.Masked(), nil
}
