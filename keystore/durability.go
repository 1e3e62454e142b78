package keystore

import (
	"errors"
	"time"
)

// Durability says what else must have happened before a change is acknowledged,
// beside its being in the memory of the server that took it. Its zero value
// asks for nothing more. It is for Redis: an embedded store has every change on
// the disk before it acknowledges it.
type Durability struct {
	// Replicas is how many replicas must have received a change (Redis WAIT); 0
	// for none.
	Replicas int
	// Timeout is how long a change waits for them. A change that too few have
	// received by then is answered with ErrUncertain.
	Timeout time.Duration
}

// The errors that say more about a change than ErrUnavailable does. ErrReadOnly
// and ErrOlder come together with ErrUnavailable.
var (
	// ErrReadOnly: the store answers lookups, and takes no changes at the moment.
	// Nothing was changed.
	ErrReadOnly = errors.New("key store accepts no changes")
	// ErrUncertain: whether the change was made is not known, or it was made and
	// too few replicas have confirmed it.
	ErrUncertain = errors.New("whether the change was made is not known")
	// ErrOlder: the store lacks changes that were acknowledged. It takes no new
	// ones until an operator has accepted it as it is. Nothing was changed.
	ErrOlder = errOlder
)
