// Package attacktest reads the corpus of attacks in proxy/testdata/attacks, and
// reads requests as leniently as the worst of servers do. It is for tests
// alone, and sends nothing.
package attacktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Attack is one request that somebody could send, and what must become of it.
type Attack struct {
	// Class is the name of its file, and Name its own.
	Class, Name string
	// Source is the CVE, advisory or section of an RFC that it comes from.
	Source string
	// Gateway names the configuration that it is sent to; "" for the usual one.
	Gateway string
	// Raw are its bytes, with placeholders; "" for HTTP/2.
	Raw string
	// HalfClose: the client says that it sends nothing more.
	HalfClose bool
	// Fields, Data and Trailers are those of an HTTP/2 request.
	Fields, Trailers []Field
	Data             string
	// Answers are what comes back, in order: "STATUS" or "STATUS CODE"; none
	// where the connection, or the stream, is just closed. One that ends with
	// " or none" may also not come, where a client goes wrong behind its headers.
	Answers []string
	// Seen are the requests that a backend sees: "METHOD TARGET".
	Seen []string
	// Has are header lines, "Name: value", that each of those has, and no other
	// of that name; without a value, it has no such header.
	Has []string
}

// Field is a header field.
type Field struct{ Name, Value string }

// IsHTTP2 reports whether the attack is a request of HTTP/2.
func (a *Attack) IsHTTP2() bool { return len(a.Fields) > 0 }

// Load reads every file of the folder.
func Load(folder string) ([]Attack, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(fmt.Errorf("%s has %d files of attacks", folder, len(files)), err)
	}
	var all []Attack
	for _, file := range files {
		text, err := os.ReadFile(file) // #nosec G304 -- a file of the repository
		if err != nil {
			return nil, err
		}
		attacks, err := parse(strings.TrimSuffix(filepath.Base(file), ".txt"), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, attacks...)
	}
	return all, nil
}

func parse(class, text string) ([]Attack, error) {
	var all []Attack
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		if name, begins := strings.CutPrefix(line, "== "); begins {
			all = append(all, Attack{Class: class, Name: name})
			continue
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("line %d stands before the first attack", i+1)
		}
		if err := all[len(all)-1].read(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	for _, a := range all {
		if a.Source == "" || (a.Raw == "" && !a.IsHTTP2()) {
			return nil, fmt.Errorf("%s: its source or its bytes are missing", a.Name)
		}
	}
	return all, nil
}

func (a *Attack) read(line string) error {
	if text, is := strings.CutPrefix(line, "> "); is {
		raw, err := unescape(text)
		a.Raw += raw
		return err
	}
	setting, value, ok := strings.Cut(line, ": ")
	if !ok {
		return fmt.Errorf("%q is neither bytes nor a setting", line)
	}
	value, err := unescape(value)
	switch setting {
	case "source":
		a.Source = value
	case "gateway":
		a.Gateway = value
	case "then":
		a.HalfClose = value == "half-close"
	case "field":
		a.Fields = append(a.Fields, fieldOf(value))
	case "trailer":
		a.Trailers = append(a.Trailers, fieldOf(value))
	case "data":
		a.Data += value
	case "answer":
		a.Answers = append(a.Answers, value)
	case "backend":
		a.Seen = append(a.Seen, value)
	case "has":
		a.Has = append(a.Has, value)
	default:
		return fmt.Errorf("%q is no setting", setting)
	}
	return err
}

// fieldOf splits at the first "= ", which no name has.
func fieldOf(s string) Field {
	name, value, _ := strings.Cut(s, "= ")
	return Field{name, value}
}

// unescape reads \r \n \t \\, \xNN, and {x*N} for N times the character x.
func unescape(s string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		var char byte
		var times, n int
		switch c := s[i]; {
		case c == '{' && i+3 < len(s) && s[i+2] == '*':
			if count, err := fmt.Sscanf(s[i:], "{%c*%d}", &char, &times); err != nil || count != 2 {
				return "", fmt.Errorf("%q repeats nothing", s[i:])
			}
			out.WriteString(strings.Repeat(string(rune(char)), times))
			i += strings.IndexByte(s[i:], '}')
			continue
		case c != '\\':
			out.WriteByte(c)
			continue
		case i+1 == len(s):
			return "", errors.New("it ends with a backslash")
		}
		i++
		switch s[i] {
		case 'r':
			out.WriteByte('\r')
		case 'n':
			out.WriteByte('\n')
		case 't':
			out.WriteByte('\t')
		case '\\':
			out.WriteByte('\\')
		case 'x':
			if count, err := fmt.Sscanf(s[i:], "x%02x", &n); err != nil || count != 1 || n > 0xff {
				return "", fmt.Errorf("%q is no byte", s[i:])
			}
			out.WriteByte(byte(n)) // #nosec G115 -- of two hexadecimal digits
			i += 2
		default:
			return "", fmt.Errorf(`\%c stands for nothing`, s[i])
		}
	}
	return out.String(), nil
}
