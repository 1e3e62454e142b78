// Package contract reads and writes the JSON of Gatehouse's own API: request
// bodies strictly, answers in their envelope, keys and accounts in their
// documented form. It decides nothing and stores nothing.
package contract

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"gatehouse/proxy/problem"
)

const (
	// KeyBodyLimit is the largest body of a request about a key, in bytes.
	KeyBodyLimit = 64 << 10
	// AccountBodyLimit is that of a request about an account, which may name
	// thousands of subaccounts.
	AccountBodyLimit = 1 << 20
	// maxFieldErrors bounds how many faults one answer names.
	maxFieldErrors = 20
	// maxShown bounds how much of a client's own text an answer repeats, in
	// characters.
	maxShown = 100

	wrongType = "The value is of the wrong type."
)

// ReadBody decodes the JSON body of a request into v, a pointer to a struct.
// Nothing is overlooked: an unknown or wrongly cased member, a wrong type, a
// duplicate member, invalid UTF-8 and anything behind the value are refused,
// as problems with status 400, 413, 415 or 422.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	if err := checkMedia(r.Header); err != nil {
		return err
	}
	body, err := readAll(w, r, limit)
	if err != nil {
		return err
	}
	return decode(body, v)
}

// ReadOptionalBody is ReadBody for a request that may be without a body, and
// then leaves v as it is and asks for no Content-Type.
func ReadOptionalBody(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	body, err := readAll(w, r, limit)
	if err != nil || len(body) == 0 {
		return err
	}
	if err := checkMedia(r.Header); err != nil {
		return err
	}
	return decode(body, v)
}

func checkMedia(h http.Header) error {
	media, parameters, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset, hasCharset := parameters["charset"]
	if err != nil || media != "application/json" || len(h["Content-Type"]) != 1 ||
		(hasCharset && !strings.EqualFold(charset, "utf-8")) {
		return problem.New(problem.UnsupportedMediaType, "Send the body as Content-Type: application/json.")
	}
	return nil
}

func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, problem.New(problem.BodyTooLarge, "The body of this request is larger than "+strconv.FormatInt(limit, 10)+" bytes.")
	}
	if err != nil {
		return nil, &problem.Problem{Code: problem.InvalidRequest, Detail: "The body of this request broke off.", Cause: err}
	}
	return body, nil
}

// decode: null alone would leave v as it is, and is no object.
func decode(body []byte, v any) error {
	if string(bytes.Trim(body, " \t\r\n")) == "null" {
		return problem.Invalid(problem.FieldError{Field: "body", Detail: wrongType})
	}
	return decodeFault(json.Unmarshal(body, v, json.RejectUnknownMembers(true)))
}

// decodeFault turns a decoding error into what the client did wrong.
func decodeFault(err error) error {
	if err == nil {
		return nil
	}
	var semantic *json.SemanticError
	if !errors.As(err, &semantic) {
		detail := "The body is not one valid JSON object."
		if errors.Is(err, jsontext.ErrDuplicateName) {
			detail = "The body names a field twice."
		}
		return problem.New(problem.InvalidRequest, detail)
	}
	field := fieldName(semantic.JSONPointer)
	if errors.Is(err, json.ErrUnknownName) {
		return problem.Invalid(problem.FieldError{Field: field, Detail: "There is no such field. Field names are spelt exactly as documented."})
	}
	return problem.Invalid(problem.FieldError{Field: field, Detail: wrongType})
}

// fieldName spells a JSON pointer (RFC 6901) as clients know fields:
// "/allowed_ips/1" is allowed_ips[1].
func fieldName(pointer jsontext.Pointer) string {
	var name strings.Builder
	for token := range pointer.Tokens() {
		if _, err := strconv.ParseUint(token, 10, 32); err == nil && name.Len() > 0 {
			name.WriteString("[" + token + "]")
			continue
		}
		if name.Len() > 0 {
			name.WriteByte('.')
		}
		name.WriteString(token)
	}
	if name.Len() == 0 {
		return "body"
	}
	return shown(name.String())
}

// shown cuts a client's own text for an answer, and mends it where it is no UTF-8.
func shown(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	runes := 0
	for i := range s {
		if runes++; runes > maxShown {
			return s[:i] + "…"
		}
	}
	return s
}

// Strings is an array of strings. null is no array: left out and empty have
// documented meanings, null has none.
type Strings []string

// UnmarshalJSONFrom reads an array of strings.
func (s *Strings) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	if in.PeekKind() == 'n' {
		return errors.New("null is not an array")
	}
	return json.UnmarshalDecode(in, (*[]string)(s))
}

// faults collects what is wrong with the fields of a body.
type faults []problem.FieldError

// full reports whether an answer has room for no more: what comes behind need
// not be looked at.
func (f *faults) full() bool { return len(*f) >= maxFieldErrors }

func (f *faults) add(field, detail string) {
	if !f.full() {
		*f = append(*f, problem.FieldError{Field: field, Detail: detail})
	}
}

func (f *faults) addAt(field string, i int, detail string) {
	if !f.full() {
		f.add(field+"["+strconv.Itoa(i)+"]", detail)
	}
}

// addValue names the value that is wrong. A body has room for thousands of
// those, so nothing is spelt out in vain.
func (f *faults) addValue(field string, i int, value, fault string) {
	if !f.full() {
		f.addAt(field, i, strconv.Quote(shown(value))+fault)
	}
}

// err is nil when there are no faults.
func (f *faults) err() error {
	if len(*f) == 0 {
		return nil
	}
	return problem.Invalid(*f...)
}
