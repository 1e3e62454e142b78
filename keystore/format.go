package keystore

import (
	"fmt"
	"sync/atomic"
)

// The formats of a store: what its format key says. Every node reads both.
const (
	// formatJSON: there are markers, and records are written as older gateways
	// read them.
	formatJSON = "1"
	// formatCompact: records are written compactly.
	formatCompact = "2"
)

// storeFormat is the format in which a node writes.
type storeFormat struct{ isCompact atomic.Bool }

// set returns an error for a format that this gateway does not know: a newer one
// wrote it, and could mean something by it.
func (f *storeFormat) set(format string) error {
	switch format {
	case formatJSON:
		f.isCompact.Store(false)
	case formatCompact:
		f.isCompact.Store(true)
	default:
		return fmt.Errorf("the store has the format %q, which this version does not know", format)
	}
	return nil
}

// compact reports whether records are written compactly.
func (s *Store) compact() bool { return s.format.isCompact.Load() }

func (n names) format() string { return n.inStoresSlot("format") }

// encodeRecord encodes a key in the format of the store.
func (s *Store) encodeRecord(k storedKey) (string, error) {
	if s.compact() {
		return encodeCompactKey(k)
	}
	return encodeKey(k)
}
