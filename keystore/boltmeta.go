package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// errOlderFile: bbolt would take the file as it was before its last change.
var errOlderFile = errors.New("the head of the file that stands for its last change is damaged, so that this change would be missing: " +
	"restore the file, or an export, from a backup, or take the file without it by gatehouse store accept")

// A file of bbolt begins with two metas, of which the newer counts, and the other
// where that one is damaged (bbolt, internal/common: Meta): a write to it that was
// not done to the end is passed over so. But it is 64 bytes, which disks write in
// whole or not at all; and when it was damaged later, a change that was
// acknowledged would be gone.
const (
	metaBytes  = 64
	metaTxidAt = 48
	metaSumAt  = 56
	metaPages  = 2
)

// checkMetas returns errOlderFile where one of the metas is damaged.
func checkMetas(name string, pageSize int) error {
	f, err := os.Open(name) // #nosec G304 -- the operator's own setting
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	for page := range metaPages {
		if _, err := readMeta(f, page*pageSize); err != nil {
			return err
		}
	}
	return nil
}

// readMeta reads the meta of the page that begins there; errOlderFile where it is
// damaged.
func readMeta(f io.ReaderAt, page int) ([]byte, error) {
	meta := make([]byte, metaBytes)
	if _, err := f.ReadAt(meta, int64(page+boltPageHead)); err != nil {
		return nil, fmt.Errorf("%w: %w", errOlderFile, err)
	}
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:metaSumAt]) // never fails
	if binary.NativeEndian.Uint32(meta) != boltMagic || binary.NativeEndian.Uint64(meta[metaSumAt:]) != sum.Sum64() {
		return nil, errOlderFile
	}
	return meta, nil
}
