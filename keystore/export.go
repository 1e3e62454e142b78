package keystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"gatehouse/policy"
)

// exportFormat names the form of an export, and its version.
const exportFormat = "gatehouse-export-1"

// exportLine is a line of an export: one of these. The keys and users of an
// account stand behind it.
type exportLine struct {
	Header  *exportHeader `json:"export,omitempty"`
	Account *exportRecord `json:"account,omitempty"`
	Key     *exportRecord `json:"key,omitempty"`
	User    *exportRecord `json:"user,omitempty"`
	End     *exportEnd    `json:"end,omitempty"`
}

type exportHeader struct {
	Format      string `json:"format"`
	Store       string `json:"store"`
	TokenPrefix string `json:"token_prefix"`
	BegunAt     int64  `json:"begun_at"`
}

// exportRecord is a record as it is stored, and when it was created in Unix
// milliseconds, by which listings are ordered.
type exportRecord struct {
	CreatedMillis int64          `json:"created_ms"`
	Record        jsontext.Value `json:"record"`
}

// exportEnd is the last line: how many records there are, and the SHA-256 of
// every byte before it.
type exportEnd struct {
	Exported
	SHA256 string `json:"sha256"`
}

// Exported is how many records an export has.
type Exported struct {
	Accounts int `json:"accounts"`
	Keys     int `json:"keys"`
	Users    int `json:"users"`
}

// Export writes all accounts, their keys, by the hash of their tokens, and
// their users, with what these prove themselves by: guard what it writes. It
// may be used while changes are made: every record is whole and as it was at
// some moment of the export, keys and users are those of the account that
// stands before them, and what was there before and has not changed meanwhile
// is in it. It is an error if a record cannot be read.
func (s *Store) Export(ctx context.Context, w io.Writer) (Exported, error) {
	x := &exporter{s: s, out: w, sum: sha256.New()}
	if err := x.export(ctx); err != nil {
		return Exported{}, fmt.Errorf("export: %w", err)
	}
	return x.done, nil
}

// exportPortion is how many records are read for an export at a time.
const exportPortion = 1000

type exporter struct {
	s    *Store
	out  io.Writer
	sum  hash.Hash
	done Exported
}

var errNothing = errors.New("there is no store: nothing was ever kept here")

