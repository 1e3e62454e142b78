package keystore

import "sync/atomic"

// The forms in which a store's records are written. Every gateway of this
// version reads both, in the same store.
const (
	// formatJSON: key records, index entries and their fields are text, which
	// earlier gateways understand too.
	formatJSON = 1
	// formatCompact: they are written compact; see encodeCompactKey and
	// indexEntry.compact.
	formatCompact = 2
)

// storeFormat is the form in which records are written; its zero value is that
// of a store whose form is not known yet: text, which every gateway reads.
type storeFormat struct{ atomic.Int32 }

// compact reports whether records are to be written compact.
func (s *Store) compact() bool { return s.format.Load() == formatCompact }

// encodeRecord encodes a key in the form of the store.
func (s *Store) encodeRecord(k storedKey) (string, error) {
	if s.compact() {
		return encodeCompactKey(k)
	}
	return encodeKey(k)
}
