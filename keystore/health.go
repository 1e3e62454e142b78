package keystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatehouse/policy"
)

// healthInterval is how often the servers are asked.
const healthInterval = 10 * time.Second

// State says what the store is, as a whole, to this node.
type State string

// The states of a store.
const (
	// StateOK: lookups are answered, and changes taken unless a Warning says
	// otherwise.
	StateOK State = "ok"
	// StateUnavailable: the store does not answer.
	StateUnavailable State = "unavailable"
	// StateEmptied: Redis answers, and the store is not there, or not all of it:
	// it was never made, or was emptied or replaced.
	StateEmptied State = "emptied"
	// StateOlder: the store lacks changes that this node knows were acknowledged.
	// It takes no changes until an operator accepts it as it is.
	StateOlder State = "older"
	// StateLegacy: as StateOK; gateways of an earlier version share the store,
	// which keeps to what they understand.
	StateLegacy State = "legacy"
)

// States returns every state.
func States() []State {
	return []State{StateOK, StateUnavailable, StateEmptied, StateOlder, StateLegacy}
}

// StateOf returns the state that an error of Ready stands for; StateOK for nil.
func StateOf(err error) State {
	switch {
	case err == nil:
		return StateOK
	case errors.Is(err, errEmptied), errors.Is(err, ErrNoStore):
		return StateEmptied
	case errors.Is(err, ErrOlder):
		return StateOlder
	}
	return StateUnavailable
}

// Health is what is known of the store's servers. What is not known is zero.
type Health struct {
	// State is what the store was when it was last used.
	State State
	// Writable: the last change that was tried was taken, and nothing is known
	// that would prevent the next one.
	Writable bool
	// Warnings is what an operator should look at, sorted, each kind once.
	Warnings []Notice
	Servers
}

// health keeps what is known of the store's servers, and asks them. It may be
// used concurrently.
type health struct {
	client   redis.UniversalClient // nil for an embedded store, which is not asked
	replicas int                   // how many are asked for
	clock    func() time.Time
	log      *zap.Logger
	wake     chan struct{}

	evicting atomic.Bool
	ahead    atomic.Int64 // how far the store's clock is ahead, in nanoseconds

	mu      sync.Mutex
	servers Servers
	found   map[Warning]string // by the last check of the servers
	reports map[string]report  // by master
	current State              // the worst of them
	warned  map[Warning]string // found, and those of reports: as they were logged
}

// report is what the last beat found of a master; its zero value is that all is
// well.
type report struct {
	state State
	cause error // of the state
	write error // why it takes no changes
}

// newHealth makes the health of a store. run asks its servers, through the client
// that must be set before.
func newHealth(o Options) *health {
	return &health{
		replicas: o.Durability.Replicas, clock: o.Now, log: o.Log, wake: make(chan struct{}, 1),
		current: StateOK, reports: map[string]report{}, warned: make(map[Warning]string),
	}
}

// Health returns what is known of the store's servers. It asks nobody: the
// servers of Redis are asked every ten seconds, and after each reconnect.
func (s *Store) Health() Health { return s.health.show() }

func (h *health) show() Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	shown := Health{State: h.current, Writable: h.refusal() == "", Servers: h.servers}
	for _, w := range slices.Sorted(maps.Keys(h.warned)) {
		shown.Warnings = append(shown.Warnings, Notice{w, h.warned[w]})
	}
	return shown
}

// run asks the servers until ctx ends.
func (h *health) run(ctx context.Context) {
	if h.client == nil {
		return
	}
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for {
		h.check(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.wake:
		}
	}
}

// reconnected has the servers asked soon: they may be others now. It waits for
// nothing.
func (h *health) reconnected() {
	select {
	case h.wake <- struct{}{}:
	default: // it is about to ask anyway
	}
}

// check asks every server once. What cannot be asked stays as it was known:
// that it does not answer is told by lookups.
func (h *health) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, manageTimeout)
	defer cancel()
	asked := askServers(ctx, h.client, h.clock)
	if len(asked) == 0 {
		return
	}
	servers, found := judge(asked, h.replicas)
	h.evicting.Store(slices.ContainsFunc(asked, (*serverInfo).mayEvict))
	h.ahead.Store(int64(servers.ClockOffset))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers, h.found = servers, found
	h.warn()
}

