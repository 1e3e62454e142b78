package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"gatehouse/policy"
)

// userRecord is a user as it is stored. Every field must be there, as in a
// keyRecord.
type userRecord struct {
	Version    *int    `json:"v"`
	ID         *string `json:"id"`
	Account    *string `json:"account"`
	AccountUID *string `json:"account_uid"`
	Email      *string `json:"email"`
	Name       *string `json:"name"`
	Password   *string `json:"password"`
	MustChange *bool   `json:"must_change"`
	Disabled   *bool   `json:"disabled"`
	// TOTP is the secret, "" for none; TOTPStep the last time step of which a
	// code was taken.
	TOTP     *string   `json:"totp"`
	TOTPStep *int64    `json:"totp_step"`
	Recovery *[]string `json:"recovery"`
	// Epoch goes up whenever all sessions end: one of an earlier epoch is dead.
	Epoch      *int64 `json:"epoch"`
	CreatedAt  *int64 `json:"created_at"`
	LastSignIn *int64 `json:"last_sign_in_at"` // 0 for never
	// Issuer and Subject are the identity at a provider; a user without one has
	// neither.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
}

// Credentials are what a user proves itself by. They never print.
type Credentials struct {
	PasswordHash string
	// TOTPSecret is "" where none is set up; no code of a time step up to
	// TOTPStep is taken again.
	TOTPSecret string
	TOTPStep   int64
	// Recovery are hashes of codes that work once each in place of a TOTP code.
	Recovery []string
}

// String hides the credentials from logs and errors.
func (Credentials) String() string { return "credentials(redacted)" }

// GoString hides the credentials from %#v.
func (Credentials) GoString() string { return "credentials(redacted)" }

// MarshalText hides the credentials from encoders.
func (Credentials) MarshalText() ([]byte, error) { return []byte("credentials(redacted)"), nil }

// storedUser is a decoded user record.
type storedUser struct {
	user        User
	credentials Credentials
	accountUID  string
}

func encodeUser(u storedUser) (string, error) {
	version, created, last := recordVersion, u.user.CreatedAt.Unix(), moment(u.user.LastSignInAt)
	id, account, email := string(u.user.ID), string(u.user.Account), string(u.user.Email)
	recovery := append([]string{}, u.credentials.Recovery...)
	raw, err := json.Marshal(userRecord{
		Version: &version, ID: &id, Account: &account, AccountUID: &u.accountUID, Email: &email, Name: &u.user.Name,
		Password: &u.credentials.PasswordHash, MustChange: &u.user.MustChange, Disabled: &u.user.Disabled,
		TOTP: &u.credentials.TOTPSecret, TOTPStep: &u.credentials.TOTPStep, Recovery: &recovery, Epoch: &u.user.Epoch,
		CreatedAt: &created, LastSignIn: &last, Issuer: u.user.Identity.Issuer, Subject: u.user.Identity.Subject,
	})
	if err != nil {
		return "", fmt.Errorf("encode user %s: %w", id, err)
	}
	return string(raw), nil
}

// decodeUser reads the record that is stored for that user of that account. A
// record that names another one was delivered to the wrong reader.
func decodeUser(raw string, account policy.AccountID, id UserID) (*storedUser, error) {
	var r userRecord
	if err := json.Unmarshal([]byte(raw), &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w of a user: %w", errRecord, err)
	}
	if r.Version == nil || *r.Version != recordVersion || r.ID == nil || r.Account == nil || r.AccountUID == nil || r.Email == nil ||
		r.Name == nil || r.Password == nil || r.MustChange == nil || r.Disabled == nil || r.TOTP == nil || r.TOTPStep == nil ||
		r.Recovery == nil || r.Epoch == nil || r.CreatedAt == nil || r.LastSignIn == nil {
		return nil, fmt.Errorf("%w of a user: another version, or a field is missing", errRecord)
	}
	if *r.ID != string(id) || *r.Account != string(account) {
		return nil, fmt.Errorf("%w of user %s: it is that of user %s", errRecord, id, *r.ID)
	}
	email, err := ParseEmail(*r.Email)
	if err != nil || string(email) != *r.Email {
		return nil, fmt.Errorf("%w of user %s: its e-mail address", errRecord, id)
	}
	identity := Identity{Issuer: r.Issuer, Subject: r.Subject}
	if identity != (Identity{}) && !identity.valid() {
		return nil, fmt.Errorf("%w of user %s: its identity", errRecord, id)
	}
	u := &storedUser{
		accountUID: *r.AccountUID,
		user: User{
			ID: id, Account: account, Email: email, Name: *r.Name, MustChange: *r.MustChange, HasPassword: *r.Password != "", TOTP: *r.TOTP != "",
			Disabled: *r.Disabled, Epoch: *r.Epoch, CreatedAt: time.Unix(*r.CreatedAt, 0).UTC(), Identity: identity,
		},
		credentials: Credentials{PasswordHash: *r.Password, TOTPSecret: *r.TOTP, TOTPStep: *r.TOTPStep, Recovery: *r.Recovery},
	}
	if *r.LastSignIn != 0 {
		u.user.LastSignInAt = time.Unix(*r.LastSignIn, 0).UTC()
	}
	return u, nil
}

