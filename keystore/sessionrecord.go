package keystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/go-json-experiment/json"

	"gatehouse/policy"
)

// maxSessionToken bounds what is hashed of a cookie that anybody can send.
const maxSessionToken = 128

// sessionRecord is a session as it is stored. Every field must be there, as in
// a keyRecord. Times are Unix milliseconds.
type sessionRecord struct {
	Version    *int    `json:"v"`
	TokenHash  *string `json:"token_hash"`
	ID         *string `json:"id"`
	Account    *string `json:"account"`
	AccountUID *string `json:"account_uid"`
	User       *string `json:"user"`
	Epoch      *int64  `json:"epoch"`
	CreatedAt  *int64  `json:"created_at"`
	ExpiresAt  *int64  `json:"expires_at"`
	EndsAt     *int64  `json:"ends_at"`
	Address    *string `json:"address"` // "" where it is not known
	Agent      *string `json:"agent"`
	Data       *[]byte `json:"data"`
}

// storedSession is a decoded session record. Its session has no user and no
// account yet.
type storedSession struct {
	session    Session
	tokenHash  string
	account    policy.AccountID
	accountUID string
	user       UserID
	epoch      int64
}

func encodeSession(ss storedSession) (string, error) {
	version, account, user, address := recordVersion, string(ss.account), string(ss.user), ""
	created, expires, ends := ss.session.CreatedAt.UnixMilli(), ss.session.ExpiresAt.UnixMilli(), ss.session.EndsAt.UnixMilli()
	if ss.session.Client.IsValid() {
		address = ss.session.Client.String()
	}
	data := append([]byte{}, ss.session.Data...)
	raw, err := json.Marshal(sessionRecord{
		Version: &version, TokenHash: &ss.tokenHash, ID: &ss.session.ID, Account: &account, AccountUID: &ss.accountUID, User: &user,
		Epoch: &ss.epoch, CreatedAt: &created, ExpiresAt: &expires, EndsAt: &ends, Address: &address, Agent: &ss.session.Agent, Data: &data,
	})
	if err != nil {
		return "", fmt.Errorf("encode session %s: %w", ss.session.ID, err)
	}
	return string(raw), nil
}

// decodeSession reads the record that is stored under the token hash. A record
// that names another hash was delivered to the wrong reader and is refused.
func decodeSession(raw, tokenHash string) (*storedSession, error) {
	var r sessionRecord
	if err := json.Unmarshal([]byte(raw), &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w of a session: %w", errRecord, err)
	}
	if r.Version == nil || *r.Version != recordVersion || r.TokenHash == nil || r.ID == nil || r.Account == nil || r.AccountUID == nil ||
		r.User == nil || r.Epoch == nil || r.CreatedAt == nil || r.ExpiresAt == nil || r.EndsAt == nil || r.Address == nil || r.Agent == nil || r.Data == nil {
		return nil, fmt.Errorf("%w of a session: another version, or a field is missing", errRecord)
	}
	if *r.TokenHash != tokenHash || !policy.ValidAccountID(*r.Account) {
		return nil, fmt.Errorf("%w of session %s: it is another's", errRecord, *r.ID)
	}
	ss := &storedSession{
		tokenHash: tokenHash, account: policy.AccountID(*r.Account), accountUID: *r.AccountUID, user: UserID(*r.User), epoch: *r.Epoch,
		session: Session{
			ID: *r.ID, CreatedAt: time.UnixMilli(*r.CreatedAt).UTC(), ExpiresAt: time.UnixMilli(*r.ExpiresAt).UTC(),
			EndsAt: time.UnixMilli(*r.EndsAt).UTC(), Agent: *r.Agent, Data: *r.Data,
		},
	}
	if *r.Address != "" {
		client, err := netip.ParseAddr(*r.Address)
		if err != nil {
			return nil, fmt.Errorf("%w of session %s: %w", errRecord, *r.ID, err)
		}
		ss.session.Client = client
	}
	return ss, nil
}

// sessionHash is the name of the session's record; not ok for what was never a
// token.
func sessionHash(token string) (hash string, ok bool) {
	if token == "" || len(token) > maxSessionToken {
		return "", false
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:]), true
}

// readSession returns the session of the token and the guard that holds it, or
// ErrNotFound for one that is over.
func (s *Store) readSession(ctx context.Context, token string) (*storedSession, guard, error) {
	hash, ok := sessionHash(token)
	if !ok {
		return nil, guard{}, ErrNotFound
	}
	return s.readSessionAt(ctx, hash)
}

func (s *Store) readSessionAt(ctx context.Context, hash string) (*storedSession, guard, error) {
	name := s.names.session(hash)
	raw, err := s.readRaw(ctx, name)
	if err != nil {
		return nil, guard{}, err
	}
	if raw == "" {
		return nil, guard{}, ErrNotFound
	}
	stored, err := decodeSession(raw, hash)
	if err != nil {
		return nil, guard{}, errors.Join(ErrUnavailable, err)
	}
	if now := s.o.Now(); !now.Before(stored.session.ExpiresAt) || !now.Before(stored.session.EndsAt) {
		return nil, guard{}, ErrNotFound
	}
	return stored, guard{key: name, want: raw}, nil
}
