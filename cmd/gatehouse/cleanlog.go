package main

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap/zapcore"
)

const (
	// longestText is what a line of the log keeps of one text, in bytes.
	longestText = 2048
	// longestWord is from how many letters and digits on, with nothing between
	// them, a word of an error could be a token.
	longestWord = 32
	// keptOfWord is how much of such a word is kept.
	keptOfWord = 4
)

// cleanCore writes what others have a hand in, such as the errors of backends,
// so that every line stays one line of bounded length, moves no terminal's
// cursor, and shows no token. Texts that need nothing are passed on as they are.
type cleanCore struct{ zapcore.Core }

// With adds fields to all lines.
func (c cleanCore) With(fields []zapcore.Field) zapcore.Core {
	return cleanCore{c.Core.With(cleanFields(fields))}
}

// Check adds this core, and not the one below, which would write things as
// they are.
func (c cleanCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c cleanCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	e.Message = cut(escaped(withoutSecrets(e.Message), ""))
	return c.Core.Write(e, cleanFields(fields))
}

// cleanFields leaves the caller's fields alone.
func cleanFields(fields []zapcore.Field) []zapcore.Field {
	copied := false
	for i, f := range fields {
		text := f.String
		switch f.Type { //nolint:exhaustive // the others hold numbers, or are ours
		case zapcore.StringType:
			text = cut(escaped(cut(text), ""))
		case zapcore.ErrorType:
			err, ok := f.Interface.(error)
			if !ok {
				continue
			}
			f.Type, f.Interface = zapcore.StringType, nil
			text = cut(escaped(withoutSecrets(err.Error()), "\n\t")) // of a stack
		default:
			continue
		}
		if f.Type == fields[i].Type && text == f.String {
			continue
		}
		if !copied {
			fields, copied = append([]zapcore.Field{}, fields...), true
		}
		f.String = text
		fields[i] = f
	}
	return fields
}

// cut also takes the rest of a word in the middle of which it cuts, so that no
// part of a token is left.
func cut(s string) string {
	if len(s) <= longestText {
		return s
	}
	return strings.TrimRightFunc(strings.ToValidUTF8(s[:longestText], ""), isOfWord) + "…"
}

func isOfWord(r rune) bool {
	return r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// withoutSecrets shortens every word of a text that could be a token.
func withoutSecrets(s string) string {
	s = cut(s)
	var out strings.Builder
	done := 0
	for begin := 0; begin < len(s); {
		end := begin
		for end < len(s) && isOfWord(rune(s[end])) {
			end++
		}
		if end-begin >= longestWord {
			out.WriteString(s[done:begin+keptOfWord] + "…")
			done = end
		}
		begin = end + 1
	}
	if done == 0 {
		return s
	}
	return out.String() + s[done:]
}

// escaped spells out what is no printable text, but the characters of except:
// the log's format escapes those itself.
func escaped(s, except string) string {
	if isPlain(s) || strings.IndexFunc(s, func(r rune) bool { return isUnclean(r) && !strings.ContainsRune(except, r) }) < 0 {
		return s
	}
	const digits = "0123456789abcdef"
	var out strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case !isUnclean(r) || strings.ContainsRune(except, r):
			out.WriteRune(r)
		case r == utf8.RuneError && size == 1:
			out.WriteString(`\x` + string(digits[s[i]>>4]) + string(digits[s[i]&15]))
		default:
			out.WriteString(`\u`)
			for shift := 12; shift >= 0; shift -= 4 {
				out.WriteByte(digits[r>>shift&15])
			}
		}
	}
	return out.String()
}

// isPlain reports whether s is printable ASCII, as nearly all texts are.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isUnclean: control characters, line separators, and what turns the direction
// of a text around.
func isUnclean(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' ||
		'\u200e' <= r && r <= '\u200f' || '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069'
}
