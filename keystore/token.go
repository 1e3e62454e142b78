package keystore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

const (
	// TokenLength is the length of every token, its prefix included.
	TokenLength    = 64
	checksumLength = 6
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// ErrBadToken is what ParseToken returns for anything that cannot be a token.
var ErrBadToken = errors.New("malformed token")

// Token is a key's secret, reduced to the SHA-256 by which the store knows
// it. Only a token that was just minted also has the secret itself. It never
// prints either.
type Token struct {
	hash [sha256.Size]byte
	// A pointer, because package fmt prints strings also out of fields whose
	// methods it cannot call.
	secret *string
}

// ParseToken checks the shape and the checksum of a token with the given
// prefix, without asking the store. The error is always ErrBadToken, and
// says nothing of the token.
func ParseToken(prefix, s string) (Token, error) {
	if len(s) != TokenLength || !strings.HasPrefix(s, prefix) {
		return Token{}, ErrBadToken
	}
	for i := len(prefix); i < TokenLength; i++ {
		if !isBase62(s[i]) {
			return Token{}, ErrBadToken
		}
	}
	body := s[:TokenLength-checksumLength]
	if checksum(body) != [checksumLength]byte([]byte(s[TokenLength-checksumLength:])) {
		return Token{}, ErrBadToken
	}
	return Token{hash: sha256.Sum256([]byte(s))}, nil
}

// mintToken makes a new token: the prefix, base62 characters drawn evenly
// from random (327 bits with the default prefix), and the checksum.
func mintToken(prefix string, random io.Reader) (Token, error) {
	secret := make([]byte, 0, TokenLength)
	secret = append(secret, prefix...)
	var buf [TokenLength]byte
	for len(secret) < TokenLength-checksumLength {
		if _, err := io.ReadFull(random, buf[:]); err != nil {
			return Token{}, fmt.Errorf("mint token: %w", err)
		}
		for _, b := range buf {
			// 248 is the largest multiple of 62 in a byte; what lies above
			// would make the first characters likelier than the others.
			if b < 248 && len(secret) < TokenLength-checksumLength {
				secret = append(secret, base62[b%62])
			}
		}
	}
	sum := checksum(string(secret))
	secret = append(secret, sum[:]...)
	revealed := string(secret)
	return Token{hash: sha256.Sum256(secret), secret: &revealed}, nil
}

// newToken mints from the operating system's random source.
func newToken(prefix string) (Token, error) { return mintToken(prefix, rand.Reader) }

// checksum is the CRC-32 (IEEE) of s in base62, most significant digit first.
func checksum(s string) [checksumLength]byte {
	sum := crc32.ChecksumIEEE([]byte(s))
	var out [checksumLength]byte
	for i := checksumLength - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return out
}

func isBase62(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// Reveal returns the secret of a token that was just minted, "" for every
// other. It is shown to its owner once and kept nowhere.
func (t Token) Reveal() string {
	if t.secret == nil {
		return ""
	}
	return *t.secret
}

// String hides the token from logs and errors.
func (Token) String() string { return "token(redacted)" }

// GoString hides the token from %#v.
func (Token) GoString() string { return "token(redacted)" }

// MarshalText hides the token from encoders.
func (Token) MarshalText() ([]byte, error) { return []byte("token(redacted)"), nil }

// preview is what a listing shows of a minted token: its prefix and four
// characters, and the last four.
func (t Token) preview(prefix string) string {
	secret := t.Reveal()
	return secret[:len(prefix)+4] + "…" + secret[TokenLength-4:]
}

// hashHex is the name of the token's record.
func (t Token) hashHex() string { return hex.EncodeToString(t.hash[:]) }
