package keystore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"

	"gatehouse/policy"
)

const (
	// maxSessions is how many sessions a user has at the most: one more ends
	// the oldest.
	maxSessions = 50
	// touchEvery is how much later a session must expire for that alone to be
	// written: not every request is worth a commit.
	touchEvery = time.Minute
)

// Session is a user who is signed in. The token that its browser shows is
// known to nobody else, and stored as its SHA-256 alone.
type Session struct {
	ID        string // a UUID, by which the session is listed and revoked
	User      User
	Account   *policy.Account // shared, as it is now
	CreatedAt time.Time
	// ExpiresAt is when it ends if it is not used before, and EndsAt when it
	// ends however much it is used.
	ExpiresAt, EndsAt time.Time
	// Client and Agent are the address and browser at sign-in.
	Client netip.Addr
	Agent  string
	// Data is what the dashboard keeps of the session; the store does not look
	// into it.
	Data []byte
}

// NewSession is a session that is to begin, of a user as SignedIn returned it.
type NewSession struct {
	User              User
	ExpiresAt, EndsAt time.Time
	Client            netip.Addr
	Agent             string
	Data              []byte
}

// CreateSession begins a session under that token. It returns ErrNotFound when
// all sessions of the user have ended since it signed in.
func (s *Store) CreateSession(ctx context.Context, token string, n NewSession) error {
	err := s.retry(func() error { return s.createSession(ctx, token, n) })
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	return nil
}

func (s *Store) createSession(ctx context.Context, token string, n NewSession) error {
	account, id := n.User.Account, n.User.ID
	user, held, err := s.readUser(ctx, account, id)
	if err != nil {
		return err
	}
	if user.user.Epoch != n.User.Epoch || user.user.Disabled {
		return ErrNotFound
	}
	hash, ok := sessionHash(token)
	if !ok {
		return ErrNotFound
	}
	created := s.o.Now()
	stored := storedSession{tokenHash: hash, accountUID: user.accountUID, account: account, user: id, epoch: n.User.Epoch, session: Session{
		ID: uuid.NewString(), CreatedAt: created.UTC().Truncate(time.Second), ExpiresAt: earlier(n.ExpiresAt, n.EndsAt), EndsAt: n.EndsAt,
		Client: n.Client, Agent: n.Agent, Data: n.Data,
	}}
	set, err := s.setSession(stored)
	if err != nil {
		return err
	}
	entry := indexEntry{id: stored.session.ID, created: created.UnixMilli(), tokenHash: hash, ends: n.EndsAt.Unix()}
	removals, err := s.sessionRoom(ctx, account, id)
	if err != nil {
		return err
	}
	return s.commit(ctx, change{
		guards: []guard{held, {key: set.Key}},
		steps: append([]step{
			{Kind: stepHSet, Key: s.names.sessions(account, id), Field: entry.id, Value: entry.value()},
			set,
		}, removals...),
	})
}

// sessionRoom returns the steps that remove what has ended, and the oldest
// sessions where there are as many as there may be.
func (s *Store) sessionRoom(ctx context.Context, account policy.AccountID, id UserID) ([]step, error) {
	entries, err := s.sessionIndex(ctx, account, id)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, indexEntry.before)
	var removals []step
	for i, e := range entries {
		if i >= maxSessions-1 || e.ends <= s.o.Now().Unix() {
			removals = append(removals, s.removeSession(account, id, e)...)
		}
	}
	return removals, nil
}

// setSession is the step that stores the record, which goes away when the
// session expires.
func (s *Store) setSession(ss storedSession) (step, error) {
	raw, err := encodeSession(ss)
	if err != nil {
		return step{}, err
	}
	return step{Kind: stepSet, Key: s.names.session(ss.tokenHash), Value: raw, Ends: ss.session.ExpiresAt.Unix() + 1}, nil
}

// removeSession deletes the record first: what is in the index alone is dead.
func (s *Store) removeSession(account policy.AccountID, id UserID, e indexEntry) []step {
	return []step{
		{Kind: stepDel, Key: s.names.session(e.tokenHash)},
		{Kind: stepHDel, Key: s.names.sessions(account, id), Field: e.id},
	}
}

