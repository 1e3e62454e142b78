package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Ejection says when a target gets no requests for a while: after so many
// failures to connect, or connections that ended before any byte of an answer,
// one after the other. The while doubles with each failed probe, from Backoff
// to MaxBackoff, and is up to a fifth shorter than that, by chance.
type Ejection struct {
	Failures            int
	Backoff, MaxBackoff time.Duration
}

// standing is whether a target gets requests.
type standing struct {
	rule     Ejection
	name     string
	log      *zap.Logger
	onDown   func(change int64) // told of each target that goes down (1) or comes back (-1)
	onEject  func()
	failures atomic.Int64 // one after the other
	down     atomic.Bool  // ejected or sick

	mu        sync.Mutex
	ejections int       // one after the other
	until     time.Time // zero: not ejected
	isProbed  bool
	isSick    bool // by its health checks
}

func (s *standing) isDown() bool { return s.down.Load() }

// takeProbe reports whether the caller may send the one request that finds out
// whether an ejected target is well again.
func (s *standing) takeProbe(now time.Time) bool {
	if !s.isDown() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until.IsZero() || s.isSick || s.isProbed || now.Before(s.until) {
		return false
	}
	s.isProbed = true
	return true
}

// dropProbe: the probe found out nothing.
func (s *standing) dropProbe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isProbed = false
}

// answered: the target has answered a request, whatever it said.
func (s *standing) answered() {
	if s.failures.Load() != 0 {
		s.failures.Store(0)
	}
	if !s.isDown() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isProbed = false
	if !s.until.IsZero() {
		s.until, s.ejections = time.Time{}, 0
		s.log.Info("target answers again", zap.String("target", s.name))
	}
	s.update()
}

// failed counts a failure, and ejects the target when there were enough. Of an
// ejected one only the probe counts: many requests that fail at once are one
// failure.
func (s *standing) failed(now time.Time, byProbe bool, cause error) {
	count := s.failures.Add(1)
	if count < int64(s.rule.Failures) && !byProbe {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.IsZero() && !byProbe {
		return
	}
	away := shortened(s.backoff())
	s.ejections++
	s.until, s.isProbed = now.Add(away), false
	s.onEject()
	s.log.Warn("target ejected", zap.String("target", s.name), zap.Int64("failures", count), zap.Duration("for", away), zap.Error(cause))
	s.update()
}

func (s *standing) backoff() time.Duration {
	away := s.rule.Backoff
	for range s.ejections {
		if away >= s.rule.MaxBackoff/2 {
			return s.rule.MaxBackoff
		}
		away *= 2
	}
	return min(away, s.rule.MaxBackoff)
}

// setSick is what health checks have found out.
func (s *standing) setSick(isSick bool, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isSick == isSick {
		return
	}
	s.isSick = isSick
	if isSick {
		s.log.Warn("target is unhealthy", zap.String("target", s.name), zap.Error(cause))
	} else {
		s.log.Info("target is healthy again", zap.String("target", s.name))
	}
	s.update()
}

// update is called with the lock held.
func (s *standing) update() {
	isDown := s.isSick || !s.until.IsZero()
	if s.down.Swap(isDown) == isDown {
		return
	}
	change := int64(1)
	if !isDown {
		change = -1
	}
	s.onDown(change)
}
