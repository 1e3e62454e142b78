package contract

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// Envelope is the form of a successful answer.
type Envelope struct {
	Success bool   `json:"success"`
	Message string `json:"message,omitempty"`
	Data    any    `json:"data"`
	Warning string `json:"warning,omitempty"`
	Note    string `json:"note,omitempty"`
}

// Page is the envelope of one page of a listing. NextCursor is null on the
// last one.
type Page struct {
	Success    bool    `json:"success"`
	Data       any     `json:"data"`
	NextCursor *string `json:"next_cursor"`
}

// PageOf makes a page of what is shown of each item; an empty cursor is the end.
func PageOf[T, S any](items []T, show func(T) S, cursor string) Page {
	data := make([]S, 0, len(items))
	for _, item := range items {
		data = append(data, show(item))
	}
	return NewPage(data, cursor)
}

// NewPage makes the page; an empty cursor is the end.
func NewPage(data any, cursor string) Page {
	p := Page{Success: true, Data: data}
	if cursor != "" {
		p.NextCursor = &cursor
	}
	return p
}

// Write answers with v as JSON. It returns an error, and has written nothing,
// when v cannot be encoded.
func Write(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
	return nil
}

// maxNameLength is that of a name or label, in characters.
const maxNameLength = 100

// readName trims a name and says what is wrong with it, "" if nothing is.
// Characters that could make it look like another name, or break a line of a
// log, are refused.
func readName(s string) (name, fault string) {
	name = strings.TrimSpace(s)
	if utf8.RuneCountInString(name) > maxNameLength {
		return "", "The name must have at most " + strconv.Itoa(maxNameLength) + " characters."
	}
	if strings.ContainsFunc(name, isControl) {
		return "", "The name must not have control characters."
	}
	return name, ""
}

// CleanName is as much of a name that others have chosen as a name may be.
func CleanName(s string) string {
	name := []rune(strings.TrimSpace(strings.Map(func(r rune) rune {
		if isControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))))
	return strings.TrimSpace(string(name[:min(len(name), maxNameLength)]))
}

func isControl(r rune) bool {
	return unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Bidi_Control, r) || unicode.In(r, unicode.Zl, unicode.Zp)
}
