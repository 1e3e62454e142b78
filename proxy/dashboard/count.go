package dashboard

import "errors"

// Method is how somebody signs in.
type Method string

// ByPassword is signing in with a password, and a code where one is asked for.
const ByPassword Method = "password"

// Methods returns every way to sign in.
func Methods() []Method { return []Method{ByPassword} }

// SignInOutcome is how an attempt to sign in ended, in few words.
type SignInOutcome string

// The outcomes of attempts to sign in.
const (
	SignInOK          SignInOutcome = "ok"
	SignInCodeNeeded  SignInOutcome = "code_needed"
	SignInRefused     SignInOutcome = "refused"
	SignInLimited     SignInOutcome = "limited"
	SignInUnavailable SignInOutcome = "unavailable" // the store's or our own trouble
)

// SignInOutcomes returns every outcome.
func SignInOutcomes() []SignInOutcome {
	return []SignInOutcome{SignInOK, SignInCodeNeeded, SignInRefused, SignInLimited, SignInUnavailable}
}

// counted tells of an attempt that ended with err.
func (a *Authenticator) counted(m Method, err error) {
	if a.o.Counted == nil {
		return
	}
	outcome := SignInUnavailable
	var tooMany *TooManyError
	switch {
	case err == nil:
		outcome = SignInOK
	case errors.Is(err, ErrCodeNeeded):
		outcome = SignInCodeNeeded
	case errors.Is(err, ErrRefused):
		outcome = SignInRefused
	case errors.As(err, &tooMany):
		outcome = SignInLimited
	}
	a.o.Counted(m, outcome)
}
