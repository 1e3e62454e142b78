package keystore

import (
	"context"
	_ "embed"
	"errors"
	"slices"

	"github.com/redis/go-redis/v9"
)

// packedFields is how many fields a hash may have that Redis packs, by default
// (hash-max-listpack-entries). Redis never packs a hash again that it has once
// unpacked, as it does for a value of more than 64 bytes: it must be made anew.
const packedFields = 512

//go:embed reindex.lua
var reindexSource string

// rewritten is a field as it was read, and as it shall be.
type rewritten struct{ was, is hashField }

// mergeTwice leaves one of two fields that would become the same: the one that
// does not have that name yet, so that it is removed, with the value of either
// that is better, or else of the one that has the name.
func mergeTwice(all []rewritten, better func(a, b hashField) bool) []rewritten {
	place := make(map[string]int, len(all))
	merged := make([]rewritten, 0, len(all))
	for _, r := range all {
		at, twice := place[r.is.field]
		if !twice {
			place[r.is.field] = len(merged)
			merged = append(merged, r)
			continue
		}
		named, text := merged[at], r
		if named.was.field != named.is.field {
			named, text = text, named
		}
		if !better(text.is, named.is) {
			text.is = named.is
		}
		merged[at] = text
	}
	return merged
}

// rewriteHash reads the hash in portions, and writes what form makes of each. It
// returns errMoved where something changed meanwhile, and is to be done again
// then.
func (s *Store) rewriteHash(ctx context.Context, hash string, form func(read []hashField) ([]rewritten, error)) error {
	var moved error
	for cursor := uint64(0); ; {
		pairs, next, err := s.client.HScan(ctx, hash, cursor, "", rewriteScan).Result()
		if err != nil {
			return errors.Join(ErrUnavailable, err)
		}
		read := make([]hashField, 0, len(pairs)/2)
		for i := 0; i+1 < len(pairs); i += 2 {
			read = append(read, hashField{pairs[i], pairs[i+1]})
		}
		all, err := form(read)
		if err != nil {
			return err
		}
		whole := cursor == 0 && next == 0 && len(all) == len(read) && len(read) <= packedFields
		err = s.writeFields(ctx, hash, whole, all)
		if err != nil && !errors.Is(err, errMoved) {
			return err
		}
		moved = errors.Join(moved, err)
		if cursor = next; cursor == 0 {
			return moved
		}
	}
}

// writeFields writes the fields that are not yet as they shall be: all of the
// hash at once where it is read in whole and could be packed, else some at a
// time.
func (s *Store) writeFields(ctx context.Context, hash string, whole bool, all []rewritten) error {
	how, portion := "all", packedFields
	pending := slices.DeleteFunc(slices.Clone(all), func(r rewritten) bool { return r.was == r.is })
	if len(pending) == 0 {
		return nil
	}
	if !whole || s.embedded != nil {
		how, portion, all = "some", rewritePortion, pending
	}
	var moved error
	for part := range slices.Chunk(all, portion) {
		err := s.writePart(ctx, hash, how, part)
		if err != nil && !errors.Is(err, errMoved) {
			return err
		}
		moved = errors.Join(moved, err)
	}
	return moved
}

func (s *Store) writePart(ctx context.Context, hash, how string, part []rewritten) error {
	if s.embedded != nil {
		return s.commit(ctx, rewritingOf(hash, part)) // it has no scripts but that
	}
	args := make([]any, 0, 1+4*len(part))
	args = append(args, how)
	for _, r := range part {
		args = append(args, r.was.field, r.was.value, r.is.field, r.is.value)
	}
	written, err := redis.NewScript(reindexSource).Run(ctx, s.client, []string{hash}, args...).Int()
	if err != nil {
		return errors.Join(ErrUnavailable, err)
	}
	if written == 0 {
		return errMoved
	}
	return nil
}

// rewritingOf is the rewriting of fields as a change.
func rewritingOf(hash string, part []rewritten) change {
	var c change
	for _, r := range part {
		c.guards = append(c.guards, guard{key: hash, has: r.was.field})
		c.steps = append(c.steps,
			step{Kind: stepHSet, Key: hash, Field: r.is.field, Value: r.is.value},
			step{Kind: stepHDel, Key: hash, Field: r.was.field})
	}
	return c
}
