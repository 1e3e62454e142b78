package main

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// failurePause is how often the log says at the most that spans are not exported.
const failurePause = time.Minute

// exportFailures logs that exports fail: at once, once a minute while they go on,
// and when they are over.
type exportFailures struct {
	log *zap.Logger
	now func() time.Time

	mu     sync.Mutex
	failed bool
	said   time.Time
}

func (f *exportFailures) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if f.failed && now.Sub(f.said) < failurePause {
		return
	}
	f.failed, f.said = true, now
	f.log.Warn("spans are not exported", zap.Error(err))
}

func (f *exportFailures) over() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed {
		f.failed = false
		f.log.Info("spans are exported again")
	}
}
