package keystore_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(childEnv); file != "" {
		child(file) // the process that TestKilledProcessLosesNothing kills
		return
	}
	redis.SetLogger(silent{})
	code := m.Run()
	stopServers()
	os.Exit(code)
}

// silent is what the client has to say of the outages that are made here.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// The accounts and keys of the tests.
const (
	subA = policy.SubaccountID("aaaaaaaa-0000-4000-8000-000000000001")
	subB = policy.SubaccountID("bbbbbbbb-0000-4000-8000-000000000002")
	subC = policy.SubaccountID("cccccccc-0000-4000-8000-000000000003")

	read  = policy.Permission("proxies:read")
	write = policy.Permission("proxies:write")
	other = policy.Permission("serp:read")
)

var (
	office = netip.MustParsePrefix("203.0.113.0/24")
	home   = netip.MustParsePrefix("198.51.100.7/32")
	inside = netip.MustParseAddr("203.0.113.9") // an address of the office
)

// same compares keys and accounts by what they mean.
var same = cmp.Options{
	cmp.AllowUnexported(policy.SubaccountSet{}, policy.AddressSet{}, policy.Expiry{}),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

// clock stands still until it is moved. It starts with the real time, which
// Redis goes by.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Now().Truncate(time.Second).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) Advance(d time.Duration) { c.nanos.Add(int64(d)) }
func (c *clock) In(d time.Duration) policy.Expiry {
	return policy.ExpiresAt(c.Now().Add(d).Unix())
}

// world is an empty store of one kind, for one test.
type world struct {
	t       *testing.T
	kind    string
	seeded  map[string]bool
	text    bool // records are written as earlier gateways read them
	clock   *clock
	options keystore.Options
}

// onEachStore runs the test on every kind of store there is.
func onEachStore(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	for _, kind := range []string{"miniredis", "redis", "json", "cluster", "embedded"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, kind))
		})
	}
}

var prefixes atomic.Int64

func newWorld(t *testing.T, kind string) *world {
	t.Helper()
	w := &world{t: t, kind: kind, clock: newClock()}
	catalogue, err := policy.NewCatalogue(read, write, other)
	if err != nil {
		t.Fatal(err)
	}
	w.options = keystore.Options{
		Prefix: fmt.Sprintf("test%d:", prefixes.Add(1)), Timeout: 10 * time.Second, Mode: keystore.Strict,
		CacheTTL: 5 * time.Second, CacheEntries: 20_000, Catalogue: catalogue, TokenPrefix: "gk_",
		Create: true, MaxKeys: 1000, Now: w.clock.Now, Log: zap.NewNop(),
	}
	switch kind {
	case "miniredis":
		w.options.Redis = &keystore.Redis{Addrs: []string{miniredis.RunT(t).Addr()}}
	case "redis", "json": // as stores of before are: see world.open
		w.options.Redis = &keystore.Redis{Addrs: []string{theRedis(t).addr}}
	case "cluster":
		w.options.Redis = &keystore.Redis{Addrs: theCluster(t)}
	case "embedded":
		w.options.EmbeddedFile = filepath.Join(memoryDir(t), "gatehouse.db")
	}
	return w
}

// memoryDir is a folder in memory, where there is one: only tests of the
// journal itself need to wait for a disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "gatehouse-*") //nolint:usetesting // t.TempDir is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// miniWorld is a world on a miniredis that the test can see into.
func miniWorld(t *testing.T) (*world, *miniredis.Miniredis) {
	t.Helper()
	m := miniredis.RunT(t)
	w := newWorld(t, "own")
	w.options.Redis = &keystore.Redis{Addrs: []string{m.Addr()}}
	return w, m
}

// node is a store with what tests do to it. Every node of a world works on
// the same data; an embedded store can have only one at a time.
type node struct {
	*keystore.Store
	w *world
	t *testing.T
	// changes is how many it has heard of, its own included.
	changes *atomic.Uint64
}

