package keystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/redis/go-redis/v9"

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
	members, err := x.s.client.ZRangeArgsWithScores(ctx, redis.ZRangeArgs{Key: x.s.names.accounts(), Start: 0, Stop: -1}).Result()
	if err != nil {
		return errors.Join(ErrUnavailable, err)
	}
	for _, m := range members {
		id := policy.AccountID(fmt.Sprint(m.Member))
		if err := x.account(ctx, id, int64(m.Score)); err != nil {
			return fmt.Errorf("account %s: %w", id, err)
		}
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
	values, err := x.s.records(ctx, entries)
	if err != nil {
		return err
	}
	for i, e := range entries {
		k, err := decodeIndexed(values[i].raw, e.tokenHash, owner.account.ID, policy.KeyID(e.id))
		if errors.Is(err, ErrNotFound) || err == nil && (k.accountUID != owner.uid || lapsed(&k.key, x.s.o.Now())) {
			continue // dropped, or of another account of this id
		}
		if err != nil {
			return err
		}
		raw, err := exportedKey(k, values[i].raw)
		if err != nil {
			return err
		}
		if err := x.write(exportLine{Key: recordOf(e.created, raw)}); err != nil {
			return err
		}
		x.done.Keys++
	}
	return nil
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
