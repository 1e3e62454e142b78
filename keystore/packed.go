package keystore

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"unicode/utf8"
)

// What compact records are made of: bytes, varints (as encoding/binary has
// them, in their shortest form), texts behind their length, UUIDs as their 16
// bytes, and address ranges. Everything has exactly one encoding.

// uuidLength and uuidText are how long a UUID is, as bytes and as text.
const (
	uuidLength = 16
	uuidText   = 36
)

var errUTF8 = errors.New("a text is not valid UTF-8")

// appendText appends the length of s and s itself.
func appendText(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, errUTF8 // JSON, as which it is exported, has no spelling for it
	}
	return append(binary.AppendUvarint(b, uint64(len(s))), s...), nil
}

// rawUUID returns the bytes of a UUID in its canonical form: 36 characters,
// lower case. Every other text is not one.
func rawUUID(s string) (raw [uuidLength]byte, ok bool) {
	if len(s) != uuidText {
		return raw, false
	}
	var digits [2 * uuidLength]byte
	n := 0
	for i := range len(s) {
		c := s[i]
		switch dash := i == 8 || i == 13 || i == 18 || i == 23; {
		case dash && c == '-':
		case !dash && ('0' <= c && c <= '9' || 'a' <= c && c <= 'f'):
			digits[n] = c
			n++
		default:
			return raw, false
		}
	}
	_, err := hex.Decode(raw[:], digits[:])
	return raw, err == nil
}

// appendUUIDText appends the canonical text of a UUID.
func appendUUIDText(b []byte, raw string) []byte {
	var text [uuidText]byte
	at := 0
	for i := range uuidLength {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text[at] = '-'
			at++
		}
		const digits = "0123456789abcdef"
		text[at], text[at+1] = digits[raw[i]>>4], digits[raw[i]&15]
		at += 2
	}
	return append(b, text[:]...)
}

// ipv6From is added to the length of an IPv6 range: 0 to 32 are those of IPv4.
const ipv6From = 33

// appendPrefix appends a range: its length, and as many bytes as that covers.
func appendPrefix(b []byte, p netip.Prefix) ([]byte, error) {
	if !canonicalPrefix(p) {
		return nil, fmt.Errorf("the range %s is not canonical", p)
	}
	bits := p.Bits()
	covered := (bits + 7) / 8
	if p.Addr().Is4() {
		raw := p.Addr().As4()
		return append(append(b, byte(bits)), raw[:covered]...), nil // #nosec G115 -- at most 32
	}
	raw := p.Addr().As16()
	return append(append(b, byte(bits+ipv6From)), raw[:covered]...), nil // #nosec G115 -- at most 161
}

// canonicalPrefix reports whether it is one that policy.ParsePrefix returns.
func canonicalPrefix(p netip.Prefix) bool {
	return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6()
}

// unpacker takes a compact record apart. Once something was not there, or not
// in its one encoding, all that it returns is zero, and whole says so: nothing
// of a record may be used before whole was asked.
type unpacker struct {
	rest string
	bad  bool
}

// whole reports whether all was read, everything was valid, and nothing is
// left.
func (u *unpacker) whole() bool { return !u.bad && u.rest == "" }

func (u *unpacker) fail() {
	u.bad, u.rest = true, ""
}

// bytes returns the next n bytes.
func (u *unpacker) bytes(n uint64) string {
	if n > uint64(len(u.rest)) {
		u.fail()
		return ""
	}
	taken := u.rest[:n]
	u.rest = u.rest[n:]
	return taken
}

func (u *unpacker) byte() byte {
	one := u.bytes(1)
	if one == "" {
		return 0
	}
	return one[0]
}

// uvarint returns an unsigned number.
func (u *unpacker) uvarint() uint64 {
	var n uint64
	for i := range min(len(u.rest), binary.MaxVarintLen64) {
		c := u.rest[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break // more than 64 bits
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				break // a shorter form says the same
			}
			u.rest = u.rest[i+1:]
			return n
		}
	}
	u.fail()
	return 0
}

// varint returns a signed number.
func (u *unpacker) varint() int64 {
	n := u.uvarint()
	return int64(n>>1) ^ -int64(n&1) // #nosec G115 -- the zigzag encoding of encoding/binary
}

// count returns how many items follow, of which each takes a byte at least.
func (u *unpacker) count() int {
	n := u.uvarint()
	if n > uint64(len(u.rest)) {
		u.fail()
		return 0
	}
	return int(n) // #nosec G115 -- at most the length of a string
}

func (u *unpacker) text() string {
	s := u.bytes(u.uvarint())
	if !utf8.ValidString(s) {
		u.fail()
		return ""
	}
	return s
}

func (u *unpacker) prefix() netip.Prefix {
	bits := int(u.byte())
	width, family := 32, 4
	if bits >= ipv6From {
		bits, width, family = bits-ipv6From, 128, 16
	}
	if bits > width {
		u.fail()
		return netip.Prefix{}
	}
	var raw [16]byte
	copy(raw[:], u.bytes(uint64(bits+7)/8)) // #nosec G115 -- never negative
	addr, _ := netip.AddrFromSlice(raw[:family])
	p := netip.PrefixFrom(addr, bits)
	if u.bad || !canonicalPrefix(p) {
		u.fail()
		return netip.Prefix{}
	}
	return p
}
