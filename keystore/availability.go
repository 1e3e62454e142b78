package keystore

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// downAfter round trips in a row that were not answered, a server is taken to
	// be down. One is not enough: a single slow reply refuses nobody.
	downAfter = 2
	// probePause is the least time between two tries at a server that is down;
	// the most is half as much again.
	probePause = 100 * time.Millisecond
	// logPause is the least time between two reports of the same server's outage.
	logPause = time.Second
)

// availability is what is known of one server: whether it answers, and if not, when
// to try again. While it is down all calls are refused at once, except for one
// at a time that tries. Only admit may be called by more than one at a time.
type availability struct {
	log *zap.Logger
	// timeout bounds a try.
	timeout time.Duration
	// unanswered, if any, is called for every round trip that was not answered.
	unanswered func()

	down          atomic.Pointer[refusal] // nil: it is up
	failures      int
	told          map[string]bool // the reasons of the outage that were reported; nil: none was
	since, logged time.Time
}

// refusal is what calls get while the server is down.
type refusal struct {
	err  error
	next atomic.Int64 // when the next try may begin, in Unix nanoseconds
}

// admit returns an error for a call that must not be sent. The deadline is that
// of a call which begins now.
func (h *availability) admit(deadline time.Time) error {
	down := h.down.Load()
	if down == nil {
		return nil
	}
	at := deadline.Add(-h.timeout)
	next := down.next.Load()
	if at.UnixNano() < next {
		return down.err
	}
	// The one that moves the time on is the one that tries. It sets it again
	// when it has failed; should it never come to that, the others go on then.
	if !down.next.CompareAndSwap(next, deadline.Add(probePause).UnixNano()) {
		return down.err
	}
	return nil
}

// note takes in how a round trip ended. It returns what all who wait are to be
// refused with, when the server is down.
func (h *availability) note(err error) error {
	if err == nil {
		h.failures = 0
		h.down.Store(nil)
		h.reportUp()
		return nil
	}
	h.reportDown(err)
	if !unanswered(err) {
		h.failures = 0
		h.down.Store(nil)
		return nil
	}
	if h.unanswered != nil {
		h.unanswered()
	}
	h.failures++
	if h.failures < downAfter {
		return nil
	}
	down := &refusal{err: err}
	if h.failures > downAfter {
		// The first try comes at once: what failed may have been two connections.
		pause := probePause + rand.N(probePause/2) //nolint:gosec // it keeps nodes apart, and is no secret
		down.next.Store(now().Add(pause).UnixNano())
	}
	h.down.Store(down)
	return err
}

// reportDown writes a line when the outage begins or its reason changes.
func (h *availability) reportDown(err error) {
	reason := OutageReason(err)
	at := now()
	if h.told[reason] || at.Sub(h.logged) < logPause {
		return
	}
	if h.told == nil {
		h.told, h.since = map[string]bool{}, at
	}
	h.told[reason], h.logged = true, at
	h.log.Warn("the store does not answer lookups", zap.String("reason", reason), zap.Error(err))
}

func (h *availability) reportUp() {
	if h.told == nil {
		return
	}
	h.told = nil
	h.log.Info("the store answers lookups again", zap.Duration("after", now().Sub(h.since).Round(time.Millisecond)))
}

// gone ends the reports of a server that is not asked any more.
func (h *availability) gone() {
	if h.down.Load() != nil {
		h.log.Info("lookups go to another node")
	}
}

// now is the real time: deadlines and pauses are, whatever clock the store's
// records are judged by.
func now() time.Time {
	return time.Now() //nolint:forbidigo // see above
}
