package client

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Event is one entry of the account's audit log.
type Event struct {
	ID           string
	Time         time.Time
	Action       string
	ActorKind    string // key, session, operator or cli
	ActorID      string // "" where it is not known
	ActorAddress string // likewise
	KeyID        string // likewise
	Changes      []FieldChange
	RequestID    string
	Outcome      string // "done", or the error code of a refusal
}

// FieldChange is a field before and after, as JSON.
type FieldChange struct {
	Field string          `json:"field"`
	Old   json.RawMessage `json:"old"`
	New   json.RawMessage `json:"new"`
}

// EventFilter says which events are wanted; zero fields want all.
type EventFilter struct {
	KeyID    string
	Action   string
	From, To time.Time // From is included, To is not
}

// AuditLog returns a page of up to limit events, the newest first; pages as in
// List.
func (c *Client) AuditLog(ctx context.Context, f EventFilter, cursor string, limit int) ([]Event, string, error) {
	query := page(cursor, limit)
	for name, value := range map[string]string{"key": f.KeyID, "action": f.Action, "from": second(f.From), "to": second(f.To)} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var answer struct {
		Data []struct {
			ID     string `json:"id"`
			Time   int64  `json:"time"`
			Action string `json:"action"`
			Actor  struct {
				Kind    string  `json:"kind"`
				ID      *string `json:"id"`
				Address *string `json:"address"`
			} `json:"actor"`
			KeyID     *string       `json:"key_id"`
			Changes   []FieldChange `json:"changes"`
			RequestID string        `json:"request_id"`
			Outcome   string        `json:"outcome"`
		}
		NextCursor *string `json:"next_cursor"`
	}
	if err := c.call(ctx, http.MethodGet, "/v4/account/audit-log", query, nil, &answer); err != nil {
		return nil, "", err
	}
	events := make([]Event, 0, len(answer.Data))
	for _, e := range answer.Data {
		events = append(events, Event{
			ID: e.ID, Time: time.Unix(e.Time, 0).UTC(), Action: e.Action, ActorKind: e.Actor.Kind, ActorID: orEmpty(e.Actor.ID),
			ActorAddress: orEmpty(e.Actor.Address), KeyID: orEmpty(e.KeyID), Changes: e.Changes, RequestID: e.RequestID, Outcome: e.Outcome,
		})
	}
	return events, orEmpty(answer.NextCursor), nil
}

func second(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return strconv.FormatInt(at.Unix(), 10)
}
