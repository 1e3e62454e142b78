package signin

import "errors"

// Method is how somebody signs in.
type Method string

// The ways to sign in.
const (
	ByPassword Method = "password" // and a code, where one is asked for
	ByProvider Method = "oidc"     // an identity provider vouches
)

// Methods returns every way to sign in.
func Methods() []Method { return []Method{ByPassword, ByProvider} }

// Outcome is how an attempt to sign in ended, in few words.
type Outcome string

// The outcomes of attempts to sign in.
const (
	OutcomeOK          Outcome = "ok"
	OutcomeCodeNeeded  Outcome = "code_needed"
	OutcomeRefused     Outcome = "refused"
	OutcomeLimited     Outcome = "limited"
	OutcomeUnavailable Outcome = "unavailable" // the store's or our own trouble
)

// Outcomes returns every outcome.
func Outcomes() []Outcome {
	return []Outcome{OutcomeOK, OutcomeCodeNeeded, OutcomeRefused, OutcomeLimited, OutcomeUnavailable}
}

// counted tells of an attempt that ended with err.
func (a *Authenticator) counted(m Method, err error) {
	if a.o.Counted == nil {
		return
	}
	outcome := OutcomeUnavailable
	var tooMany *TooManyError
	var needed *CodeNeededError
	switch {
	case err == nil:
		outcome = OutcomeOK
	case errors.Is(err, ErrRefused), errors.Is(err, ErrUnknownPerson), errors.As(err, &needed) && needed.Wrong:
		outcome = OutcomeRefused
	case errors.Is(err, ErrCodeNeeded):
		outcome = OutcomeCodeNeeded
	case errors.As(err, &tooMany):
		outcome = OutcomeLimited
	}
	a.o.Counted(m, outcome)
}
