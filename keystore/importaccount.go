package keystore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gatehouse/policy"
)

// account begins with another account. What it comes to, its keys and users do
// too where it is not here in the end.
func (i *importer) account(ctx context.Context, e *exported) error {
	i.owner, i.instead = e.account, ""
	i.held = guard{key: i.s.names.account(e.account.account.ID)}
	var outcome ImportOutcome
	err := i.s.retry(func() (err error) {
		outcome, err = i.putAccount(ctx, e)
		return err
	})
	id := string(e.account.account.ID)
	if err != nil {
		return fmt.Errorf("account %s: %w", id, err)
	}
	if outcome == ImportConflict || outcome == ImportRemoved {
		i.instead = outcome
	}
	i.note(ImportedAccount, id, outcome)
	return nil
}

func (i *importer) putAccount(ctx context.Context, e *exported) (ImportOutcome, error) {
	id := e.account.account.ID
	raw, err := encodeAccount(*e.account)
	if err != nil {
		return "", err
	}
	old, err := i.s.readRaw(ctx, i.held.key)
	if err != nil {
		return "", err
	}
	i.held.want = old
	if old == "" {
		return i.createAccount(ctx, e, raw)
	}
	before, err := decodeAccount(old, id, i.s.catalogue())
	if err != nil {
		return "", errors.Join(ErrUnavailable, err)
	}
	same, err := encodeAccount(*before)
	switch {
	case err != nil:
		return "", err
	case before.uid != e.account.uid:
		return ImportConflict, nil // another account of this id
	case same == raw:
		return ImportUnchanged, nil
	case !i.o.Replace:
		return ImportKept, nil
	}
	err = i.commit(ctx, change{
		guards: []guard{i.held}, steps: []step{{Kind: stepSet, Key: i.held.key, Value: raw}, i.s.publishAccount(id)},
	}, "", changesOf(accountFields(&before.account), accountFields(&e.account.account)))
	if err == nil && !i.o.DryRun {
		i.held.want = raw
	}
	return ImportReplaced, err
}

func (i *importer) createAccount(ctx context.Context, e *exported, raw string) (ImportOutcome, error) {
	id := e.account.account.ID
	gone, err := i.removed(ctx)
	if err != nil || gone.account && !i.o.BringBack {
		return ImportRemoved, err
	}
	if !i.o.DryRun {
		// What an interrupted deletion has left is not this account's.
		if _, err := i.s.deleteKeys(ctx, id); err != nil {
			return "", err
		}
		if _, err := i.s.deleteUsers(ctx, id); err != nil {
			return "", err
		}
	}
	err = i.commit(ctx, change{
		guards: []guard{i.held},
		steps: []step{
			{Kind: stepZAdd, Key: i.s.names.accounts(), Field: string(id), Value: strconv.FormatInt(e.created, 10)},
			{Kind: stepSet, Key: i.held.key, Value: raw},
			i.s.publishAccount(id),
		},
	}, "", changesOf(nil, accountFields(&e.account.account)))
	if err == nil && !i.o.DryRun {
		i.held.want = raw
	}
	return ImportCreated, err
}

func (i *importer) removed(ctx context.Context) (*removals, error) {
	return i.s.removedFrom(ctx, i.owner.account.ID, i.owner.uid)
}

// user brings one user in. Its e-mail address must be free, or its own.
func (i *importer) user(ctx context.Context, u *storedUser, created int64) (ImportOutcome, error) {
	id := u.user.ID
	before, held, err := i.s.readUser(ctx, i.owner.account.ID, id)
	next := *u
	switch {
	case errors.Is(err, ErrNotFound):
		held = guard{key: i.s.names.user(i.owner.account.ID, id)}
		gone, err := i.removed(ctx) // after it was not found: see removedFrom
		if err != nil || gone.users[id] && !i.o.BringBack {
			return ImportRemoved, err
		}
	case err != nil:
		return "", err
	case before.accountUID != i.owner.uid || before.user.Email != u.user.Email,
		before.user.Identity.valid() && before.user.Identity != u.user.Identity:
		return ImportConflict, nil
	default:
		// Sessions of the one that is replaced are none of the other's.
		next.user.Epoch = max(u.user.Epoch, before.user.Epoch+1)
	}
	claims, whole, err := i.claims(ctx, u)
	if errors.Is(err, ErrEmailTaken) || errors.Is(err, ErrIdentityTaken) {
		return ImportConflict, nil
	}
	if err != nil {
		return "", err
	}
	outcome := ImportCreated
	if before != nil {
		outcome = i.differs(before, u, whole)
	}
	if outcome == ImportUnchanged || outcome == ImportKept {
		return outcome, nil
	}
	if outcome == ImportCreated {
		next.user.Epoch = u.user.Epoch
	}
	return outcome, i.putUser(ctx, next, created, append(claims, i.held, held), held.key)
}

// claims returns the guards that hold what the user is known by free, or its
// own, and whether it has all of it already.
func (i *importer) claims(ctx context.Context, u *storedUser) (held []guard, whole bool, err error) {
	own := claimOf(u.user.Account, u.user.ID)
	email := guard{key: i.s.names.email(u.user.Email.hashHex())}
	if email.want, err = i.s.readRaw(ctx, email.key); err == nil && email.want != own {
		email, err = i.s.freeClaim(ctx, u.user.Email)
	}
	held, whole = []guard{email}, email.want == own
	if err != nil || !u.user.Identity.valid() {
		return held, whole, err
	}
	identity, _, err := i.s.claimIdentity(ctx, u.user.Identity, &u.user)
	return append(held, identity), whole && identity.want == own, err
}

// differs compares a user that is there, with its claim or without.
func (i *importer) differs(before, u *storedUser, claimed bool) ImportOutcome {
	a, errA := encodeUser(*before)
	b, errB := encodeUser(*u)
	switch {
	case errA == nil && errB == nil && a == b && claimed:
		return ImportUnchanged
	case errA == nil && errB == nil && a == b:
		return ImportCreated // it was not written to the end
	case i.o.Replace:
		return ImportReplaced
	}
	return ImportKept
}

// putUser writes the user and its claims, which come last: whoever has one has
// a record.
func (i *importer) putUser(ctx context.Context, u storedUser, created int64, guards []guard, name string) error {
	raw, err := encodeUser(u)
	if err != nil {
		return err
	}
	account, id := u.user.Account, u.user.ID
	index := indexEntry{created: created, tokenHash: u.user.Email.hashHex()}
	steps := []step{
		{Kind: stepHSet, Key: i.s.names.users(account), Field: string(id), Value: index.value()},
		{Kind: stepSet, Key: name, Value: raw},
		{Kind: stepSet, Key: i.s.names.email(u.user.Email.hashHex()), Value: claimOf(account, id)},
	}
	if u.user.Identity.valid() {
		steps = append(steps, step{Kind: stepSet, Key: i.s.names.identity(u.user.Identity.hashHex()), Value: claimOf(account, id)})
	}
	return i.commit(ctx, change{guards: guards, steps: steps}, id, nil)
}

// goneForGood reports whether a key has gone, whether or not the store has dropped
// its record yet.
func goneForGood(k *policy.Key, now time.Time) bool { return ended(endOf(k), now.Unix()) }
