package wire

import (
	"bytes"

	"gatehouse/proxy/problem"
)

// Limits bound the head of a request, and the trailer of a chunked body.
type Limits struct {
	// Bytes are those of all lines together.
	Bytes int
	// Lines are those of headers, without the request line.
	Lines int
}

// parser follows the requests of one connection: where each begins and ends.
type parser struct {
	limits Limits
	state  parserState
	head   head
	body   int64 // bytes left of a body or of a chunk
	// judged is how much of what was not passed on yet is complete lines.
	judged int
	// searched is how far behind those no line end was found.
	searched int
	// fault stands behind what was passed on last.
	fault *problem.Problem
}

type parserState int

const (
	inHead parserState = iota
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
)

func newParser(l Limits) parser {
	p := parser{limits: l}
	p.head.reset()
	return p
}

// atHead reports whether nothing of the next request was passed on yet.
func (p *parser) atHead() bool { return p.state == inHead }

// left is how many bytes of a body of known length are left; 0 where there is
// none.
func (p *parser) left() int64 {
	if p.state == inBody {
		return p.body
	}
	return 0
}

// advance judges b, which continues what was passed on before, and returns how
// many bytes of it may be passed on: all of a head at once, and never anything
// behind the end of a request. 0 and nil: it takes more bytes to know.
func (p *parser) advance(b []byte) (int, *problem.Problem) {
	passed := 0
	for passed < len(b) && p.fault == nil {
		var n int
		n, p.fault = p.step(b[passed:])
		if p.fault != nil {
			break
		}
		passed += n
		if n == 0 || p.state == inHead {
			break
		}
	}
	if passed > 0 {
		return passed, nil
	}
	return 0, p.fault
}

// step judges what comes next: the lines of one state, or bytes of a body.
func (p *parser) step(b []byte) (int, *problem.Problem) {
	switch p.state {
	case inHead, inTrailer:
		return p.lines(b)
	case inBody, inChunk:
		n := int(min(p.body, int64(len(b))))
		p.body -= int64(n)
		if p.body == 0 {
			p.bodyDone()
		}
		return n, nil
	case inChunkSize:
		return p.chunkSize(b)
	case inChunkEnd:
		return p.chunkEnd(b)
	}
	panic("wire: a state that does not exist")
}

// lines judges complete lines until one is empty. Only then all of them are
// passed on.
func (p *parser) lines(b []byte) (int, *problem.Problem) {
	for {
		line, length, fault := p.nextLine(b, p.limits.Bytes)
		if fault != nil || length == 0 {
			return 0, fault
		}
		if len(line) == 0 && p.head.mayEnd() {
			n := p.judged
			p.judged = 0
			return n, p.headDone()
		}
		if fault := p.head.line(line); fault != nil {
			return 0, fault
		}
		if p.head.lines > p.limits.Lines {
			return 0, headTooLarge("more header lines")
		}
	}
}

// nextLine returns the line behind those that were judged, without its end, and
// its length with it; 0 where its end is not there yet.
func (p *parser) nextLine(b []byte, atMost int) (line []byte, length int, fault *problem.Problem) {
	rest := b[p.judged:]
	end := bytes.IndexByte(rest[p.searched:], '\n')
	if end < 0 {
		p.searched = len(rest)
		if len(b) > atMost {
			return nil, 0, headTooLarge("more header bytes")
		}
		return nil, 0, nil
	}
	length = p.searched + end + 1
	p.judged, p.searched = p.judged+length, 0
	if p.judged > atMost {
		return nil, 0, headTooLarge("more header bytes")
	}
	line, hasCR := bytes.CutSuffix(rest[:length-1], []byte{'\r'})
	if !hasCR {
		return nil, 0, invalid("a line does not end with CR LF")
	}
	if bytes.IndexByte(line, '\r') >= 0 {
		return nil, 0, invalid("there is a CR within a line")
	}
	return line, length, nil
}

// headDone goes on to the body that the head announced, or from a trailer to
// the next head.
func (p *parser) headDone() *problem.Problem {
	if p.state == inHead {
		if fault := p.head.finish(); fault != nil {
			return fault
		}
		p.body = max(p.head.length, 0)
	}
	switch {
	case p.state == inTrailer:
		p.state = inHead
	case p.head.chunked:
		p.state = inChunkSize
	case p.body > 0:
		p.state = inBody
	}
	p.head.reset()
	return nil
}

func (p *parser) bodyDone() {
	if p.state == inChunk {
		p.state = inChunkEnd
		return
	}
	p.state = inHead
}

func invalid(what string) *problem.Problem {
	return problem.New(problem.InvalidRequest, "This request is malformed: "+what+".")
}

func headTooLarge(what string) *problem.Problem {
	return problem.New(problem.HeaderTooLarge, "This request has "+what+" than this gateway accepts.")
}
