package keystore_test

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// healthRedis is a world on a redis-server of its own.
func healthRedis(t *testing.T, args ...string) (*world, *redisServer) {
	t.Helper()
	needRedis(t)
	w := newWorld(t, "own")
	folder, err := serverFolder() // a child of Redis may write there when the test is over
	if err != nil {
		t.Fatal(err)
	}
	own, err := startRedis(folder, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.kill)
	w.options.Redis = &keystore.Redis{Addrs: []string{own.addr}}
	return w, own
}

// warned are the warnings there are once the servers were asked.
func (n *node) warned() []keystore.Warning {
	n.t.Helper()
	keystore.CheckHealth(n.t.Context(), n.Store)
	var all []keystore.Warning
	for _, w := range n.Health().Warnings {
		if w.Detail == "" {
			n.t.Errorf("%s: no detail", w.Warning)
		}
		all = append(all, w.Warning)
	}
	return all
}

func (n *node) wantWarned(want ...keystore.Warning) {
	n.t.Helper()
	if got := n.warned(); !slices.Equal(got, want) {
		n.t.Errorf("the warnings are %v, want %v", got, want)
	}
}

func (n *node) config(name, value string) {
	n.t.Helper()
	eachMaster(n.t, keystore.ClientOf(n.Store), func(ctx context.Context, c *redis.Client) error { return c.ConfigSet(ctx, name, value).Err() })
}

// TestServersAreWarnedOf: each thing that is wrong with a real Redis, one after
// the other, is there as long as it is so.
func TestServersAreWarnedOf(t *testing.T) {
	t.Parallel()
	w, _ := healthRedis(t, "--appendonly", "yes")
	w.options.Now = time.Now
	n := w.node(func(o *keystore.Options) { o.Durability.Replicas = 1 })
	n.wantWarned(keystore.WarnReplicas)
	n.config("appendonly", "no")
	n.wantWarned(keystore.WarnAOFOff, keystore.WarnReplicas)
	n.config("maxmemory-policy", "allkeys-lru") // without maxmemory nothing is evicted
	n.wantWarned(keystore.WarnAOFOff, keystore.WarnEviction, keystore.WarnReplicas)
	n.wantUnknown(mint(t, "gk_"))
	n.config("maxmemory-policy", "noeviction")
	n.config("maxmemory", "1mb")
	n.wantWarned(keystore.WarnAOFOff, keystore.WarnMemory, keystore.WarnReplicas)
	if used := n.Health().MemoryUsed; used < 0.9 {
		t.Errorf("%.2f of maxmemory is in use", used)
	}
	n.config("maxmemory", "0")
	n.config("appendonly", "yes")
	n.wantWarned(keystore.WarnReplicas)
}

// TestEvictingStoreIsAnOutage for what is missing and for changes, and for
// nothing else.
func TestEvictingStoreIsAnOutage(t *testing.T) {
	t.Parallel()
	w, _ := healthRedis(t)
	n := w.node()
	person := n.account("acme")
	_, token := n.key(person)
	unknown := mint(t, "gk_")
	n.wantUnknown(unknown)
	n.config("maxmemory", "1gb")
	n.config("maxmemory-policy", "allkeys-lru")
	n.warned()
	n.works(token)
	n.wantUnavailable(unknown)
	if err := n.Ready(t.Context()); err != nil {
		t.Errorf("it is not ready: %v", err)
	}
	_, _, err := n.Create(t.Context(), person, newKey())
	wantErr(t, err, keystore.ErrReadOnly)
	wantErr(t, err, keystore.ErrUnavailable)
	if n.Health().Writable {
		t.Error("it says that it is writable")
	}
	n.config("maxmemory-policy", "noeviction")
	n.warned()
	n.wantUnknown(unknown)
	n.key(person)
	if !n.Health().Writable {
		t.Error("it says that it is not writable")
	}
}

// TestEveryMasterOfAClusterIsAsked, and named.
func TestEveryMasterOfAClusterIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "cluster")
	w.options.Now = time.Now
	n := w.node()
	n.wantWarned(keystore.WarnAOFOff)
	for _, addr := range w.options.Redis.Addrs {
		if said := n.Health().Warnings[0].Detail; !strings.Contains(said, addr+": appendonly is no") {
			t.Errorf("%s is not in %q", addr, said)
		}
	}
}