func (w *world) node(changes ...func(*keystore.Options)) *node {
	w.t.Helper()
	n := w.open(changes...)
	w.t.Cleanup(func() { _ = n.Close() }) // some tests have closed it by then
	return n
}

func (w *world) open(changes ...func(*keystore.Options)) *node {
	w.t.Helper()
	o := w.options
	for _, change := range changes {
		change(&o)
	}
	w.seed(o)
	n := &node{w: w, t: w.t, changes: &atomic.Uint64{}}
	told := o.Changed
	o.Changed = func(c keystore.Change) {
		if c != (keystore.Change{}) {
			n.changes.Add(1)
		}
		if told != nil {
			told(c)
		}
	}
	var err error
	if n.Store, err = keystore.Open(context.WithoutCancel(w.t.Context()), o); err != nil {
		w.t.Fatalf("open: %v", err)
	}
	if w.kind == "json" || w.text {
		keystore.UseText(n.Store)
	}
	return n
}

// seed makes the store of a Cluster in no time: each master writes its markers
// itself.
func (w *world) seed(o keystore.Options) {
	w.t.Helper()
	if w.kind != "cluster" || !o.Create || w.seeded[o.Prefix] {
		return
	}
	if w.seeded == nil {
		w.seeded = map[string]bool{}
	}
	w.seeded[o.Prefix] = true
	identity := "seed" + o.Prefix
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: theCluster(w.t), Protocol: 2})
	defer func() { _ = cluster.Close() }()
	const markers = "#!lua flags=allow-cross-slot-keys\nfor i = 2, #ARGV do redis.call('SET', ARGV[i], ARGV[1]) end return 0"
	eachMaster(w.t, cluster, func(ctx context.Context, c *redis.Client) error {
		args := []any{identity + ":1:0"}
		slots := cluster.ClusterSlots(ctx).Val() //nolint:staticcheck // as the store asks
		for _, name := range keystore.MarkersOf(c.Options().Addr, slots, o.Prefix) {
			args = append(args, name)
		}
		return c.Eval(ctx, markers, nil, args...).Err()
	})
	cluster.Set(w.t.Context(), o.Prefix+"format:{"+o.Prefix+"store}", "2", 0)
	cluster.Set(w.t.Context(), o.Prefix+"store", identity, 0)
}

// second is another node of the same store; an embedded one is its own.
func (n *node) second() *node {
	if n.w.kind == "embedded" {
		return n
	}
	return n.w.node()
}

// account puts an account that has everything, and returns the person who
// manages it.
func (n *node) account(id policy.AccountID, changes ...func(*keystore.Account)) policy.Caller {
	n.t.Helper()
	a := keystore.Account{
		ID: id, Name: "Account " + string(id), Status: policy.Active, Permissions: []string{"*"},
		Subaccounts: []policy.Subaccount{{ID: subA, Label: "A", Product: "proxies"}, {ID: subB, Label: "B", Product: "proxies"}, {ID: subC, Label: "C", Product: "serp"}},
	}
	for _, change := range changes {
		change(&a)
	}
	if _, _, err := n.PutAccount(n.t.Context(), policy.Caller{}, a); err != nil {
		n.t.Fatal(err)
	}
	rules, err := n.Rules(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return policy.Caller{Account: rules, Client: inside}
}

// newKey is a key that may do everything to everything.
func newKey(changes ...func(*keystore.NewKey)) keystore.NewKey {
	k := keystore.NewKey{
		Name: "key", Permissions: policy.NewPermissionSet(read, write, policy.CreateKeys, policy.UpdateKeys, policy.DeleteKeys, policy.RegenerateKeys),
		Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
	}
	for _, change := range changes {
		change(&k)
	}
	return k
}

func (n *node) key(by policy.Caller, changes ...func(*keystore.NewKey)) (policy.Key, keystore.Token) {
	n.t.Helper()
	k, token, err := n.Create(n.t.Context(), by, newKey(changes...))
	if err != nil {
		n.t.Fatal(err)
	}
	return k, token
}

// caller is the caller that shows this token from the office.
func (n *node) caller(token keystore.Token) policy.Caller {
	n.t.Helper()
	e := n.works(token)
	return policy.Caller{Account: e.Account, Key: e.Key, Client: inside}
}

func (n *node) works(token keystore.Token) keystore.Entry {
	n.t.Helper()
	e, err := n.Lookup(n.t.Context(), token)
	if err != nil {
		n.t.Fatalf("lookup: got %v, want an entry", err)
	}
	return e
}

func (n *node) wantUnknown(token keystore.Token) {
	n.t.Helper()
	if e, err := n.Lookup(n.t.Context(), token); !errors.Is(err, keystore.ErrUnknownToken) || errors.Is(err, keystore.ErrUnavailable) {
		n.t.Fatalf("lookup: got %+v, %v, want ErrUnknownToken", e, err)
	}
}

func (n *node) wantUnavailable(token keystore.Token) {
	n.t.Helper()
	if e, err := n.Lookup(n.t.Context(), token); !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrUnknownToken) {
		n.t.Fatalf("lookup: got %+v, %v, want ErrUnavailable", e, err)
	}
}

