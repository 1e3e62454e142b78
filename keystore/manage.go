package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"gatehouse/policy"
)

// retention is for how long an expired key stays listed, and answers that it
// has expired, before it is dropped.
const retention = 30 * 24 * time.Hour

// NewKey is a key that is to be created. Without Subaccounts it gets all that
// its creator can access.
type NewKey struct {
	Name        string
	Permissions policy.PermissionSet
	Subaccounts []policy.SubaccountID
	Addresses   policy.AddressSet
	Expiry      policy.Expiry
}

// Create stores a new key of the caller's account and returns it with its
// token, whose secret is known to nobody else and cannot be had again. It
// returns a *policy.Excess when the caller would hand on more than it holds,
// ErrKeyLimit, ErrExpired, and for a caller that can do nothing any more ErrUnknownToken,
// ErrNoSession or a *RefusedError. All of it is checked against what is true at the commit.
func (s *Store) Create(ctx context.Context, by policy.Caller, k NewKey) (policy.Key, Token, error) {
	var created policy.Key
	var token Token
	err := s.managed(KeyCreate, s.retry(func() (err error) {
		created, token, err = s.create(ctx, by, k)
		return err
	}))
	if err != nil {
		return policy.Key{}, Token{}, fmt.Errorf("create key: %w", err)
	}
	return created, token, nil
}

func (s *Store) create(ctx context.Context, by policy.Caller, k NewKey) (policy.Key, Token, error) {
	now, err := s.standing(ctx, by, policy.CreateKeys)
	if err != nil {
		return policy.Key{}, Token{}, err
	}
	key := policy.Key{
		ID: policy.KeyID(uuid.NewString()), Account: now.caller.Account.ID, Name: k.Name,
		Permissions: k.Permissions, Subaccounts: now.subaccounts(k.Subaccounts), Addresses: k.Addresses,
		Expiry: k.Expiry, Active: true, CreatedAt: s.o.Now().UTC().Truncate(time.Second),
	}
	if err := now.caller.CheckGrant(key.Grant(), s.o.Delegation); err != nil {
		return policy.Key{}, Token{}, err
	}
	if err := reachesSomething(key.Subaccounts); err != nil {
		return policy.Key{}, Token{}, err
	}
	if s.health.expired(key.Expiry) {
		return policy.Key{}, Token{}, ErrExpired
	}
	token, steps, err := s.issue(&key, now.accountUID)
	if err != nil {
		return policy.Key{}, Token{}, err
	}
	limit := guard{key: s.names.accountKeys(key.Account), below: s.o.MaxKeys}
	event := s.eventOf(now.caller, KeyCreate, key.Account, now.accountUID).about(key.ID, changesOf(nil, keyFields(&key)))
	err = s.commit(ctx, change{guards: append(now.guards, limit), steps: steps, event: event})
	return key, token, s.makeRoom(ctx, key.Account, err)
}

// makeRoom turns ErrKeyLimit into errMoved where keys that are gone for good
// were still counted.
func (s *Store) makeRoom(ctx context.Context, account policy.AccountID, err error) error {
	if !errors.Is(err, ErrKeyLimit) {
		return err
	}
	if dropped, pruneErr := s.prune(ctx, account); pruneErr == nil && dropped {
		return errMoved
	}
	return err
}

// issue mints a token for the key and returns the steps that make both valid:
// the index first, so that no key that works is ever missing from it.
func (s *Store) issue(key *policy.Key, accountUID string) (Token, []step, error) {
	token, err := newToken(s.o.TokenPrefix)
	if err != nil {
		return Token{}, nil, err
	}
	key.Preview = token.preview(s.o.TokenPrefix)
	stored := storedKey{key: *key, tokenHash: token.hashHex(), accountUID: accountUID}
	set, err := s.setKey(stored)
	if err != nil {
		return Token{}, nil, err
	}
	index := indexEntry{id: string(key.ID), created: s.o.Now().UnixMilli(), tokenHash: stored.tokenHash, ends: endOf(key)}
	return token, []step{
		s.indexStep(key.Account, index),
		set,
		s.publishKey(stored.tokenHash),
	}, nil
}

// setKey is the step that stores the record. An expired one is dropped after
// its retention, one that was replaced when its grace ends.
func (s *Store) setKey(k storedKey) (step, error) {
	raw, err := s.encodeRecord(k)
	if err != nil {
		return step{}, err
	}
	return step{Kind: stepSet, Key: s.names.key(k.tokenHash), Value: raw, Ends: endOf(&k.key)}, nil
}

// endOf is when a key is gone for good, in Unix seconds; 0 for never.
func endOf(k *policy.Key) int64 {
	switch {
	case k.Replaced():
		return k.Expiry.Unix()
	case !k.Expiry.Never():
		return k.Expiry.Unix() + int64(retention/time.Second)
	}
	return 0
}

// Get returns a key of the caller's account, or ErrNotFound.
func (s *Store) Get(ctx context.Context, by policy.Caller, id policy.KeyID) (policy.Key, error) {
	if by.Account == nil {
		return policy.Key{}, fmt.Errorf("get key: %w", ErrNotFound)
	}
	k, _, err := s.readKey(ctx, by.Account.ID, id)
	if err != nil {
		return policy.Key{}, fmt.Errorf("get key: %w", err)
	}
	keys := []policy.Key{k.key}
	if err := s.addLastUsed(ctx, by.Account.ID, keys); err != nil {
		return policy.Key{}, fmt.Errorf("get key: %w", err)
	}
	return keys[0], nil
}

