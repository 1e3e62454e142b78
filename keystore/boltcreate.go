package keystore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// fileKind is what a file is.
type fileKind int

const (
	noFile fileKind = iota
	storeFile
	journalFile
)

// boltMagic stands in the first two pages of a file of bbolt, behind the head of
// the page (bbolt, internal/common: Meta).
const (
	boltMagic     = 0xED0CDAED
	boltPageHead  = 16
	boltPageSizes = 64 << 10 // the largest there is
)

// kindOf looks at the beginning of the file. What is neither is taken for a
// journal, whose reader says where it is damaged.
func kindOf(file string) (fileKind, error) {
	f, err := os.Open(file) // #nosec G304 -- the operator's own setting
	if errors.Is(err, os.ErrNotExist) {
		// In a folder that is not there the file was never made.
		if _, err := os.Stat(filepath.Dir(file)); err != nil {
			return noFile, fmt.Errorf("open store: %w", err)
		}
		return noFile, nil
	}
	if err != nil {
		return noFile, fmt.Errorf("open store: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	begin := make([]byte, boltPageSizes+boltPageHead+4)
	n, err := io.ReadFull(f, begin)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return noFile, fmt.Errorf("open store: %w", err)
	}
	begin = begin[:n]
	magic := binary.NativeEndian.AppendUint32(nil, boltMagic)
	for page := 0; page <= boltPageSizes; page = max(1024, 2*page) {
		if at := page + boltPageHead; at < len(begin) && bytes.HasPrefix(begin[at:], magic) {
			return storeFile, nil
		}
	}
	return journalFile, nil
}

// createEmbedded begins a store. The file has its name only once it is whole and
// on the disk, and takes nobody's: of two processes one is refused.
func createEmbedded(o embeddedOptions) (*embedded, error) {
	e, err := newFile(o, nil)
	if err != nil {
		return nil, err
	}
	temp := e.file
	if err := os.Link(temp, o.file); err != nil {
		return nil, errors.Join(fmt.Errorf("begin store: %w", err), e.discard())
	}
	e.file = o.file
	if err := errors.Join(os.Remove(temp), syncFolder(filepath.Dir(o.file))); err != nil {
		return nil, errors.Join(fmt.Errorf("begin store: %w", err), e.db.Close())
	}
	return e.started()
}

// newFile makes a file with the buckets, under a name beside that of the store,
// lets fill write into it, and has it on the disk when it returns. Nobody else has
// it, and it is open.
func newFile(o embeddedOptions, fill func(*embedded) error) (*embedded, error) {
	temp, err := os.CreateTemp(filepath.Dir(o.file), filepath.Base(o.file)+".new-*")
	if err == nil {
		err = temp.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("begin store: %w", err)
	}
	o.readOnly = false
	e, err := openFile(o, temp.Name())
	if err != nil {
		return nil, errors.Join(err, os.Remove(temp.Name()))
	}
	e.db.NoSync = true // once, at the end
	err = e.db.Update(makeBuckets)
	if err == nil && fill != nil {
		err = fill(e)
	}
	e.db.NoSync = false
	if err == nil {
		err = e.db.Sync()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin store: %w", err), e.discard())
	}
	return e, nil
}

func makeBuckets(tx *bbolt.Tx) error {
	for _, name := range allBuckets() {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	about, err := bucketIn(tx, aboutBucket, 0)
	if err != nil {
		return err
	}
	return about.put(formatKey, 0, boltFormat)
}

// discard closes and removes a file that is not the store's.
func (e *embedded) discard() error { return errors.Join(e.db.Close(), os.Remove(e.file)) }

// syncFolder makes names in the folder durable.
func syncFolder(folder string) error {
	d, err := os.Open(folder) // #nosec G304 -- the folder of the operator's own file
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
