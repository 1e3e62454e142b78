package keystore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// Email is an e-mail address in the one spelling by which users are known: in
// lower case, and less the spaces around it.
type Email string

const (
	maxEmail       = 254 // RFC 5321 §4.5.3.1.3, less the brackets
	maxEmailLocal  = 64
	maxDomainLabel = 63
)

// ErrBadEmail is what ParseEmail returns for what is no e-mail address.
var ErrBadEmail = errors.New("malformed e-mail address")

// ParseEmail reads an e-mail address: a dot-atom of RFC 5322, @, and a domain
// name in ASCII, together at most 254 characters. Quoted local parts, address
// literals and comments, which mail servers read differently, are refused.
// Letter case does not count: two users whose addresses differ in it alone
// would be one person to everybody else.
func ParseEmail(s string) (Email, error) {
	s = lowerASCII(strings.Trim(s, " \t\r\n"))
	local, domain, found := strings.Cut(s, "@")
	if !found || len(s) > maxEmail || len(local) > maxEmailLocal || !isDotted(local, isAtom) || !isDotted(domain, isDomainLabel) {
		return "", ErrBadEmail
	}
	return Email(s), nil
}

// isDotted reports whether s is made of such parts, with dots between them.
func isDotted(s string, isPart func(string) bool) bool {
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || !isPart(part) {
			return false
		}
	}
	return true
}

func isAtom(s string) bool {
	for i := range len(s) {
		if !isLowerOrDigit(s[i]) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", s[i]) < 0 {
			return false
		}
	}
	return true
}

func isDomainLabel(s string) bool {
	for i := range len(s) {
		if !isLowerOrDigit(s[i]) && s[i] != '-' {
			return false
		}
	}
	return len(s) <= maxDomainLabel && s[0] != '-' && s[len(s)-1] != '-'
}

func isLowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// hashHex is the name of the record that says whose the address is: an address
// could have braces, which a Cluster reads.
func (e Email) hashHex() string {
	sum := sha256.Sum256([]byte(e))
	return hex.EncodeToString(sum[:])
}

// lowerASCII leaves all but A to Z as it is: other letters have lower cases
// that are ASCII.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
