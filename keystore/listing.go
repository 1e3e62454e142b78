package keystore

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/policy"
)

// orphanAge is the age from which an index entry without a record is not that of
// a key that is being made.
const orphanAge = time.Hour

// List returns up to limit keys of the caller's account, the newest first, from
// the cursor on that an earlier call returned ("" for the first), and the
// cursor of the next page, "" when there is none; or ErrBadCursor.
func (s *Store) List(ctx context.Context, by policy.Caller, cursor string, limit int) ([]policy.Key, string, error) {
	after, err := parseCursor(cursor)
	if err != nil || by.Account == nil {
		return nil, "", err
	}
	entries, err := s.index(ctx, by.Account.ID)
	if err != nil {
		return nil, "", fmt.Errorf("list keys: %w", err)
	}
	page, rest := pageOf(entries, after, limit)
	values, err := s.records(ctx, page)
	if err != nil {
		return nil, "", fmt.Errorf("list keys: %w", err)
	}
	keys := make([]policy.Key, 0, len(page))
	for i, e := range page {
		k, err := decodeIndexed(values[i].raw, e.tokenHash, by.Account.ID, policy.KeyID(e.id))
		if errors.Is(err, ErrNotFound) {
			continue // dropped after its retention, or never written to the end
		}
		if err != nil {
			return nil, "", fmt.Errorf("list keys: %w", err)
		}
		if !lapsed(&k.key, s.o.Now()) {
			keys = append(keys, k.key)
		}
	}
	if err := s.addLastUsed(ctx, by.Account.ID, keys); err != nil {
		return nil, "", fmt.Errorf("list keys: %w", err)
	}
	return keys, nextCursor(page, rest), nil
}

// records returns the record of each entry, where it has one. In an emptied
// store it returns ErrUnavailable.
func (s *Store) records(ctx context.Context, entries []indexEntry) ([]value, error) {
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = s.names.key(e.tokenHash)
	}
	values, err := s.reader.many(ctx, names)
	if err != nil {
		return nil, errors.Join(ErrUnavailable, err)
	}
	for _, v := range values {
		if err := s.trustMarker(v); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// before orders a listing: the newest first, and by id in the same millisecond. It
// is a property of the entries alone, so that a page does not shift while
// others are added or removed.
func (e indexEntry) before(other indexEntry) int {
	return cmp.Or(cmp.Compare(other.created, e.created), cmp.Compare(e.id, other.id))
}

// pageOf returns the first limit entries behind after, in order, and how many
// come behind them.
func pageOf(entries []indexEntry, after *indexEntry, limit int) (page []indexEntry, rest int) {
	slices.SortFunc(entries, indexEntry.before)
	if after != nil {
		start, found := slices.BinarySearchFunc(entries, *after, indexEntry.before)
		if found {
			start++
		}
		entries = entries[start:]
	}
	if len(entries) <= limit {
		return entries, 0
	}
	return entries[:limit], len(entries) - limit
}

// nextCursor names the last entry of a page, "" when nothing comes behind it.
func nextCursor(page []indexEntry, rest int) string {
	if rest == 0 || len(page) == 0 {
		return ""
	}
	last := page[len(page)-1]
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(last.created, 10) + ":" + last.id))
}

// parseCursor reads what nextCursor wrote; nil for "".
func parseCursor(cursor string) (*indexEntry, error) {
	if cursor == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	created, id, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok || id == "" {
		return nil, ErrBadCursor
	}
	at, err := strconv.ParseInt(created, 10, 64)
	if err != nil {
		return nil, ErrBadCursor
	}
	return &indexEntry{id: id, created: at}, nil
}