// evicts reports whether a server may remove records to make room: that a record
// is missing then says nothing.
func (h *health) evicts() bool { return h.evicting.Load() }

// expired reports whether the moment has come by the store's clock alone, where
// that is far ahead of this node's.
func (h *health) expired(e policy.Expiry) bool {
	ahead := time.Duration(h.ahead.Load())
	if ahead <= farClock || e.Never() {
		return false
	}
	now := h.clock()
	return e.Unix() > now.Unix() && e.Unix() <= now.Add(ahead).Unix()
}

// reported notes what a master is found to be. One that is not of a Cluster has
// no name.
func (h *health) reported(master string, r report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reports[master] = r
	h.sumUp()
}

// only forgets what was reported of other masters.
func (h *health) only(masters map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.reports, func(name string, _ report) bool { return !masters[name] })
	h.sumUp()
}

// sumUp takes in what was reported, and logs what is new. The lock is held.
func (h *health) sumUp() {
	worst := report{state: StateOK}
	for _, r := range h.reports {
		if severity(r.state) > severity(worst.state) {
			worst = r
		}
	}
	if worst.state != h.current {
		h.logState(h.current, worst)
		h.current = worst.state
	}
	h.warn()
}

// severity orders states by how much they keep the store from being used.
func severity(s State) int {
	return slices.Index([]State{StateOK, StateLegacy, StateUnavailable, StateOlder, StateEmptied}, s)
}

func (h *health) logState(before State, now report) {
	fields := []zap.Field{zap.String("state", string(now.state)), zap.String("before", string(before)), zap.Error(now.cause)}
	switch now.state {
	case StateOK, StateLegacy:
		h.log.Info("the key store is available", fields...)
	case StateEmptied:
		h.log.Error("there is no key store, or not all of it: restore its data; where there has never been one, gatehouse store init makes it", fields...)
	case StateOlder:
		h.log.Error("the key store lacks changes that were acknowledged, and accepts no new ones: restore its data, or take it as it is with gatehouse store accept", fields...)
	case StateUnavailable:
		h.log.Warn("the key store is unavailable", fields...)
	}
}

// writable returns nil when changes may be tried, and otherwise an error that
// wraps ErrReadOnly and ErrUnavailable: a record that is added to a store which
// evicts may remove another one.
func (h *health) writable() error {
	if !h.evicting.Load() {
		return nil
	}
	return fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrReadOnly, errEvicts)
}

var errEvicts = errors.New("maxmemory-policy is not noeviction, so that Redis may remove keys of customers")

// refusal is why changes are not taken, in words; "" when they are. The lock is
// held.
func (h *health) refusal() string {
	if h.evicting.Load() {
		return errEvicts.Error()
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(h.reports)) {
		err := h.reports[name].write
		switch {
		case err != nil && name != "":
			all = append(all, name+": "+err.Error())
		case err != nil:
			all = append(all, err.Error())
		}
	}
	return strings.Join(all, "; ")
}

// warn logs each warning once when it appears, and once when it ends. The lock
// is held.
func (h *health) warn() {
	now := maps.Clone(h.found)
	if now == nil {
		now = make(map[Warning]string)
	}
	if refusal := h.refusal(); refusal != "" {
		now[WarnReadOnly] = refusal
	}
	for _, w := range slices.Sorted(maps.Keys(now)) {
		if _, known := h.warned[w]; !known {
			h.log.Log(levelOf(w), "key store warning", zap.String("warning", string(w)), zap.String("detail", now[w]))
		}
	}
	for _, w := range slices.Sorted(maps.Keys(h.warned)) {
		if _, still := now[w]; !still {
			h.log.Info("key store warning ended", zap.String("warning", string(w)))
		}
	}
	h.warned = now
}

func levelOf(w Warning) zapcore.Level {
	if w.Severe() {
		return zapcore.ErrorLevel
	}
	return zapcore.WarnLevel
}