// Update says what is to change of a key; nil leaves a field as it is. Empty
// Subaccounts become all that the caller can access.
type Update struct {
	Name        *string
	Permissions *policy.PermissionSet
	Subaccounts *[]policy.SubaccountID
	Addresses   *policy.AddressSet
	Expiry      *policy.Expiry
	Active      *bool
	// Unless is asked about the key as it is at the commit, and an error that it
	// returns is that of the Update. nil lets every key be changed.
	Unless func(before policy.Key) error
}

// Update changes a key of the caller's account and returns it as it is then,
// and as it was. It returns ErrNotFound, ErrKeyInUse, ErrReplaced, ErrExpired, and a
// *policy.Excess when the caller does not hold all that the key holds before and after the change.
// Concurrent updates are all kept.
func (s *Store) Update(ctx context.Context, by policy.Caller, id policy.KeyID, u Update) (after, before policy.Key, err error) {
	err = s.managed(KeyUpdate, s.retry(func() (err error) {
		after, before, err = s.update(ctx, by, id, u)
		return err
	}))
	if err != nil {
		return policy.Key{}, policy.Key{}, fmt.Errorf("update key: %w", err)
	}
	return after, before, nil
}

func (s *Store) update(ctx context.Context, by policy.Caller, id policy.KeyID, u Update) (after, before policy.Key, err error) {
	now, target, held, err := s.target(ctx, by, id, policy.UpdateKeys)
	if err != nil {
		return policy.Key{}, policy.Key{}, err
	}
	before = target.key
	if before.Replaced() {
		return policy.Key{}, policy.Key{}, ErrReplaced
	}
	if u.Unless != nil {
		if err := u.Unless(before); err != nil {
			return policy.Key{}, policy.Key{}, err
		}
	}
	if err := now.caller.CheckHolds(&before, s.o.Delegation); err != nil {
		return policy.Key{}, policy.Key{}, err
	}
	if u.Expiry != nil && s.health.expired(*u.Expiry) {
		return policy.Key{}, policy.Key{}, ErrExpired
	}
	u.apply(now, &target.key)
	if err := now.checkAfter(&before, &target.key, s.o.Delegation); err != nil {
		return policy.Key{}, policy.Key{}, err
	}
	set, err := s.setKey(*target)
	if err != nil {
		return policy.Key{}, policy.Key{}, err
	}
	changes := changesOf(keyFields(&before), keyFields(&target.key))
	if len(changes) == 0 {
		// It is not an event: doing nothing, often, would push out what was done. It
		// is published: this may be the repetition of an update whose message was
		// lost.
		return target.key, before, s.commit(ctx, change{steps: []step{s.publishKey(target.tokenHash)}})
	}
	steps := []step{set}
	if set.Ends != 0 || endOf(&before) != 0 {
		// Behind the record, which says for certain whether the key is there still.
		index := indexEntry{id: string(id), created: target.indexed, tokenHash: target.tokenHash, ends: set.Ends}
		entered := s.indexStep(before.Account, index)
		steps = append(append(steps, entered), s.otherForm(entered, index.id)...)
	}
	return target.key, before, s.commit(ctx, change{
		guards: append(now.guards, held), steps: append(steps, s.publishKey(target.tokenHash)), narrows: !target.key.Active,
		event: s.eventOf(now.caller, KeyUpdate, before.Account, now.accountUID).about(id, changes),
	})
}

func (u Update) apply(now *standing, k *policy.Key) {
	if u.Name != nil {
		k.Name = *u.Name
	}
	if u.Permissions != nil {
		k.Permissions = *u.Permissions
	}
	if u.Subaccounts != nil {
		k.Subaccounts = now.subaccounts(*u.Subaccounts)
	}
	if u.Addresses != nil {
		k.Addresses = *u.Addresses
	}
	if u.Expiry != nil {
		k.Expiry = *u.Expiry
	}
	if u.Active != nil {
		k.Active = *u.Active
	}
}

// Revoke deletes a key of the caller's account and returns when. From then on
// its token is unknown. It returns ErrNotFound and ErrKeyInUse.
func (s *Store) Revoke(ctx context.Context, by policy.Caller, id policy.KeyID) (time.Time, error) {
	err := s.managed(KeyRevoke, s.retry(func() error {
		now, target, held, err := s.target(ctx, by, id, policy.DeleteKeys)
		if err != nil {
			return err
		}
		return s.commit(ctx, change{
			guards: append(now.guards, held), steps: s.remove(target),
			event: s.eventOf(now.caller, KeyRevoke, by.Account.ID, now.accountUID).about(id, changesOf(keyFields(&target.key), nil)),
		})
	}))
	if err != nil {
		return time.Time{}, fmt.Errorf("revoke key: %w", err)
	}
	s.usage.removed(by.Account.ID, id)
	return s.o.Now().UTC(), nil
}

// remove deletes the record first: what is in the index alone is dead already.
func (s *Store) remove(k *storedKey) []step {
	steps := append([]step{{Kind: stepDel, Key: s.names.key(k.tokenHash)}}, s.unindexSteps(k.key.Account, string(k.key.ID))...)
	return append(steps, s.publishKey(k.tokenHash))
}

// retry tries a change again while others come first.
func (s *Store) retry(try func() error) error {
	for range commitTries {
		if err := try(); !errors.Is(err, errMoved) {
			return err
		}
	}
	return ErrConflict
}
