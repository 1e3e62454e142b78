package policy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/policy"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSubaccountIDIsAUUIDInLowerCase(t *testing.T) {
	const canonical = "0b1e6f3c-1111-4222-8333-944455556661"
	rows := []struct {
		name string
		s    string
		want policy.SubaccountID
	}{
		{"lower case", canonical, canonical},
		{"capitals", strings.ToUpper(canonical), canonical},
		{"mixed", "0B1e6f3C-1111-4222-8333-944455556661", canonical},
		{"nil UUID", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"},
		{"edges of the ranges", "09afAF09-0000-0000-0000-000000000000", "09afaf09-0000-0000-0000-000000000000"},
		{"empty", "", ""},
		{"in braces", "{" + canonical + "}", ""},
		{"as URN", "urn:uuid:" + canonical, ""},
		{"without dashes", strings.ReplaceAll(canonical, "-", ""), ""},
		{"one character short", canonical[:35], ""},
		{"one character long", canonical + "0", ""},
		{"space for the last character", canonical[:35] + " ", ""},
		{"newline for the last character", canonical[:35] + "\n", ""},
		{"dash out of place", "0b1e6f3-c1111-4222-8333-944455556661", ""},
		{"digit for a dash", "0b1e6f3c01111-4222-8333-944455556661", ""},
		{"underscores for dashes", strings.ReplaceAll(canonical, "-", "_"), ""},
		{"g, one behind f", "gb1e6f3c-1111-4222-8333-944455556661", ""},
		{"G, one behind F", "Gb1e6f3c-1111-4222-8333-944455556661", ""},
		{"backtick, one before a", "`b1e6f3c-1111-4222-8333-944455556661", ""},
		{"at sign, one before A", "@b1e6f3c-1111-4222-8333-944455556661", ""},
		{"slash, one before 0", "/b1e6f3c-1111-4222-8333-944455556661", ""},
		{"colon, one behind 9", ":b1e6f3c-1111-4222-8333-944455556661", ""},
		{"36 bytes of another alphabet", "０１２３４５６７８９ab", ""},
		{"dot segments", "../../../../../../../../../../../../", ""},
		{"NUL within", "0b1e6f3c-1111-4222-8333-94445555\x006661", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := policy.ParseSubaccountID(row.s)
			if got != row.want || (err == nil) != (row.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, row.want)
			}
			if err != nil && !errors.Is(err, policy.ErrBadSubaccountID) {
				t.Errorf("got error %v, want ErrBadSubaccountID", err)
			}
		})
	}
}

