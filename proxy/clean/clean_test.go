package clean_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"gatehouse/proxy/clean"
)

const token = "gk_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func TestTextsAreCleaned(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, given, text, ascii string }{
		{"nothing to do", "/v4/account/a?b", "/v4/account/a?b", "/v4/account/a?b"},
		{"nothing", "", "", ""},
		{"a token", token + ".", "gk_0….", "gk_0...."},
		{"a word that is just too short for one", strings.Repeat("a", 31), strings.Repeat("a", 31), strings.Repeat("a", 31)},
		{"a word that could be one", strings.Repeat("a", 32), "aaaa…", "aaaa..."},
		{"a UUID", "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000001"},
		{"control characters", "a\n\x1b[2Jb\x7f", `a\u000a\u001b[2Jb\u007f`, `a\u000a\u001b[2Jb\u007f`},
		{"a text that turns around", "a\u202eb", `a\u202eb`, `a\u202eb`},
		{"letters of others", "ü€", "ü€", `\u00fc\u20ac`},
		{"beyond the first plane", "\U0001f600", "\U0001f600", `\U0001f600`},
		{"no UTF-8", "a\xffb", `a\xffb`, `a\xffb`},
		{"too long", strings.Repeat("a ", 40), strings.Repeat("a ", 35) + "…", strings.Repeat("a ", 35) + "..."},
		{"cut in a token", strings.Repeat("a ", 20) + token, strings.Repeat("a ", 20) + "…", strings.Repeat("a ", 20) + "..."},
	} {
		if got := clean.Text(row.given, 70); got != row.text {
			t.Errorf("%s: Text is %q, want %q", row.name, got, row.text)
		}
		if got := clean.ASCII(row.given, 70); got != row.ascii {
			t.Errorf("%s: ASCII is %q, want %q", row.name, got, row.ascii)
		}
	}
}

// FuzzText: whatever comes is one short printable line without the long words.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", token, "a\n" + token, "\xff\xfe", "\u202e\u2028", strings.Repeat("\x1b", 100), strings.Repeat("ü", 99), "…" + token[:40]} {
		f.Add(s)
	}
	const most = 60
	long := regexp.MustCompile(`[0-9A-Za-z_]{32}`)
	f.Fuzz(func(t *testing.T, s string) {
		text, ascii := clean.Text(s, most), clean.ASCII(s, most)
		for _, got := range []string{text, ascii} {
			if len(got) > most+len("…") || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x00\x1b\u2028\u202e") {
				t.Errorf("%q became %q", s, got)
			}
			if word := long.FindString(s); word != "" && strings.Contains(got, word) {
				t.Errorf("%q became %q, with the long word", s, got)
			}
		}
		if strings.ContainsFunc(ascii, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q became %q", s, ascii)
		}
	})
}
