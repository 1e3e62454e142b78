package dashboard

import (
	"errors"
	"mime"
	"net/http"
	"net/url"

	"gatehouse/proxy/problem"
)

// sent is a form as it was read, before anything was asked about who sent it: a
// body can take its time, and that must be as it is when the form is acted on.
type sent struct {
	fields url.Values
	err    error
}

// form returns the fields of the form.
func (v *visit) form() (url.Values, error) { return v.sent.fields, v.sent.err }

// readForm reads the fields of a form of up to that many bytes. There is one way
// to send one.
func (v *visit) readForm(limit int64) (url.Values, error) {
	media, _, err := mime.ParseMediaType(v.r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, problem.New(problem.UnsupportedMediaType, "This is not how a form of this page is sent.")
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, limit)
	err = v.r.ParseForm()
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, problem.New(problem.BodyTooLarge, "This form is larger than this page accepts.")
	case err != nil:
		return nil, &problem.Problem{Code: problem.InvalidRequest, Detail: "This form could not be read.", Cause: err}
	}
	return v.r.PostForm, nil
}
