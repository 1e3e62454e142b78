package keystore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// moveJournal makes a store of a journal, in which earlier versions kept it. The
// journal stays what it was, under the name of the store with ".journal-" and the
// time behind it; a last line that was not written to its end is left out, and
// kept in a file of its own. Until the new file has the name in the last step, it
// is the journal's: whenever this breaks off, it can be done again.
//
// A store that is only read leaves the journal where it is.
func moveJournal(o embeddedOptions) (*embedded, error) {
	lock, err := lockFile(o.file + ".lock") // by which earlier versions hold a journal
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	if kind, err := kindOf(o.file); err != nil || kind != journalFile {
		if err == nil {
			err = fmt.Errorf("open store: %s is in use by another process, which has just moved it", o.file)
		}
		return nil, err
	}
	j, err := readJournal(o.file)
	if err != nil {
		return nil, err
	}
	now := o.now()
	if err := j.keepCut(o, now); err != nil {
		return nil, err
	}
	j.settleIndexes(o.names, now)
	e, err := newFile(o, func(e *embedded) error { return e.fill(j, now) })
	if err != nil {
		return nil, err
	}
	if o.readOnly {
		return e.unnamed()
	}
	kept := beside(o.file, "journal", now)
	if err := e.replace(o.file, kept); err != nil {
		return nil, errors.Join(fmt.Errorf("move the journal: %w", err), e.discard())
	}
	e.file = o.file
	if err := os.Remove(o.file + ".lock"); err != nil {
		o.log.Warn("the lock of the journal was not removed, and may be by hand", zap.Error(err))
	}
	o.log.Warn("the journal was moved into a store of today's form", zap.String("file", o.file), zap.String("journal", kept))
	return e.started()
}

// replace gives the file the name of the journal, which gets another one first.
func (e *embedded) replace(file, kept string) error {
	folder := filepath.Dir(file)
	if err := os.Link(file, kept); err != nil {
		return err
	}
	if err := syncFolder(folder); err != nil {
		return err
	}
	if err := os.Rename(e.file, file); err != nil {
		return err
	}
	return syncFolder(folder)
}

// unnamed is the store without its name, which goes away with the process.
func (e *embedded) unnamed() (*embedded, error) {
	started, err := e.started()
	return started, errors.Join(err, os.Remove(e.file))
}

// beside is a name beside that of the file, for what was kept of it at a moment.
func beside(file, what string, now time.Time) string {
	return file + "." + what + "-" + now.UTC().Format("20060102T150405.000000")
}

// lockFile takes the lock of a journal, or returns an error when another process
// has it.
func lockFile(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600) // #nosec G304 -- the operator's own setting
	if err != nil {
		return nil, fmt.Errorf("lock journal: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil { // #nosec G115 -- a file descriptor
		return nil, errors.Join(fmt.Errorf("lock journal: %s is in use by another process: %w", file, err), f.Close())
	}
	return f, nil
}

// keepCut says loudly that the last line was not written to its end, and keeps
// what there is of it.
func (j *journal) keepCut(o embeddedOptions, now time.Time) error {
	if len(j.cut) == 0 {
		return nil
	}
	kept := beside(o.file, "cut", now)
	log := o.log.With(zap.String("file", o.file), zap.Int64("line", j.number+1), zap.Int("bytes", len(j.cut)), zap.Error(errHalfLine))
	if o.readOnly {
		log.Error("the last line of the journal is left out: the change in it was not acknowledged")
		return nil
	}
	f, err := os.OpenFile(kept, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // #nosec G304 -- beside the operator's own setting
	if err != nil {
		return fmt.Errorf("keep the journal's last line: %w", err)
	}
	_, err = f.Write(j.cut)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keep the journal's last line: %w", err)
	}
	log.Error("the last line of the journal is left out: the change in it was not acknowledged", zap.String("kept", kept))
	return nil
}

// fill writes what the journal adds up to.
func (e *embedded) fill(j *journal, now time.Time) error {
	for steps := range j.state(now.Unix()) {
		err := e.db.Update(func(tx *bbolt.Tx) error { return applyChange(tx, change{steps: steps}, now) })
		if err != nil {
			return err
		}
	}
	return nil
}

// settleIndexes writes into the indexes of keys when each key ends, which earlier
// versions did not, and drops the entries of keys that are gone: a journal that
// was read is whole, so what it has not was dropped.
func (j *journal) settleIndexes(n names, now time.Time) {
	for name, c := range j.live {
		if !strings.HasPrefix(name, n.prefix+"account:{") || !strings.HasSuffix(name, "}:keys") {
			continue
		}
		for id, s := range c.fields {
			entry, err := parseIndex(id, s.Value)
			if err != nil {
				continue // it is shown where it is read
			}
			record := j.live[n.key(entry.tokenHash)].whole
			if record == nil || record.gone(now.Unix()) {
				delete(c.fields, id)
				continue
			}
			if k, err := decodeKey(record.Value, entry.tokenHash); err == nil {
				entry.ends = endOf(&k.key)
				s.Value = entry.value()
				c.fields[id] = s
			}
		}
	}
}