// FindSession returns the session of the token, or ErrNotFound: for one that is
// over, and for one whose user is disabled or gone, has signed out everywhere
// or changed the password, or whose account is gone or suspended. It asks the
// store for all of that, and remembers nothing of it.
func (s *Store) FindSession(ctx context.Context, token string) (*Session, error) {
	stored, _, err := s.readSession(ctx, token)
	if err == nil {
		err = s.vouch(ctx, stored)
	}
	if err != nil {
		return nil, fmt.Errorf("find session: %w", err)
	}
	return &stored.session, nil
}

// vouch completes the session by its user and account, and returns
// ErrNotFound where they do not let it go on.
func (s *Store) vouch(ctx context.Context, ss *storedSession) error {
	user, _, err := s.readUser(ctx, ss.account, ss.user)
	if err != nil {
		return err
	}
	account, _, err := s.readAccount(ctx, ss.account)
	if err != nil {
		return err
	}
	if !ss.goesOn(user, account.uid, &account.rules) {
		return ErrNotFound
	}
	ss.session.User, ss.session.Account = user.user, &account.rules
	return nil
}

// goesOn reports whether its user and account, as they are now, let the session
// go on.
func (ss *storedSession) goesOn(user *storedUser, accountUID string, account *policy.Account) bool {
	return user.user.ID == ss.user && user.user.Epoch == ss.epoch && !user.user.Disabled && user.accountUID == ss.accountUID &&
		account.ID == ss.account && accountUID == ss.accountUID && account.Status == policy.Active
}

// TouchSession replaces the data of a session and says until when it goes on,
// which is never later than its end. One that is over stays so: that is no
// error. A later expiry alone is not written more often than once a minute.
func (s *Store) TouchSession(ctx context.Context, token string, data []byte, expires time.Time) error {
	err := s.retry(func() error {
		stored, held, err := s.readSession(ctx, token)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		expires := earlier(expires, stored.session.EndsAt)
		if string(stored.session.Data) == string(data) && expires.Sub(stored.session.ExpiresAt).Abs() < touchEvery {
			return nil
		}
		stored.session.Data, stored.session.ExpiresAt = data, expires
		set, err := s.setSession(*stored)
		if err != nil {
			return err
		}
		return s.commit(ctx, change{guards: []guard{held}, steps: []step{set}})
	})
	if err != nil {
		return fmt.Errorf("touch session: %w", err)
	}
	return nil
}

// EndSession ends the session of the token. One that is over is no error.
func (s *Store) EndSession(ctx context.Context, token string) error {
	stored, _, err := s.readSession(ctx, token)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		entry := indexEntry{id: stored.session.ID, tokenHash: stored.tokenHash}
		err = s.commit(ctx, change{steps: s.removeSession(stored.account, stored.user, entry)})
	}
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// ListSessions returns the sessions of a user of the caller's account that go
// on, the newest first, or ErrNotFound.
func (s *Store) ListSessions(ctx context.Context, by policy.Caller, id UserID) ([]Session, error) {
	now, user, _, err := s.personAndUser(ctx, by, id)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	entries, err := s.sessionIndex(ctx, user.user.Account, id)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	slices.SortFunc(entries, indexEntry.before)
	sessions := make([]Session, 0, len(entries))
	for _, e := range entries {
		stored, _, err := s.readSessionAt(ctx, e.tokenHash)
		if errors.Is(err, ErrNotFound) || err == nil && (stored.epoch != user.user.Epoch || stored.user != id) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		stored.session.User, stored.session.Account = user.user, now.caller.Account
		sessions = append(sessions, stored.session)
	}
	return sessions, nil
}

// RevokeSession ends one session of a user of the caller's account, or returns
// ErrNotFound.
func (s *Store) RevokeSession(ctx context.Context, by policy.Caller, id UserID, session string) error {
	err := s.managed(UserSignOut, s.retry(func() error {
		now, user, held, err := s.personAndUser(ctx, by, id)
		if err != nil {
			return err
		}
		entries, err := s.sessionIndex(ctx, user.user.Account, id)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(entries, func(e indexEntry) bool { return e.id == session })
		if at < 0 {
			return ErrNotFound
		}
		return s.commit(ctx, change{
			guards: append(now.guards, held), steps: s.removeSession(user.user.Account, id, entries[at]),
			event: s.eventOf(now.caller, UserSignOut, user.user.Account, now.accountUID).aboutUser(id, nil),
		})
	}))
	if err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
