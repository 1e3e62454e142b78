package contract

import (
	"github.com/go-json-experiment/json/jsontext"

	"gatehouse/keystore"
)

// Event is an event of the audit log as it is shown.
type Event struct {
	ID        string        `json:"id"`
	Time      int64         `json:"time"`
	Action    string        `json:"action"`
	Actor     Actor         `json:"actor"`
	KeyID     *string       `json:"key_id"`
	UserID    *string       `json:"user_id,omitempty"`
	Changes   []FieldChange `json:"changes"`
	RequestID string        `json:"request_id"`
	Outcome   string        `json:"outcome"`
}

// Actor is who did it, and from which address, as far as that is known.
type Actor struct {
	Kind    string  `json:"kind"`
	ID      *string `json:"id"`
	Address *string `json:"address"`
}

// FieldChange is one field of the key or account, before and after.
type FieldChange struct {
	Field string         `json:"field"`
	Old   jsontext.Value `json:"old"`
	New   jsontext.Value `json:"new"`
}

// ShowEvent gives an event its documented form.
func ShowEvent(e keystore.Event) Event {
	shown := Event{
		ID: e.ID, Time: e.At.Unix(), Action: string(e.Action), Actor: Actor{Kind: string(e.Actor.Kind), ID: orNull(e.Actor.ID)},
		KeyID: orNull(string(e.Key)), UserID: orNull(string(e.User)), Changes: []FieldChange{}, RequestID: e.RequestID, Outcome: e.Outcome,
	}
	if e.Client.IsValid() {
		shown.Actor.Address = orNull(e.Client.String())
	}
	for _, c := range e.Changes {
		shown.Changes = append(shown.Changes, FieldChange(c))
	}
	return shown
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
