package keystore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
)

// clusterSlots is how many hash slots a Redis Cluster has (Redis Cluster
// specification, "Key distribution model").
const clusterSlots = 16384

var errEmptied = errors.New("the store was emptied or replaced, or a part of it was")

// markers are the keys by which a node tells that a store is the one it knows,
// whole and not older than before. A Cluster has one in each of its slots, so
// that a shard that lost its data is noticed whichever keys it holds, and so
// that the marker of a key is always read from the server that holds the key;
// every other store has one. Every commit counts up the marker of the records
// it changes.
type markers struct {
	prefix string
	tags   []string // a hash tag for each slot of a Cluster; nil elsewhere
	// highest is the highest position that was read or written, by slot.
	highest []atomic.Uint64
}

func newMarkers(prefix string, cluster bool) *markers {
	if !cluster {
		return &markers{prefix: prefix, highest: make([]atomic.Uint64, 1)}
	}
	return &markers{prefix: prefix, tags: slotTags(), highest: make([]atomic.Uint64, clusterSlots)}
}

// of returns the marker that stands for the key, and the number of its slot:
// always 0 where there is one marker for all keys.
func (m *markers) of(key string) (name string, slot int) {
	if m.tags != nil {
		slot = slotOf(key)
	}
	return m.name(slot), slot
}

func (m *markers) name(slot int) string {
	if m.tags == nil {
		return m.prefix + "marker"
	}
	return m.prefix + "marker:{" + m.tags[slot] + "}"
}

// count is how many there are.
func (m *markers) count() int { return len(m.highest) }

// known returns the highest position of the slot that this node knows of. It
// must be read before a read is sent: replies may overtake each other.
func (m *markers) known(slot int) uint64 { return m.highest[slot].Load() }

// saw notes a position that was read or written.
func (m *markers) saw(slot int, position uint64) {
	for {
		known := m.highest[slot].Load()
		if position <= known || m.highest[slot].CompareAndSwap(known, position) {
			return
		}
	}
}

// reset lowers what is known of a slot whose store came back older, and reports
// whether that is news.
func (m *markers) reset(slot int, position uint64) bool {
	for {
		known := m.highest[slot].Load()
		if position >= known {
			return false
		}
		if m.highest[slot].CompareAndSwap(known, position) {
			return true
		}
	}
}

// A marker's value is "id:generation:count": the identity of the store, how
// often an operator has accepted it as it is, and how many changes its slot
// has seen since. A position is the latter two, ordered.
const countBits = 40

// parseMarker returns the position, and false for a marker that is not whole
// or of another store.
func parseMarker(value, identity string) (position uint64, ok bool) {
	rest, ok := strings.CutPrefix(value, identity)
	if !ok || identity == "" || rest == "" || rest[0] != ':' {
		return 0, false
	}
	generation, count, ok := strings.Cut(rest[1:], ":")
	g, err := strconv.ParseUint(generation, 10, 64-countBits)
	if !ok || err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(count, 10, countBits)
	if err != nil {
		return 0, false
	}
	return g<<countBits | n, true
}

func markerValue(identity string, position uint64) string {
	return fmt.Sprintf("%s:%d:%d", identity, position>>countBits, position&(1<<countBits-1))
}

// slotTags returns a short hash tag for each slot.
func slotTags() []string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	tags := make([]string, clusterSlots)
	left := clusterSlots
	for i := range len(letters) {
		for j := range len(letters) {
			for k := range len(letters) {
				tag := string([]byte{letters[i], letters[j], letters[k]})
				if slot := slotOf(tag); tags[slot] == "" {
					tags[slot] = tag
					if left--; left == 0 {
						return tags
					}
				}
			}
		}
	}
	return tags
}

// slotOf returns the slot of a key (Redis Cluster specification, "Hash tags").
func slotOf(key string) int {
	return int(crc16(slotTag(key))) % clusterSlots
}

// crc16 is CRC-16/XMODEM, which Redis Cluster hashes keys with.
func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
