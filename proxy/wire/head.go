package wire

import (
	"bytes"
	"strings"

	"gatehouse/proxy/problem"
)

// head is what counts of the lines of a request's head.
type head struct {
	begun   bool // the request line is there
	old     bool // HTTP/1.0
	lines   int  // of headers
	hosts   int
	length  int64 // of the body; -1: nothing is said
	chunked bool
	trailer bool // what comes are the lines behind a chunked body
}

func (h *head) reset() { *h = head{length: -1} }

// mayEnd reports whether an empty line may come.
func (h *head) mayEnd() bool { return h.begun || h.trailer }

// line judges one line, which is not the one that ends the head.
func (h *head) line(line []byte) *problem.Problem {
	switch {
	case h.trailer:
		return h.trailerLine(line)
	case !h.begun:
		h.begun = true
		return h.requestLine(line)
	}
	h.lines++
	name, value, fault := field(line)
	if fault != nil {
		return fault
	}
	switch {
	case isNamed(name, "host"):
		return h.host(value)
	case isNamed(name, "content-length"):
		return h.contentLength(value)
	case isNamed(name, "transfer-encoding"):
		return h.transferEncoding(value)
	case isNamed(name, "expect") && !isNamed(value, "100-continue"):
		return invalid("there is an unknown expectation")
	}
	return nil
}

// finish judges the head as a whole.
func (h *head) finish() *problem.Problem {
	if h.hosts == 0 && !h.old {
		return invalid("there is no Host line")
	}
	return nil
}

// requestLine is method SP target SP version (RFC 9112 §3), with a target in
// origin form.
func (h *head) requestLine(line []byte) *problem.Problem {
	method, rest, hasTarget := bytes.Cut(line, []byte{' '})
	target, version, hasVersion := bytes.Cut(rest, []byte{' '})
	if !hasTarget || !hasVersion || !isToken(method) {
		return invalid("its request line is not a method, a target and a version with one space between them")
	}
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.old = true
	default:
		return invalid("its request line ends with no version of HTTP/1")
	}
	if string(method) == "CONNECT" {
		return problem.New(problem.MethodNotImplemented, "This gateway is no proxy that connects to other hosts.")
	}
	return targetFault(target)
}

func targetFault(target []byte) *problem.Problem {
	if len(target) == 0 || target[0] != '/' {
		return problem.New(problem.AmbiguousPath, "The request target must be a path that begins with a slash.")
	}
	path, query, _ := bytes.Cut(target, []byte{'?'})
	for i, c := range path {
		if !isVisible(c) || c == '#' {
			return problem.New(problem.AmbiguousPath, "The path of this request is ambiguous: it has a character that must not stand there as it is.")
		}
		if c == '%' && (len(path) < i+3 || !isHex(path[i+1]) || !isHex(path[i+2])) {
			return problem.New(problem.AmbiguousPath, "The path of this request is ambiguous: it has an escape that is broken or not in capitals.")
		}
	}
	for _, c := range query {
		if !isVisible(c) || c == '#' {
			return problem.New(problem.AmbiguousQuery, "The query of this request has a character that must not stand there as it is.")
		}
	}
	return nil
}

// field splits a header line: a name, a colon right behind it, and a value of
// printable characters (RFC 9110 §5). A line that begins with a space or tab
// would continue the one before (obs-fold).
func field(line []byte) (name, value []byte, fault *problem.Problem) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, invalid("a header line begins with a space")
	}
	name, value, ok := bytes.Cut(line, []byte{':'})
	if !ok || !isToken(name) {
		return nil, nil, invalid("a header line has no valid name with a colon right behind it")
	}
	for _, c := range value {
		if (c < ' ' && c != '\t') || c == 0x7f {
			return nil, nil, invalid("the value of a header has a control character")
		}
	}
	return name, bytes.Trim(value, " \t"), nil
}

func (h *head) host(value []byte) *problem.Problem {
	if h.hosts++; h.hosts > 1 {
		return invalid("there is more than one Host line")
	}
	for _, c := range value {
		if !isVisible(c) || strings.IndexByte("\"#,/<>?@\\^`{|}", c) >= 0 {
			return invalid("its Host is no host name or address")
		}
	}
	return nil
}

// contentLength takes one plain decimal number. Each other spelling is read
// differently by some server.
func (h *head) contentLength(value []byte) *problem.Problem {
	const mostDigits = 18 // fit into 63 bits
	if h.length >= 0 {
		return invalid("there is more than one Content-Length")
	}
	if h.chunked {
		return invalid("there are a Content-Length and a Transfer-Encoding")
	}
	if len(value) == 0 || len(value) > mostDigits || (value[0] == '0' && len(value) > 1) {
		return invalid("its Content-Length is no plain number")
	}
	h.length = 0
	for _, c := range value {
		if c < '0' || c > '9' {
			return invalid("its Content-Length is no plain number")
		}
		h.length = h.length*10 + int64(c-'0')
	}
	return nil
}

func (h *head) transferEncoding(value []byte) *problem.Problem {
	switch {
	case h.old:
		return invalid("its version knows no Transfer-Encoding")
	case h.length >= 0:
		return invalid("there are a Content-Length and a Transfer-Encoding")
	case h.chunked:
		return invalid("there is more than one Transfer-Encoding")
	case string(value) != "chunked":
		return invalid("its Transfer-Encoding is not chunked")
	}
	h.chunked = true
	return nil
}

// isNamed compares in any letter case with a name in lower case.
func isNamed(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(lower) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func isVisible(c byte) bool { return c > ' ' && c < 0x7f }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// isToken: tchar of RFC 9110 §5.6.2, at least one.
func isToken(b []byte) bool {
	for _, c := range b {
		if !isTokenByte(c) {
			return false
		}
	}
	return len(b) > 0
}

// isTokenByte looks the byte up in a set of bits.
func isTokenByte(c byte) bool {
	const (
		digits  = (1<<10 - 1) << '0'
		low     = digits | 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.'
		letters = (1<<26-1)<<('A'-64) | (1<<26-1)<<('a'-64)
		high    = letters | 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('|'-64) | 1<<('~'-64)
	)
	switch {
	case c < 64:
		return uint64(low)>>c&1 == 1
	case c < 128:
		return uint64(high)>>(c-64)&1 == 1
	}
	return false
}
