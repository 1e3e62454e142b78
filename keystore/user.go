package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"gatehouse/policy"
)

// UserID names a user: a UUID.
type UserID string

// maxUsers is how many users an account has at the most.
const maxUsers = 1000

// User is a person who may sign in for an account. A user has no permissions
// of its own: its sessions may do what the account may.
type User struct {
	ID      UserID
	Account policy.AccountID
	Email   Email
	Name    string
	// MustChange: the password was not chosen by the user, who can do nothing
	// else before choosing one.
	MustChange bool
	// HasPassword: it can sign in with one.
	HasPassword bool
	// TOTP: a code of an authenticator is asked for at sign-in.
	TOTP         bool
	Disabled     bool
	CreatedAt    time.Time
	LastSignInAt time.Time // its zero value: never
	// Epoch goes up whenever all the user's sessions end: those of an earlier
	// one are dead.
	Epoch int64
	// Identity is what a provider knows the user by, once it has signed in there.
	Identity Identity
}

// NewUser is a user who is to be created.
type NewUser struct {
	Email Email
	Name  string
	// PasswordHash is in a format of the caller's; the store does not look
	// into it.
	PasswordHash string
	MustChange   bool
	// Identity is that of a user whom a provider has just vouched for.
	Identity Identity
}

// errKeyForPerson: keys manage keys; nothing lets them into a dashboard.
var errKeyForPerson = &RefusedError{Decision: policy.Decision{Reason: policy.PermissionDenied}}

// standingPerson is standing for what no key may do, whatever it holds.
func (s *Store) standingPerson(ctx context.Context, by policy.Caller) (*standing, error) {
	if by.Key != nil {
		return nil, errKeyForPerson
	}
	return s.standing(ctx, by, policy.AnyValidKey)
}

// standingCreator is standingPerson, or who is about to sign in for the first
// time: a provider vouches for that user, and there is no session yet.
func (s *Store) standingCreator(ctx context.Context, by policy.Caller, u NewUser) (*standing, error) {
	if u.Identity.valid() && by.Key == nil && by.Person == (policy.Actor{Kind: policy.ActorSession}) && by.Session == "" {
		return s.standingAccount(ctx, by)
	}
	return s.standingPerson(ctx, by)
}

// CreateUser stores a new user of the caller's account. It returns
// ErrEmailTaken, ErrIdentityTaken, ErrUserLimit, or ErrNotFound for an account that is gone. The
// user can sign in from when it returns.
func (s *Store) CreateUser(ctx context.Context, by policy.Caller, u NewUser) (User, error) {
	var created User
	err := s.managed(UserCreate, s.retry(func() (err error) {
		created, err = s.createUser(ctx, by, u)
		return err
	}))
	if errors.Is(err, ErrKeyLimit) {
		err = ErrUserLimit
	}
	if err != nil {
		return User{}, fmt.Errorf("create user: %w", err)
	}
	return created, nil
}

func (s *Store) createUser(ctx context.Context, by policy.Caller, u NewUser) (User, error) {
	now, err := s.standingCreator(ctx, by, u)
	if err != nil {
		return User{}, err
	}
	claim, err := s.freeClaim(ctx, u.Email)
	if err != nil {
		return User{}, err
	}
	stored := storedUser{accountUID: now.accountUID, user: User{
		Epoch: 1, ID: UserID(uuid.NewString()), Account: now.caller.Account.ID, Email: u.Email, Name: u.Name,
		MustChange: u.MustChange, Identity: u.Identity, HasPassword: u.PasswordHash != "", CreatedAt: s.o.Now().UTC().Truncate(time.Second),
	}, credentials: Credentials{PasswordHash: u.PasswordHash}}
	raw, err := encodeUser(stored)
	if err != nil {
		return User{}, err
	}
	account, id := stored.user.Account, stored.user.ID
	index := indexEntry{created: s.o.Now().UnixMilli(), tokenHash: u.Email.hashHex()}
	// The claim comes last: whoever has it has a record, and a record without
	// a claim lets nobody in, is listed, and can be deleted.
	guards := append(now.guards, guard{key: s.names.users(account), below: maxUsers}, claim)
	steps := []step{
		{Kind: stepHSet, Key: s.names.users(account), Field: string(id), Value: index.value()},
		{Kind: stepSet, Key: s.names.user(account, id), Value: raw},
		{Kind: stepSet, Key: claim.key, Value: claimOf(account, id)},
	}
	if u.Identity.valid() {
		identity, set, err := s.claimIdentity(ctx, u.Identity, &stored.user)
		if err != nil {
			return User{}, err
		}
		guards, steps = append(guards, identity), append(steps, set)
	}
	err = s.commit(ctx, change{
		guards: guards, steps: steps,
		event: s.eventOf(now.caller, UserCreate, account, now.accountUID).aboutUser(id, changesOf(nil, userFields(&stored.user))),
	})
	return stored.user, err
}

