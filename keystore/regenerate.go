package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"gatehouse/policy"
)

// Regenerate replaces a key of the caller's account by one with another id and
// token that holds the same. With a grace of 0 the old ones are gone;
// otherwise the old key works on for that long, as a key that was replaced.
// It returns ErrNotFound, ErrKeyInUse, ErrReplaced, a *policy.Excess when the
// caller does not hold all that the key holds, ErrConflict when the key was
// replaced or revoked meanwhile, and ErrKeyLimit when the account has no room
// for both.
func (s *Store) Regenerate(ctx context.Context, by policy.Caller, id policy.KeyID, grace time.Duration) (policy.Key, Token, error) {
	var next policy.Key
	var token Token
	tries := 0
	err := s.managed(KeyRegenerate, s.retry(func() (err error) {
		next, token, err = s.regenerate(ctx, by, id, grace)
		if tries++; tries > 1 && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrReplaced)) {
			return ErrConflict // it was there when this began
		}
		return err
	}))
	if err != nil {
		return policy.Key{}, Token{}, fmt.Errorf("regenerate key: %w", err)
	}
	if grace < time.Second {
		s.usage.removed(next.Account, id)
	}
	return next, token, nil
}

func (s *Store) regenerate(ctx context.Context, by policy.Caller, id policy.KeyID, grace time.Duration) (policy.Key, Token, error) {
	now, target, held, err := s.target(ctx, by, id, policy.RegenerateKeys)
	if err != nil {
		return policy.Key{}, Token{}, err
	}
	if target.key.Replaced() {
		return policy.Key{}, Token{}, ErrReplaced
	}
	if err := now.caller.CheckHolds(&target.key, s.o.Delegation); err != nil {
		return policy.Key{}, Token{}, err
	}
	next := target.key
	next.ID, next.CreatedAt = policy.KeyID(uuid.NewString()), s.o.Now().UTC().Truncate(time.Second)
	token, steps, err := s.issue(&next, target.accountUID)
	if err != nil {
		return policy.Key{}, Token{}, err
	}
	changes := []FieldChange{
		{"id", jsonOf(id), jsonOf(next.ID)},
		{"token_preview", jsonOf(target.key.Preview), jsonOf(next.Preview)},
	}
	c := change{guards: append(now.guards, held), steps: append(steps, s.remove(target)...)}
	if grace >= time.Second {
		retired, err := s.retire(target, next.CreatedAt, grace)
		if err != nil {
			return policy.Key{}, Token{}, err
		}
		c.guards = append(c.guards, guard{key: s.names.accountKeys(next.Account), below: s.o.MaxKeys})
		c.steps = append(steps, retired...)
		changes = append(changes, FieldChange{"grace_ends_at", jsonOf(nil), jsonOf(target.key.Expiry.Unix())})
	}
	c.event = s.eventOf(now.caller, KeyRegenerate, next.Account, now.accountUID).about(id, changes)
	return next, token, s.makeRoom(ctx, next.Account, s.commit(ctx, c))
}

// retire returns the steps by which a key that was replaced works on until its
// grace ends, or until its own expiry where that comes first.
func (s *Store) retire(k *storedKey, at time.Time, grace time.Duration) ([]step, error) {
	k.key.ReplacedAt = at
	if ends := policy.ExpiresAt(at.Add(grace).Unix()); k.key.Expiry.Outlasts(ends) {
		k.key.Expiry = ends
	}
	set, err := s.setKey(*k)
	if err != nil {
		return nil, err
	}
	index := indexEntry{id: string(k.key.ID), created: k.indexed, tokenHash: k.tokenHash, ends: endOf(&k.key)}
	entered := s.indexStep(k.key.Account, index)
	return append([]step{set, entered, s.publishKey(k.tokenHash)}, s.otherForm(entered, index.id)...), nil
}

// lapsed reports whether the grace of a replaced key is over: it is gone then,
// whether or not the store has dropped its record yet.
func lapsed(k *policy.Key, now time.Time) bool { return k.Replaced() && k.Expiry.Passed(now) }
