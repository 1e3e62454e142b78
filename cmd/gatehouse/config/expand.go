package config

import "strings"

// expansion is a scalar after its references to the environment were replaced.
type expansion struct {
	text string
	// replaced: text has parts that come from the environment or a default.
	replaced  bool
	unset     []string
	malformed bool
}

// expand replaces ${NAME}, ${NAME:-default} and $$ in text. As in a shell, an
// empty variable takes the default too. Values are not expanded again.
func expand(text string, lookupEnv func(string) (string, bool)) expansion {
	var e expansion
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		out.WriteString(before)
		switch {
		case !found:
			e.text = out.String()
			return e
		case strings.HasPrefix(rest, "$"):
			out.WriteByte('$')
			text = rest[1:]
		case strings.HasPrefix(rest, "{"):
			reference, after, closed := strings.Cut(rest[1:], "}")
			e.malformed = e.malformed || !closed
			out.WriteString(e.resolve(reference, lookupEnv))
			text = after
		default:
			out.WriteByte('$')
			text = rest
		}
	}
}

// resolve returns what stands for ${reference}.
func (e *expansion) resolve(reference string, lookupEnv func(string) (string, bool)) string {
	name, fallback, hasFallback := strings.Cut(reference, ":-")
	if !isEnvName(name) || strings.Contains(fallback, "${") {
		e.malformed = true
		return ""
	}
	e.replaced = true
	value, set := lookupEnv(name)
	switch {
	case hasFallback && value == "":
		return strings.ReplaceAll(fallback, "$$", "$")
	case !set:
		e.unset = append(e.unset, name)
	}
	return value
}

func isEnvName(s string) bool {
	for i := range len(s) {
		c := s[i]
		isLetter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !isLetter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
