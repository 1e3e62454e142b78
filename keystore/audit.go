package keystore

import (
	"cmp"
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"go.uber.org/zap"

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
	AccountImport Action = "account.import" // it, or keys or users of it

	UserCreate   Action = "user.create"
	UserUpdate   Action = "user.update"
	UserDelete   Action = "user.delete"
	UserPassword Action = "user.password" // chosen by the user, or set anew
	UserTOTP     Action = "user.totp"     // set up, or removed
	UserSignIn   Action = "user.sign_in"
	UserSignOut  Action = "user.sign_out" // everywhere, or of one session
)

// Actions returns every action.
func Actions() []Action {
	return []Action{
		KeyCreate, KeyUpdate, KeyRevoke, KeyRegenerate, AccountPut, AccountDelete, AccountImport,
		UserCreate, UserUpdate, UserDelete, UserPassword, UserTOTP, UserSignIn, UserSignOut,
	}
}

// aboutUsers reports whether only people see events of the action; a refused
// one names no user.
func (a Action) aboutUsers() bool { return strings.HasPrefix(string(a), "user.") }

// Done is the outcome of an action that was carried out. Every other outcome
// is the error code of the refusal.
const Done = "done"

// NotDone stands in an EventFilter for every outcome but Done.
const NotDone = "refused"

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
	Key policy.KeyID
	// User is the user who was acted on, "" where there was none.
	User      UserID
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
	// Key wants what was done to that key, and the regeneration that made it.
	Key    policy.KeyID
	Action Action
	// Outcome is that of an Event, or NotDone.
	Outcome  string
	From, To time.Time // From is included, To is not
	// Users includes what users did and what was done to them, which has
	// e-mail addresses in it. It is for people, and not for keys.
	Users bool
	// Predecessors includes what happened to deleted accounts of the same id.
	// It is for operators alone.
	Predecessors bool
}

// AuditKeep says how much of an account's audit trail is kept: the last Events
// of those that were carried out and as many that were refused, none older than
// Age. Zero fields keep 10,000 events, and 400 days.
type AuditKeep struct {
	Events int
	Age    time.Duration
}

const (
	defaultAuditEvents = 10_000
	defaultAuditAge    = 400 * 24 * time.Hour
)

func (k AuditKeep) orDefault() AuditKeep {
	return AuditKeep{Events: cmp.Or(k.Events, defaultAuditEvents), Age: cmp.Or(k.Age, defaultAuditAge)}
}

// eventOf begins the event of an action that a caller has carried out.
func (s *Store) eventOf(by policy.Caller, action Action, account policy.AccountID, accountUID string) *storedEvent {
	id, err := uuid.NewV7()
	if err != nil {
		id = uuid.New()
	}
	return &storedEvent{accountUID: accountUID, event: Event{
		ID: id.String(), At: s.o.Now().UTC().Truncate(time.Second), Action: action, Actor: by.Actor(), Client: by.Client,
		Account: account, RequestID: by.RequestID, Outcome: Done,
	}}
}

// about names the key that the event is about, and what has become of it.
func (e *storedEvent) about(key policy.KeyID, changes []FieldChange) *storedEvent {
	e.event.Key, e.event.Changes = key, changes
	return e
}

// aboutUser names the user that the event is about, and what has become of it.
func (e *storedEvent) aboutUser(id UserID, changes []FieldChange) *storedEvent {
	e.event.User, e.event.Changes = id, changes
	return e
}

// note is the step that adds the event to a stream of its account.
func (s *Store) note(stream string, e *storedEvent) (step, error) {
	raw, err := encodeEvent(e)
	if err != nil {
		return step{}, err
	}
	return step{Kind: stepXAdd, Key: stream, Value: raw, Keep: s.o.Audit.Events, Age: max(1, int64(s.o.Audit.Age/time.Second))}, nil
}

// Refused notes in the audit trail of the caller's account that an action was
// refused, and with which code. What was refused is kept apart from what was
// done, so that nobody can push real changes out of the trail by failing often.
// Where the store does not answer, the log line is all that is left of it.
func (s *Store) Refused(ctx context.Context, by policy.Caller, action Action, key policy.KeyID, code string) {
	if by.Account == nil {
		return
	}
	if _, err := policy.ParseSubaccountID(string(key)); err != nil { // a key's id is a UUID too
		key = ""
	}
	e := s.eventOf(by, action, by.Account.ID, "").about(key, nil)
	e.event.Outcome = code
	s.logEvent(&e.event, s.keepRefusal(ctx, e))
}

func (s *Store) keepRefusal(ctx context.Context, e *storedEvent) error {
	account, err := s.accountOf(ctx, e.event.Account, false)
	if err != nil {
		return err
	}
	e.accountUID = account.uid
	add, err := s.note(s.names.refused(e.event.Account), e)
	if err != nil {
		return err
	}
	return s.commit(ctx, change{steps: []step{add}})
}

// logEvent writes the event as a line of the log: who did what to which key,
// and the names of the fields that changed, without their values.
func (s *Store) logEvent(e *Event, notKept error) {
	fields := make([]string, len(e.Changes))
	for i, c := range e.Changes {
		fields[i] = c.Field
	}
	address := ""
	if e.Client.IsValid() {
		address = e.Client.String()
	}
	s.o.AuditLog.Info("audit",
		zap.String("gatehouse.event_id", e.ID), zap.String("gatehouse.action", string(e.Action)), zap.String("gatehouse.outcome", e.Outcome),
		zap.String("gatehouse.account", string(e.Account)), zap.String("gatehouse.key_id", string(e.Key)),
		zap.String("gatehouse.actor_kind", string(e.Actor.Kind)), zap.String("gatehouse.actor_id", e.Actor.ID), zap.String("client.address", address),
		zap.Strings("gatehouse.fields", fields), zap.String("gatehouse.request_id", e.RequestID), zap.NamedError("gatehouse.not_kept", notKept))
}
