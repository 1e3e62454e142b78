package proxy_test

import (
	"encoding/hex"
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"gatehouse/proxy"
	"gatehouse/proxy/problem"
)

func TestPathHasOneSpelling(t *testing.T) {
	const (
		slash   = "it does not begin with a slash"
		empty   = "it has an empty segment"
		dots    = "it has a dot segment"
		char    = "it has a character that must not stand there as it is"
		control = "it has a control character"
		broken  = "it has an escape that is broken or not in capitals"
		needed  = "it has an escape for a character that must not be escaped"
		twice   = "it is escaped twice"
		utf     = "it is not valid UTF-8"
	)
	rows := []struct {
		name string
		path string
		want string // the fault; "" accepts
	}{
		{"root", "/", ""},
		{"segments", "/v4/account/api-keys", ""},
		{"slash at the end", "/v4/account/", ""},
		{"capitals", "/V4/Account", ""},
		{"every unreserved character", "/azAZ09-._~", ""},
		{"every other character of a segment", "/!$&'()*+,=:@", ""},
		{"dot in front of a word", "/.well-known", ""},
		{"dots behind a word", "/a../b..", ""},
		{"dots before a word", "/..a", ""},
		{"three dots", "/.../a", ""},
		{"asterisk", "/*", ""},
		{"escaped space", "/a%20b", ""},
		{"escaped quote and brackets", "/%22%5B%5D%7B%7D", ""},
		{"escaped UTF-8 of two bytes", "/caf%C3%A9", ""},
		{"escaped UTF-8 of three bytes", "/%E2%82%AC/%EF%BF%BD", ""},
		{"escaped UTF-8 of four bytes", "/%F0%9F%94%91", ""},
		{"escaped UTF-8 in its last code point", "/%F4%8F%BF%BF", ""},
		{"escaped percent sign", "/100%25", ""},
		{"escaped percent sign before one hex digit", "/%25a", ""},
		{"escaped percent sign before no hex digits", "/%25zz/%25-A/%25Ag", ""},
		{"escaped percent signs in a row", "/%25%25%25", ""},

		{"nothing", "", slash},
		{"no slash in front", "v4/account", slash},
		{"asterisk alone", "*", slash},
		{"whole address", "http://example.com/v4", slash},
		{"backslash in front", `\v4`, slash},

		{"empty segment in front", "//v4", empty},
		{"empty segment within", "/v4//account", empty},
		{"empty segment behind", "/v4//", empty},
		{"many empty segments", "////", empty},

		{"one dot", "/.", dots},
		{"one dot within", "/v4/./account", dots},
		{"one dot with a slash behind", "/v4/./", dots},
		{"two dots", "/..", dots},
		{"two dots within", "/v4/../admin", dots},
		{"two dots at the end", "/v4/..", dots},
		{"two dots with a slash behind", "/v4/../", dots},

		{"semicolon", "/v4;a=b/account", char},
		{"semicolon behind dots", "/v4/..;/admin", char},
		{"backslash", `/v4\admin`, char},
		{"backslash with dots", `/v4/..\admin`, char},
		{"NUL", "/v4\x00", char},
		{"newline", "/v4\n", char},
		{"tab", "/v4\t", char},
		{"delete", "/v4\x7f", char},
		{"space", "/v4 /a", char},
		{"question mark", "/v4?type=get", char},
		{"number sign", "/v4#a", char},
		{"quote", `/v4"`, char},
		{"angle brackets", "/<v4>", char},
		{"square brackets", "/[v4]", char},
		{"braces", "/{v4}", char},
		{"bar", "/v4|a", char},
		{"caret", "/v4^a", char},
		{"backtick", "/v4`a", char},
		{"UTF-8 as it is", "/café", char},
		{"invalid UTF-8 as it is", "/\xff", char},
		{"full-width slash as it is", "/v4／admin", char},

		{"escape without digits", "/v4%", broken},
		{"escape with one digit", "/v4%4", broken},
		{"escape cut off by a slash", "/v4%4/a", broken},
		{"escape with no hex digit", "/v4%4G", broken},
		{"escape with a sign", "/v4%+1", broken},
		{"escape of the IIS kind", "/v4%u002F", broken},
		{"escape in lower case", "/caf%c3%a9", broken},
		{"escape in mixed case", "/caf%C3%a9", broken},
		{"escaped slash in lower case", "/v4%2fadmin", broken},

		{"escaped slash", "/v4%2Fadmin", needed},
		{"escaped slash and dots", "/v4/x%2F..%2Fadmin", needed},
		{"escaped backslash", "/v4%5Cadmin", needed},
		{"escaped semicolon", "/v4%3Ba", needed},
		{"escaped dot", "/v4/%2E", needed},
		{"escaped dots", "/v4/%2E%2E/admin", needed},
		{"one dot escaped, one not", "/v4/.%2E/admin", needed},
		{"escaped letter", "/v4/%61dmin", needed},
		{"escaped capital", "/v4/%41dmin", needed},
		{"escaped digit", "/v%34", needed},
		{"escaped dash", "/api%2Dkeys", needed},
		{"escaped underscore", "/datacenter%5Fshared", needed},
		{"escaped tilde", "/%7Ev4", needed},
		{"escaped question mark", "/a%3Fb", needed},
		{"escaped number sign", "/a%23c", needed},
		{"escaped NUL", "/v4%00", control},
		{"escaped line break", "/v4%0D%0Aa", control},
		{"escaped tab", "/v4%09", control},
		{"last escaped control character", "/v4%1F", control},
		{"escaped delete", "/v4%7F", control},
		{"escaped control character of two bytes", "/v4%C2%85", control},

		{"slash escaped twice", "/v4%252Fadmin", twice},
		{"slash escaped twice, in lower case", "/v4%252fadmin", twice},
		{"dots escaped twice", "/v4/%252E%252E/admin", twice},
		{"slash escaped three times", "/v4%25252Fadmin", twice},
		{"percent sign escaped twice", "/v4%2525", twice},

		{"lone continuation byte", "/%80", utf},
		{"cut off sequence", "/caf%C3", utf},
		{"cut off sequence before a slash", "/caf%C3/%A9", utf},
		{"overlong slash", "/v4%C0%AFadmin", utf},
		{"overlong dot", "/v4/%C0%AE%C0%AE/admin", utf},
		{"overlong slash of three bytes", "/v4%E0%80%AFadmin", utf},
		{"surrogate", "/%ED%A0%80", utf},
		{"above the last code point", "/%F4%90%80%80", utf},
		{"Latin-1", "/caf%E9", utf},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			err := proxy.CanonicalPath(row.path)
			if row.want == "" {
				if err != nil {
					t.Errorf("%q: got %v, want nil", row.path, err)
				}
				return
			}
			p, ok := errors.AsType[*problem.Problem](err)
			if !ok || p.Code != problem.AmbiguousPath {
				t.Fatalf("%q: got %v, want %s", row.path, err, problem.AmbiguousPath)
			}
			if want := "The path of this request is ambiguous: " + row.want + "."; p.Detail != want {
				t.Errorf("%q: got %q, want %q", row.path, p.Detail, want)
			}
		})
	}
}