// readUser returns the user as it is now and the guard that holds it;
// ErrNotFound when there is none.
func (s *Store) readUser(ctx context.Context, account policy.AccountID, id UserID) (*storedUser, guard, error) {
	if _, err := policy.ParseSubaccountID(string(id)); err != nil { // a user's id is a UUID too
		return nil, guard{}, ErrNotFound
	}
	name := s.names.user(account, id)
	raw, err := s.readRaw(ctx, name)
	if err != nil {
		return nil, guard{}, err
	}
	if raw == "" {
		return nil, guard{}, ErrNotFound
	}
	stored, err := decodeUser(raw, account, id)
	if err != nil {
		return nil, guard{}, errors.Join(ErrUnavailable, err)
	}
	return stored, guard{key: name, want: raw}, nil
}

// personAndUser reads who acts, and the user of its account who is acted on.
func (s *Store) personAndUser(ctx context.Context, by policy.Caller, id UserID) (*standing, *storedUser, guard, error) {
	now, err := s.standingPerson(ctx, by)
	if err != nil {
		return nil, nil, guard{}, err
	}
	stored, held, err := s.readUser(ctx, now.caller.Account.ID, id)
	if err == nil && stored.accountUID != now.accountUID {
		err = ErrNotFound
	}
	return now, stored, held, err
}

// claimed returns the user whose claim to the address that value is. A claim
// without a user, or without the account that it was made in, is ErrNotFound.
func (s *Store) claimed(ctx context.Context, e Email, value string) (*SignInUser, error) {
	account, id, ok := strings.Cut(value, ":")
	if !ok || !policy.ValidAccountID(account) {
		return nil, fmt.Errorf("%w: %w of an e-mail address", ErrUnavailable, errRecord)
	}
	found, err := s.owned(ctx, policy.AccountID(account), UserID(id))
	if err != nil {
		return nil, err
	}
	if found.User.Email != e {
		return nil, ErrNotFound
	}
	return found, nil
}

// owned returns a user for signing in, or ErrNotFound where it or the account
// that it was made in is no more.
func (s *Store) owned(ctx context.Context, account policy.AccountID, id UserID) (*SignInUser, error) {
	owner, accountRaw, err := s.readAccount(ctx, account)
	if err != nil {
		return nil, err
	}
	stored, held, err := s.readUser(ctx, owner.account.ID, id)
	if err != nil {
		return nil, err
	}
	if stored.accountUID != owner.uid {
		return nil, ErrNotFound
	}
	return &SignInUser{
		User: stored.user, Credentials: stored.credentials, Account: &owner.rules, stored: *stored,
		guards: []guard{{key: s.names.account(owner.account.ID), want: accountRaw}, held},
	}, nil
}

// userIndex returns the index of an account's users, in no order.
func (s *Store) userIndex(ctx context.Context, account policy.AccountID) ([]indexEntry, error) {
	return s.indexAt(ctx, s.names.users(account))
}

// sessionIndex returns the index of a user's sessions, in no order.
func (s *Store) sessionIndex(ctx context.Context, account policy.AccountID, id UserID) ([]indexEntry, error) {
	return s.indexAt(ctx, s.names.sessions(account, id))
}
