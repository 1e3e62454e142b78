// Package password says which passwords are accepted, and hashes and compares
// them with Argon2id. It stores nothing, and knows no users.
package password

import (
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MinLength is the least that a password which is chosen has, in characters.
	MinLength = 12
	// MaxLength is the most.
	MaxLength = 128
)

// The reasons for which a new password is refused, as sentences for whoever
// chose it.
var (
	ErrTooShort = fmt.Errorf("the password must have at least %d characters", MinLength)
	ErrTooLong  = fmt.Errorf("the password must have at most %d characters", MaxLength)
	ErrText     = errors.New("the password must be valid UTF-8")
	ErrEmail    = errors.New("the password must not be the e-mail address")
	ErrCommon   = errors.New("the password is one of the commonest there are")
)

// common has one password a line, in lower case: those of the lists of leaked
// passwords that are long enough to be chosen here.
//
//go:embed common.txt
var common string

// Check returns nil for a password that may be chosen by the owner of the
// e-mail address, and otherwise one of the errors of this package. Every
// character counts: nothing is trimmed, folded or cut off.
func Check(password, email string) error {
	length := utf8.RuneCountInString(password)
	lower := strings.ToLower(password)
	switch {
	case !utf8.ValidString(password):
		return ErrText
	case length < MinLength:
		return ErrTooShort
	case length > MaxLength:
		return ErrTooLong
	case strings.EqualFold(strings.TrimSpace(password), email):
		return ErrEmail
	case isOneCharacter(lower):
		return ErrCommon
	}
	for line := range strings.Lines(common) {
		if strings.TrimSuffix(line, "\n") == lower {
			return ErrCommon
		}
	}
	return nil
}

// isOneCharacter reports whether one character is all there is.
func isOneCharacter(s string) bool {
	first, _ := utf8.DecodeRuneInString(s)
	return strings.Trim(s, string(first)) == ""
}

// alphabet has no two characters that are mistaken for each other, and 32 of
// them, so that each byte of randomness gives one evenly.
const alphabet = "abcdefghjkmnpqrstuvwxyz23456789L"

// Generate returns a new password of 20 characters (100 bits), in groups that
// can be read out.
func Generate() string { return Code(4, 5) }

// Respell spells a code that was typed as Code did, in groups of that length:
// whatever the case, and wherever there are dashes and spaces.
func Respell(typed string, length int) string {
	var code strings.Builder
	count := 0
	for _, r := range typed {
		r = unicode.ToLower(r)
		switch {
		case unicode.IsSpace(r) || unicode.Is(unicode.Dash, r):
			continue
		case r == 'l': // the one capital of the alphabet
			r = 'L'
		}
		if count > 0 && count%length == 0 {
			code.WriteByte('-')
		}
		code.WriteRune(r)
		count++
	}
	return code.String()
}

// Code returns that many groups of random characters, 5 bits each, with dashes
// between them.
func Code(groups, length int) string {
	random := make([]byte, groups*length)
	_, _ = rand.Read(random) // it never fails
	var code strings.Builder
	for i, b := range random {
		if i > 0 && i%length == 0 {
			code.WriteByte('-')
		}
		code.WriteByte(alphabet[b%32])
	}
	return code.String()
}
