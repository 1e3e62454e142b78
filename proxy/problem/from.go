package problem

import (
	"errors"
	"strings"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// busyPause is when to ask again what only one at a time is answered.
const busyPause = 5 * time.Second

// From turns any error into the problem that the client is to see. An error
// that nobody foresaw becomes a 500 that says nothing.
func From(err error) *Problem {
	var p *Problem
	var excess *policy.Excess
	var refused *keystore.RefusedError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &excess):
		return exceeds(excess)
	case errors.As(err, &refused):
		return Refused(refused.Decision)
	case errors.Is(err, keystore.ErrUncertain):
		return uncertain(err)
	case errors.Is(err, keystore.ErrOlder):
		return unchanged(err, "The key store has come back without some of its last changes, and accepts no new ones until an operator has looked at it. Nothing was changed; keys go on working.")
	case errors.Is(err, keystore.ErrReadOnly):
		return unchanged(err, "The key store accepts no changes at the moment. Nothing was changed; keys go on working.")
	case errors.Is(err, keystore.ErrUnavailable):
		return StoreUnavailable(err)
	case errors.Is(err, keystore.ErrUnknownToken):
		return New(InvalidToken, "This token is not valid.")
	case errors.Is(err, keystore.ErrNotFound):
		return New(NotFound, "There is no such object in this account.")
	case errors.Is(err, keystore.ErrKeyInUse):
		return New(KeyInUse, "A key cannot change itself. Use another key, or the dashboard.")
	case errors.Is(err, keystore.ErrKeyLimit):
		return New(KeyLimitReached, "This account has as many keys as it may have. Revoke one that is not needed.")
	case errors.Is(err, keystore.ErrEmailTaken):
		return New(Conflict, "A user of this or another account has this e-mail address.")
	case errors.Is(err, keystore.ErrUserLimit):
		return New(Conflict, "This account has as many users as it may have. Delete one that is not needed.")
	case errors.Is(err, keystore.ErrExpired):
		return Invalid(FieldError{Field: "expires_at", Detail: "The expiry must be in the future, in Unix seconds."})
	case errors.Is(err, keystore.ErrReplaced):
		return New(Conflict, "This key was replaced by another one and works only until its grace period ends. It can be revoked; change the new key instead.")
	case errors.Is(err, keystore.ErrCallerReplaced):
		return New(Conflict, "This key was replaced by another one. It goes on working until its grace period ends, but changes no keys; use the new one.")
	case errors.Is(err, keystore.ErrConflict):
		return New(Conflict, "Another change to the same object came first. Look at it again, then try again.")
	case errors.Is(err, keystore.ErrTooMuchUsage):
		return Invalid(FieldError{Field: "from", Detail: "This is too much for one answer. Ask for a shorter time, for one key, or for days."})
	case errors.Is(err, keystore.ErrUsageBusy):
		return &Problem{Code: RateLimited, Detail: "Another question of this kind is being answered. Ask again shortly.", RetryAfter: busyPause, Cause: err}
	case errors.Is(err, keystore.ErrBadCursor):
		return Invalid(FieldError{Field: "cursor", Detail: "This cursor is none that a listing returned."})
	}
	return Internal(err)
}

// unchangedPause is when to try a change again that the store did not accept: it
// takes a person, or a replica, to make it accept changes.
const unchangedPause = 5 * time.Second

// unchanged is the problem of a change that was not made, while lookups work.
func unchanged(cause error, detail string) *Problem {
	return &Problem{Code: KeyStoreUnavailable, Detail: detail, RetryAfter: unchangedPause, Cause: cause}
}

// uncertain is the problem of a change of which nobody knows whether it was made,
// or whether it will last.
func uncertain(cause error) *Problem {
	return &Problem{
		Code: KeyStoreUnavailable, RetryAfter: time.Second, Cause: cause,
		Detail: "The key store has not confirmed this change: it may or may not have been made. Look at the object before you try again.",
	}
}

// exceeds names what a caller wanted to hand on and does not hold.
func exceeds(e *policy.Excess) *Problem {
	switch {
	case e.Held:
		return New(ExceedsYourAccess, "That key holds more than yours does, so yours can neither change it nor have its token.")
	case len(e.Permissions) > 0:
		return New(PermissionNotGrantable, "You can only grant what you hold yourself, and you lack: "+strings.Join(e.Permissions.Strings(), ", ")+".")
	case e.AllSubaccounts || len(e.Subaccounts) > 0:
		ids := make([]string, len(e.Subaccounts))
		for i, id := range e.Subaccounts {
			ids[i] = string(id)
		}
		if len(ids) == 0 {
			return New(SubaccountNotGrantable, "You can only grant access to subaccounts that you can access yourself.")
		}
		return New(SubaccountNotGrantable, "You cannot grant access to subaccounts that you cannot access yourself: "+strings.Join(ids, ", ")+".")
	case e.AnyAddress || len(e.Addresses) > 0:
		return New(ExceedsYourAccess, "Your key is limited to certain addresses; a key that it makes must be limited to addresses inside of these.")
	}
	return New(ExceedsYourAccess, "A key cannot outlive the key that makes it; give it an earlier expiry.")
}
