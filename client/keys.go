package client

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const keysPath = "/v4/account/api-keys"

// Key is a key, without its token.
type Key struct {
	ID                 string
	Name               string
	Permissions        []string
	AllowedSubaccounts []string  // empty for all of the account
	AllowedIPs         []string  // empty for no restriction
	ExpiresAt          time.Time // zero for never
	Active             bool
	LastUsedAt         time.Time // zero for never
	TokenPreview       string
	CreatedAt          time.Time
}

// NewKey is a key that is to be created. Empty restrictions are none, and a
// zero ExpiresAt is never; a key gets no more than the one that makes it.
type NewKey struct {
	Name               string
	Permissions        []string
	AllowedSubaccounts []string
	AllowedIPs         []string
	ExpiresAt          time.Time
}

// Created is a new key, with its token, which cannot be had again.
type Created struct {
	Key
	Token string
}

// Update says what is to change of a key; nil leaves a field as it is. An
// empty list lifts the restriction, as far as the calling key may.
type Update struct {
	Name               *string
	Permissions        *[]string
	AllowedSubaccounts *[]string
	AllowedIPs         *[]string
	// ExpiresAt is the new expiry; a zero time for never.
	ExpiresAt *time.Time
	Active    *bool
}

// Updated is a key after its update, and the fields that really changed.
type Updated struct {
	Key
	UpdatedFields []string
}

// Regenerated is the key that came in the place of another one.
type Regenerated struct {
	Created
	OldID string
	// GraceEndsAt is when the old token stops working; zero where it has.
	GraceEndsAt time.Time
	Note        string
}

// Create makes a key. What it fails with is never repeated but for a 429: see
// Options.Retries.
func (c *Client) Create(ctx context.Context, k NewKey) (Created, error) {
	body := map[string]any{
		"name": k.Name, "permissions": listOf(k.Permissions), "allowed_subaccounts": listOf(k.AllowedSubaccounts), "allowed_ips": listOf(k.AllowedIPs),
	}
	if !k.ExpiresAt.IsZero() {
		body["expires_at"] = k.ExpiresAt.Unix()
	}
	var answer struct{ Data keyJSON }
	err := c.call(ctx, http.MethodPost, keysPath, nil, body, &answer)
	if err == nil && (answer.Data.ID == "" || answer.Data.Token == "") {
		err = errNoKey
	}
	return Created{Key: answer.Data.key(), Token: answer.Data.Token}, err
}

// List returns a page of up to limit keys, the newest first, from the cursor on
// that an earlier call returned ("" for the first), and the cursor of the next
// page, "" on the last. A limit of 0 leaves it to the gateway.
func (c *Client) List(ctx context.Context, cursor string, limit int) ([]Key, string, error) {
	var answer struct {
		Data       []keyJSON
		NextCursor *string `json:"next_cursor"`
	}
	if err := c.call(ctx, http.MethodGet, keysPath, page(cursor, limit), nil, &answer); err != nil {
		return nil, "", err
	}
	keys := make([]Key, 0, len(answer.Data))
	for _, k := range answer.Data {
		keys = append(keys, k.key())
	}
	return keys, orEmpty(answer.NextCursor), nil
}

