package dashboard

import "strings"

// tokenLike is from which length on letters of both cases and digits, with
// nothing between them, are taken for a token, or for most of one.
const tokenLike = 40

// holdsToken reports whether a token is somewhere in what somebody searches
// for. It must not get into an address, which browsers keep.
func holdsToken(search string) bool {
	for word := range strings.FieldsFuncSeq(search, func(r rune) bool { return !isBase62(r) }) {
		if len(word) >= tokenLike && strings.ContainsFunc(word, isUpper) && strings.ContainsFunc(word, isLower) && strings.ContainsFunc(word, isDigit) {
			return true
		}
	}
	return false
}

// isBase62 reports whether tokens are made of such characters behind their prefix.
func isBase62(r rune) bool { return isUpper(r) || isLower(r) || isDigit(r) }

func isUpper(r rune) bool { return 'A' <= r && r <= 'Z' }
func isLower(r rune) bool { return 'a' <= r && r <= 'z' }
func isDigit(r rune) bool { return '0' <= r && r <= '9' }