// TestClocksThatDiffer: by up to 2 s without a word, by up to 30 s without harm.
func TestClocksThatDiffer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		behind time.Duration // the node, of the store
		want   []keystore.Warning
		made   bool // a key that expires in a minute, by the clock of the node
	}{
		{"not", 0, nil, true},
		{"a second behind", time.Second, nil, true},
		{"a second ahead", -time.Second, nil, true},
		{"20 s ahead", -20 * time.Second, []keystore.Warning{keystore.WarnClock}, true},
		{"25 s behind", 25 * time.Second, []keystore.Warning{keystore.WarnClock}, true},
		{"five minutes ahead", -5 * time.Minute, []keystore.Warning{keystore.WarnFarClock}, true},
		{"five minutes behind", 5 * time.Minute, []keystore.Warning{keystore.WarnFarClock}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "redis")
			w.options.Now = func() time.Time { return time.Now().Add(-row.behind) }
			n := w.node()
			n.wantWarned(append([]keystore.Warning{keystore.WarnAOFOff}, row.want...)...)
			if offset := n.Health().ClockOffset; (offset - row.behind).Abs() > time.Second {
				t.Errorf("the store's clock is said to be %s ahead, want %s", offset, row.behind)
			}
			person := n.account("acme")
			at := w.options.Now().Add(time.Minute).Unix() // by the node's clock
			_, _, err := n.Create(t.Context(), person, newKey(func(k *keystore.NewKey) { k.Expiry = policy.ExpiresAt(at) }))
			if (err == nil) != row.made || err != nil && !errors.Is(err, keystore.ErrExpired) {
				t.Errorf("making the key: %v", err)
			}
			k, _ := n.key(person)
			_, _, err = n.Update(t.Context(), person, k.ID, keystore.Update{Expiry: ptr(policy.ExpiresAt(at))})
			if (err == nil) != row.made || err != nil && !errors.Is(err, keystore.ErrExpired) {
				t.Errorf("changing the key: %v", err)
			}
		})
	}
}

// TestServersThatMayNotBeAsked are said to be so, and everything else works.
func TestServersThatMayNotBeAsked(t *testing.T) {
	t.Parallel()
	w, own := healthRedis(t)
	n := w.node()
	if err := keystore.ClientOf(n.Store).Do(t.Context(), "acl", "setuser", "blind", "on", ">secret", "~*", "&*", "+@all", "-info").Err(); err != nil {
		t.Fatal(err)
	}
	blind := w.node(func(o *keystore.Options) {
		o.Redis = &keystore.Redis{Addrs: []string{own.addr}, Username: "blind", Password: "secret"}
	})
	blind.wantWarned(keystore.WarnUnseen)
	_, token := blind.key(blind.account("acme"))
	blind.works(token)
}

// TestStoppedServerChangesNothingThatIsKnown: that it does not answer is no
// warning of its own.
func TestStoppedServerChangesNothingThatIsKnown(t *testing.T) {
	t.Parallel()
	w, own := healthRedis(t)
	n := w.node()
	n.wantWarned(keystore.WarnAOFOff)
	own.kill()
	n.wantWarned(keystore.WarnAOFOff)
}

// TestWarningsAreLoggedOnce when they begin, and once when they end.
func TestWarningsAreLoggedOnce(t *testing.T) {
	t.Parallel()
	core, logged := observer.New(zap.InfoLevel)
	w, _ := healthRedis(t, "--appendonly", "yes")
	w.options.Now, w.options.Log = time.Now, zap.New(core)
	n := w.node()
	said := func() (all []string) {
		for _, e := range logged.TakeAll() {
			fields := e.ContextMap()
			if name, is := fields["warning"]; is {
				all = append(all, e.Level.String()+" "+e.Message+" "+name.(string))
			}
			if state, is := fields["state"]; is {
				all = append(all, e.Level.String()+" "+state.(string))
			}
		}
		return all
	}
	want := func(want ...string) {
		t.Helper()
		if got := said(); !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
	}
	n.warned()
	want()
	n.config("appendonly", "no")
	n.warned()
	n.warned()
	want("warn key store warning aof_off")
	full := errors.New("OOM command not allowed when used memory > 'maxmemory'.") //nolint:revive // as Redis words it
	for range 3 {
		keystore.Report(n.Store, "", keystore.StateOK, nil, full)
	}
	want("error key store warning read_only")
	if h := n.Health(); h.Writable || len(h.Warnings) != 2 || h.Warnings[1] != (keystore.Notice{Warning: keystore.WarnReadOnly, Detail: full.Error()}) {
		t.Errorf("its health is %+v", h)
	}
	keystore.Report(n.Store, "", keystore.StateOK, nil, nil)
	keystore.Report(n.Store, "", keystore.StateOK, nil, nil)
	want("info key store warning ended read_only")
	for range 2 {
		keystore.Report(n.Store, "", keystore.StateOlder, keystore.ErrOlder, nil)
	}
	want("error older")
	if state := n.Health().State; state != keystore.StateOlder {
		t.Errorf("its state is %s", state)
	}
	keystore.Report(n.Store, "", keystore.StateOK, nil, nil)
	want("info ok")
	n.config("appendonly", "yes")
	n.warned()
	want("info key store warning ended aof_off")
}