// list returns all keys, page by page.
func (n *node) list(by policy.Caller, limit int) []policy.Key {
	n.t.Helper()
	var all []policy.Key
	cursor := ""
	for {
		page, next, err := n.List(n.t.Context(), by, cursor, limit)
		if err != nil {
			n.t.Fatal(err)
		}
		if len(page) > limit {
			n.t.Fatalf("a page of %d has %d keys", limit, len(page))
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		cursor = next
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// eventually waits until the condition holds, and no longer than it must.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// hook is called for what a client asks of Redis, a pipeline counting as one;
// it calls next to have it done.
type hook func(ctx context.Context, cmd redis.Cmder, next func() error) error

func (hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := h(ctx, cmd, func() error { return next(ctx, cmd) })
		cmd.SetErr(err)
		return err
	}
}

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		done := false
		err := h(ctx, cmds[0], func() error { done = true; return next(ctx, cmds) })
		for _, cmd := range cmds {
			if !done {
				cmd.SetErr(err)
			}
		}
		return err
	}
}

// hook hooks the store's clients. On a Cluster, what goes to a master past the
// Cluster client counts too.
func (n *node) hook(h hook) {
	n.t.Helper()
	if n.w.kind == "embedded" {
		keystore.HookEmbedded(n.Store, func(ctx context.Context, command string, next func() error) error {
			if command == "mget" { // the disk keeps to no timeout; what stands for it does
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, n.w.options.Timeout)
				defer cancel()
			}
			return h(ctx, redis.NewCmd(ctx, command), next)
		})
		return
	}
	keystore.ClientOf(n.Store).AddHook(topHook{h})
	keystore.LookupsOf(n.Store).AddHook(topHook{h})
	for _, client := range []redis.UniversalClient{keystore.ClientOf(n.Store), keystore.LookupsOf(n.Store)} {
		if cluster, ok := client.(*redis.ClusterClient); ok {
			eachMaster(n.t, cluster, func(_ context.Context, c *redis.Client) error { c.AddHook(masterHook{h}); return nil })
			cluster.OnNewNode(func(c *redis.Client) { c.AddHook(masterHook{h}) })
		}
	}
}

// hookedKey is in the context of what a topHook has seen.
type hookedKey struct{}

type topHook struct{ hook }

func (h topHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return h.hook.ProcessHook(func(ctx context.Context, cmd redis.Cmder) error {
		return next(context.WithValue(ctx, hookedKey{}, true), cmd)
	})
}

