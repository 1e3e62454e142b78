package dashboard

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"gatehouse/keystore"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/problem"
)

const (
	totpPath       = profilePath + "/totp"
	removeTOTPPath = totpPath + "/remove"
	everywherePath = profilePath + "/sign-out-everywhere"
)

// profileRoutes are what users change of themselves.
func (d *Dashboard) profileRoutes() []*route {
	list := []*route{
		{pattern: "GET " + profilePath, answer: d.showProfile},
		{pattern: "POST " + profilePath + "/sessions/{id}/sign-out", answer: d.endSession},
		{pattern: "POST " + everywherePath, answer: d.signOutEverywhere},
		{pattern: "GET " + passwordPath, unchanged: true, answer: d.showFirstPassword},
		{pattern: "POST " + passwordPath, unchanged: true, answer: d.chooseFirstPassword},
	}
	if d.o.NoPasswords {
		return list
	}
	return append(list, []*route{
		{pattern: "POST " + profilePath + "/password", answer: d.changePassword},
		{pattern: "GET " + totpPath, answer: d.showTOTP},
		{pattern: "POST " + totpPath, answer: d.enableTOTP},
		{pattern: "GET " + removeTOTPPath, answer: d.showRemoveTOTP},
		{pattern: "POST " + removeTOTPPath, answer: d.disableTOTP},
	}...)
}

// profilePage is what a user sees of itself.
type profilePage struct {
	Password passwordForm
	// Passwords: the user has one, and it is good for something.
	Passwords bool
	// Provider is what calls the provider of the user's identity, "" for none.
	Provider string
	Sessions []sessionView
	// RecoveryLeft is how many recovery codes still work.
	RecoveryLeft int
}

// sessionView is a session in the list of those that go on.
type sessionView struct {
	ID, Browser, Agent, Address string
	Since                       time.Time
	Here                        bool
}

func (d *Dashboard) showProfile(v *visit) error {
	return d.profile(v, http.StatusOK, passwordForm{})
}

func (d *Dashboard) profile(v *visit, status int, f passwordForm) error {
	ctx := v.r.Context()
	list, err := d.o.People.Sessions(ctx, v.session, v.from)
	if err != nil {
		return d.asSignedIn(v, err)
	}
	user := v.session.User
	content := profilePage{Password: f.of(v), Passwords: user.HasPassword && !d.o.NoPasswords, Provider: user.Identity.Issuer}
	for _, p := range d.o.Providers {
		if p.Issuer == user.Identity.Issuer {
			content.Provider = p.Label
		}
	}
	for _, ss := range list {
		view := sessionView{ID: ss.ID, Browser: browserOf(ss.Agent), Agent: ss.Agent, Since: ss.CreatedAt, Here: ss.ID == v.session.ID}
		if ss.Client.IsValid() {
			view.Address = ss.Client.String()
		}
		content.Sessions = append(content.Sessions, view)
	}
	if user.TOTP {
		if content.RecoveryLeft, err = d.o.People.RecoveryLeft(ctx, v.session, v.from); err != nil {
			return d.asSignedIn(v, err)
		}
	}
	return d.show(v, page{name: "profile", title: "Profile", current: profilePath, status: status, content: content})
}

// endSession ends one of the user's sessions; this one is signed out.
func (d *Dashboard) endSession(v *visit) error {
	id := v.r.PathValue("id")
	if id == v.session.ID {
		return d.signOut(v)
	}
	err := d.o.People.Revoke(v.r.Context(), v.session, v.from, id)
	if err != nil && !errors.Is(err, keystore.ErrNotFound) { // what is over already is what was asked for
		return d.asSignedIn(v, err)
	}
	return v.redirect(profilePath + "?notice=session_ended")
}

func (d *Dashboard) signOutEverywhere(v *visit) error {
	if err := d.o.People.SignOutEverywhere(v.r.Context(), v.session, v.from); err != nil {
		return d.asSignedIn(v, err)
	}
	return d.leave(v, "signed_out_everywhere")
}

// asSignedIn sends who is not signed in any more, as it turned out on the way,
// to sign in.
func (d *Dashboard) asSignedIn(v *visit, err error) error {
	var many *signin.TooManyError
	switch {
	case errors.Is(err, signin.ErrNoSession):
		return d.askSignIn(v, err)
	case errors.As(err, &many):
		return tooMany(many.RetryAfter)
	}
	return err
}

// passwordForm is a form for another password as it is shown: with what was
// wrong, and nothing that was typed.
type passwordForm struct {
	Email string // for password managers
	// Current, Chosen and Repeat are what is wrong with those fields; General
	// is what is wrong with none of them.
	Current, Chosen, Repeat, General string
}

// Wrong: there is something to mend.
func (f passwordForm) Wrong() bool { return f != passwordForm{Email: f.Email} }

func (f passwordForm) of(v *visit) passwordForm {
	f.Email = string(v.session.User.Email)
	return f
}

func (d *Dashboard) changePassword(v *visit) error {
	return d.newPassword(v, profilePath+"?notice=password_changed", d.profile)
}

func (d *Dashboard) showFirstPassword(v *visit) error {
	if !v.session.User.MustChange {
		return v.redirect(profilePath)
	}
	return d.firstPassword(v, http.StatusOK, passwordForm{})
}

func (d *Dashboard) firstPassword(v *visit, status int, f passwordForm) error {
	return d.show(v, page{name: "password", title: "Choose a password", status: status, content: f.of(v)})
}

func (d *Dashboard) chooseFirstPassword(v *visit) error {
	return d.newPassword(v, keysPath+"?notice=password_changed", d.firstPassword)
}

// newPassword changes the password as a form says, or shows the form again.
func (d *Dashboard) newPassword(v *visit, next string, again func(v *visit, status int, f passwordForm) error) error {
	form, err := v.form()
	if err != nil {
		return err
	}
	if form.Get("password") != form.Get("repeat") {
		return d.formAgain(v, passwordForm{Repeat: "This is not the new password that stands above it."}, again)
	}
	began, err := d.o.People.ChangePassword(v.r.Context(), v.session, v.from, form.Get("current"), form.Get("password"))
	if errors.Is(err, signin.ErrDone) {
		return d.leave(v, "password_changed_signed_out")
	}
	if f, known := passwordProblem(err); known {
		return d.formAgain(v, f, again)
	}
	if err != nil {
		return d.asSignedIn(v, err)
	}
	d.o.People.SetCookie(v.w, began)
	return v.redirect(next)
}

func (d *Dashboard) formAgain(v *visit, f passwordForm, again func(v *visit, status int, f passwordForm) error) error {
	v.refuse(problem.New(problem.ValidationFailed, "The password was not changed."))
	return again(v, http.StatusUnprocessableEntity, f)
}

// leave ends the visit of who has signed out, and has the browser forget what
// it was shown.
func (d *Dashboard) leave(v *visit, notice string) error {
	d.o.People.ClearCookie(v.w)
	v.w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
	return v.redirect(signInPath + "?" + url.Values{"notice": {notice}}.Encode())
}
