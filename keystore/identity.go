package keystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gatehouse/policy"
)

// Identity is a person as an identity provider knows it: the subject is the
// provider's own name for it, never given to anybody else. Its zero value is
// none.
type Identity struct{ Issuer, Subject string }

// maxIdentity bounds both parts of an identity, in bytes.
const maxIdentity = 512

// ErrIdentityTaken says that the identity is another user's, or the user has another one.
var ErrIdentityTaken = errors.New("the identity is another user's, or the user has another one")

// hashHex is the name of the record that says whose the identity is. The
// length keeps apart what would read the same when put together.
func (i Identity) hashHex() string {
	sum := sha256.Sum256([]byte(strconv.Itoa(len(i.Issuer)) + ":" + i.Issuer + i.Subject))
	return hex.EncodeToString(sum[:])
}

func (i Identity) valid() bool {
	return i.Issuer != "" && i.Subject != "" && len(i.Issuer) <= maxIdentity && len(i.Subject) <= maxIdentity
}

// UserByIdentity returns the user, of any account, who has signed in as that
// before; or ErrNotFound. It is for signing in alone.
func (s *Store) UserByIdentity(ctx context.Context, i Identity) (*SignInUser, error) {
	if !i.valid() {
		return nil, fmt.Errorf("user by identity: %w", ErrNotFound)
	}
	raw, err := s.readRaw(ctx, s.names.identity(i.hashHex()))
	if err == nil && raw == "" {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("user by identity: %w", err)
	}
	found, err := s.identified(ctx, i, raw)
	if err != nil {
		return nil, fmt.Errorf("user by identity: %w", err)
	}
	return found, nil
}

// identified returns the user whose claim to the identity that value is. As
// with e-mail addresses, a claim that its user does not know of is none.
func (s *Store) identified(ctx context.Context, i Identity, value string) (*SignInUser, error) {
	account, id, ok := strings.Cut(value, ":")
	if !ok || !policy.ValidAccountID(account) {
		return nil, fmt.Errorf("%w: %w of an identity", ErrUnavailable, errRecord)
	}
	found, err := s.owned(ctx, policy.AccountID(account), UserID(id))
	if err != nil {
		return nil, err
	}
	if found.User.Identity != i {
		return nil, ErrNotFound
	}
	return found, nil
}

// claimIdentity returns the guard that holds the claim to the identity free or
// the user's own, and the step that makes it the user's.
func (s *Store) claimIdentity(ctx context.Context, i Identity, u *User) (guard, step, error) {
	name := s.names.identity(i.hashHex())
	raw, err := s.readRaw(ctx, name)
	if err != nil {
		return guard{}, step{}, err
	}
	if raw != "" {
		found, err := s.identified(ctx, i, raw)
		if err == nil && found.User.ID != u.ID {
			return guard{}, step{}, ErrIdentityTaken
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return guard{}, step{}, err
		}
	}
	return guard{key: name, want: raw}, step{Kind: stepSet, Key: name, Value: claimOf(u.Account, u.ID)}, nil
}
