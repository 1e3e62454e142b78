package keystore

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	journalFormat = "gatehouse-journal-1"
	// compactFrom is the size from which a journal is rewritten once it is
	// twice as large as what it holds.
	compactFrom = 4 << 20
	// maxJournalLine bounds what one damaged line can make us read.
	maxJournalLine = 64 << 20
)

// journal is the durable file of the embedded store: a line of JSON a change,
// each with its number and a checksum. It is held open and locked.
type journal struct {
	file string
	now  func() time.Time
	lock *os.File
	out  *os.File

	number      int64 // of the last line
	size        int64
	compactFrom int64
	compacted   int64           // its size when it was last rewritten
	live        map[string]cell // what the lines add up to, by Redis key
}

type journalLine struct {
	Sum   string          `json:"crc32c"`
	Entry json.RawMessage `json:"entry"`
}

type journalEntry struct {
	Number int64  `json:"number"`
	Format string `json:"format,omitempty"` // the first line's
	Steps  []step `json:"steps,omitempty"`
}

// openJournal opens the file, or begins it where there is none, and reads all
// of it. Every line must be whole and in its place.
func openJournal(file string, now func() time.Time) (*journal, error) {
	// A link would be locked under one name, and replaced under another.
	if linked, err := filepath.EvalSymlinks(file); err == nil {
		file = linked
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open journal: %w", err)
	} else if _, err := os.Lstat(file); err == nil {
		return nil, fmt.Errorf("open journal: %s is a link to a file that does not exist", file)
	}
	lock, err := lockFile(file + ".lock")
	if err != nil {
		return nil, err
	}
	j := &journal{file: file, now: now, lock: lock, compactFrom: compactFrom, live: map[string]cell{}}
	if err := j.open(); err != nil {
		return nil, errors.Join(err, j.close())
	}
	return j, nil
}

func (j *journal) open() error {
	in, err := os.OpenFile(j.file, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, os.ErrNotExist) {
		return j.rewrite()
	}
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	j.out = in
	return j.read(in)
}

// lockFile keeps a second process from the same journal.
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

// read takes in every line, and refuses the whole file for the first that is
// damaged: a store must never silently start with less than it acknowledged.
func (j *journal) read(in io.Reader) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	for number := int64(1); ; number++ {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) && number > 1 {
			j.compacted = j.size
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		if err == nil {
			err = j.take(line, number)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w; restore the file from a backup, or, if this is its last line and you accept "+
				"that the change in it is lost, cut the file to its first %d bytes (truncate --size=%d)",
				j.file, number, err, j.size, j.size)
		}
		j.size += int64(len(line))
	}
}

var errHalfLine = errors.New("the line is only half written")

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case len(line) > maxJournalLine:
			return nil, errors.New("the line is too long")
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, errHalfLine
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, fmt.Errorf("read: %w", err)
		}
	}
}

// take checks one line and adds it up.
func (j *journal) take(line []byte, number int64) error {
	var l journalLine
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("the line is damaged: %w", err)
	}
	if l.Sum != sumOf(l.Entry) {
		return errors.New("the line is damaged: its checksum is wrong")
	}
	var entry journalEntry
	if err := json.Unmarshal(l.Entry, &entry); err != nil {
		return fmt.Errorf("the line is damaged: %w", err)
	}
	switch {
	case number == 1 && entry.Format != journalFormat:
		return fmt.Errorf("the file is no %s", journalFormat)
	case number > 1 && entry.Number != j.number+1:
		return fmt.Errorf("change %d is missing: this is change %d", j.number+1, entry.Number)
	}
	j.number = entry.Number
	j.add(entry.Steps)
	return nil
}

// append makes the steps durable. After an error nothing is known of what the
// file holds, and nothing more must be written to it.
func (j *journal) append(steps []step) error {
	kept := make([]step, 0, len(steps))
	for _, s := range steps {
		if s.Kind != stepPublish && s.Kind != stepRoom {
			kept = append(kept, s)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	line, err := encodeLine(journalEntry{Number: j.number + 1, Steps: kept})
	if err != nil {
		return err
	}
	if _, err := j.out.Write(line); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := j.out.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	j.number++
	j.size += int64(len(line))
	j.add(kept)
	if j.size > j.compactFrom && j.size > 2*j.compacted {
		return j.compact()
	}
	return nil
}

// compact rewrites a journal that has grown. When that fails the old file goes
// on being good, and it is tried again when it has doubled once more.
func (j *journal) compact() error {
	j.compacted = j.size
	err := j.rewrite()
	if errors.Is(err, errReplaced) {
		return err
	}
	return nil
}

// errReplaced: the new file has the name, but may not have it after a crash.
var errReplaced = errors.New("the journal was replaced, but not durably")

// rewrite replaces the file by one that holds only the present state. The old
// file stays whole until the new one is on the disk under its name.
func (j *journal) rewrite() error {
	temp, err := os.CreateTemp(filepath.Dir(j.file), filepath.Base(j.file)+".new-*")
	if err != nil {
		return fmt.Errorf("rewrite journal: %w", err)
	}
	number, size, err := j.writeState(temp)
	if err == nil {
		err = os.Rename(temp.Name(), j.file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("rewrite journal: %w", err), temp.Close(), os.Remove(temp.Name()))
	}
	if j.out != nil {
		_ = j.out.Close() // the file it wrote to has no name any more
	}
	j.out, j.number, j.size, j.compacted = temp, number, size, size
	if err := syncFolder(filepath.Dir(j.file)); err != nil {
		return fmt.Errorf("%w: %w", errReplaced, err)
	}
	return nil
}

// writeState writes the present state as a new journal and syncs it.
func (j *journal) writeState(out *os.File) (number, size int64, err error) {
	w := bufio.NewWriter(out)
	write := func(entry journalEntry) error {
		line, err := encodeLine(entry)
		if err != nil {
			return err
		}
		size += int64(len(line))
		_, err = w.Write(line)
		return err
	}
	j.drop(j.now().Unix())
	number = 1
	if err := write(journalEntry{Number: number, Format: journalFormat}); err != nil {
		return 0, 0, err
	}
	for steps := range j.state(j.now().Unix()) {
		number++
		if err := write(journalEntry{Number: number, Steps: steps}); err != nil {
			return 0, 0, err
		}
	}
	if err := w.Flush(); err != nil {
		return 0, 0, err
	}
	return number, size, out.Sync()
}

func (j *journal) close() error {
	var err error
	if j.out != nil {
		err = j.out.Close()
	}
	return errors.Join(err, j.lock.Close())
}

func encodeLine(entry journalEntry) ([]byte, error) {
	raw, err := json.Marshal(entry)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	line, err := json.Marshal(journalLine{Sum: sumOf(raw), Entry: raw})
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return append(bytes.TrimSpace(line), '\n'), nil
}

func sumOf(entry []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(entry, crc32.MakeTable(crc32.Castagnoli))), 16)
}

// syncFolder makes a rename in the folder durable.
func syncFolder(folder string) error {
	d, err := os.Open(folder) // #nosec G304 -- the folder of the operator's own file
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
