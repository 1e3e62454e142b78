package config

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// source is what is known of the file behind a configuration: where each
// setting is, how it was written, and what is wrong with it.
type source struct {
	file      string
	positions map[string]position
	literals  map[string]literal // of scalars that are no secrets
	unread    map[string]bool    // settings whose value could not be read
	problems  Problems
	example   string // a file to begin with
}

type position struct{ line, column int }

func newSource(file string) *source {
	return &source{file: file, positions: map[string]position{}, literals: map[string]literal{}, unread: map[string]bool{}, example: "config.example.yaml"}
}

// path leads to a setting. Its elements are written as they are joined.
type path []string

func (p path) key(name string) path {
	if name == "" || !isMadeOf(name, "_-") {
		name = "[" + strconv.Quote(name) + "]"
	}
	return append(slices.Clip(p), name)
}

func (p path) index(i int) path {
	return append(slices.Clip(p), "["+strconv.Itoa(i)+"]")
}

func (p path) String() string {
	var out strings.Builder
	for i, element := range p {
		if i > 0 && !strings.HasPrefix(element, "[") {
			out.WriteByte('.')
		}
		out.WriteString(element)
	}
	return out.String()
}

// given reports whether the file has the setting.
func (s *source) given(p path) bool {
	_, ok := s.positions[p.String()]
	return ok
}

// report adds a problem at the setting or, when the file does not have it, at
// what it would stand in.
func (s *source) report(p path, fault, mend string) {
	at := position{line: 1, column: 1}
	for i := len(p); i > 0; i-- {
		if known, ok := s.positions[p[:i].String()]; ok {
			at = known
			break
		}
	}
	s.reportAt(at, p, fault, mend)
}

func (s *source) reportAt(at position, p path, fault, mend string) {
	if len(p) == 0 {
		fault = "the file " + fault
	}
	s.problems = append(s.problems, Problem{
		File: s.file, Line: at.line, Column: at.column, Path: p.String(), Fault: fault, Mend: mend,
	})
}

// unreadable reports a value that could not be read, so that no consequence of
// that is reported too.
func (s *source) unreadable(p path, fault, mend string) {
	s.unread[p.String()] = true
	s.report(p, fault, mend)
}

// isRead reports whether the setting, what it stands in, and all below it
// could be read.
func (s *source) isRead(p path) bool {
	for i := range len(p) + 1 {
		if s.unread[p[:i].String()] {
			return false
		}
	}
	for other := range s.unread {
		rest, below := strings.CutPrefix(other, p.String())
		if below && (rest[0] == '.' || rest[0] == '[') {
			return false
		}
	}
	return true
}

// literal is a scalar as it was written.
type literal struct {
	text     string
	quoted   bool
	isNumber bool
	isBool   bool
	replaced bool // a part came from the environment
}

// String names the value in a message: in quotes, shortened, before the
// environment was put in, and without what stands before an "@", which may be
// a password.
func (l literal) String() string {
	const longest = 100
	text := l.text
	if i := strings.LastIndexByte(text, '@'); i > 0 {
		text = "…" + text[i:]
	}
	if len(text) > longest {
		end := longest
		for !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + "…"
	}
	if l.replaced {
		return strconv.Quote(text) + ", with what the environment has,"
	}
	return strconv.Quote(text)
}
