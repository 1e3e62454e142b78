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
	// Ticket is in place of the password where a code is asked for.
	Ticket string
	Error  string
	Ended  bool
	// Providers have buttons; without Passwords there is nothing else.
	Providers []Provider
	Passwords bool
}

func (d *Dashboard) showSignIn(v *visit) error {
	query := v.r.URL.Query()
	return d.signInForm(v, http.StatusOK, signInPage{Next: nextPage(query.Get("next")), Ended: query.Has("ended")})
}

func (d *Dashboard) signInForm(v *visit, status int, p signInPage) error {
	p.Providers, p.Passwords = d.o.Providers, !d.o.NoPasswords
	return d.show(v, page{name: "sign-in", title: "Sign in", status: status, content: p})
}

// signIn begins a session of who proves to be a user. Whatever session the
// browser had before ends with it.
func (d *Dashboard) signIn(v *visit) error {
	if d.o.NoPasswords {
		return problem.New(problem.NotFound, "Nobody signs in with a password here.")
	}
	form, err := v.form()
	if err != nil {
		return err
	}
	p := signInPage{Email: form.Get("email"), Next: nextPage(form.Get("next"))}
	proof := signin.Proof{Email: p.Email, Password: form.Get("password"), Ticket: form.Get("ticket"), Code: form.Get("code")}
	began, err := d.o.People.SignIn(v.r.Context(), proof, v.from)
	var many *signin.TooManyError
	var code *signin.CodeNeededError
	switch {
	case errors.As(err, &many):
		return tooMany(many.RetryAfter)
	case errors.As(err, &code):
		return d.askCode(v, p, code)
	case errors.Is(err, signin.ErrRefused):
		p.Error = "The e-mail address or the password is wrong."
		if proof.Ticket != "" {
			p.Error = "That took longer than five minutes, or your sign-in has changed. Begin again."
		}
		v.refuse(problem.New(problem.InvalidToken, p.Error))
		return d.signInForm(v, http.StatusUnauthorized, p)
	case err != nil:
		return err
	}
	d.replaceSession(v, began)
	return v.redirect(p.Next)
}

// askCode is the second step: the code alone.
func (d *Dashboard) askCode(v *visit, p signInPage, needed *signin.CodeNeededError) error {
	p.Ticket = needed.Ticket
	status := http.StatusOK
	if needed.Wrong {
		p.Error, status = "This code is wrong, or was used before. Enter the one that the authenticator shows now, or another recovery code.", http.StatusUnauthorized
		v.refuse(problem.New(problem.InvalidToken, p.Error))
	}
	return d.signInForm(v, status, p)
}

// replaceSession ends the session that the browser shows and gives it the new one.
func (d *Dashboard) replaceSession(v *visit, began signin.Session) {
	if old := d.o.People.TokenOf(v.r); old != "" {
		_ = d.o.People.SignOut(v.r.Context(), old) // it ends by itself soon, and the browser forgets its token
	}
	d.o.People.SetCookie(v.w, began)
}

// signOut ends the session.
func (d *Dashboard) signOut(v *visit) error {
	if err := d.o.People.SignOut(v.r.Context(), d.o.People.TokenOf(v.r)); err != nil {
		return err
	}
	return d.leave(v, "signed_out")
}

func tooMany(after time.Duration) error {
	return &problem.Problem{Code: problem.RateLimited, Detail: "There were too many attempts. Try again a little later.", RetryAfter: after}
}
