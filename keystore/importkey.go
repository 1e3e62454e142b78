package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gatehouse/policy"
)

// flush brings the keys in that wait. Those that are new are one change; each
// that is replaced is one of its own.
func (i *importer) flush(ctx context.Context) error {
	waiting := i.keys
	i.keys = nil
	if len(waiting) == 0 {
		return nil
	}
	var outcomes []ImportOutcome
	err := i.again(ctx, func() (err error) {
		outcomes, err = i.put(ctx, waiting)
		return err
	})
	if err != nil {
		return fmt.Errorf("keys of account %s: %w", i.owner.account.ID, err)
	}
	for n, outcome := range outcomes {
		i.note(ImportedKey, string(waiting[n].key.key.ID), outcome)
	}
	return nil
}

// put does what is to be done of all keys, or returns errMoved.
func (i *importer) put(ctx context.Context, waiting []*exported) ([]ImportOutcome, error) {
	if i.instead != "" {
		return slices.Repeat([]ImportOutcome{i.instead}, len(waiting)), nil
	}
	now, err := i.standing(ctx, waiting)
	if err != nil {
		return nil, err
	}
	outcomes := make([]ImportOutcome, len(waiting))
	created := change{guards: []guard{i.held}}
	var ids []string
	for n, e := range waiting {
		if outcomes[n], err = i.judge(e.key, now.raw[n], now); err != nil {
			return nil, err
		}
		_, indexed := now.indexed[e.key.key.ID]
		one, err := i.keyChange(e, now.raw[n], indexed)
		if err != nil {
			return nil, err
		}
		switch outcomes[n] { //nolint:exhaustive // the others change nothing
		case ImportCreated:
			created.guards, created.steps = append(created.guards, one.guards...), append(created.steps, one.steps...)
			ids = append(ids, string(e.key.key.ID))
		case ImportReplaced:
			one.guards = append(one.guards, i.held)
			if err := i.commit(ctx, one, "", []FieldChange{{"keys", jsonOf(nil), jsonOf([]string{string(e.key.key.ID)})}}); err != nil {
				return nil, err
			}
		}
	}
	if len(created.steps) == 0 {
		return outcomes, nil
	}
	slices.SortStableFunc(created.steps, removalsLast) // see otherForm
	return outcomes, i.commit(ctx, created, "", []FieldChange{{"keys", jsonOf(nil), jsonOf(ids)}})
}

func removalsLast(a, b step) int {
	switch {
	case a.Kind == b.Kind || a.Kind != stepHDel && b.Kind != stepHDel:
		return 0
	case a.Kind == stepHDel:
		return 1
	}
	return -1
}

// keysHere is what this store has of keys of an export.
type keysHere struct {
	raw     []string // of each key, "" for none
	indexed map[policy.KeyID]string
	removed map[policy.KeyID]bool
}

// standing reads the records first, and what was removed behind them: see
// removedFrom.
func (i *importer) standing(ctx context.Context, waiting []*exported) (*keysHere, error) {
	now := &keysHere{}
	entries := make([]indexEntry, len(waiting))
	for n, e := range waiting {
		entries[n] = indexEntry{id: string(e.key.key.ID), tokenHash: e.key.tokenHash}
	}
	values, err := i.s.records(ctx, entries)
	if err != nil {
		return nil, err
	}
	missing := false
	for _, v := range values {
		now.raw = append(now.raw, v.raw)
		missing = missing || !v.found
	}
	if now.indexed, err = i.indexed(ctx, entries); err != nil || !missing {
		return now, err
	}
	gone, err := i.removed(ctx)
	now.removed = gone.keys
	return now, err
}

// indexed returns the hashes that the index has for those ids.
func (i *importer) indexed(ctx context.Context, wanted []indexEntry) (map[policy.KeyID]string, error) {
	ids := make([]policy.KeyID, len(wanted))
	for n, e := range wanted {
		ids[n] = policy.KeyID(e.id)
	}
	entries, err := i.s.indexEntriesOf(ctx, i.owner.account.ID, ids)
	if err != nil {
		return nil, err
	}
	hashes := map[policy.KeyID]string{}
	for n, entry := range entries {
		if entry != nil {
			hashes[ids[n]] = entry.tokenHash
		}
	}
	return hashes, nil
}

// judge says what is to become of a key.
func (i *importer) judge(k *storedKey, raw string, now *keysHere) (ImportOutcome, error) {
	hash, indexed := now.indexed[k.key.ID]
	switch {
	case indexed && hash != k.tokenHash:
		return ImportConflict, nil
	case raw == "" && now.removed[k.key.ID] && !i.o.BringBack:
		return ImportRemoved, nil
	case raw == "" && goneForGood(&k.key, i.s.o.Now()):
		return ImportExpired, nil
	case raw == "":
		return ImportCreated, nil
	}
	before, err := decodeKey(raw, k.tokenHash)
	if err != nil {
		return "", errors.Join(ErrUnavailable, err)
	}
	same, err := encodeKey(*before)
	wanted, wantedErr := encodeKey(*k)
	switch {
	case err != nil || wantedErr != nil:
		return "", errors.Join(err, wantedErr)
	case before.key.ID != k.key.ID || before.key.Account != k.key.Account || before.accountUID != k.accountUID:
		return ImportConflict, nil
	case same == wanted && indexed:
		return ImportUnchanged, nil
	case same == wanted:
		return ImportCreated, nil // it was not written to the end
	case i.o.Replace && !goneForGood(&k.key, i.s.o.Now()):
		return ImportReplaced, nil
	}
	return ImportKept, nil
}

// keyChange writes the key where raw is what is there; indexed says whether the
// index has it.
func (i *importer) keyChange(e *exported, raw string, indexed bool) (change, error) {
	set, err := i.s.setKey(*e.key)
	if err != nil {
		return change{}, err
	}
	index := indexEntry{id: string(e.key.key.ID), created: e.created, tokenHash: e.key.tokenHash, ends: endOf(&e.key.key)}
	entered := i.s.indexStep(e.key.key.Account, index)
	steps := []step{entered, set, i.s.publishKey(e.key.tokenHash)}
	if indexed {
		steps = append(steps, i.s.otherForm(entered, index.id)...)
	}
	return change{guards: []guard{{key: set.Key, want: raw}}, steps: steps}, nil
}
