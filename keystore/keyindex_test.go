package keystore_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// lose removes the record of the token, as a store does that has lost it.
func (n *node) lose(token keystore.Token) {
	n.t.Helper()
	gone := keystore.Step{Kind: keystore.StepDel, Key: n.recordName(token)}
	if err := keystore.CommitTo(n.t.Context(), n.Store, nil, []keystore.Step{gone}); err != nil {
		n.t.Fatal(err)
	}
}

// A backup must not silently lack a key whose record was lost. One that is known
// to have ended is not missed.
func TestExportFailsWhereARecordIsMissing(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		_, expired := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(time.Hour) })
		_, forever := n.key(person)
		old, _ := n.key(person)
		if _, _, err := n.Regenerate(t.Context(), person, old.ID, time.Minute); err != nil {
			t.Fatal(err)
		}
		export := func() error {
			_, err := n.Export(t.Context(), &bytes.Buffer{})
			return err
		}
		n.must(nil, nil, export())
		n.lose(expired)
		if err := export(); err == nil || !strings.Contains(err.Error(), "record is missing") {
			t.Errorf("without the record of a key that has not ended: got %v", err)
		}
		w.clock.Advance(time.Hour + keystore.Retention + time.Second)
		n.must(nil, nil, export())
		n.lose(forever)
		if err := export(); err == nil || !strings.Contains(err.Error(), "acme") {
			t.Errorf("without the record of a key that never ends: got %v", err)
		}
	})
}

// The end of a key is in the index as it changes.
func TestIndexKnowsTheEndOfAKey(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(func(o *keystore.Options) { o.MaxKeys = 1 })
		person := n.account("acme")
		k, token := n.key(person)
		n.update(person, k.ID, keystore.Update{Expiry: ptr(w.clock.In(time.Hour))})
		n.update(person, k.ID, keystore.Update{Expiry: ptr(policy.NeverExpires())})
		n.update(person, k.ID, keystore.Update{Expiry: ptr(w.clock.In(2 * time.Hour))})
		n.lose(token)
		full := func() {
			t.Helper()
			_, _, err := n.Create(t.Context(), person, newKey())
			wantErr(t, err, keystore.ErrKeyLimit)
		}
		full()
		w.clock.Advance(time.Hour + keystore.Retention + time.Second)
		full() // it ends an hour later
		w.clock.Advance(time.Hour)
		n.key(person)
	})
}

// A key whose record was not found may come back: it stays in the index, also
// when it is old, until an operator says that nothing was lost.
func TestNothingIsDroppedForAMissingRecord(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(func(o *keystore.Options) { o.MaxKeys = 1 })
		person := n.account("acme")
		k, token := n.key(person)
		kept, err := n.Get(t.Context(), person, k.ID)
		n.must(nil, nil, err)
		record := n.records()[n.recordName(token)]
		n.lose(token)
		w.clock.Advance(400 * 24 * time.Hour)
		_, _, err = n.Create(t.Context(), person, newKey())
		wantErr(t, err, keystore.ErrKeyLimit)
		back := keystore.Step{Kind: keystore.StepSet, Key: n.recordName(token), Value: record}
		n.must(nil, nil, keystore.CommitTo(t.Context(), n.Store, nil, []keystore.Step{back}))
		if keys := n.list(person, 10); len(keys) != 1 || keys[0].ID != kept.ID {
			t.Errorf("the record is back, and listed are %v", keys)
		}
		if _, err := n.Revoke(t.Context(), person, k.ID); err != nil {
			t.Error(err)
		}
		_, token = n.key(person)
		n.lose(token)
		w.clock.Advance(keystore.OrphanAge + time.Second)
		n.must(nil, nil, keystore.SettleIndex(t.Context(), n.Store, "acme"))
		n.key(person)
	})
}

// An account with more keys than a portion, and with entries that nobody can
// read, is deleted in whole.
func TestAccountWithADamagedIndexIsDeleted(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		tokens := n.many(person, 30)
		index := w.options.Prefix + "account:{acme}:keys"
		bad := keystore.Step{Kind: keystore.StepHSet, Key: index, Field: "no id", Value: "no entry"}
		n.must(nil, nil, keystore.CommitTo(t.Context(), n.Store, nil, []keystore.Step{bad}))
		n.must(nil, nil, n.DeleteAccount(t.Context(), policy.Caller{}, "acme"))
		for _, token := range tokens {
			n.wantUnknown(token)
		}
		if left := n.leftOf("account:{acme}:keys", "key:"); len(left) > 0 {
			t.Errorf("left are %q", left)
		}
	})
}
