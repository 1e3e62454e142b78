package keystore

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
)

const (
	journalFormat = "gatehouse-journal-1"
	// maxJournalLine bounds what one damaged line can make us read.
	maxJournalLine = 64 << 20
)

// journal is what earlier versions kept an embedded store in, read once to move
// it: a line of JSON a change, each with its number and a checksum.
type journal struct {
	file   string
	number int64 // of the last line
	size   int64
	cut    []byte          // the last line, where it was not written to its end
	live   map[string]cell // what the lines add up to, by name
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

// readJournal reads all of the file. Every line must be whole and in its place,
// but a last one that was not written to its end: that change was not acknowledged.
func readJournal(file string) (*journal, error) {
	in, err := os.Open(file) // #nosec G304 -- the operator's own setting
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &journal{file: file, live: map[string]cell{}}
	return j, errors.Join(j.read(in), in.Close())
}

// read takes in every line, and refuses the whole file for the first that is
// damaged: a store must never silently start with less than it acknowledged.
func (j *journal) read(in io.Reader) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	for number := int64(1); ; number++ {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) && number > 1 {
			return nil
		}
		if errors.Is(err, errHalfLine) && number > 1 {
			j.cut = line
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
			return line, errHalfLine
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

func sumOf(entry []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(entry, crc32.MakeTable(crc32.Castagnoli))), 16)
}
