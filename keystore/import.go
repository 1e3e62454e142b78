package keystore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"gatehouse/policy"
)

// ImportOptions says how an export is imported.
type ImportOptions struct {
	// DryRun changes nothing, and says what would become of each record.
	DryRun bool
	// Replace puts what differs in the place of what is there.
	Replace bool
	// BringBack imports also what was removed from this store.
	BringBack bool
	// Noted is told of every record that is neither created nor there already.
	Noted func(ImportNote)
}

// ImportKind is a kind of records.
type ImportKind string

// The kinds of records.
const (
	ImportedAccount ImportKind = "account"
	ImportedKey     ImportKind = "key"
	ImportedUser    ImportKind = "user"
)

// ImportOutcome says what has become of a record, or would.
type ImportOutcome string

// The outcomes.
const (
	ImportCreated   ImportOutcome = "created"
	ImportUnchanged ImportOutcome = "unchanged" // it is there already
	ImportReplaced  ImportOutcome = "replaced"
	ImportKept      ImportOutcome = "kept"    // what is there differs, and was not replaced
	ImportRemoved   ImportOutcome = "removed" // it was removed here, and was not brought back
	ImportExpired   ImportOutcome = "expired" // it would be gone at once
	// ImportConflict: its id or e-mail address is another's here.
	ImportConflict ImportOutcome = "conflict"
)

// ImportNote says what has become of one record.
type ImportNote struct {
	Kind    ImportKind
	Account policy.AccountID
	ID      string
	Outcome ImportOutcome
}

// Imported is how many records of each kind have come to what.
type Imported map[ImportKind]map[ImportOutcome]int

// ErrOtherTokens says that the tokens of an export begin with another prefix
// than those of this store, so that none of them would work.
var ErrOtherTokens = errors.New("the tokens of the export begin with another prefix")

// Import brings the records of an export in, after it has read all of it: one
// that is not whole changes nothing, and is ErrBadExport. It may be repeated,
// also after a break: it adds what is missing, and never removes anything. Of
// what is there nothing is replaced unless that is asked for, and what the
// audit trail says was removed here stays so. One import at a time: others are
// ErrLeased, because a removal between two of them could not be told from a
// record that was never there. A dry run disturbs nobody.
func (s *Store) Import(ctx context.Context, r io.ReadSeeker, o ImportOptions) (Imported, error) {
	i := &importer{s: s, o: o, by: policy.Caller{Person: policy.Actor{Kind: policy.ActorCLI}}, done: make(Imported)}
	run := func(ctx context.Context, lease []guard) error {
		i.lease = lease
		return i.run(ctx, r)
	}
	err := error(nil)
	if o.DryRun {
		err = run(ctx, nil)
	} else {
		err = s.leased(ctx, s.names.importing(), run)
	}
	if err != nil {
		return i.done, fmt.Errorf("import: %w", err)
	}
	return i.done, nil
}

// importPortion is how many keys are created by one change.
const importPortion = 50

type importer struct {
	s    *Store
	o    ImportOptions
	by   policy.Caller
	done Imported
	// lease holds the import to being the only one.
	lease []guard

	owner   *storedAccount
	held    guard         // holds the owner as it is here
	instead ImportOutcome // of all that is the owner's; "" to import it
	keys    []*exported   // that wait
}