func (h topHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return h.hook.ProcessPipelineHook(func(ctx context.Context, cmds []redis.Cmder) error {
		return next(context.WithValue(ctx, hookedKey{}, true), cmds)
	})
}

// masterHook is for what no topHook has seen, and that was not the client's own.
type masterHook struct{ hook }

func (masterHook) passes(ctx context.Context, name string) bool {
	return ctx.Value(hookedKey{}) != nil || name == "hello" || name == "cluster" || name == "select"
}

func (h masterHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	hooked := h.hook.ProcessHook(next)
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.passes(ctx, cmd.Name()) {
			return next(ctx, cmd)
		}
		return hooked(ctx, cmd)
	}
}

func (h masterHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	hooked := h.hook.ProcessPipelineHook(next)
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if h.passes(ctx, cmds[0].Name()) {
			return next(ctx, cmds)
		}
		return hooked(ctx, cmds)
	}
}

// records returns the key records that are in the store, by their names.
func (n *node) records() map[string]string {
	n.t.Helper()
	return dump(n.t, keystore.ClientOf(n.Store), n.w.options.Prefix+"key:")
}

// isBookkeeping reports whether the key says something of the store and not of
// what it holds: markers, the format, and the beats of nodes.
func isBookkeeping(name, prefix string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	for _, kind := range []string{"marker", "beat:", "format:", "making:"} {
		if ours && strings.HasPrefix(rest, kind) {
			return true
		}
	}
	return false
}

// dump returns everything in Redis whose name has the prefix, as text, without
// bookkeeping.
func dump(t *testing.T, client redis.UniversalClient, prefix string) map[string]string {
	t.Helper()
	return dumpOf(t, client, prefix, func(name string) bool { return !isBookkeeping(name, prefix) })
}

// dumpAll is dump with bookkeeping.
func dumpAll(t *testing.T, client redis.UniversalClient, prefix string) map[string]string {
	t.Helper()
	return dumpOf(t, client, prefix, func(string) bool { return true })
}

func dumpOf(t *testing.T, client redis.UniversalClient, prefix string, wanted func(name string) bool) map[string]string {
	t.Helper()
	all := map[string]string{}
	var mu sync.Mutex
	scan := func(ctx context.Context, c redis.Cmdable) error {
		names := c.Scan(ctx, 0, prefix+"*", 1000).Iterator()
		for names.Next(ctx) {
			name := names.Val()
			if !wanted(name) {
				continue
			}
			var text any
			switch kind := c.Type(ctx, name).Val(); kind {
			case "string":
				text = c.Get(ctx, name).Val()
			case "hash":
				text = c.HGetAll(ctx, name).Val()
			case "zset":
				text = c.ZRangeWithScores(ctx, name, 0, -1).Val()
			case "stream":
				text = c.XRange(ctx, name, "-", "+").Val()
			case "none": // it went away meanwhile
				continue
			default:
				return fmt.Errorf("%s is a %s", name, kind)
			}
			mu.Lock()
			all[name] = fmt.Sprint(text)
			mu.Unlock()
		}
		return names.Err()
	}
	var err error
	if cluster, ok := client.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error { return scan(ctx, c) })
	} else {
		err = scan(t.Context(), client)
	}
	if err != nil {
		t.Fatalf("dump: %v", err)
	}
	return all
}

func mustPrefix(s string) netip.Prefix {
	p, err := policy.ParsePrefix(s)
	if err != nil {
		panic(err)
	}
	return p
}

// recordName is what the record of a token that was just minted is called.
func (n *node) recordName(token keystore.Token) string {
	sum := sha256.Sum256([]byte(token.Reveal()))
	return n.w.options.Prefix + "key:" + hex.EncodeToString(sum[:])
}

// inBubble runs a test in a synctest bubble, on one processor: the timers of a
// bubble share one context of the race detector, which two threads that are in
// it at once bring down (tsan_rtl.cpp: CHECK failed).
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, test)
}