func (x *exporter) export(ctx context.Context) error {
	if err := x.s.Ready(ctx); err != nil {
		return err
	}
	identity := *x.s.identity.Load()
	if identity == "" {
		return errNothing
	}
	header := exportHeader{Format: exportFormat, Store: identity, TokenPrefix: x.s.o.TokenPrefix, BegunAt: x.s.o.Now().Unix()}
	if err := x.write(exportLine{Header: &header}); err != nil {
		return err
	}
	err := x.s.eachAccounts(ctx, func(part []member) error {
		for _, m := range part {
			if err := x.account(ctx, policy.AccountID(m.name), m.score); err != nil {
				return fmt.Errorf("account %s: %w", m.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := x.s.Ready(ctx); err != nil {
		return err // it was emptied or replaced meanwhile
	}
	return x.write(exportLine{End: &exportEnd{Exported: x.done, SHA256: hex.EncodeToString(x.sum.Sum(nil))}})
}

func (x *exporter) account(ctx context.Context, id policy.AccountID, created int64) error {
	stored, raw, err := x.s.readAccount(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil // deleted, or never written to the end
	}
	if err != nil {
		return err
	}
	if err := x.write(exportLine{Account: recordOf(created, raw)}); err != nil {
		return err
	}
	x.done.Accounts++
	if err := x.keys(ctx, stored); err != nil {
		return err
	}
	return x.users(ctx, stored)
}

func (x *exporter) keys(ctx context.Context, owner *storedAccount) error {
	entries, err := x.s.index(ctx, owner.account.ID)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(entries, exportPortion) {
		values, err := x.s.records(ctx, part)
		if err != nil {
			return err
		}
		for i, e := range part {
			if err := x.key(ctx, owner, e, values[i].raw); err != nil {
				return fmt.Errorf("key %s: %w", e.id, err)
			}
		}
	}
	return nil
}

func (x *exporter) key(ctx context.Context, owner *storedAccount, e indexEntry, raw string) error {
	if raw == "" {
		var err error
		if raw, err = x.missing(ctx, owner.account.ID, e); raw == "" || err != nil {
			return err
		}
	}
	k, err := decodeIndexed(raw, e.tokenHash, owner.account.ID, policy.KeyID(e.id))
	if err != nil {
		return err
	}
	if k.accountUID != owner.uid || lapsed(&k.key, x.s.o.Now()) {
		return nil // of another account of this id, or replaced
	}
	if raw, err = exportedKey(k, raw); err != nil {
		return err
	}
	x.done.Keys++
	return x.write(exportLine{Key: recordOf(e.created, raw)})
}

// missing looks again at a key whose record was not found, for as long as a
// change may be under way that the slots of a Cluster make one after the other.
// It returns the record, or "" for a key that was removed meanwhile or has ended.
// Anything else is an error: an export must not silently lack what was lost.
func (x *exporter) missing(ctx context.Context, account policy.AccountID, e indexEntry) (raw string, err error) {
	ends := time.NewTimer(commitTimeout)
	defer ends.Stop()
	for {
		if raw, err = x.lookAgain(ctx, account, e); !errors.Is(err, errUnknownEnd) {
			return raw, err
		}
		pause := time.NewTimer(retryPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return "", ctx.Err()
		case <-ends.C:
			pause.Stop()
			return "", errUnknownEnd
		case <-pause.C:
		}
	}
}

func (x *exporter) lookAgain(ctx context.Context, account policy.AccountID, e indexEntry) (raw string, err error) {
	if e.hasEnded(x.s.o.Now().Unix()) {
		return "", nil
	}
	// A change writes the index before the record that it makes, and removes the
	// record before the entry.
	now, err := x.s.indexEntryOf(ctx, account, policy.KeyID(e.id))
	if errors.Is(err, ErrNotFound) || err == nil && now.hasEnded(x.s.o.Now().Unix()) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if raw, err = x.s.readRaw(ctx, x.s.names.key(now.tokenHash)); err != nil || raw != "" {
		return raw, err
	}
	if _, err := x.s.indexEntryOf(ctx, account, policy.KeyID(e.id)); errors.Is(err, ErrNotFound) {
		return "", nil // it was being removed
	}
	return "", errUnknownEnd
}

func (x *exporter) users(ctx context.Context, owner *storedAccount) error {
	entries, err := x.s.userIndex(ctx, owner.account.ID)
	if err != nil {
		return err
	}
	for _, e := range entries {
		u, held, err := x.s.readUser(ctx, owner.account.ID, UserID(e.id))
		if errors.Is(err, ErrNotFound) || err == nil && u.accountUID != owner.uid {
			continue
		}
		if err != nil {
			return err
		}
		if err := x.write(exportLine{User: recordOf(e.created, held.want)}); err != nil {
			return err
		}
		x.done.Users++
	}
	return nil
}

// exportedKey is the record as JSON, which every gateway can import, whatever
// form its store has.
func exportedKey(k *storedKey, raw string) (string, error) {
	if isCompact(raw) {
		return encodeKey(*k)
	}
	return raw, nil
}

func recordOf(created int64, raw string) *exportRecord {
	return &exportRecord{CreatedMillis: created, Record: jsontext.Value(raw)}
}

func (x *exporter) write(l exportLine) error {
	raw, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	raw = append(raw, '\n')
	_, _ = x.sum.Write(raw) // never fails
	_, err = x.out.Write(raw)
	return err
}

// isHash reports whether s is a SHA-256 as names of records have it.
func isHash(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == sha256.Size && s == strings.ToLower(s)
}
