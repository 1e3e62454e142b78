package dashboard

import (
	"errors"
	"mime"
	"net/http"
	"net/url"

	"gatehouse/proxy/problem"
)

// form reads the fields of a form. There is one way to send one.
func (v *visit) form() (url.Values, error) { return v.formWithin(formLimit) }

// formWithin is form for one that may be longer than others, in bytes.
func (v *visit) formWithin(limit int64) (url.Values, error) {
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
