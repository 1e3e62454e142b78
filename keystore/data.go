package keystore

import (
	"context"
	"time"
)

// scanPortion is how many members of a sorted set or fields of a hash are read
// by one command where their number is the customers': Redis answers one command
// at a time, and lookups wait for it.
const scanPortion = 1000

// data is the database behind a store, as far as it is read beside the single
// values of getter, and changed beside the changes of committer. A name that is
// not there is empty: no method returns an error for it. Every error says only
// that the database did not answer, or not with what it should hold; it says
// nothing about what is there. What has ended is not there.
//
// Redis implements it for one server, Sentinel and Cluster (redisData), and the
// embedded store for one file (embedded).
type data interface {
	// now is the time by the clock that the ends of values are measured by.
	now(ctx context.Context) (time.Time, error)
	// fields returns the values of the fields of a hash, in the order of names;
	// "" for one that is not there. No field of the store holds "".
	fields(ctx context.Context, hash string, names ...string) ([]string, error)
	// scan calls each for every field of the hash, in no order. It reads portions
	// of about scanPortion, between which others may change the hash: a field that
	// is there from the beginning to the end comes exactly once, another at most
	// once. It returns the error of each as it is.
	scan(ctx context.Context, hash string, each func(field, value string) error) error
	// some returns some fields of the hash, about n, in no order; none only where
	// the hash is empty.
	some(ctx context.Context, hash string, n int) ([]hashField, error)
	// hashes returns each of the hashes in whole. The caller knows by lengths that
	// they are not too large together.
	hashes(ctx context.Context, names []string) ([]map[string]string, error)
	// lengths returns how many fields each of the hashes has.
	lengths(ctx context.Context, names []string) ([]int, error)
	// exist reports which of the names hold anything.
	exist(ctx context.Context, names []string) ([]bool, error)
	// having reports which of the hashes have the field.
	having(ctx context.Context, hashes []string, field string) ([]bool, error)
	// members returns up to n members of a sorted set, the highest score first, and
	// those of the same score in falling order: from the first, or from the first
	// behind after, which need not be there any more. n is at most scanPortion.
	// Fewer than n are the last.
	members(ctx context.Context, set string, after *member, n int) ([]member, error)
	// entries returns up to n entries of a stream, the newest first, from an id on:
	// "+" for the newest, "(" before an id that is not included. Fewer than n are
	// the last.
	entries(ctx context.Context, stream, from string, n int) ([]streamEntry, error)
	// setIfAbsent sets a value that goes away after ttl, and reports whether there
	// was none before. After an error it may be set.
	setIfAbsent(ctx context.Context, name, value string, ttl time.Duration) (bool, error)
	// remove removes a value, whether it is there or not. After an error it may
	// still be there.
	remove(ctx context.Context, name string) error
}

// getter reads single values, each together with the marker that vouches for it:
// without the marker, "no such value" means nothing. An error says nothing about
// any of the names.
type getter interface {
	get(ctx context.Context, name string) (value, error)
	many(ctx context.Context, names []string) ([]value, error)
}

// hashField is a field of a hash and its value.
type hashField struct{ field, value string }

// member is a member of a sorted set.
type member struct {
	name  string
	score int64
}

// before orders members as a listing shows them.
func (m member) before(other member) bool {
	return m.score > other.score || m.score == other.score && m.name > other.name
}

// streamEntry is an entry of a stream: its id as Redis writes it, and the event.
type streamEntry struct{ id, event string }
