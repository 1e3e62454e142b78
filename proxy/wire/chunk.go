package wire

import (
	"bytes"

	"gatehouse/proxy/problem"
)

// maxChunkLine bounds the line before a chunk, with its extensions.
const maxChunkLine = 256

// chunkSize judges the line before a chunk (RFC 9112 §7.1): hexadecimal digits,
// and extensions that nobody reads. All of it is passed on at once.
func (p *parser) chunkSize(b []byte) (int, *problem.Problem) {
	line, length, fault := p.nextLine(b, maxChunkLine)
	if fault != nil {
		return 0, badChunk("the line before a chunk is too long or does not end with CR LF")
	}
	if length == 0 {
		return 0, nil
	}
	p.judged = 0
	size, extensions, ok := hexadecimal(line)
	switch {
	case !ok:
		return 0, badChunk("a chunk has no plain size")
	case !areExtensions(extensions):
		return 0, badChunk("the extensions of a chunk are malformed")
	}
	p.body, p.state = size, inChunk
	if size == 0 {
		p.state, p.head.trailer = inTrailer, true
	}
	return length, nil
}

// chunkEnd judges the CR LF behind a chunk, which is passed on at once.
func (p *parser) chunkEnd(b []byte) (int, *problem.Problem) {
	if b[0] != '\r' || len(b) > 1 && b[1] != '\n' {
		return 0, badChunk("a chunk is longer than its size")
	}
	if len(b) == 1 {
		return 0, nil
	}
	p.state = inChunkSize
	return 2, nil
}

// hexadecimal reads the number in front.
func hexadecimal(line []byte) (n int64, rest []byte, ok bool) {
	const mostDigits = 15 // fit into 63 bits
	digits := 0
	for digits < len(line) && isHex(line[digits]) {
		c := line[digits] | 0x20 // in lower case
		if c >= 'a' {
			c -= 'a' - 10
		} else {
			c -= '0'
		}
		if digits++; digits > mostDigits {
			return 0, nil, false
		}
		n = n<<4 | int64(c)
	}
	return n, line[digits:], digits > 0
}

// areExtensions: any number of ;name or ;name=value or ;name="value", without
// the spaces that only bad senders put there.
func areExtensions(b []byte) bool {
	for len(b) > 0 {
		if b[0] != ';' {
			return false
		}
		name := tokenLength(b[1:])
		if name == 0 {
			return false
		}
		b = b[1+name:]
		if len(b) == 0 || b[0] != '=' {
			continue
		}
		value := max(tokenLength(b[1:]), quotedLength(b[1:]))
		if value == 0 {
			return false
		}
		b = b[1+value:]
	}
	return true
}

func tokenLength(b []byte) int {
	n := 0
	for n < len(b) && isTokenByte(b[n]) {
		n++
	}
	return n
}

// quotedLength is the length of the quoted string in front; 0 for none.
func quotedLength(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return 0
	}
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ' && c != '\t' || c == 0x7f:
			return 0
		case c == '\\':
			i++
		}
	}
	return 0
}

// trailerLine judges a line behind a chunked body. What frames or routes a
// request, says who sent it, or how to read it, must not come there (RFC 9110
// §6.5.1).
func (h *head) trailerLine(line []byte) *problem.Problem {
	h.lines++
	name, _, fault := field(line)
	if fault != nil {
		return fault
	}
	for _, forbidden := range []string{
		"content-length", "transfer-encoding", "host", "trailer", "te", "connection", "keep-alive", "upgrade", "expect",
		"authorization", "api-token", "cookie", "proxy-authorization", "proxy-connection", "content-type",
		"content-encoding", "content-range", "cache-control", "max-forwards", "range", "forwarded",
	} {
		if isNamed(name, forbidden) {
			return badChunk("a field stands behind the body that must stand before it")
		}
	}
	return nil
}

func badChunk(what string) *problem.Problem {
	return problem.New(problem.InvalidRequest, "The body of this request is malformed: "+what+".")
}

type prefaceState int

const (
	prefaceNot prefaceState = iota
	prefaceBegins
	prefaceWhole
)

// isPreface reports whether a connection begins with that of HTTP/2 (RFC 9113
// §3.4).
func isPreface(b []byte) prefaceState {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	switch {
	case bytes.HasPrefix(b, []byte(preface)):
		return prefaceWhole
	case bytes.HasPrefix([]byte(preface), b):
		return prefaceBegins
	}
	return prefaceNot
}
