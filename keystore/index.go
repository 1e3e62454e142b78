package keystore

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gatehouse/policy"
)

// indexEntry is a line of an index: what is listed, and when it was created
// (Unix milliseconds). A key's also has the hash of its token.
type indexEntry struct {
	id        string
	created   int64
	tokenHash string
	// ends is when the key is gone for good, in Unix seconds: when the grace of one
	// that was replaced ends, or the retention of one that expires. 0 for never, and
	// where an earlier version has not written it.
	ends int64
}

// An index of keys is a hash, and so is what is known of their use. In the
// text form the field of a key is its id and the value its indexEntry.value;
// in the compact one they are the 16 bytes of its id and its
// indexEntry.compact, which are short enough for Redis to keep the hash as a
// listpack (hash-max-listpack-value: 64 bytes). One hash may have fields of both
// forms. What is read by id is asked for under both fields, and what is removed
// is removed under both.

// fieldsOfID returns the fields under which a hash may have something of the
// key: the compact one, where its id has one, and the text.
func fieldsOfID(id string) []string {
	if raw, ok := rawUUID(id); ok {
		return []string{string(raw[:]), id}
	}
	return []string{id}
}

// fieldsOfIDs returns those of all of the keys, and how many belong to each.
func fieldsOfIDs(ids []string) (fields []string, of []int) {
	fields, of = make([]string, 0, 2*len(ids)), make([]int, len(ids))
	for i, id := range ids {
		mine := fieldsOfID(id)
		fields, of[i] = append(fields, mine...), len(mine)
	}
	return fields, of
}

// eachOf calls f with the number of each id and the values of its fields.
func eachOf(of []int, values []string, f func(i int, mine []string)) {
	for i, n := range of {
		f(i, values[:n])
		values = values[n:]
	}
}

// idOfField returns the id that a field of a hash of keys stands for.
func idOfField(field string) string {
	if len(field) == uuidLength {
		return string(appendUUIDText(make([]byte, 0, uuidText), field))
	}
	return field
}

// usedField is the field under which it is written when the key was last used.
func (s *Store) usedField(id string) string {
	if s.compact() {
		return fieldsOfID(id)[0]
	}
	return id
}

// indexStep enters a key into its account's index, in the form of the store.
func (s *Store) indexStep(account policy.AccountID, e indexEntry) step {
	set := step{Kind: stepHSet, Key: s.names.accountKeys(account), Field: e.id, Value: e.value()}
	if value, ok := e.compact(); ok && s.compact() {
		set.Field, set.Value = fieldsOfID(e.id)[0], value
	}
	return set
}

// otherForm removes what the index has of the key in the form that indexStep
// does not write. It must come behind every step that may still be refused: on
// a Cluster nothing is refused once something was removed.
func (s *Store) otherForm(set step, id string) []step {
	var steps []step
	for _, field := range fieldsOfID(id) {
		if field != set.Field {
			steps = append(steps, step{Kind: stepHDel, Key: set.Key, Field: field})
		}
	}
	return steps
}

// unindexSteps remove a key from its account's index, and when it was used.
func (s *Store) unindexSteps(account policy.AccountID, id string) []step {
	var steps []step
	for _, field := range fieldsOfID(id) {
		steps = append(steps,
			step{Kind: stepHDel, Key: s.names.accountKeys(account), Field: field},
			step{Kind: stepHDel, Key: s.names.used(account), Field: field})
	}
	return steps
}

// value is what an index holds of a key, as text: the hash of its token, when
// it was created, and when it goes away, where it does.
func (e indexEntry) value() string {
	v := e.tokenHash + ":" + strconv.FormatInt(e.created, 10)
	if e.ends != 0 {
		v += ":" + strconv.FormatInt(e.ends, 10)
	}
	return v
}

// compact is the same in the compact form, 0 for no end; false for an entry
// that has none: its id is not a UUID, or its hash not the SHA-256 of a token.
func (e indexEntry) compact() (string, bool) {
	hash, err := hex.DecodeString(e.tokenHash)
	if _, ok := rawUUID(e.id); !ok || err != nil || !isHash(e.tokenHash) {
		return "", false
	}
	b := make([]byte, 0, 64)
	b = append(append(b, compactForm), hash...)
	b = binary.AppendVarint(b, e.created)
	return string(binary.AppendVarint(b, e.ends)), true
}

// parseIndex reads an entry of an index, in either form.
func parseIndex(field, value string) (indexEntry, error) {
	if isCompact(value) {
		return parseCompactIndex(field, value)
	}
	parts := strings.Split(value, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return indexEntry{}, errRecord
	}
	e := indexEntry{id: field, tokenHash: parts[0]}
	var err error
	if e.created, err = strconv.ParseInt(parts[1], 10, 64); err != nil {
		return indexEntry{}, errRecord
	}
	if len(parts) == 3 {
		if e.ends, err = strconv.ParseInt(parts[2], 10, 64); err != nil {
			return indexEntry{}, errRecord
		}
	}
	return e, nil
}

func parseCompactIndex(field, value string) (indexEntry, error) {
	u := unpacker{rest: value}
	_ = u.byte() // the form
	e := indexEntry{id: idOfField(field), tokenHash: hex.EncodeToString([]byte(u.bytes(32)))}
	e.created, e.ends = u.varint(), u.varint()
	if !u.whole() || len(field) != uuidLength {
		return indexEntry{}, errRecord
	}
	return e, nil
}

// parseIndexes reads what a whole index, or a part of it, holds. A key that is
// there in both forms is one entry: that with an end, where one has it, because
// a key that was replaced stays so.
func parseIndexes(name string, index map[string]string) ([]indexEntry, error) {
	entries := make([]indexEntry, 0, len(index))
	place := make(map[string]int, len(index))
	for field, value := range index {
		e, err := parseIndex(field, value)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", name, err)
		}
		at, twice := place[e.id]
		switch {
		case !twice:
			place[e.id] = len(entries)
			entries = append(entries, e)
		case entries[at].ends == 0:
			entries[at] = e
		}
	}
	return entries, nil
}

// entryOfFields returns the entry of a key out of the values of its fields, as
// fieldsOfID has them; false where there is none.
func entryOfFields(id string, values []string) (indexEntry, bool, error) {
	index := make(map[string]string, len(values))
	for i, field := range fieldsOfID(id) {
		if values[i] != "" {
			index[field] = values[i]
		}
	}
	entries, err := parseIndexes("of key "+id, index)
	if err != nil || len(entries) == 0 {
		return indexEntry{}, false, err
	}
	return entries[0], true, nil
}

// hashFields returns the values of the fields of a hash, in their order; "" for
// one that is not there. No field that is written holds "".
func (s *Store) hashFields(ctx context.Context, hash string, fields []string) ([]string, error) {
	values, err := s.data.fields(ctx, hash, fields...)
	if err != nil {
		return nil, errors.Join(ErrUnavailable, err)
	}
	return values, nil
}
