package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFileBytes bounds a configuration: room for some ten thousand routes.
const maxFileBytes = 1 << 20

// Load reads the file and parses it, as Parse does. A file that cannot be read
// is an error that wraps the cause.
func Load(file string, lookupEnv func(string) (string, bool)) (*Config, error) {
	data, err := readFile(file, "the configuration")
	if err != nil {
		return nil, err
	}
	return Parse(file, data, lookupEnv)
}

// readFile reads a file, and no more of it than may be in one.
func readFile(file, what string) ([]byte, error) {
	f, err := os.Open(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return data, nil
}

// Parse reads a configuration from YAML text. ${NAME} and ${NAME:-default} in
// values are replaced by what lookupEnv returns, in the way of os.LookupEnv;
// $$ stands for a dollar sign. The name is the file's, for messages.
//
// The error is Problems and holds all faults of the text, or its one fault of
// syntax. No value from the environment and no secret of the text is in it.
func Parse(name string, data []byte, lookupEnv func(string) (string, bool)) (*Config, error) {
	src := newSource(name)
	c := &Config{}
	if root, ok := src.parse(data); ok {
		c.setDefaults()
		d := decoder{source: src, lookupEnv: lookupEnv}
		d.decode(nil, root, reflect.ValueOf(c).Elem())
		v := validator{source: src, config: c}
		v.validate()
	}
	if len(src.problems) > 0 {
		slices.SortStableFunc(src.problems, byPosition)
		return nil, src.problems
	}
	return c, nil
}

// parse returns the root of the one document in data, or reports why it has
// none.
func (s *source) parse(data []byte) (ast.Node, bool) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if at, fault, mend := textFault(data); fault != "" {
		s.reportAt(at, nil, fault, mend)
		return nil, false
	}
	tokens, err := attempt(func() (token.Tokens, error) { return lexer.Tokenize(string(data)), nil })
	if at, fault, mend := structureFault(tokens); fault != "" {
		s.reportAt(at, nil, fault, mend)
		return nil, false
	}
	var file *ast.File
	if err == nil {
		file, err = attempt(func() (*ast.File, error) { return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) })
	}
	if err != nil {
		at, message := syntaxFault(err)
		s.reportAt(at, nil, "is not YAML: "+message, "correct it here, or shortly before")
		return nil, false
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		s.report(nil, "has no settings", "begin with "+s.example)
		return nil, false
	}
	return file.Docs[0].Body, true
}

// textFault looks for what the parser would read in silence as something
// else, or what would keep it busy.
func textFault(data []byte) (at position, fault, mend string) {
	if len(data) > maxFileBytes {
		return position{1, 1}, "is too large", "write at most " + strconv.Itoa(maxFileBytes) + " bytes"
	}
	at = position{line: 1, column: 1}
	for rest := data; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			return at, "is not UTF-8", "save the file as UTF-8"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f:
			return at, "has the control character " + strconv.QuoteRune(r), `remove it, or write it escaped in "double quotes"`
		case r == '\n':
			at = position{line: at.line + 1}
		}
		at.column++
		rest = rest[size:]
	}
	return position{}, "", ""
}

// structureFault looks for a second document, a directive, and for nesting
// that would keep the parser busy.
func structureFault(tokens token.Tokens) (at position, fault, mend string) {
	const deepest = 32
	depth, inLine, line := 0, 0, 0
	begun, ended := false, false
	for _, t := range tokens {
		at = positionOf(t)
		if at.line != line {
			inLine, line = 0, at.line
		}
		if t.Type == token.CommentType {
			continue
		}
		switch {
		case ended || begun && t.Type == token.DocumentHeaderType:
			return at, "has a second YAML document here", "write all settings in one"
		case t.Type == token.DirectiveType:
			return at, "has a YAML directive (%), which is not supported", "remove it"
		case t.Type == token.DocumentEndType:
			ended = true
		case t.Type == token.SequenceStartType || t.Type == token.MappingStartType:
			depth++
		case t.Type == token.SequenceEndType || t.Type == token.MappingEndType:
			depth--
		case t.Type == token.SequenceEntryType || t.Type == token.MappingKeyType:
			inLine++
		}
		begun = true
		if depth > deepest || inLine > deepest {
			return at, "is nested too deep", "correct the brackets or dashes here"
		}
	}
	return position{}, "", ""
}

// attempt makes an error of a panic of the YAML library.
func attempt[T any](do func() (T, error)) (result T, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the YAML library gave up")
		}
	}()
	return do()
}

// syntaxFault returns the parser's message without the text that it quotes,
// which may be a part of a secret.
func syntaxFault(err error) (position, string) {
	var located interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &located) {
		return position{1, 1}, "it is not understood"
	}
	message := strings.ReplaceAll(located.GetMessage(), "\t", `\t`)
	if before, quoted, found := strings.Cut(message, `"`); found {
		if i := strings.LastIndexByte(quoted, '"'); i >= 0 {
			message = before + "…" + quoted[i+1:]
		}
	}
	return positionOf(located.GetToken()), message
}

func positionOf(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{line: max(1, t.Position.Line), column: max(1, t.Position.Column)}
}