// TestEmbeddedStoreIsWell: there is no server to ask.
func TestEmbeddedStoreIsWell(t *testing.T) {
	t.Parallel()
	n := newWorld(t, "embedded").node()
	if h := n.Health(); h.State != keystore.StateOK || !h.Writable || len(h.Warnings) != 0 {
		t.Errorf("its health is %+v", h)
	}
}

// TestEmbeddedStoreSaysThatItTakesNoChanges while its disk takes none.
func TestEmbeddedStoreSaysThatItTakesNoChanges(t *testing.T) {
	t.Parallel()
	n := newWorld(t, "embedded").node()
	person := n.account("acme")
	full := errors.New("no space left on device")
	failing := true
	keystore.FailWrites(n.Store, false, func() error {
		if failing {
			return full
		}
		return nil
	})
	if _, _, err := n.Create(t.Context(), person, newKey()); err == nil {
		t.Fatal("a key is made that is not on the disk")
	}
	want := []keystore.Notice{{Warning: keystore.WarnReadOnly, Detail: full.Error()}}
	if h := n.Health(); h.Writable || h.State != keystore.StateOK || !slices.Equal(h.Warnings, want) {
		t.Errorf("its health is %+v, want %+v", h, want)
	}
	failing = false
	keystore.Probe(n.Store)
	if h := n.Health(); !h.Writable || len(h.Warnings) > 0 {
		t.Errorf("its health is %+v", h)
	}
}

func TestStateOfErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want keystore.State
		err  error
	}{
		{keystore.StateOK, nil},
		{keystore.StateUnavailable, keystore.ErrUnavailable},
		{keystore.StateOlder, errors.Join(keystore.ErrUnavailable, keystore.ErrOlder)},
	} {
		if got := keystore.StateOf(tt.err); got != tt.want {
			t.Errorf("%v is %s, want %s", tt.err, got, tt.want)
		}
	}
	w, _ := healthRedis(t)
	n := w.node()
	if err := keystore.ClientOf(n.Store).FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if got := keystore.StateOf(n.Ready(t.Context())); got != keystore.StateEmptied {
		t.Errorf("an emptied store is %s", got)
	}
}

// TestInfoIsJudged by what INFO says in states that are hard to bring about.
func TestInfoIsJudged(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, info string
		replicas   int
		want       []keystore.Warning
	}{
		{"nothing is said", "", 0, nil},
		{"all is well", "aof_enabled:1\r\naof_last_write_status:ok\r\nrdb_last_bgsave_status:ok\r\nmaxmemory_policy:noeviction\r\n", 0, nil},
		{"the disk is full", "aof_last_write_status:err\r\n", 0, []keystore.Warning{keystore.WarnDisk}},
		{"no snapshot could be written", "rdb_last_bgsave_status:err\r\n", 0, []keystore.Warning{keystore.WarnDisk}},
		{"keys were evicted before the policy was set right", "evicted_keys:3\r\nmaxmemory_policy:noeviction\r\n", 0, []keystore.Warning{keystore.WarnEviction}},
		{
			"a replica that has not caught up", "slave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=0\r\nslave1:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=0\r\nslave_read_only:1\r\n", 2,
			[]keystore.Warning{keystore.WarnReplicas},
		},
		{"enough replicas", "slave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=0\r\n", 1, nil},
		{"half full", "maxmemory:100\r\nused_memory:50\r\n", 0, nil},
		{"nearly full", "maxmemory:100\r\nused_memory:91\r\n", 0, []keystore.Warning{keystore.WarnMemory}},
	} {
		_, found := keystore.JudgeInfo(row.info, row.replicas)
		if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

// FuzzInfo: whatever a server says, what is made of it is within bounds, and
// only warnings that exist come of it.
func FuzzInfo(f *testing.F) {
	f.Add("# Server\r\nredis_version:7.0.15\r\nmaxmemory:100\r\nused_memory:99999\r\nmaxmemory_policy:allkeys-lru\r\nevicted_keys:-1\r\nslave0:state=online\r\n")
	f.Add("maxmemory:18446744073709551616\nslave:state=online\n:::\n")
	f.Fuzz(func(t *testing.T, info string) {
		servers, found := keystore.JudgeInfo(info, 1)
		if servers.Replicas < 0 || servers.MemoryUsed < 0 || math.IsNaN(servers.MemoryUsed) || math.IsInf(servers.MemoryUsed, 0) {
			t.Errorf("%+v", servers)
		}
		for w := range found {
			if !slices.Contains(keystore.Warnings(), w) {
				t.Errorf("a warning %q", w)
			}
		}
	})
}
