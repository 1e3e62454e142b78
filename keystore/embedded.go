package keystore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"
)

// lockPatience is for how long an embedded file may be in use by another process
// before it is given up.
const lockPatience = time.Second

// embedded is a store in one file, for trying Gatehouse out and for one small
// node. Every change is on the disk before it is acknowledged. It implements
// data, getter and committer.
type embedded struct {
	db     *bbolt.DB
	file   string
	marker string // the name of the value that is read beside every other
	time   func() time.Time
	log    *zap.Logger
	// heard is told of what is published, in order, by the goroutine that writes.
	heard func(message string)
	// wrote is told how each write to the disk has ended.
	wrote func(error)
	// update is db.Update but in tests.
	update func(func(*bbolt.Tx) error) error

	// latest is the latest moment that a change was made at, in Unix nanoseconds: a
	// clock that is put back brings nothing back that has ended.
	latest  atomic.Int64
	queue   chan pending
	closing chan struct{}
	ending  sync.Once
	running sync.WaitGroup
	// failing is why the last write to the disk failed; nil when it succeeded.
	failing atomic.Pointer[error]

	writing sync.Mutex // one transaction at a time
	broken  error      // ends all writing
}

// embeddedOptions says how an embedded store is opened.
type embeddedOptions struct {
	file   string
	marker string
	names  names
	// create begins a store where there is none; readOnly changes nothing on the
	// disk, whatever is asked for.
	create, readOnly bool
	now              func() time.Time
	log              *zap.Logger
	heard            func(message string)
	wrote            func(error)
	// accept opens also a file whose last change may be missing.
	accept bool
}

// openEmbedded opens the store in the file, or begins it, or moves what a journal
// of an earlier version holds into it. A file that is not complete is an error,
// and so is one that another process has open, under whichever name; ErrNoStore
// where there is none.
func openEmbedded(o embeddedOptions) (*embedded, error) {
	file, err := followed(o.file)
	if err != nil {
		return nil, err
	}
	o.file = file
	kind, err := kindOf(file)
	if err != nil {
		return nil, err
	}
	switch kind {
	case noFile:
		if !o.create || o.readOnly {
			return nil, fmt.Errorf("%w: %s does not exist", ErrNoStore, file)
		}
		return createEmbedded(o)
	case journalFile:
		return moveJournal(o)
	case storeFile:
	}
	if err := checkFile(file, o.accept); err != nil {
		return nil, err
	}
	e, err := openFile(o, file)
	if err != nil {
		return nil, err
	}
	return e.started()
}

// followed is the file that the name stands for, behind links, of which the last
// may not lead nowhere.
func followed(file string) (string, error) {
	to, err := filepath.EvalSymlinks(file)
	if err == nil {
		return to, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("open store: %w", err)
	}
	if _, err := os.Lstat(file); err == nil {
		return "", fmt.Errorf("open store: %s is a link to a file that does not exist", file)
	}
	return file, nil
}

// checkFile has bbolt open the file to read, which makes sure that nobody writes,
// and follows no reference, and looks at its pages.
func checkFile(file string, accept bool) (err error) {
	db, err := openBolt(file, true)
	if err != nil {
		return openError(file, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	pageSize := db.Info().PageSize
	if err := checkMetas(file, pageSize); err != nil && !accept {
		return fmt.Errorf("open store: %s: %w", file, err)
	}
	if err := checkPages(file, pageSize); err != nil {
		return damagedFile(file, err)
	}
	return nil
}

func openError(file string, err error) error {
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("open store: %s is in use by another process", file)
	}
	return fmt.Errorf("open store: %s: %w", file, err)
}

func damagedFile(file string, err error) error {
	return fmt.Errorf("open store: %s: %w; restore the file, or an export, from a backup", file, err)
}

// openFile opens a file of bbolt, which it holds locked, and begins one that is
// empty.
func openFile(o embeddedOptions, file string) (*embedded, error) {
	db, err := openBolt(file, o.readOnly)
	if err != nil {
		return nil, openError(file, err)
	}
	e := &embedded{
		db: db, file: file, marker: o.marker, time: o.now, log: o.log, heard: o.heard, wrote: o.wrote,
		queue: make(chan pending), closing: make(chan struct{}),
	}
	e.update = db.Update
	return e, nil
}

// openBolt makes an error of what bbolt has to say of a damaged file.
func openBolt(file string, readOnly bool) (db *bbolt.DB, err error) {
	defer recovered(&err)()
	return bbolt.Open(file, 0o600, &bbolt.Options{
		Timeout: lockPatience, FreelistType: bbolt.FreelistMapType, ReadOnly: readOnly, NoStatistics: true,
	})
}

// started checks the file, removes what has ended by now, and begins to write.
func (e *embedded) started() (*embedded, error) {
	if err := e.check(); err != nil {
		return nil, errors.Join(damagedFile(e.file, err), e.db.Close())
	}
	e.clock()
	if !e.db.IsReadOnly() {
		e.sweep()
	}
	e.releasePages()
	e.running.Go(e.writeAll)
	return e, nil
}

// clock is the time, which never goes back behind the latest change.
func (e *embedded) clock() time.Time {
	now := e.time()
	for {
		latest := e.latest.Load()
		if latest >= now.UnixNano() {
			return time.Unix(0, latest)
		}
		if e.latest.CompareAndSwap(latest, now.UnixNano()) {
			return now
		}
	}
}

// unix is the second by which reads go.
func (e *embedded) unix() int64 {
	return max(e.time().UnixNano(), e.latest.Load()) / int64(time.Second)
}

// close ends the writing, and gives the file free. What was acknowledged is in it.
func (e *embedded) close() error {
	e.ending.Do(func() { close(e.closing) })
	e.running.Wait()
	return e.db.Close() // of one that is closed already, nothing
}

// openEmbedded opens the store in its file.
func (s *Store) openEmbedded() error {
	e, err := openEmbedded(embeddedOptions{
		file: s.o.EmbeddedFile, marker: s.names.store(), names: s.names, create: s.o.Create, readOnly: s.o.ReadOnly,
		now: s.o.Now, log: s.o.Log, heard: func(message string) {
			s.invalidate(message)
			s.propagated(message)
		},
		wrote: s.wroteEmbedded,
	})
	if err != nil {
		return err
	}
	s.embedded, s.data, s.reader, s.committer = e, e, e, e
	return nil
}

// wroteEmbedded tells the store's health whether changes are taken.
func (s *Store) wroteEmbedded(err error) {
	if s.health != nil { // there is none yet while the file is opened
		s.health.reported("", report{state: StateOK, write: err})
	}
}

// acceptEmbedded takes a file as it is whose last change may be missing.
func acceptEmbedded(o Options) error {
	e, err := openEmbedded(embeddedOptions{file: o.EmbeddedFile, marker: names{o.Prefix}.store(), names: names{o.Prefix}, now: o.Now, log: o.Log, accept: true})
	if err != nil {
		return err
	}
	e.probe() // which writes what was damaged anew
	return errors.Join(e.lastWriteError(), checkMetas(e.file, e.db.Info().PageSize), e.close())
}
