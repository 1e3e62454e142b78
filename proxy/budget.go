package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gatehouse/keystore"
)

// Budgets keeps the budgets that all nodes share, as keystore.Store does. An
// error means that it could not say.
type Budgets interface {
	Spend(ctx context.Context, subject string, r keystore.Rate) (keystore.Spent, error)
	// Left is how many more could be spent now.
	Left(ctx context.Context, subject string, r keystore.Rate) (int, error)
}

// budgetPause is for how long the shared budgets are not asked for again after
// they could not be had, so that few requests wait in vain.
const budgetPause = time.Second

// SharedBudgets are the budgets that all nodes share, and what is known of
// whether they can be had. It may be used concurrently.
type SharedBudgets struct {
	budgets Budgets
	log     *zap.Logger
	// again is the Unix nanosecond before which nobody asks; 0 while the
	// budgets can be had.
	again atomic.Int64
	had   prometheus.Gauge
}

// NewSharedBudgets declares in the registry whether the budgets can be had.
func NewSharedBudgets(b Budgets, registry prometheus.Registerer, log *zap.Logger) *SharedBudgets {
	s := &SharedBudgets{budgets: b, log: log, had: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gatehouse_shared_limits_available",
		Help: "1 while rate limits are shared between nodes, 0 while each node has only its own because the store does not answer.",
	})}
	s.had.Set(1)
	registry.MustRegister(s.had)
	return s
}

// spend takes one request from the subject's budget of all nodes. It reports
// false when it could not be asked for.
func (s *SharedBudgets) spend(ctx context.Context, subject string, r keystore.Rate, now time.Time) (keystore.Spent, bool) {
	again := s.again.Load()
	// Of all who come when the pause is over, one asks.
	if again != 0 && (now.UnixNano() < again || !s.again.CompareAndSwap(again, now.Add(budgetPause).UnixNano())) {
		return keystore.Spent{}, false
	}
	// A client that goes away says nothing about the store.
	spent, err := s.budgets.Spend(context.WithoutCancel(ctx), subject, r)
	if err != nil {
		if s.again.Swap(now.Add(budgetPause).UnixNano()) == 0 {
			s.had.Set(0)
			s.log.Warn("rate limits are not shared at the moment: each node has its own", zap.Error(err))
		}
		return keystore.Spent{}, false
	}
	if again != 0 {
		s.again.Store(0)
		s.had.Set(1)
		s.log.Info("rate limits are shared again")
	}
	return spent, true
}

// has reports whether the subject's budget of all nodes has one request left, or
// cannot be asked for at the moment.
func (s *SharedBudgets) has(ctx context.Context, subject string, r keystore.Rate) bool {
	if s.again.Load() != 0 {
		return true
	}
	left, err := s.budgets.Left(ctx, subject, r)
	return err != nil || left > 0
}
