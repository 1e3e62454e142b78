package keystore_test

import (
	"errors"
	"strings"
	"testing"

	"gatehouse/keystore"
)

func TestEmailHasOneSpelling(t *testing.T) {
	t.Parallel()
	domain63 := strings.Repeat("a", 63)
	for _, test := range []struct{ given, want string }{
		{"ada@example.com", "ada@example.com"},
		{" Ada@Example.COM\n", "ada@example.com"},
		{"a.d+tag@sub.example.com", "a.d+tag@sub.example.com"},
		{"x@localhost", "x@localhost"},
		{"{x}@example.com", "{x}@example.com"},
		{strings.Repeat("a", 64) + "@example.com", strings.Repeat("a", 64) + "@example.com"},
		{"x@" + domain63 + ".com", "x@" + domain63 + ".com"},
		{strings.Repeat("a", 65) + "@example.com", ""},
		{"x@a" + domain63 + ".com", ""},
		{"x@" + strings.Repeat("a.", 130) + "com", ""},
		{"", ""},
		{"ada", ""},
		{"@example.com", ""},
		{"ada@", ""},
		{"ada@@example.com", ""},
		{"ada@example.com@example.org", ""},
		{"ada@example..com", ""},
		{"ada@example.com.", ""},
		{".ada@example.com", ""},
		{"ada.@example.com", ""},
		{"a..b@example.com", ""},
		{"ada@-example.com", ""},
		{"ada@example-.com", ""},
		{"ada@exa_mple.com", ""},
		{"ada@[192.0.2.1]", ""},
		{`"ada"@example.com`, ""},
		{"ada lovelace@example.com", ""},
		{"Ada <ada@example.com>", ""},
		{"ada@example.com, bob@example.com", ""},
		{"ada\x00@example.com", ""},
		{"ada@example.com\r\nBcc: x", ""},
		{"adä@example.com", ""},
		{"ada@exämple.com", ""},
		{"\u212aim@example.com", ""}, // the Kelvin sign is a k in lower case
	} {
		got, err := keystore.ParseEmail(test.given)
		if string(got) != test.want || (err == nil) != (test.want != "") || (err != nil && !errors.Is(err, keystore.ErrBadEmail)) {
			t.Errorf("%q: got %q, %v, want %q", test.given, got, err, test.want)
		}
	}
}

// FuzzEmail: what is accepted is bounded ASCII, and its own spelling.
func FuzzEmail(f *testing.F) {
	for _, seed := range []string{"ada@example.com", " A.B@C.d ", "\u212aim@example.com", "a@b@c", "x@localhost"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := keystore.ParseEmail(s)
		if err != nil {
			return
		}
		if again, err := keystore.ParseEmail(string(e)); err != nil || again != e {
			t.Errorf("%q became %q, and then %q, %v", s, e, again, err)
		}
		for _, c := range []byte(e) {
			if c <= ' ' || c > '~' || 'A' <= c && c <= 'Z' {
				t.Errorf("%q has the character %q", e, c)
			}
		}
		if len(e) > 254 || strings.Count(string(e), "@") != 1 {
			t.Errorf("accepted %q", e)
		}
	})
}
