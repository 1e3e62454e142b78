package keystore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// lookupConnections bounds the connections to one server that only lookups
	// use: one for the batch that is under way, one for what it redirects, those
	// of the reads of many keys, and one for the state of the Cluster.
	lookupConnections = 8
	// otherConnections bounds those of everything else. They are what management
	// requests compete for; a change that waits for replicas holds one meanwhile.
	otherConnections = 32
	// clusterReload is how old the known state of a Cluster may be when a command
	// is sent. It is what lookups of a dead master's keys wait for at the most,
	// once its replica has taken over.
	clusterReload = time.Second
)

// clients returns a client for lookups alone and one for everything else, so
// that nothing takes the lookups' connections. A change may wait for replicas for
// as long as wait says.
//
// With Sentinel both are one: two would follow two Sentinels, of which one knows
// of a failover up to seconds later, and meanwhile changes would go to the new
// master and lookups to the old one.
func (r *Redis) clients(timeout, wait time.Duration) (lookups, others redis.UniversalClient) {
	if r.MasterName != "" {
		o := r.options(timeout)
		o.PoolSize = lookupConnections + otherConnections
		o.ReadTimeout = max(o.ReadTimeout, wait+time.Second)
		o.PoolTimeout = o.ReadTimeout // lookups have a deadline of their own
		both := r.client(o)
		return both, both
	}
	o := r.options(timeout)
	o.PoolSize = lookupConnections
	o.ReadTimeout, o.WriteTimeout = timeout, timeout
	lookups = r.client(o)
	o = r.options(timeout)
	o.PoolSize = otherConnections
	o.ReadTimeout = max(o.ReadTimeout, wait+time.Second)
	o.PoolTimeout = o.ReadTimeout
	return lookups, r.client(o)
}

// client is redis.NewUniversalClient, with what a Cluster needs besides.
func (r *Redis) client(o *redis.UniversalOptions) redis.UniversalClient {
	if len(r.Addrs) < 2 || r.MasterName != "" {
		return redis.NewUniversalClient(o)
	}
	cluster := o.Cluster()
	cluster.ClusterStateReloadInterval = clusterReload
	client := redis.NewClusterClient(cluster)
	client.AddHook(reloadHook{client})
	return client
}

func isCluster(client redis.UniversalClient) bool {
	_, cluster := client.(*redis.ClusterClient)
	return cluster
}

// options: nothing is repeated by the client itself, because a change whose
// answer was lost may have happened; lookups repeat themselves.
func (r *Redis) options(lookupTimeout time.Duration) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs: r.Addrs, MasterName: r.MasterName, Username: r.Username, Password: r.Password, DB: r.DB,
		SentinelUsername: r.SentinelUsername, SentinelPassword: r.SentinelPassword,
		TLSConfig: r.TLS, Protocol: 2, DisableIdentity: true, MaxRetries: -1,
		DialTimeout: lookupTimeout, DialerRetries: 1,
		ReadTimeout: max(manageTimeout, lookupTimeout), WriteTimeout: max(manageTimeout, lookupTimeout),
		ContextTimeoutEnabled: true, PoolTimeout: lookupTimeout, MinIdleConns: 2, ConnMaxIdleTime: 5 * time.Minute,
		PipelinePoolSize:         -1, // pipelines use the same connections, of smaller buffers
		MaintNotificationsConfig: noNotifications(),
	}
}

// noNotifications switches off what this protocol version has not, and for
// which the client would look the host's name up.
func noNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// reloadHook has the state of a Cluster loaded again when a master did not
// answer: the client itself does so only when another node redirects it, and
// would go on asking a dead master until the state is old. Loading happens in
// the background, and not more often than every 200 ms.
type reloadHook struct{ cluster *redis.ClusterClient }

func (h reloadHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h reloadHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		h.look(ctx, err)
		return err
	}
}

func (h reloadHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if err != nil {
			for _, cmd := range cmds {
				h.look(ctx, cmd.Err())
			}
		}
		return err
	}
}

func (h reloadHook) look(ctx context.Context, err error) {
	if unanswered(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, redis.ErrClosed) {
		h.cluster.ReloadState(ctx)
	}
}
