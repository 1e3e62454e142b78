package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
)

// Cost is what one hash costs (RFC 9106).
type Cost struct {
	MemoryKiB uint32
	Passes    uint32
	Lanes     uint8
}

// DefaultCost is the recommendation of OWASP's Password Storage Cheat Sheet.
func DefaultCost() Cost { return Cost{MemoryKiB: 19 << 10, Passes: 2, Lanes: 1} }

// The most that a stored hash may cost: a record cannot make the process run
// out of memory.
const (
	maxMemoryKiB = 256 << 10
	maxPasses    = 16
	maxLanes     = 16
	maxPHC       = 256
	saltLength   = 16
	hashLength   = 32
	maxPart      = 64
)

// patience is how long a password waits for its turn, and queue how many wait
// for each that works.
const (
	patience = 5 * time.Second
	queue    = 32
)

// ErrBusy is returned where too many passwords wait, or one has waited too long.
var ErrBusy = errors.New("too many passwords wait to be hashed")

// ErrHash is returned for a stored hash that is not understood.
var ErrHash = errors.New("unreadable password hash")

// Hash is a parsed hash of the PHC string format:
// $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH.
type Hash struct {
	Cost      Cost
	salt, sum []byte
}

// ParseHash reads what Hash.PHC wrote, in that one spelling. It returns ErrHash.
func ParseHash(s string) (Hash, error) {
	parts := strings.Split(s, "$")
	if len(s) > maxPHC || len(parts) != 6 {
		return Hash{}, ErrHash
	}
	var h Hash
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.Cost.MemoryKiB, &h.Cost.Passes, &h.Cost.Lanes); err != nil {
		return Hash{}, fmt.Errorf("%w: %w", ErrHash, err)
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(parts[4]); err != nil {
		return Hash{}, fmt.Errorf("%w: salt", ErrHash)
	}
	if h.sum, err = base64.RawStdEncoding.Strict().DecodeString(parts[5]); err != nil {
		return Hash{}, fmt.Errorf("%w: sum", ErrHash)
	}
	if !h.Cost.bearable() || len(h.salt) < 8 || len(h.salt) > maxPart || len(h.sum) < 16 || len(h.sum) > maxPart || h.PHC() != s {
		return Hash{}, ErrHash
	}
	return h, nil
}

func (c Cost) bearable() bool {
	return c.Lanes >= 1 && c.Lanes <= maxLanes && c.Passes >= 1 && c.Passes <= maxPasses &&
		c.MemoryKiB >= 8*uint32(c.Lanes) && c.MemoryKiB <= maxMemoryKiB
}

// PHC spells the hash for the store.
func (h Hash) PHC() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.Cost.MemoryKiB, h.Cost.Passes, h.Cost.Lanes,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.sum))
}

// String hides the hash from logs and errors.
func (Hash) String() string { return "hash(redacted)" }

// GoString hides the hash from %#v.
func (Hash) GoString() string { return "hash(redacted)" }

// Hasher hashes and compares passwords, only so many at a time: each takes
// Cost.MemoryKiB. It may be used concurrently.
type Hasher struct {
	cost    Cost
	slots   chan struct{}
	waiting chan struct{} // a place for each that waits or works
	dummy   Hash
}

// NewHasher makes a hasher of that cost, of which at most atATime work at once.
func NewHasher(cost Cost, atATime int) (*Hasher, error) {
	if !cost.bearable() || atATime < 1 {
		return nil, fmt.Errorf("new hasher: %+v for %d at a time is no cost", cost, atATime)
	}
	h := &Hasher{cost: cost, slots: make(chan struct{}, atATime), waiting: make(chan struct{}, atATime*(1+queue))}
	h.dummy = Hash{Cost: cost, salt: make([]byte, saltLength), sum: make([]byte, hashLength)}
	_, _ = rand.Read(h.dummy.sum) // it never fails
	return h, nil
}

// Hash returns a new hash of the password in the PHC string format. It waits
// for its turn, and returns ErrBusy, or the error of a ctx that ended before it came.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	made := Hash{Cost: h.cost, salt: make([]byte, saltLength)}
	_, _ = rand.Read(made.salt) // it never fails
	var err error
	if made.sum, err = h.sum(ctx, password, made, hashLength); err != nil {
		return "", err
	}
	return made.PHC(), nil
}

// Match reports whether the password is that of the hash, and whether the
// hash is of another cost than new ones are, and should be made again. It
// takes the same time for a wrong password as for the right one. An empty phc
// is that of nobody: it costs what a real one does, and never matches.
func (h *Hasher) Match(ctx context.Context, password, phc string) (matches, outdated bool, err error) {
	stored, nobody := h.dummy, phc == ""
	if !nobody {
		if stored, err = ParseHash(phc); err != nil {
			return false, false, err
		}
	}
	sum, err := h.sum(ctx, password, stored, len(stored.sum))
	if err != nil {
		return false, false, err
	}
	same := subtle.ConstantTimeCompare(sum, stored.sum) == 1
	return same && !nobody, stored.Cost != h.cost || len(stored.sum) != hashLength, nil
}

// sum: a password that is too long to have been chosen is not hashed in whole,
// and matches nothing.
func (h *Hasher) sum(ctx context.Context, password string, of Hash, length int) ([]byte, error) {
	leave, err := h.enter(ctx)
	if err != nil {
		return nil, fmt.Errorf("hash password: %w", err)
	}
	defer leave()
	if len(password) > 4*MaxLength {
		password = ""
	}
	return argon2.IDKey([]byte(password), of.salt, of.Cost.Passes, of.Cost.MemoryKiB, of.Cost.Lanes, uint32(length)), nil // #nosec G115 -- at most maxPart
}

// enter waits for a turn, which ends with leave.
func (h *Hasher) enter(ctx context.Context) (leave func(), err error) {
	select {
	case h.waiting <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	enough := time.NewTimer(patience)
	defer enough.Stop()
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots; <-h.waiting }, nil
	case <-enough.C:
		err = ErrBusy
	case <-ctx.Done():
		err = ctx.Err()
	}
	<-h.waiting
	return nil, err
}
