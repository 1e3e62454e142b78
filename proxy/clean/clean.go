// Package clean makes texts that others have a hand in fit for logs and traces:
// one line of bounded length that moves no cursor and shows no token. It keeps
// no meaning that such a text had: it is for people to read.
package clean

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// longestWord is from how many letters and digits on, with nothing between
	// them, a word could be a token.
	longestWord = 32
	// keptOfWord is how much of such a word is kept.
	keptOfWord = 4
)

// Text returns s in printable characters, without words that could be a token,
// and cut after so many bytes. A text that needs nothing is returned as it is.
func Text(s string, most int) string {
	return Cut(Escaped(WithoutSecrets(s, most), ""), most)
}

// ASCII is Text in nothing but printable ASCII, for what anybody can send.
func ASCII(s string, most int) string {
	s = WithoutSecrets(s, most)
	if isPlain(s) {
		return s
	}
	var out strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '…':
			out.WriteString("...")
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case r > 0xffff:
			fmt.Fprintf(&out, `\U%08x`, r)
		case r < ' ' || r > '~':
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	if out.Len() <= most+len("...") { // it may have been cut already
		return out.String()
	}
	return strings.TrimRightFunc(out.String()[:most], isOfWord) + "..."
}

// Cut cuts s after so many bytes. It also takes the rest of a word in the
// middle of which it cuts, so that no part of a token is left.
func Cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.TrimRightFunc(strings.ToValidUTF8(s[:most], ""), isOfWord) + "…"
}

func isOfWord(r rune) bool {
	return r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// WithoutSecrets cuts s, and shortens every word of it that could be a token.
func WithoutSecrets(s string, most int) string {
	s = Cut(s, most)
	var out strings.Builder
	done := 0
	for begin := 0; begin < len(s); {
		end := begin
		for end < len(s) && isOfWord(rune(s[end])) {
			end++
		}
		if end-begin >= longestWord {
			out.WriteString(s[done:begin+keptOfWord] + "…")
			done = end
		}
		begin = end + 1
	}
	if done == 0 {
		return s
	}
	return out.String() + s[done:]
}

// Escaped spells out what is no printable text, but the characters of except.
func Escaped(s, except string) string {
	if isPlain(s) || strings.IndexFunc(s, func(r rune) bool { return isUnclean(r) && !strings.ContainsRune(except, r) }) < 0 {
		return s
	}
	const digits = "0123456789abcdef"
	var out strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case !isUnclean(r) || strings.ContainsRune(except, r):
			out.WriteRune(r)
		case r == utf8.RuneError && size == 1:
			out.WriteString(`\x` + string(digits[s[i]>>4]) + string(digits[s[i]&15]))
		default:
			out.WriteString(`\u`)
			for shift := 12; shift >= 0; shift -= 4 {
				out.WriteByte(digits[r>>shift&15])
			}
		}
	}
	return out.String()
}

// isPlain reports whether s is printable ASCII, as nearly all texts are.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isUnclean: control characters, line separators, and what turns the direction
// of a text around.
func isUnclean(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' ||
		'\u200e' <= r && r <= '\u200f' || '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069'
}
