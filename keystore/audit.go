package keystore

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"gatehouse/policy"
)

// Action names what a management request does, in the audit trail.
type Action string

// The actions.
const (
	KeyCreate     Action = "key.create"
	KeyUpdate     Action = "key.update"
	KeyRevoke     Action = "key.revoke"
	KeyRegenerate Action = "key.regenerate"
	AccountPut    Action = "account.put"
	AccountDelete Action = "account.delete"
)

// Actions returns every action.
func Actions() []Action {
	return []Action{KeyCreate, KeyUpdate, KeyRevoke, KeyRegenerate, AccountPut, AccountDelete}
}

// Done is the outcome of an action that was carried out. Every other outcome
// is the error code of the refusal.
const Done = "done"

// Event is one entry of an account's audit trail. It holds no secret.
type Event struct {
	ID     string
	At     time.Time
	Action Action
	Actor  policy.Actor
	// Client is the actor's address; invalid where it is not known.
	Client  netip.Addr
	Account policy.AccountID
	// Key is the key that was acted on, "" where there was none.
	Key       policy.KeyID
	Changes   []FieldChange
	RequestID string
	Outcome   string
}

// FieldChange is one field before and after a change, by its name and value
// in the API; null before the object was made and after it was removed.
type FieldChange struct {
	Field    string
	Old, New jsontext.Value
}

// EventFilter says which events of an account are wanted; zero fields want all.
type EventFilter struct {
	Key      policy.KeyID
	Action   Action
	From, To time.Time // From is included, To is not
	// Predecessors includes what happened to deleted accounts of the same id.
	// It is for operators alone.
	Predecessors bool
}

// AuditLog returns up to limit events of the account, the newest first, from
// the cursor on that an earlier call returned ("" for the first), and the
// cursor of the next page, "" when there is none; or ErrBadCursor.
func (s *Store) AuditLog(ctx context.Context, account policy.AccountID, f EventFilter, cursor string, limit int) ([]Event, string, error) {
	return nil, "", errors.ErrUnsupported
}

// Refused notes in the audit trail of the caller's account that an action was
// refused, and with which code. Where the store does not answer, the log line
// is all that is left of it.
func (s *Store) Refused(ctx context.Context, by policy.Caller, action Action, key policy.KeyID, code string) {
}
