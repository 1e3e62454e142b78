package keystore

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// entryID is the id of a stream's entry: a time in Unix milliseconds, and a
// number among those of the same millisecond.
type entryID struct{ millis, sequence uint64 }

func (id entryID) String() string {
	return strconv.FormatUint(id.millis, 10) + "-" + strconv.FormatUint(id.sequence, 10)
}

func parseEntryID(s string) (id entryID, ok bool) {
	millis, sequence, found := strings.Cut(s, "-")
	var badMillis, badSequence error
	id.millis, badMillis = strconv.ParseUint(millis, 10, 64)
	id.sequence, badSequence = strconv.ParseUint(sequence, 10, 64)
	return id, found && badMillis == nil && badSequence == nil
}

func (id entryID) compare(other entryID) int {
	return cmp.Or(cmp.Compare(id.millis, other.millis), cmp.Compare(id.sequence, other.sequence))
}

// next is an id behind this one, at the given time if that is later.
func (id entryID) next(now time.Time) entryID {
	if millis := uint64(max(0, now.UnixMilli())); millis > id.millis { // #nosec G115 -- not negative
		return entryID{millis: millis}
	}
	return entryID{millis: id.millis, sequence: id.sequence + 1}
}