// Every byte is tried as it is and escaped: the table above names classes, and
// a class must not end one byte too early.
func TestEachByteStandsEitherAsItIsOrEscaped(t *testing.T) {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~" + "!$&'()*+,=:@" + "/"
	const neverEscaped = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~" + `/\;?#`
	const digits = "0123456789ABCDEF"
	for c := range 256 {
		b := byte(c)
		raw := "/a" + string([]byte{b}) + "b"
		if got, want := proxy.CanonicalPath(raw) == nil, strings.IndexByte(plain, b) >= 0; got != want {
			t.Errorf("%q: got accepted %v, want %v", raw, got, want)
		}
		escaped := "/a%" + string([]byte{digits[b>>4], digits[b&15]}) + "-b"
		accepted := proxy.CanonicalPath(escaped) == nil
		if mustNot := b < 0x20 || b >= 0x7f || strings.IndexByte(neverEscaped, b) >= 0; accepted && mustNot {
			t.Errorf("%q: got accepted, want refused", escaped)
		}
		if must := b >= 0x20 && b < 0x7f && strings.IndexByte(plain, b) < 0 && strings.IndexByte(neverEscaped, b) < 0; must && !accepted {
			t.Errorf("%q: got refused, want accepted: the byte has no other spelling", escaped)
		}
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{
		"/", "/v4/account/api-keys", "/v4/account/", "/caf%C3%A9", "/100%25", "/a%20b", "/!$&'()*+,=:@", "/..a/b..", "*", "//",
		"/./", "/../", "/v4/..;/admin", "/%2E%2E/", "/%2F", "/%252F", "/%C0%AF", "/a\\b", "/%25%32%46", "/%25/%2", "/%E2%80%8B",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if proxy.CanonicalPath(p) != nil {
			return
		}
		if cleaned := path.Clean(p); cleaned != p && cleaned+"/" != p {
			t.Fatalf("%q: path.Clean gives %q", p, cleaned)
		}
		u, err := url.ParseRequestURI(p)
		if err != nil {
			t.Fatalf("%q: got %v from net/url", p, err)
		}
		if u.EscapedPath() != p || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Host != "" || u.Scheme != "" {
			t.Fatalf("%q: net/url reads %#v, escaped %q", p, u, u.EscapedPath())
		}
		if !utf8.ValidString(u.Path) {
			t.Fatalf("%q: decodes to invalid UTF-8 %q", p, u.Path)
		}
		once := decodeLeniently(p)
		if once != u.Path {
			t.Fatalf("%q: net/url reads %q, a lenient reader %q", p, u.Path, once)
		}
		for _, read := range []string{once, decodeLeniently(once), decodeLeniently(decodeLeniently(once))} {
			segments := strings.Split(strings.ReplaceAll(read, `\`, "/"), "/")
			if len(segments) != strings.Count(p, "/")+1 {
				t.Fatalf("%q: a reader sees other segments in %q", p, read)
			}
			for _, segment := range segments {
				if segment == "." || segment == ".." || strings.ContainsAny(segment, ";\x00\r\n") {
					t.Fatalf("%q: a reader sees the segment %q", p, segment)
				}
			}
		}
	})
}

// decodeLeniently is a reader that takes escapes in any letter case, and
// leaves what is none as it is.
func decodeLeniently(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var out strings.Builder
	for len(s) > 0 {
		if len(s) >= 3 && s[0] == '%' {
			if b, err := hex.DecodeString(s[1:3]); err == nil {
				out.WriteByte(b[0])
				s = s[3:]
				continue
			}
		}
		out.WriteByte(s[0])
		s = s[1:]
	}
	return out.String()
}