// freeClaim returns the guard that holds the claim to the address free. A claim
// of a user that is no more, or whose account is no more, is free.
func (s *Store) freeClaim(ctx context.Context, e Email) (guard, error) {
	name := s.names.email(e.hashHex())
	raw, err := s.readRaw(ctx, name)
	if err != nil {
		return guard{}, err
	}
	if raw != "" {
		_, err := s.claimed(ctx, e, raw)
		if err == nil {
			return guard{}, ErrEmailTaken
		}
		if !errors.Is(err, ErrNotFound) {
			return guard{}, err
		}
	}
	return guard{key: name, want: raw}, nil
}

// GetUser returns a user of the caller's account, or ErrNotFound.
func (s *Store) GetUser(ctx context.Context, by policy.Caller, id UserID) (User, error) {
	_, stored, _, err := s.personAndUser(ctx, by, id)
	if err != nil {
		return User{}, fmt.Errorf("get user: %w", err)
	}
	return stored.user, nil
}

// ListUsers returns up to limit users of the caller's account, the newest
// first, from the cursor on that an earlier call returned ("" for the first),
// and the cursor of the next page, "" when there is none; or ErrBadCursor.
func (s *Store) ListUsers(ctx context.Context, by policy.Caller, cursor string, limit int) ([]User, string, error) {
	after, err := parseCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	now, err := s.standingPerson(ctx, by)
	if err != nil {
		return nil, "", fmt.Errorf("list users: %w", err)
	}
	account := now.caller.Account.ID
	entries, err := s.userIndex(ctx, account)
	if err != nil {
		return nil, "", fmt.Errorf("list users: %w", err)
	}
	page, rest := pageOf(entries, after, limit)
	users := make([]User, 0, len(page))
	for _, e := range page {
		stored, _, err := s.readUser(ctx, account, UserID(e.id))
		if errors.Is(err, ErrNotFound) || err == nil && stored.accountUID != now.accountUID {
			continue // never written to the end, or of an earlier account of this id
		}
		if err != nil {
			return nil, "", fmt.Errorf("list users: %w", err)
		}
		users = append(users, stored.user)
	}
	return users, nextCursor(page, rest), nil
}

// UserChange says what is to change of a user; nil leaves a field as it is.
type UserChange struct {
	Name     *string
	Disabled *bool
}

// UpdateUser changes a user of the caller's account and returns it as it is
// then, or ErrNotFound. Whoever is disabled is signed out everywhere, for good.
func (s *Store) UpdateUser(ctx context.Context, by policy.Caller, id UserID, u UserChange) (User, error) {
	after, err := s.changeUser(ctx, by, id, UserUpdate, func(stored *storedUser) error {
		if u.Name != nil {
			stored.user.Name = *u.Name
		}
		if u.Disabled != nil && stored.user.Disabled != *u.Disabled {
			stored.user.Disabled = *u.Disabled
			stored.user.Epoch++
		}
		return nil
	})
	if err != nil {
		return User{}, fmt.Errorf("update user: %w", err)
	}
	return after, nil
}

// claimOf is the value by which an address is a user's.
func claimOf(account policy.AccountID, id UserID) string { return string(account) + ":" + string(id) }

// moment is the Unix second of a time, 0 for none.
func moment(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func userFields(u *User) []field {
	if u == nil {
		return nil
	}
	return []field{
		{"email", string(u.Email)}, {"name", u.Name}, {"must_change", u.MustChange}, {"totp", u.TOTP}, {"disabled", u.Disabled},
	}
}
