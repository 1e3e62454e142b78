package proxy

import (
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
)

// maxMissingPlans bounds how many plans are remembered as missing, and logged.
const maxMissingPlans = 100

// Plans are the limits of accounts' plans by their names. A nil *Plans has
// none. It may be used concurrently.
type Plans struct {
	limiters map[string]*Limiter
	log      *zap.Logger
	missing  sync.Map // names that were asked for and are not there, once logged
	logged   atomic.Int64
}

// NewPlans takes the limiters of the plans by their names.
func NewPlans(limiters map[string]*Limiter, log *zap.Logger) *Plans {
	return &Plans{limiters: limiters, log: log}
}

// of returns the limiter of the plan, and whether there is one. That an account
// has a plan that is no more is logged once.
func (p *Plans) of(name string) (*Limiter, bool) {
	if p == nil || name == "" {
		return nil, false
	}
	limiter, known := p.limiters[name]
	if !known {
		p.miss(name)
	}
	return limiter, known
}

func (p *Plans) miss(name string) {
	if _, seen := p.missing.Load(name); seen || p.logged.Load() >= maxMissingPlans {
		return
	}
	if _, seen := p.missing.LoadOrStore(name, struct{}{}); !seen {
		p.logged.Add(1)
		p.log.Warn("accounts have a plan that the configuration has not: limits.key counts for them", zap.String("plan", name))
	}
}
