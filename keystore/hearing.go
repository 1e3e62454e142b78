package keystore

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// beatPause is how often a node sends a beat to each master.
	beatPause = 500 * time.Millisecond
	// hearingFor is for how long after it was sent a beat that came back proves
	// that all changes arrive.
	hearingFor = time.Second
	// senderFor is for how long another node is remembered that says nothing.
	senderFor = time.Minute
	// maxSenders bounds how many are.
	maxSenders = 1000
)

// hearing knows whether the changes that others make arrive. A node sends beats
// along the way that changes take: through the pool to each master that there is
// now, and from there as messages to the subscription. Whatever was published
// on a master before a beat has arrived when the beat has.
type hearing struct {
	node string // names the sender of beats
	// until is up to when everything published before now less hearingFor has
	// arrived, in nanoseconds of the process's own clock.
	until atomic.Int64

	mu      sync.Mutex
	number  uint64
	masters map[string]*beats
	tally   uint64 // changes that this node published
	senders map[string]*otherNode
}

// beats are those that were sent to one master.
type beats struct {
	sent     map[uint64]time.Duration // of those that are on their way
	accepted time.Duration            // when the last was sent that the master took
	heard    time.Duration            // when the last was sent that came back
	busy     bool                     // one is being sent
}

// otherNode is another node: it says in its beats how many changes it published.
type otherNode struct {
	base    uint64 // what it said first
	said    uint64
	arrived uint64 // since then
	at      time.Duration
	behind  time.Duration // since when changes are missing; 0 for none
}

func newHearing() *hearing {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	return &hearing{node: hex.EncodeToString(id[:]), masters: map[string]*beats{}, senders: map[string]*otherNode{}}
}

// hears reports whether changes arrive at the moment.
func (h *hearing) hears(now time.Duration) bool { return int64(now) < h.until.Load() }

// beat begins a beat to a master, and returns its message; false while an
// earlier one is under way.
func (h *hearing) beat(master string, now time.Duration) (message string, number uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.masters[master]
	if b == nil {
		b = &beats{sent: map[uint64]time.Duration{}, accepted: -hearingFor, heard: -hearingFor}
		h.masters[master] = b
		h.update()
	}
	if b.busy {
		return "", 0, false
	}
	h.number++
	b.busy = true
	b.sent[h.number] = now
	for n, at := range b.sent {
		if now-at > 10*hearingFor {
			delete(b.sent, n)
		}
	}
	return beatMessage + h.node + ":" + strconv.FormatUint(h.number, 10) + ":" + strconv.FormatUint(h.tally, 10), h.number, true
}

// answered notes whether the master took the beat.
func (h *hearing) answered(master string, number uint64, taken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.masters[master]
	if b == nil {
		return
	}
	b.busy = false
	if at, known := b.sent[number]; taken && known {
		b.accepted = max(b.accepted, at)
	}
	if !taken {
		delete(b.sent, number)
	}
}

// only forgets masters that there are no more.
func (h *hearing) only(masters map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, b := range h.masters {
		if !masters[name] && !b.busy {
			delete(h.masters, name)
		}
	}
	h.update()
}

// update says up to when changes arrive. It is called with the lock held.
func (h *hearing) update() {
	if len(h.masters) == 0 {
		h.until.Store(0)
		return
	}
	first := true
	var earliest time.Duration
	for _, b := range h.masters {
		if first || b.heard < earliest {
			earliest, first = b.heard, false
		}
	}
	h.until.Store(int64(earliest + hearingFor))
}

// lost makes what was proven so far void: the subscription is another one.
func (h *hearing) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.masters {
		clear(b.sent)
		b.heard = -hearingFor
	}
	h.update()
	clear(h.senders)
}

// arrived takes in a beat, of whichever node, and reports whether it is one.
func (h *hearing) arrived(message string, now time.Duration) bool {
	rest, ok := strings.CutPrefix(message, beatMessage)
	if !ok {
		return false
	}
	node, rest, _ := strings.Cut(rest, ":")
	numberText, tallyText, _ := strings.Cut(rest, ":")
	number, err := strconv.ParseUint(numberText, 10, 64)
	if err != nil {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if node != h.node {
		if tally, err := strconv.ParseUint(tallyText, 10, 64); err == nil {
			h.announced(node, tally, now)
		}
		return true
	}
	for _, b := range h.masters {
		if at, sent := b.sent[number]; sent {
			delete(b.sent, number)
			b.heard = max(b.heard, at)
			h.update()
		}
	}
	return true
}

// announced notes how many changes another node has published. It is called
// with the lock held.
func (h *hearing) announced(node string, tally uint64, now time.Duration) {
	s := h.senders[node]
	if s == nil {
		if len(h.senders) >= maxSenders {
			return
		}
		s = &otherNode{base: tally}
		h.senders[node] = s
	}
	s.at, s.said = now, max(s.said, tally)
	switch {
	case s.base+s.arrived >= s.said:
		s.behind = 0
	case s.behind == 0:
		s.behind = now
	}
}

// changeArrived counts a change that a node has published.
func (h *hearing) changeArrived(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.senders[node]; s != nil {
		s.arrived++
	}
}

// published counts a change of this node.
func (h *hearing) published() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tally++
}

// gap reports whether changes of some node are missing for good, and takes them
// for seen.
func (h *hearing) gap(now time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := false
	for node, s := range h.senders {
		if s.base+s.arrived >= s.said {
			s.behind = 0
		}
		if s.behind != 0 && now-s.behind > hearingFor {
			s.base, s.arrived, s.behind, found = s.said, 0, 0, true
		}
		if now-s.at > senderFor {
			delete(h.senders, node)
		}
	}
	return found
}

// deaf reports whether a master took a beat that does not come back: the
// subscription is at another server, or dead.
func (h *hearing) deaf(now time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.masters {
		for _, at := range b.sent {
			if at > b.heard && at <= b.accepted && now-at > hearingFor {
				return true
			}
		}
	}
	return false
}