func FuzzParseSubaccountID(f *testing.F) {
	for _, s := range []string{string(subA), strings.ToUpper(string(subB)), "", strings.Repeat("-", 36), strings.Repeat("0", 36), string(subA)[:35] + "g"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`\A[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		id, err := policy.ParseSubaccountID(s)
		if want := form.MatchString(s); (err == nil) != want {
			t.Fatalf("%q: got error %v, want accepted %v", s, err, want)
		}
		if err != nil {
			if id != "" {
				t.Fatalf("%q: got %q with an error", s, id)
			}
			return
		}
		if string(id) != strings.ToLower(s) {
			t.Fatalf("%q: got %q, want it in lower case", s, id)
		}
		if again, err := policy.ParseSubaccountID(string(id)); err != nil || again != id {
			t.Fatalf("%q: parsed again: got %q, %v, want %q", s, again, err, id)
		}
	})
}

func manySubaccounts(n int) []policy.SubaccountID {
	ids := make([]policy.SubaccountID, n)
	for i := range ids {
		ids[i] = policy.SubaccountID(fmt.Sprintf("00000000-0000-4000-8000-%012x", i))
	}
	return ids
}

func TestZeroSubaccountSetContainsNone(t *testing.T) {
	for name, set := range map[string]policy.SubaccountSet{"zero value": {}, "only none": policy.OnlySubaccounts()} {
		if set.All() || set.Contains(subA) || set.Contains("") || len(set.IDs()) != 0 {
			t.Errorf("%s: got a set that contains something", name)
		}
		if set.Covers(policy.AllSubaccounts()) || set.Covers(policy.OnlySubaccounts(subA)) {
			t.Errorf("%s: got a set that covers something", name)
		}
		if !set.Covers(policy.SubaccountSet{}) {
			t.Errorf("%s: got a set that does not cover nothing", name)
		}
	}
}

func TestAllSubaccountsContainsEveryIDButTheEmptyOne(t *testing.T) {
	all := policy.AllSubaccounts()
	if !all.All() || !all.Contains(subA) || all.Contains("") || all.IDs() != nil {
		t.Errorf("got All %v, Contains(subA) %v, Contains(empty) %v, IDs %v", all.All(), all.Contains(subA), all.Contains(""), all.IDs())
	}
}

// The set changes from a scan to an index behind 16 ids; that must not show.
func TestOnlySubaccountsContainsExactlyItsIDs(t *testing.T) {
	stranger := policy.SubaccountID("ffffffff-0000-4000-8000-000000000000")
	for _, n := range []int{1, 2, 15, 16, 17, 18, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			ids := manySubaccounts(n)
			slices.Reverse(ids)
			set := policy.OnlySubaccounts(append(slices.Clone(ids), ids...)...)
			if diff := cmp.Diff(ids, set.IDs()); diff != "" {
				t.Errorf("duplicates dropped, order kept (-want +got):\n%s", diff)
			}
			for _, id := range ids {
				if !set.Contains(id) {
					t.Errorf("Contains(%q): got false, want true", id)
				}
			}
			for _, id := range []policy.SubaccountID{"", stranger, ids[0][:35], policy.SubaccountID(strings.ToUpper("a" + string(ids[0][1:])))} {
				if set.Contains(id) {
					t.Errorf("Contains(%q): got true, want false", id)
				}
			}
			if set.All() {
				t.Error("got a limited set that is all")
			}
		})
	}
}

func TestOnlySubaccountsKeepsNoHandOnItsArguments(t *testing.T) {
	for _, n := range []int{2, 17} {
		ids := manySubaccounts(n)
		set := policy.OnlySubaccounts(ids...)
		ids[0] = subC
		if set.Contains(subC) || slices.Contains(set.IDs(), subC) {
			t.Errorf("%d ids: got a set that changed with the slice it was made of", n)
		}
	}
}

func TestSubaccountSetCoversAndMissing(t *testing.T) {
	many := manySubaccounts(20)
	rows := []struct {
		name    string
		set     policy.SubaccountSet
		other   policy.SubaccountSet
		covers  bool
		missing []policy.SubaccountID
	}{
		{"itself", policy.OnlySubaccounts(subA, subB), policy.OnlySubaccounts(subB, subA), true, nil},
		{"a part", policy.OnlySubaccounts(subA, subB), policy.OnlySubaccounts(subB), true, nil},
		{"one more", policy.OnlySubaccounts(subA), policy.OnlySubaccounts(subC, subA, subB), false, []policy.SubaccountID{subC, subB}},
		{"nothing", policy.OnlySubaccounts(subA), policy.SubaccountSet{}, true, nil},
		{"all by some", policy.OnlySubaccounts(subA), policy.AllSubaccounts(), false, nil},
		{"some by all", policy.AllSubaccounts(), policy.OnlySubaccounts(subA, subB), true, nil},
		{"all by all", policy.AllSubaccounts(), policy.AllSubaccounts(), true, nil},
		{"many by many", policy.OnlySubaccounts(many...), policy.OnlySubaccounts(many[3:]...), true, nil},
		{"many by all but one", policy.OnlySubaccounts(many[1:]...), policy.OnlySubaccounts(many...), false, many[:1]},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := row.set.Covers(row.other); got != row.covers {
				t.Errorf("got Covers %v, want %v", got, row.covers)
			}
			if diff := cmp.Diff(row.missing, row.set.Missing(row.other)); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParsePrefixIsCanonicalOrRefused(t *testing.T) {
	rows := []struct {
		name string
		s    string
		want string // "" refuses
	}{
		{"IPv4 address", "203.0.113.7", "203.0.113.7/32"},
		{"IPv4 address with its length", "203.0.113.7/32", "203.0.113.7/32"},
		{"IPv4 range", "203.0.113.0/24", "203.0.113.0/24"},
		{"IPv4 range with host bits", "203.0.113.7/24", "203.0.113.0/24"},
		{"IPv4 range of odd length", "203.0.113.255/25", "203.0.113.128/25"},
		{"all of IPv4", "0.0.0.0/0", "0.0.0.0/0"},
		{"all of IPv4 by another name", "203.0.113.7/0", "0.0.0.0/0"},
		{"IPv6 address", "2001:db8::1", "2001:db8::1/128"},
		{"IPv6 address in capitals", "2001:DB8::A", "2001:db8::a/128"},
		{"IPv6 address written out", "2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1/128"},
		{"IPv6 range with host bits", "2001:db8::1/32", "2001:db8::/32"},
		{"all of IPv6", "::/0", "::/0"},
		{"unspecified IPv6 address", "::", "::/128"},
		{"mapped address", "::ffff:203.0.113.7", "203.0.113.7/32"},
		{"mapped address in hexadecimal", "::ffff:cb00:7107", "203.0.113.7/32"},
		{"mapped address in capitals", "::FFFF:203.0.113.7", "203.0.113.7/32"},
		{"one before the mapped addresses", "::fffe:ffff:ffff", "::fffe:ffff:ffff/128"},
		{"one behind the mapped addresses", "::1:0:0:0", "::1:0:0:0/128"},
		{"IPv4-compatible address", "::203.0.113.7", "::cb00:7107/128"},
		{"range before the mapped addresses", "::fffe:0:0/96", "::fffe:0:0/96"},

		{"mapped address with the length of IPv6", "::ffff:203.0.113.7/128", ""},
		{"mapped range", "::ffff:203.0.113.0/120", ""},
		{"mapped range that means all of IPv4", "::ffff:0:0/96", ""},
		{"mapped address with the length of IPv4", "::ffff:203.0.113.0/24", ""},
		{"zone", "fe80::1%eth0", ""},
		{"zone on a range", "fe80::1%eth0/64", ""},
		{"zone behind a range", "fe80::/64%eth0", ""},
		{"zone on a mapped address", "::ffff:203.0.113.7%eth0", ""},
		{"zone on IPv4", "203.0.113.7%eth0", ""},
		{"empty zone", "fe80::1%", ""},
		{"leading zero", "203.0.113.07", ""},
		{"leading zero that is octal elsewhere", "010.0.0.1", ""},
		{"leading zero in a range", "203.0.013.0/24", ""},
		{"leading zero in the length", "203.0.113.0/024", ""},
		{"zeros as length", "203.0.113.0/00", ""},
		{"plus in the length", "203.0.113.0/+24", ""},
		{"negative length", "203.0.113.0/-1", ""},
		{"length too large for IPv4", "203.0.113.0/33", ""},
		{"length too large for IPv6", "2001:db8::/129", ""},
		{"no length", "203.0.113.0/", ""},
		{"net mask for a length", "203.0.113.0/255.255.255.0", ""},
		{"two lengths", "203.0.113.0/24/24", ""},
		{"host name", "example.com", ""},
		{"localhost", "localhost", ""},
		{"host name that looks like one", "203.0.113.7.example.com", ""},
		{"one number", "3405803783", ""},
		{"hexadecimal", "0xcb.0.113.7", ""},
		{"three parts", "203.0.113", ""},
		{"five parts", "203.0.113.7.9", ""},
		{"part too large", "203.0.113.256", ""},
		{"three parts with a length", "203.0.113/24", ""},
		{"with a port", "203.0.113.7:80", ""},
		{"in brackets", "[2001:db8::1]", ""},
		{"as from-to", "203.0.113.0-203.0.113.9", ""},
		{"wildcard", "203.0.113.*", ""},
		{"list", "203.0.113.7,203.0.113.8", ""},
		{"space in front", " 203.0.113.7", ""},
		{"space behind", "203.0.113.7 ", ""},
		{"newline behind a range", "203.0.113.0/24\n", ""},
		{"NUL", "203.0.113.7\x00", ""},
		{"digits of another alphabet", "２０３.0.113.7", ""},
		{"only a length", "/24", ""},
		{"empty", "", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := policy.ParsePrefix(row.s)
			if row.want == "" {
				if !errors.Is(err, policy.ErrBadPrefix) || got.IsValid() {
					t.Errorf("got %v, %v, want nothing and ErrBadPrefix", got, err)
				}
				return
			}
			if err != nil || got.String() != row.want {
				t.Errorf("got %v, %v, want %s", got, err, row.want)
			}
		})
	}
}

func TestRefusedMappedRangeSaysWhatToWrite(t *testing.T) {
	_, err := policy.ParsePrefix("::ffff:203.0.113.0/120")
	want := "not an IPv4 or IPv6 address or CIDR range: write an IPv4-mapped range as the IPv4 range"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzParsePrefix(f *testing.F) {
	for _, s := range []string{
		"203.0.113.7", "203.0.113.7/24", "0.0.0.0/0", "::/0", "2001:db8::1/32", "::ffff:203.0.113.7", "::ffff:203.0.113.7/120",
		"::ffff:0:0/96", "fe80::1%eth0", "fe80::1%eth0/64", "010.0.0.1", "203.0.113.0/024", "localhost", "", "/", "::fffe:0:0/95",
	} {
		f.Add(s, "203.0.113.8")
	}
	f.Add("2001:db8::/32", "2001:db8:ffff::")
	f.Fuzz(func(t *testing.T, s, sample string) {
		p, err := policy.ParsePrefix(s)
		want, ok := prefixByNetip(s)
		if (err == nil) != ok {
			t.Fatalf("%q: got error %v, want accepted %v", s, err, ok)
		}
		if err != nil {
			if p.IsValid() || !errors.Is(err, policy.ErrBadPrefix) {
				t.Fatalf("%q: got %v, %v, want nothing and ErrBadPrefix", s, p, err)
			}
			return
		}
		if p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			t.Fatalf("%q: got %v, which is not canonical", s, p)
		}
		set := policy.OnlyAddresses(p)
		again := only(set.Strings()...)
		if diff := cmp.Diff(set.Strings(), again.Strings()); diff != "" {
			t.Fatalf("%q: stored and read again (-want +got):\n%s", s, diff)
		}
		if !set.Covers(again) || !again.Covers(set) {
			t.Fatalf("%q: stored and read again: got another set", s)
		}
		samples := []netip.Addr{want.Addr(), want.Masked().Addr(), want.Masked().Addr().Prev(), lastOf(want), lastOf(want).Next()}
		if addr, err := netip.ParseAddr(sample); err == nil {
			samples = append(samples, addr)
		}
		for _, addr := range samples {
			plain := addr.Unmap().WithZone("")
			for _, form := range formsOf(plain) {
				if got := set.Contains(form); got != want.Contains(plain) {
					t.Fatalf("%q: Contains(%v): got %v, want %v", s, form, got, !got)
				}
			}
		}
	})
}

// prefixByNetip is what ParsePrefix promises, said in another way: netip's own
// reading, less zones and less ranges of mapped addresses.
func prefixByNetip(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		mapped := netip.MustParsePrefix("::ffff:0:0/96")
		return p, !mapped.Contains(p.Addr())
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || strings.Contains(s, "%") {
		return netip.Prefix{}, false
	}
	if bytes := addr.As16(); addr.Is4In6() {
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	p, err := addr.Prefix(addr.BitLen())
	return p, err == nil
}

// formsOf returns the spellings in which one client address can arrive.
func formsOf(addr netip.Addr) []netip.Addr {
	switch {
	case !addr.IsValid():
		return []netip.Addr{addr}
	case addr.Is4():
		mapped := netip.AddrFrom16(addr.As16())
		return []netip.Addr{addr, mapped, mapped.WithZone("eth0")}
	}
	return []netip.Addr{addr, addr.WithZone("eth0")}
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < p.Addr().BitLen(); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

func TestZeroAddressSetContainsNone(t *testing.T) {
	clients := []netip.Addr{{}, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::"), netip.MustParseAddr("203.0.113.7")}
	for name, set := range map[string]policy.AddressSet{
		"zero value": {}, "only none": policy.OnlyAddresses(), "only an invalid prefix": policy.OnlyAddresses(netip.Prefix{}),
	} {
		for _, client := range clients {
			if set.Contains(client) {
				t.Errorf("%s: Contains(%v): got true, want false", name, client)
			}
		}
		if set.Any() || set.Covers(policy.AnyAddress()) || set.Covers(only("203.0.113.7")) {
			t.Errorf("%s: got a set that covers something", name)
		}
	}
	if got := (policy.AddressSet{}).Strings(); got == nil || len(got) != 0 {
		t.Errorf("got %#v, want an empty list that is not nil", got)
	}
}

func TestAnyAddressContainsEvenAnUndeterminedOne(t *testing.T) {
	set := policy.AnyAddress()
	for _, client := range []netip.Addr{{}, netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("fe80::1%eth0")} {
		if !set.Contains(client) {
			t.Errorf("Contains(%v): got false, want true", client)
		}
	}
	if !set.Any() {
		t.Error("got Any() false, want true")
	}
	if got := set.Strings(); got == nil || len(got) != 0 {
		t.Errorf("got %#v, want an empty list that is not nil", got)
	}
}

func TestOnlyAddressesDropsDuplicatesAndKeepsTheOrder(t *testing.T) {
	got := only("203.0.113.7/32", "2001:db8::/32", "203.0.113.7", "10.9.8.7/8", "::ffff:203.0.113.7", "2001:db8::/128").Strings()
	want := []string{"203.0.113.7", "2001:db8::/32", "10.0.0.0/8", "2001:db8::"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("canonical forms (-want +got):\n%s", diff)
	}
}

func TestAddressSetCoversAndMissing(t *testing.T) {
	rows := []struct {
		name    string
		set     policy.AddressSet
		other   policy.AddressSet
		covers  bool
		missing []string
	}{
		{"itself", only("203.0.113.0/24"), only("203.0.113.0/24"), true, nil},
		{"a part", only("203.0.113.0/24"), only("203.0.113.128/25", "203.0.113.7"), true, nil},
		{"one bit more", only("203.0.113.0/24"), only("203.0.112.0/23"), false, []string{"203.0.112.0/23"}},
		{"the range beside", only("203.0.113.0/24"), only("203.0.113.7", "203.0.114.0/24", "10.0.0.1"), false, []string{"203.0.114.0/24", "10.0.0.1"}},
		{"the second of two ranges", only("10.0.0.0/8", "203.0.113.0/24"), only("203.0.113.7"), true, nil},
		{"two halves that make a whole", only("203.0.113.0/25", "203.0.113.128/25"), only("203.0.113.0/24"), false, []string{"203.0.113.0/24"}},
		{"IPv6 in all of IPv4", only("0.0.0.0/0"), only("2001:db8::/32"), false, []string{"2001:db8::/32"}},
		{"IPv4 in all of IPv6", only("::/0"), only("203.0.113.7"), false, []string{"203.0.113.7"}},
		{"nothing", only("203.0.113.7"), policy.AddressSet{}, true, nil},
		{"any by some", only("0.0.0.0/0", "::/0"), policy.AnyAddress(), false, nil},
		{"some by any", policy.AnyAddress(), only("0.0.0.0/0", "::/0"), true, nil},
		{"any by any", policy.AnyAddress(), policy.AnyAddress(), true, nil},
		{"some by nothing", policy.AddressSet{}, only("203.0.113.7"), false, []string{"203.0.113.7"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := row.set.Covers(row.other); got != row.covers {
				t.Errorf("got Covers %v, want %v", got, row.covers)
			}
			got := policy.OnlyAddresses(row.set.Missing(row.other)...).Strings()
			if diff := cmp.Diff(row.missing, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}
