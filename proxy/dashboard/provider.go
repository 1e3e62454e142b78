package dashboard

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/dashboard/openid"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/problem"
)

// Provider is an identity provider by which people may sign in.
type Provider struct {
	// Name is its path segment, Label what its button calls it, and Issuer its
	// identifier.
	Name, Label, Issuer string
	OpenID              Asker
	// Create makes users of people who are none yet.
	Create bool
}

// Asker asks a provider who somebody is: an openid.Provider.
type Asker interface {
	Begin(ctx context.Context) (string, openid.Attempt, error)
	Finish(ctx context.Context, a openid.Attempt, query url.Values) (openid.Person, error)
	VouchesFor(account policy.AccountID) bool
}

const (
	// attemptCookie holds an attempt until the provider has sent the person
	// back: for this host alone, over HTTPS alone.
	attemptCookie  = "__Host-gatehouse-openid"
	attemptSeconds = 600
	// maxNext bounds the page that an attempt remembers, in bytes.
	maxNext = 1024
)

// providerRoutes are those of signing in by OpenID Connect.
func (d *Dashboard) providerRoutes() []*route {
	return []*route{
		{pattern: "GET " + signInPath + "/{provider}", open: true, answer: d.leaveForProvider},
		{pattern: "GET " + callbackPath("{provider}"), open: true, answer: d.comeBack},
	}
}

// callbackPath is where the provider sends people back to.
func callbackPath(provider string) string { return signInPath + "/" + provider + "/callback" }

// RedirectURL is what a provider has to be told that people come back to.
func RedirectURL(base, provider string) string {
	return strings.TrimSuffix(base, "/") + callbackPath(provider)
}

// waiting is what the cookie of an attempt holds.
type waiting struct {
	Attempt openid.Attempt `json:"attempt"`
	Next    string         `json:"next"`
}

// leaveForProvider sends a person to the provider.
func (d *Dashboard) leaveForProvider(v *visit) error {
	p, err := d.provider(v)
	if err != nil {
		return err
	}
	if err := d.o.People.Admit(v.from); err != nil {
		return d.asSignedIn(v, err)
	}
	next := nextPage(v.r.URL.Query().Get("next"))
	if len(next) > maxNext {
		next = keysPath
	}
	to, attempt, err := p.OpenID.Begin(v.r.Context())
	if err != nil {
		return d.notSignedIn(v, p, next, err)
	}
	content, err := json.Marshal(waiting{Attempt: attempt, Next: next})
	if err != nil {
		return err
	}
	http.SetCookie(v.w, attemptCookieOf(base64.RawURLEncoding.EncodeToString(content), attemptSeconds))
	return v.redirect(to)
}

func (d *Dashboard) provider(v *visit) (Provider, error) {
	for _, p := range d.o.Providers {
		if p.Name == v.r.PathValue("provider") {
			return p, nil
		}
	}
	return Provider{}, problem.New(problem.NotFound, "There is no such page.")
}

// offers reports whether the user may sign in at the provider, as far as the
// configuration says, or with a password where it is "". A session that began in
// another way is over.
func (d *Dashboard) offers(provider string, user *keystore.User) bool {
	if provider == "" {
		return !d.o.NoPasswords
	}
	return slices.ContainsFunc(d.o.Providers, func(p Provider) bool {
		return p.Name == provider && p.Issuer == user.Identity.Issuer && p.OpenID.VouchesFor(user.Account)
	})
}

func attemptCookieOf(value string, seconds int) *http.Cookie {
	return &http.Cookie{Name: attemptCookie, Value: value, Path: "/", MaxAge: seconds, HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode}
}

// comeBack signs in the person whom the provider has sent back. The attempt is
// over then, whatever comes of it.
func (d *Dashboard) comeBack(v *visit) error {
	p, err := d.provider(v)
	if err != nil {
		return err
	}
	http.SetCookie(v.w, attemptCookieOf("", -1))
	if err := d.o.People.Admit(v.from); err != nil {
		return d.asSignedIn(v, err)
	}
	wait, err := d.waitingFor(v)
	if err != nil {
		return d.notSignedIn(v, p, wait.Next, err)
	}
	who, err := p.OpenID.Finish(v.r.Context(), wait.Attempt, v.r.URL.Query())
	if err != nil {
		return d.notSignedIn(v, p, wait.Next, err)
	}
	began, err := d.o.People.SignInVouched(v.r.Context(), signin.Vouched{
		Provider: p.Name, Identity: who.Identity, Account: who.Account, Email: who.Email, Name: contract.CleanName(who.Name), Create: p.Create,
	}, v.from)
	if err != nil {
		return d.notSignedIn(v, p, wait.Next, err)
	}
	d.replaceSession(v, began)
	return v.redirect(nextPage(wait.Next))
}

// errNoAttempt: the browser has not begun what the provider answers.
var errNoAttempt = errors.New("this browser waits for no such answer, or not any more")

// waitingFor is what the browser waits for. It does so once: the store
// remembers that, of answers whose state is the one that was asked for.
func (d *Dashboard) waitingFor(v *visit) (waiting, error) {
	var wait waiting
	cookies := v.r.CookiesNamed(attemptCookie)
	if len(cookies) != 1 {
		return wait, errNoAttempt
	}
	content, err := base64.RawURLEncoding.DecodeString(cookies[0].Value)
	if err != nil || json.Unmarshal(content, &wait, json.RejectUnknownMembers(true)) != nil {
		return waiting{}, errNoAttempt
	}
	answered := v.r.URL.Query()["state"]
	if wait.Attempt.State == "" || len(answered) != 1 || subtle.ConstantTimeCompare([]byte(answered[0]), []byte(wait.Attempt.State)) != 1 {
		return wait, errNoAttempt
	}
	state := sha256.Sum256([]byte(wait.Attempt.State))
	first, err := d.o.Store.Once(v.r.Context(), "openid-"+hex.EncodeToString(state[:24]))
	if err == nil && !first {
		err = errNoAttempt
	}
	return wait, err
}

// notSignedIn shows the sign-in page with what went wrong, in words of ours:
// those of the provider, or of who sent the browser here, are for the log.
func (d *Dashboard) notSignedIn(v *visit, p Provider, next string, err error) error {
	code, text := problem.InvalidToken, ""
	switch {
	case errors.Is(err, openid.ErrUnavailable):
		code, text = problem.UpstreamUnreachable, p.Label+" does not answer at the moment. Try again shortly."
	case errors.Is(err, openid.ErrDenied):
		text = p.Label + " did not sign you in."
	case errors.Is(err, openid.ErrUnverified):
		text = p.Label + " has not verified your e-mail address. Verify it there, then try again."
	case errors.Is(err, openid.ErrNoAccount), errors.Is(err, signin.ErrUnknownPerson), errors.Is(err, signin.ErrRefused):
		text = "You are signed in at " + p.Label + ", and may not sign in here. Ask who manages your account."
	case errors.Is(err, openid.ErrAnswer), errors.Is(err, errNoAttempt):
		text = "Signing in by " + p.Label + " was not completed, or took longer than ten minutes. Try again."
	default:
		return d.asSignedIn(v, err)
	}
	d.o.Log.Info("sign-in by provider refused",
		zap.String("gatehouse.provider", p.Name), zap.Stringer("client.address", v.from.Client), zap.String("gatehouse.request_id", v.from.RequestID), zap.Error(err))
	v.refuse(problem.New(code, text))
	return d.signInForm(v, code.Status(), signInPage{Next: nextPage(next), Error: text})
}
