package main

import (
	"go.uber.org/zap/zapcore"

	"gatehouse/proxy/clean"
)

// longestText is what a line of the log keeps of one text, in bytes.
const longestText = 2048

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
	e.Message = clean.Text(e.Message, longestText)
	return c.Core.Write(e, cleanFields(fields))
}

// cleanFields leaves the caller's fields alone.
func cleanFields(fields []zapcore.Field) []zapcore.Field {
	copied := false
	for i, f := range fields {
		text := f.String
		switch f.Type { //nolint:exhaustive // the others hold numbers, or are ours
		case zapcore.StringType:
			text = clean.Cut(clean.Escaped(clean.Cut(text, longestText), ""), longestText)
		case zapcore.ErrorType:
			err, ok := f.Interface.(error)
			if !ok {
				continue
			}
			f.Type, f.Interface = zapcore.StringType, nil
			text = clean.Cut(clean.Escaped(clean.WithoutSecrets(err.Error(), longestText), "\n\t"), longestText) // of a stack
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
