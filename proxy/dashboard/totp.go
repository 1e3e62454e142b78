package dashboard

import (
	"errors"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"gatehouse/keystore"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/password"
	"gatehouse/proxy/problem"
)

// conflictText is for who changes its credentials while somebody else does.
const conflictText = "Your password or authenticator was changed at the same moment: by an operator, or in another window. Nothing was changed here. Sign in again, and look at it."

// passwordProblem is what is wrong with a form for another password; not known
// for what is no matter of the form.
func passwordProblem(err error) (f passwordForm, known bool) {
	switch {
	case err == nil:
		return f, false
	case errors.Is(err, signin.ErrRefused):
		f.Current = "This is not your current password."
	case errors.Is(err, signin.ErrSamePassword):
		f.Chosen = "This is the password that you have. Choose another one."
	case errors.Is(err, keystore.ErrConflict):
		f.General = conflictText
	default:
		for _, reason := range []error{password.ErrTooShort, password.ErrTooLong, password.ErrText, password.ErrEmail, password.ErrCommon} {
			if errors.Is(err, reason) {
				f.Chosen = sentence(reason)
			}
		}
	}
	return f, f.Wrong()
}

// sentence is the text of an error that was written for whoever reads the page.
func sentence(err error) string {
	first, size := utf8.DecodeRuneInString(err.Error())
	return string(unicode.ToUpper(first)) + err.Error()[size:] + "."
}

// totpPage offers a secret for an authenticator.
type totpPage struct {
	Offer signin.Offer
	// Groups are the secret as a person reads it.
	Groups []string
	QR     qrCode
	totpErrors
}

// totpErrors are what is wrong with the form's fields, and with none of them.
type totpErrors struct{ Password, Code, General string }

// Wrong: there is something to mend.
func (e totpErrors) Wrong() bool { return e != totpErrors{} }

func (d *Dashboard) showTOTP(v *visit) error { return d.offerTOTP(v, http.StatusOK, "", totpErrors{}) }

// offerTOTP shows the form that sets an authenticator up, with the secret that
// was offered before while that is good.
func (d *Dashboard) offerTOTP(v *visit, status int, earlier string, wrong totpErrors) error {
	if !v.session.User.HasPassword {
		return v.redirect(profilePath)
	}
	offer, err := d.o.People.OfferTOTP(v.r.Context(), v.session, v.from, d.brand.Name, earlier)
	if errors.Is(err, signin.ErrHasTOTP) {
		return v.redirect(profilePath)
	}
	if err != nil {
		return d.asSignedIn(v, err)
	}
	content := totpPage{Offer: offer, totpErrors: wrong}
	for rest := offer.Secret; rest != ""; {
		size := min(4, len(rest))
		content.Groups, rest = append(content.Groups, rest[:size]), rest[size:]
	}
	if content.QR, err = newQR(offer.URI); err != nil {
		return err
	}
	return d.show(v, page{name: "totp", title: "Set up an authenticator", current: profilePath, status: status, content: content})
}

// enableTOTP sets the authenticator up, and answers with the recovery codes:
// nothing that could be asked for again shows them.
func (d *Dashboard) enableTOTP(v *visit) error {
	form, err := v.form()
	if err != nil {
		return err
	}
	sealed := form.Get("offer")
	codes, began, err := d.o.People.EnableTOTP(v.r.Context(), v.session, v.from, signin.NewAuthenticator{
		Password: form.Get("password"), Sealed: sealed, Code: form.Get("code"),
	})
	if errors.Is(err, signin.ErrHasTOTP) {
		return v.redirect(profilePath)
	}
	if wrong := totpProblem(err); wrong.Wrong() {
		v.refuse(problem.New(problem.ValidationFailed, "The authenticator was not set up."))
		return d.offerTOTP(v, http.StatusUnprocessableEntity, sealed, wrong)
	}
	shown := page{name: "recovery", title: "Keep your recovery codes", current: profilePath, content: recoveryPage{codes, err != nil}}
	switch {
	case errors.Is(err, signin.ErrDone): // the codes are needed to sign in again
		d.o.People.ClearCookie(v.w)
		v.session = nil
		return d.show(v, shown)
	case err != nil:
		return d.asSignedIn(v, err)
	}
	d.o.People.SetCookie(v.w, began)
	v.session.User = began.User
	return d.show(v, shown)
}

// recoveryPage shows the codes, and who is SignedOut that it must sign in again.
type recoveryPage struct {
	Codes     []string
	SignedOut bool
}

// totpProblem is what is wrong with a form about the authenticator, or nothing.
func totpProblem(err error) (wrong totpErrors) {
	switch {
	case errors.Is(err, signin.ErrRefused):
		wrong.Password = "This is not your password."
	case errors.Is(err, signin.ErrWrongCode):
		wrong.Code = "This is not the code that the authenticator shows now, or it was used before. Wait for the next one."
	case errors.Is(err, signin.ErrOfferOver):
		wrong.General = "This took longer than half an hour, or you signed in anew meanwhile. Scan the new QR code below, in place of the earlier one."
	case errors.Is(err, keystore.ErrConflict):
		wrong.General = conflictText
	}
	return wrong
}

func (d *Dashboard) showRemoveTOTP(v *visit) error {
	return d.askRemoveTOTP(v, http.StatusOK, totpErrors{})
}

func (d *Dashboard) askRemoveTOTP(v *visit, status int, wrong totpErrors) error {
	if !v.session.User.TOTP {
		return v.redirect(profilePath)
	}
	return d.show(v, page{name: "totp-remove", title: "Remove your authenticator", current: profilePath, status: status, content: wrong})
}

func (d *Dashboard) disableTOTP(v *visit) error {
	form, err := v.form()
	if err != nil {
		return err
	}
	began, err := d.o.People.DisableTOTP(v.r.Context(), v.session, v.from, form.Get("password"), strings.TrimSpace(form.Get("code")))
	if errors.Is(err, signin.ErrDone) {
		return d.leave(v, "totp_removed_signed_out")
	}
	if wrong := totpProblem(err); wrong.Wrong() {
		if wrong.Code != "" {
			wrong.Code = "This code is wrong, or was used before. Enter the one that the authenticator shows now, or another recovery code."
		}
		v.refuse(problem.New(problem.ValidationFailed, "The authenticator was not removed."))
		return d.askRemoveTOTP(v, http.StatusUnprocessableEntity, wrong)
	}
	if err != nil {
		return d.asSignedIn(v, err)
	}
	d.o.People.SetCookie(v.w, began)
	return v.redirect(profilePath + "?notice=totp_removed")
}