func (i *importer) run(ctx context.Context, r io.ReadSeeker) error {
	if err := i.s.Ready(ctx); err != nil {
		return err
	}
	info, err := CheckExport(r)
	if err != nil {
		return err
	}
	if info.TokenPrefix != i.s.o.TokenPrefix {
		return fmt.Errorf("%w: %q there, and %q here", ErrOtherTokens, info.TokenPrefix, i.s.o.TokenPrefix)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := walkExport(r, func(e *exported) error { return i.take(ctx, e) }); err != nil {
		return err
	}
	return i.flush(ctx)
}

func (i *importer) take(ctx context.Context, e *exported) error {
	if e.key != nil {
		if i.keys = append(i.keys, e); len(i.keys) < importPortion {
			return nil
		}
		return i.flush(ctx)
	}
	if err := i.flush(ctx); err != nil {
		return err
	}
	if e.account != nil {
		return i.account(ctx, e)
	}
	return i.takeUser(ctx, e)
}

// takeUser tries a user again while others come first.
func (i *importer) takeUser(ctx context.Context, e *exported) error {
	var outcome ImportOutcome
	err := i.again(ctx, func() (err error) {
		if outcome = i.instead; outcome == "" {
			outcome, err = i.user(ctx, e.user, e.created)
		}
		return err
	})
	id := string(e.user.user.ID)
	if err != nil {
		return fmt.Errorf("user %s: %w", id, err)
	}
	i.note(ImportedUser, id, outcome)
	return nil
}

// again tries what is the owner's again while others come first.
func (i *importer) again(ctx context.Context, try func() error) error {
	return i.s.retry(func() error {
		err := try()
		if errors.Is(err, errMoved) {
			if failed := i.refresh(ctx); failed != nil {
				return failed
			}
		}
		return err
	})
}

// refresh reads the owner anew, of which only the account itself may have
// changed.
func (i *importer) refresh(ctx context.Context) error {
	now, raw, err := i.s.readAccount(ctx, i.owner.account.ID)
	if errors.Is(err, ErrNotFound) || err == nil && now.uid != i.owner.uid {
		i.instead = ImportRemoved
		return nil
	}
	i.held.want = raw
	return err
}

func (i *importer) note(kind ImportKind, id string, outcome ImportOutcome) {
	if i.done[kind] == nil {
		i.done[kind] = make(map[ImportOutcome]int)
	}
	i.done[kind][outcome]++
	if i.o.Noted != nil && outcome != ImportCreated && outcome != ImportUnchanged {
		i.o.Noted(ImportNote{Kind: kind, Account: i.owner.account.ID, ID: id, Outcome: outcome})
	}
}

// commit commits a change and its event, but in a dry run. An event about a
// user names it, so that no key is shown it.
func (i *importer) commit(ctx context.Context, c change, user UserID, changes []FieldChange) error {
	if i.o.DryRun {
		return nil
	}
	c.guards = slices.Concat(c.guards, i.lease)
	c.event = i.s.eventOf(i.by, AccountImport, i.owner.account.ID, i.owner.uid).aboutUser(user, changes)
	err := i.s.commit(ctx, c)
	if !errors.Is(err, errMoved) {
		return err
	}
	for _, lease := range i.lease {
		if holder, err := i.s.readRaw(ctx, lease.key); err != nil || holder != lease.want {
			return errors.Join(errLeaseLost, err)
		}
	}
	return err
}

// removals are what the audit trail of an account says was removed from this
// store.
type removals struct {
	account bool
	keys    map[policy.KeyID]bool
	users   map[UserID]bool
}

// removedFrom reads the trail. What was not there before it was read, and is
// not in it, was never removed as far as the trail goes back: a removal is in
// the trail before its record is gone.
func (s *Store) removedFrom(ctx context.Context, account policy.AccountID, uid string) (*removals, error) {
	r := &removals{keys: map[policy.KeyID]bool{}, users: map[UserID]bool{}}
	for trail := s.trail(account, nil); ; {
		e, err := trail.next(ctx)
		if err != nil || e == nil {
			return r, err
		}
		event := &e.stored.event
		if event.Outcome != Done {
			continue
		}
		switch event.Action { //nolint:exhaustive // the others remove nothing
		case KeyRevoke, KeyRegenerate:
			r.keys[event.Key] = true
		case UserDelete:
			r.users[event.User] = true
		case AccountDelete:
			r.account = r.account || e.stored.accountUID == uid || e.stored.accountUID == ""
		}
	}
}
