package dashboard

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/problem"
)

// visit is one request on its way, and what has become known of it.
type visit struct {
	w      http.ResponseWriter
	r      *http.Request
	from   signin.From
	scheme string
	refuse func(*problem.Problem)
	err    error
	sent   sent
	// session and caller are set on pages for who is signed in.
	session *keystore.Session
	caller  policy.Caller
	account keystore.Account
}

// visitKey is the context's key of the visit, from Serve through http.ServeMux
// to its route, and no further.
type visitKey struct{}

// route is one page or form. What is not open needs somebody who is signed in
// and whose account holds the permission.
type route struct {
	d       *Dashboard
	pattern string
	open    bool
	// unchanged lets in who must choose a password first.
	unchanged bool
	needs     policy.Permission // "" for what everybody may who is signed in
	// action is what the form does to a key, for the audit trail of refusals.
	action keystore.Action
	// limit bounds the form, in bytes; 0 is formLimit.
	limit  int64
	answer func(v *visit) error
}

// ServeHTTP answers the visit that is in the request's context.
func (rt *route) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	v, ok := r.Context().Value(visitKey{}).(*visit)
	if !ok {
		return // Serve puts it there
	}
	v.r = r
	v.err = rt.enter(v) //nolint:contextcheck // the visit has its request, with the context
}

// enter lets in who may see the page.
func (rt *route) enter(v *visit) error {
	if v.r.Method == http.MethodPost {
		v.sent.fields, v.sent.err = v.readForm(cmp.Or(rt.limit, formLimit))
	}
	if rt.open {
		return rt.answer(v)
	}
	if err := rt.identify(v); err != nil {
		return rt.d.askSignIn(v, err)
	}
	err := rt.permitted(v)
	if err == nil {
		err = asPerson(rt.answer(v))
	}
	if errors.Is(err, signin.ErrNoSession) {
		return rt.d.askSignIn(v, err) // it has ended since
	}
	if err != nil && rt.action != "" {
		rt.d.o.Store.Refused(v.r.Context(), v.caller, rt.action, policy.KeyID(v.r.PathValue("id")), string(problem.From(err).Code))
	}
	return err
}

// identify finds out who is signed in.
func (rt *route) identify(v *visit) error {
	d := rt.d
	ctx := v.r.Context()
	token := d.o.People.TokenOf(v.r)
	if token == "" {
		return signin.ErrNoSession
	}
	found, err := d.o.People.Find(ctx, token)
	if err != nil {
		return err
	}
	if !d.offers(signin.Provider(found), &found.User) {
		return signin.ErrNoSession
	}
	v.session = found
	v.caller, err = d.o.People.Caller(found, v.from)
	if errors.Is(err, signin.ErrMustChange) && rt.unchanged {
		v.caller, err = found.Caller(v.from.Client, v.from.RequestID), nil
	}
	if err != nil {
		return err
	}
	v.account, err = d.o.Store.GetAccount(ctx, found.User.Account)
	return err
}

// permitted: a session may do what its account may (API.md, "session").
func (rt *route) permitted(v *visit) error {
	if rt.needs == "" || v.caller.Permissions().Has(rt.needs) {
		return nil
	}
	return lacking(rt.needs)
}

// lacking is for who may not do it by its account.
func lacking(needs policy.Permission) error {
	return &problem.Problem{
		Code: problem.PermissionDenied, Permission: needs,
		Detail: "Your account does not have the permission " + string(needs) + ", which this page needs.",
	}
}

// asPerson says in a person's words what the store refuses to keys, too.
func asPerson(err error) error {
	var refused *keystore.RefusedError
	if errors.As(err, &refused) && refused.Decision.Reason == policy.PermissionDenied {
		return lacking(refused.Decision.Needs)
	}
	return err
}

// lasting reports whether no other form could mend it: who sent it may not.
func lasting(err error) bool {
	var refused *keystore.RefusedError
	return errors.Is(err, signin.ErrNoSession) || errors.As(err, &refused)
}

// askSignIn sends who is not signed in to the page where that is done, and back.
func (d *Dashboard) askSignIn(v *visit, err error) error {
	switch {
	case errors.Is(err, signin.ErrMustChange):
		return v.redirect(passwordPath)
	case !errors.Is(err, signin.ErrNoSession):
		return err
	}
	to := signInPath
	if v.r.Method == http.MethodGet {
		to += "?" + url.Values{"next": {v.r.URL.RequestURI()}}.Encode()
	} else {
		to += "?ended=1"
	}
	return v.redirect(to)
}

// redirect sends the browser to another page with a GET (RFC 9110 §15.4.4).
func (v *visit) redirect(to string) error {
	v.w.Header().Set("Location", to)
	v.w.WriteHeader(http.StatusSeeOther)
	return nil
}

// nextPage is where to go after the sign-in: a page of ours that the client
// named, or the first one. Anything that a browser could read as another site
// is not one of ours.
func nextPage(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Fragment != "" ||
		!strings.HasPrefix(u.Path, Prefix+"/") || strings.ContainsAny(next, "\\\r\n\t") || strings.HasPrefix(u.Path, signInPath) {
		return keysPath
	}
	return u.RequestURI()
}
