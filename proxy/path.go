package proxy

import (
	"bytes"
	"net/http"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"gatehouse/proxy/problem"
)

// splitTarget cuts a request target in origin form (RFC 9112 §3.2.1) into its
// path and query as they were sent. Every other form is refused: an absolute
// one could name another host than the one that was matched.
func splitTarget(r *http.Request) (path, query string, err error) {
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") {
		return "", "", problem.New(problem.AmbiguousPath, "The request target must be a path that begins with a slash.")
	}
	path, query, _ = strings.Cut(target, "?")
	if strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r == '#' || r >= 0x7f }) {
		return "", "", problem.New(problem.AmbiguousQuery, "The query of this request has a character that must not stand there as it is.")
	}
	if !isHost(r.Host) {
		return "", "", problem.New(problem.AmbiguousPath, "The Host of this request is no host name or address.")
	}
	return path, query, nil
}

// isHost reports whether s is a name or an IP address, with or without a port
// (RFC 9110 §7.2). Everything else is read by some server as another host.
func isHost(s string) bool {
	name, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		name, port = s[:i], s[i+1:]
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return strings.HasSuffix(inner, "]") && err == nil && addr.Is6() && addr.Zone() == "" && isDigits(port)
	}
	for i := range len(name) {
		if c := name[i]; !isUnreserved(c) || c == '~' {
			return false
		}
	}
	return name != "" && name[0] != '.' && !strings.Contains(name, "..") && isDigits(port)
}

func isDigits(s string) bool {
	return len(s) <= 5 && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// CanonicalPath returns nil when the path, as it was sent, has the one
// spelling in which every reader sees the same segments, and an ambiguous_path
// problem otherwise. Nothing is ever cleaned or redirected: the bytes that are
// matched are the bytes that are forwarded.
//
// Refused are: dot and empty segments; `;`, backslash, control characters and
// everything else that RFC 3986 §3.3 does not allow in a segment; broken or
// lower-case escapes; escapes of unreserved characters, slash, backslash,
// semicolon, question mark, number sign, control characters, and of a percent
// sign that would make a second escape; escapes that decode to invalid UTF-8.
func CanonicalPath(path string) error {
	if reason := pathFault(path); reason != "" {
		return problem.New(problem.AmbiguousPath, "The path of this request is ambiguous: "+reason+".")
	}
	return nil
}

func pathFault(path string) string {
	if path == "" || path[0] != '/' {
		return "it does not begin with a slash"
	}
	escaped := false
	for i := range len(path) {
		switch c := path[i]; {
		case c == '%':
			escaped = true
		case c == '/' && i+1 < len(path) && path[i+1] == '/':
			return "it has an empty segment"
		case c == '/' && isDotSegment(path[i+1:]):
			return "it has a dot segment"
		case c != '/' && !isSegmentByte(c):
			return "it has a character that must not stand there as it is"
		}
	}
	if escaped {
		return escapeFault(path)
	}
	return ""
}

// isDotSegment reports whether the segment that rest begins with is "." or "..".
func isDotSegment(rest string) bool {
	segment, _, _ := strings.Cut(rest, "/")
	return segment == "." || segment == ".."
}

// isSegmentByte: pchar of RFC 3986 §3.3 without "%", which is judged by
// itself, and without ";", whose parameters servers read differently.
func isSegmentByte(c byte) bool {
	return isUnreserved(c) || strings.IndexByte("!$&'()*+,=:@", c) >= 0
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

func escapeFault(path string) string {
	decoded := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			decoded = append(decoded, path[i])
			continue
		}
		c, ok := unescape(path[i:])
		switch {
		case !ok:
			return "it has an escape that is broken or not in capitals"
		case isUnreserved(c) || strings.IndexByte(`/\;?#`, c) >= 0:
			return "it has an escape for a character that must not be escaped"
		case c == '%' && hasHexDigits(path[i+3:]):
			return "it is escaped twice"
		}
		decoded = append(decoded, c)
		i += 2
	}
	if !utf8.Valid(decoded) {
		return "it is not valid UTF-8"
	}
	if bytes.ContainsFunc(decoded, unicode.IsControl) {
		return "it has a control character"
	}
	return ""
}

// unescape reads %XX with capital hex digits, the normal form of RFC 3986 §2.1.
func unescape(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	high, isHigh := capitalHexDigit(s[1])
	low, isLow := capitalHexDigit(s[2])
	return high<<4 | low, isHigh && isLow
}

func capitalHexDigit(c byte) (value byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func hasHexDigits(s string) bool {
	const digits = "0123456789abcdefABCDEF"
	return len(s) >= 2 && strings.IndexByte(digits, s[0]) >= 0 && strings.IndexByte(digits, s[1]) >= 0
}