// All yields every key of the account, the newest first, page by page. It ends
// with the first error.
func (c *Client) All(ctx context.Context) iter.Seq2[Key, error] {
	return func(yield func(Key, error) bool) {
		for cursor := ""; ; {
			keys, next, err := c.List(ctx, cursor, 0)
			if err != nil {
				yield(Key{}, err)
				return
			}
			for _, k := range keys {
				if !yield(k, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			if next == cursor {
				yield(Key{}, errors.New("the gateway names the same page again"))
				return
			}
			cursor = next
		}
	}
}

// Get returns a key of the account.
func (c *Client) Get(ctx context.Context, id string) (Key, error) {
	var answer struct{ Data keyJSON }
	err := c.onKey(ctx, http.MethodGet, id, "", nil, &answer)
	if err == nil && answer.Data.ID == "" {
		err = errNoKey
	}
	return answer.Data.key(), err
}

// Update changes a key.
func (c *Client) Update(ctx context.Context, id string, u Update) (Updated, error) {
	var answer struct{ Data keyJSON }
	err := c.onKey(ctx, http.MethodPut, id, "", u.body(), &answer)
	if err == nil && answer.Data.ID == "" {
		err = errNoKey
	}
	return Updated{Key: answer.Data.key(), UpdatedFields: answer.Data.UpdatedFields}, err
}

func (u Update) body() map[string]any {
	body := map[string]any{}
	if u.Name != nil {
		body["name"] = *u.Name
	}
	if u.Permissions != nil {
		body["permissions"] = listOf(*u.Permissions)
	}
	if u.AllowedSubaccounts != nil {
		body["allowed_subaccounts"] = listOf(*u.AllowedSubaccounts)
	}
	if u.AllowedIPs != nil {
		body["allowed_ips"] = listOf(*u.AllowedIPs)
	}
	if u.ExpiresAt != nil {
		body["expires_at"] = nil
		if !u.ExpiresAt.IsZero() {
			body["expires_at"] = u.ExpiresAt.Unix()
		}
	}
	if u.Active != nil {
		body["is_active"] = *u.Active
	}
	return body
}

// Revoke revokes a key for good, and returns since when its token is unknown.
func (c *Client) Revoke(ctx context.Context, id string) (time.Time, error) {
	var answer struct {
		Data struct {
			RevokedAt int64 `json:"revoked_at"`
		}
	}
	err := c.onKey(ctx, http.MethodDelete, id, "", nil, &answer)
	if err == nil && answer.Data.RevokedAt == 0 {
		err = errNoKey
	}
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(answer.Data.RevokedAt, 0), nil
}

// Regenerate puts a new key with a new token in the place of another one. The
// old token goes on working for the grace, in whole seconds, of up to a week.
func (c *Client) Regenerate(ctx context.Context, id string, grace time.Duration) (Regenerated, error) {
	var answer struct {
		Data keyJSON
		Note string
	}
	body := map[string]any{"grace_period_seconds": int64(grace / time.Second)}
	err := c.onKey(ctx, http.MethodPost, id, "/regenerate", body, &answer)
	d := answer.Data
	if err == nil && (d.ID == "" || d.Token == "") {
		err = errNoKey
	}
	return Regenerated{Created: Created{Key: d.key(), Token: d.Token}, OldID: d.OldID, GraceEndsAt: moment(d.GraceEndsAt), Note: answer.Note}, err
}

// errNoKey: somebody answered with success, and not what the key API answers.
var errNoKey = errors.New("the answer is not one of the key API: it has no key")

// onKey refuses an id that would be another path.
func (c *Client) onKey(ctx context.Context, method, id, rest string, body, out any) error {
	if id == "" || strings.Trim(id, "0123456789abcdefABCDEF-") != "" {
		return errors.New("the id of a key is a UUID")
	}
	return c.call(ctx, method, keysPath+"/"+id+rest, nil, body, out)
}

// keyJSON is a key in all the forms in which answers have one.
type keyJSON struct {
	ID                 string   `json:"id"`
	Token              string   `json:"token"`
	Name               string   `json:"name"`
	Permissions        []string `json:"permissions"`
	AllowedSubaccounts []string `json:"allowed_subaccounts"`
	AllowedIPs         []string `json:"allowed_ips"`
	ExpiresAt          *int64   `json:"expires_at"`
	IsActive           *bool    `json:"is_active"`
	LastUsedAt         *int64   `json:"last_used_at"`
	TokenPreview       string   `json:"token_preview"`
	CreatedAt          *int64   `json:"created_at"`
	UpdatedFields      []string `json:"updated_fields"`
	OldID              string   `json:"old_id"`
	GraceEndsAt        *int64   `json:"grace_ends_at"`
}

// key: an answer that does not say whether a key is active shows one that is
// new.
func (k keyJSON) key() Key {
	return Key{
		ID: k.ID, Name: k.Name, Permissions: k.Permissions, AllowedSubaccounts: k.AllowedSubaccounts, AllowedIPs: k.AllowedIPs,
		ExpiresAt: moment(k.ExpiresAt), Active: k.ID != "" && (k.IsActive == nil || *k.IsActive), LastUsedAt: moment(k.LastUsedAt),
		TokenPreview: k.TokenPreview, CreatedAt: moment(k.CreatedAt),
	}
}

func moment(unixSeconds *int64) time.Time {
	if unixSeconds == nil {
		return time.Time{}
	}
	return time.Unix(*unixSeconds, 0).UTC()
}

func listOf(items []string) []string { return append([]string{}, items...) }

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func page(cursor string, limit int) url.Values {
	query := url.Values{}
	if limit != 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	return query
}
