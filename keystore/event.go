package keystore

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"gatehouse/policy"
)

// maxListed bounds how many entries of a list an event repeats: an account may
// have thousands of subaccounts, and thousands of events.
const maxListed = 100

// storedEvent is an event with what only the store needs of it: which of the
// accounts that had the same id one after another it belongs to.
type storedEvent struct {
	event      Event
	accountUID string
}

// eventRecord is an event as it is stored.
type eventRecord struct {
	Version    int            `json:"v"`
	ID         string         `json:"id"`
	At         int64          `json:"at"`
	Action     string         `json:"action"`
	ActorKind  string         `json:"actor_kind"`
	ActorID    string         `json:"actor_id"`
	Address    string         `json:"address"`
	Account    string         `json:"account"`
	AccountUID string         `json:"account_uid"`
	Key        string         `json:"key"`
	Changes    []changeRecord `json:"changes"`
	RequestID  string         `json:"request_id"`
	Outcome    string         `json:"outcome"`
	// User is that of an event about a user, and of no other.
	User string `json:"user,omitempty"`
}

// version is that of an event with these fields; without a user it stays one
// that earlier gateways understand.
func (r *eventRecord) version() int {
	if r.User != "" {
		return userEventVersion
	}
	return recordVersion
}

type changeRecord struct {
	Field string         `json:"field"`
	Old   jsontext.Value `json:"old"`
	New   jsontext.Value `json:"new"`
}

func encodeEvent(e *storedEvent) (string, error) {
	r := eventRecord{
		User: string(e.event.User), ID: e.event.ID, At: e.event.At.Unix(), Action: string(e.event.Action),
		ActorKind: string(e.event.Actor.Kind), ActorID: e.event.Actor.ID, Account: string(e.event.Account), AccountUID: e.accountUID,
		Key: string(e.event.Key), RequestID: e.event.RequestID, Outcome: e.event.Outcome, Changes: []changeRecord{},
	}
	r.Version = r.version()
	if e.event.Client.IsValid() {
		r.Address = e.event.Client.String()
	}
	for _, c := range e.event.Changes {
		r.Changes = append(r.Changes, changeRecord(c))
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode event %s: %w", e.event.ID, err)
	}
	return string(raw), nil
}

func decodeEvent(raw string) (*storedEvent, error) {
	var r eventRecord
	if err := json.Unmarshal([]byte(raw), &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w of an event: %w", errRecord, err)
	}
	if r.Version != r.version() || r.ID == "" || r.Account == "" {
		return nil, fmt.Errorf("%w of an event: another version, or a field is missing", errRecord)
	}
	e := &storedEvent{accountUID: r.AccountUID, event: Event{
		ID: r.ID, At: time.Unix(r.At, 0).UTC(), Action: Action(r.Action), Actor: policy.Actor{Kind: policy.ActorKind(r.ActorKind), ID: r.ActorID},
		Account: policy.AccountID(r.Account), Key: policy.KeyID(r.Key), RequestID: r.RequestID, Outcome: r.Outcome,
		User: UserID(r.User),
	}}
	if r.Address != "" {
		client, err := netip.ParseAddr(r.Address)
		if err != nil {
			return nil, fmt.Errorf("%w of event %s: %w", errRecord, r.ID, err)
		}
		e.event.Client = client
	}
	for _, c := range r.Changes {
		e.event.Changes = append(e.event.Changes, FieldChange(c))
	}
	return e, nil
}

// field is one field of an object, by its name and value in the API.
type field struct {
	name  string
	value any
}

// keyFields are the fields of a key that a request can set. Without a key
// there are none.
func keyFields(k *policy.Key) []field {
	if k == nil {
		return nil
	}
	fields := []field{
		{"name", k.Name},
		{"permissions", listed(k.Permissions.Strings())},
		{"allowed_subaccounts", listed(subaccountStrings(k.Subaccounts))},
		{"allowed_ips", listed(k.Addresses.Strings())},
		{"expires_at", nil},
		{"is_active", k.Active},
	}
	if !k.Expiry.Never() {
		fields[4].value = k.Expiry.Unix()
	}
	return fields
}

func accountFields(a *Account) []field {
	if a == nil {
		return nil
	}
	subaccounts := make([]string, 0, len(a.Subaccounts))
	for _, s := range a.Subaccounts {
		subaccounts = append(subaccounts, string(s.ID)+" "+s.Product+" "+s.Label)
	}
	return []field{
		{"name", a.Name},
		{"status", string(a.Status)},
		{"permissions", listed(append([]string{}, a.Permissions...))},
		{"subaccounts", listed(subaccounts)},
		{"plan", orNil(a.Plan)},
	}
}

// orNil: what an account has not is null.
func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// listed cuts a list that is too long to be repeated.
func listed(items []string) []string {
	if len(items) <= maxListed {
		return items
	}
	return append(items[:maxListed:maxListed], fmt.Sprintf("… and %d more", len(items)-maxListed))
}

func subaccountStrings(s policy.SubaccountSet) []string {
	ids := make([]string, 0, len(s.IDs()))
	for _, id := range s.IDs() {
		ids = append(ids, string(id))
	}
	return ids
}

// changesOf compares two states of an object, of which one may have no fields.
func changesOf(before, after []field) []FieldChange {
	var changes []FieldChange
	for i := range max(len(before), len(after)) {
		var c FieldChange
		c.Old, c.New = jsontext.Value("null"), jsontext.Value("null")
		if i < len(before) {
			c.Field, c.Old = before[i].name, jsonOf(before[i].value)
		}
		if i < len(after) {
			c.Field, c.New = after[i].name, jsonOf(after[i].value)
		}
		if !bytes.Equal(c.Old, c.New) {
			changes = append(changes, c)
		}
	}
	return changes
}

// jsonOf spells a string, number, list of strings or nil.
func jsonOf(v any) jsontext.Value {
	raw, err := json.Marshal(v)
	if err != nil {
		return jsontext.Value("null") // only invalid UTF-8 has no spelling, and none is accepted
	}
	return raw
}
