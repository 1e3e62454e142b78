package keystore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// lanes are coalescers, one for each server: on a Cluster one for each master,
// so that a master which does not answer delays and fails the calls for its
// own keys alone. What a master redirects goes through the Cluster client,
// which follows it, and shares round trips there.
type lanes[T any] struct {
	o       laneOptions[T]
	cluster *redis.ClusterClient // nil: there is one server
	tags    []string             // a hash tag for each slot
	// whole is the only lane where there is one server, and that of a Cluster
	// until its state was loaded for the first time.
	whole  *coalescer[T]
	loaded atomic.Bool
	mu     sync.Mutex // held while nodes is replaced
	nodes  atomic.Pointer[map[*redis.Client]*coalescer[T]]
}

// laneOptions say how calls are sent.
type laneOptions[T any] struct {
	client  redis.UniversalClient
	timeout time.Duration
	log     *zap.Logger
	// retries: a round trip that was not answered may be tried once more.
	retries bool
	// whole sends a batch by the client of the whole store, and what node returns
	// by that of one master of a Cluster, which redirects what is not its own.
	whole func(ctx context.Context, batch []*call[T]) error
	node  func(client *redis.Client) func(ctx context.Context, batch []*call[T]) error
}

func newLanes[T any](o laneOptions[T], m *markers) *lanes[T] {
	l := &lanes[T]{o: o, tags: m.tags}
	l.whole = newCoalescer(l.health(o.log, nil), o.retries, o.whole)
	l.nodes.Store(&map[*redis.Client]*coalescer[T]{})
	if cluster, ok := o.client.(*redis.ClusterClient); ok {
		l.cluster = cluster
		l.whole.ask = l.load
	}
	return l
}

func (l *lanes[T]) health(log *zap.Logger, unanswered func()) *availability {
	return &availability{log: log, timeout: l.o.timeout, unanswered: unanswered}
}

// do has the call for the key answered by the deadline.
func (l *lanes[T]) do(ctx context.Context, key string, arg T, begun time.Time) (T, error) {
	return l.of(ctx, key).do(ctx, arg, begun.Add(l.o.timeout))
}

// of returns the lane of the key. It asks nobody.
func (l *lanes[T]) of(ctx context.Context, key string) *coalescer[T] {
	if l.cluster == nil || !l.loaded.Load() {
		return l.whole
	}
	master, err := l.cluster.MasterForKey(ctx, key)
	if err != nil {
		return l.whole
	}
	if lane, ok := (*l.nodes.Load())[master]; ok {
		return lane
	}
	return l.renew(ctx, master)
}

// load has the state of the Cluster loaded by one caller for all, and its
// batch answered by the Cluster client.
func (l *lanes[T]) load(ctx context.Context, batch []*call[T]) error {
	if _, err := l.cluster.MasterForKey(ctx, ""); err != nil {
		for _, w := range batch {
			w.err = err
		}
		return err
	}
	l.loaded.Store(true)
	return l.o.whole(ctx, batch)
}

// renew makes lanes for the masters as they are now, keeps those that there
// are, and returns that of the given one.
func (l *lanes[T]) renew(ctx context.Context, master *redis.Client) *coalescer[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := *l.nodes.Load()
	if lane, ok := old[master]; ok {
		return lane
	}
	nodes := map[*redis.Client]*coalescer[T]{master: l.lane(master)} //nolint:contextcheck // a lane outlives its callers
	for _, tag := range l.tags {
		client, err := l.cluster.MasterForKey(ctx, tag)
		if err != nil || nodes[client] != nil {
			continue
		}
		if nodes[client] = old[client]; nodes[client] == nil {
			nodes[client] = l.lane(client) //nolint:contextcheck // a lane outlives its callers
		}
	}
	l.nodes.Store(&nodes)
	for client, lane := range old {
		if nodes[client] == nil {
			lane.health.gone()
		}
	}
	return nodes[master]
}

func (l *lanes[T]) lane(master *redis.Client) *coalescer[T] {
	reload := func() { l.cluster.ReloadState(context.Background()) } // in the background, and not more often than every 200 ms
	log := l.o.log.With(zap.String("node", master.Options().Addr))
	ask := l.o.node(master)
	lane := newCoalescer(l.health(log, reload), l.o.retries, func(ctx context.Context, batch []*call[T]) error {
		err := ask(ctx, batch)
		for _, w := range batch {
			if w.redirected {
				reload()
				break
			}
		}
		return err
	})
	lane.follow = newCoalescer(l.health(log, reload), l.o.retries, l.o.whole)
	return lane
}
