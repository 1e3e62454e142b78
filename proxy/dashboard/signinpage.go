package dashboard

import (
	"errors"
	"net/http"
	"time"

	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/problem"
)

// formLimit bounds the bodies of forms without lists, in bytes.
const formLimit = 64 << 10

// signInPage is the form as it is shown: with what was typed, less the secrets.
type signInPage struct {
	Email, Next string
	AskCode     bool
	Error       string
	Ended       bool
}

func (d *Dashboard) showSignIn(v *visit) error {
	query := v.r.URL.Query()
	return d.signInForm(v, http.StatusOK, signInPage{Next: nextPage(query.Get("next")), Ended: query.Has("ended")})
}

func (d *Dashboard) signInForm(v *visit, status int, p signInPage) error {
	return d.show(v, page{name: "sign-in", title: "Sign in", status: status, content: p})
}

// signIn begins a session of who proves to be a user. Whatever session the
// browser had before ends with it.
func (d *Dashboard) signIn(v *visit) error {
	form, err := v.form()
	if err != nil {
		return err
	}
	p := signInPage{Email: form.Get("email"), Next: nextPage(form.Get("next"))}
	proof := signin.Proof{Email: p.Email, Password: form.Get("password"), Code: form.Get("code")}
	began, err := d.o.People.SignIn(v.r.Context(), proof, v.from)
	var many *signin.TooManyError
	switch {
	case errors.As(err, &many):
		return tooMany(many.RetryAfter)
	case errors.Is(err, signin.ErrCodeNeeded):
		p.AskCode = true
		return d.signInForm(v, http.StatusOK, p)
	case errors.Is(err, signin.ErrRefused):
		p.AskCode = proof.Code != ""
		p.Error = "The e-mail address or the password is wrong."
		if p.AskCode {
			p.Error = "The e-mail address, the password or the code is wrong. A code works once."
		}
		v.refuse(problem.New(problem.InvalidToken, p.Error))
		return d.signInForm(v, http.StatusUnauthorized, p)
	case err != nil:
		return err
	}
	d.replaceSession(v, began)
	return v.redirect(p.Next)
}

// replaceSession ends the session that the browser shows and gives it the new one.
func (d *Dashboard) replaceSession(v *visit, began signin.Session) {
	if old := d.o.People.TokenOf(v.r); old != "" {
		_ = d.o.People.SignOut(v.r.Context(), old) // it ends by itself soon, and the browser forgets its token
	}
	d.o.People.SetCookie(v.w, began)
}

// signOut ends the session, and has the browser forget what it was shown.
func (d *Dashboard) signOut(v *visit) error {
	if err := d.o.People.SignOut(v.r.Context(), d.o.People.TokenOf(v.r)); err != nil {
		return err
	}
	d.o.People.ClearCookie(v.w)
	v.w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
	return v.redirect(signInPath + "?notice=signed_out")
}

func tooMany(after time.Duration) error {
	return &problem.Problem{Code: problem.RateLimited, Detail: "There were too many attempts. Try again a little later.", RetryAfter: after}
}
