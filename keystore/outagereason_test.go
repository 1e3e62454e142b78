package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gatehouse/keystore"
)

// serverErrors are what a server says that cannot answer, and what we make of it.
var serverErrors = map[string]string{
	"LOADING Redis is loading the dataset in memory":                           keystore.OutageLoading,
	"READONLY You can't write against a read only replica.":                    keystore.OutageReadOnly,
	"NOREPLICAS Not enough good replicas to write.":                            keystore.OutageReadOnly,
	"MISCONF Redis is configured to save RDB snapshots, but is unable to":      keystore.OutageReadOnly,
	"OOM command not allowed when used memory > 'maxmemory'.":                  keystore.OutageFull,
	"CLUSTERDOWN The cluster is down":                                          keystore.OutageClusterDown,
	"TRYAGAIN Multiple keys request during rehashing of slot":                  keystore.OutageClusterDown,
	"MOVED 866 127.0.0.1:1":                                                    keystore.OutageClusterDown,
	"ASK 866 127.0.0.1:1":                                                      keystore.OutageClusterDown,
	"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set.": keystore.OutageMasterDown,
	"NOAUTH Authentication required.":                                          keystore.OutageAuth,
	"WRONGPASS invalid username-password pair or user is disabled.":            keystore.OutageAuth,
	"NOPERM User gate has no permissions to run the 'mget' command":            keystore.OutageAuth,
	"ERR max number of clients reached":                                        keystore.OutageOverloaded,
	"ERR something else":                                                       keystore.OutageOther,
}

// fakeNode is a node on a fake server, and what it logs.
func fakeNode(t *testing.T, f *fakeRedis) (*node, *observer.ObservedLogs) {
	t.Helper()
	core, lines := observer.New(zap.InfoLevel)
	w := newWorld(t, "fake")
	w.options.Redis = &keystore.Redis{Addrs: []string{f.addr}}
	w.options.Timeout, w.options.Log = patience, zap.New(core)
	return w.node(), lines
}

// A server that answers with an error makes keys unavailable, never unknown;
// says so in the log once, however many ask; and is not given up.
func TestErrorsOfTheServerAreUnavailable(t *testing.T) {
	for reply, reason := range serverErrors {
		t.Run(strings.Fields(reply)[0], func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			broken.Store(true)
			f := newFakeRedis(t, func(args []string) string {
				if broken.Load() {
					return "-" + reply + "\r\n"
				}
				return valuesOf(args)
			})
			n, lines := fakeNode(t, f)
			token, err := keystore.Mint("gk_", strings.NewReader(strings.Repeat("x", 64)))
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				_, err := n.Lookup(t.Context(), token)
				if got := keystore.OutageReason(err); got != reason || !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrUnknownToken) {
					t.Fatalf("got %v, of reason %q, want ErrUnavailable and %q", err, got, reason)
				}
			}
			downs := lines.FilterMessage("the store does not answer lookups")
			if downs.Len() != 1 || downs.All()[0].ContextMap()["reason"] != reason {
				t.Errorf("it logged %v", downs.All())
			}
			broken.Store(false)
			_, _, err = keystore.ReaderOf(n.Store).Get(t.Context(), "any")
			if ups := lines.FilterMessage("the store answers lookups again"); err != nil || ups.Len() != 1 {
				t.Errorf("afterwards: %v, logged %v", err, ups.All())
			}
		})
	}
}

// A server that accepts connections and never answers, and one that takes
// longer than the timeout, cost two timeouts in a row; then lookups are refused
// at once.
func TestServerThatDoesNotAnswerInTime(t *testing.T) {
	for name, answer := range map[string]func(release <-chan struct{}, args []string) string{
		"never": func(release <-chan struct{}, _ []string) string { <-release; return "" },
		"late": func(release <-chan struct{}, args []string) string {
			select {
			case <-release:
			case <-time.After(patience + 50*time.Millisecond): // longer than any lookup waits
			}
			return valuesOf(args)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			f := newFakeRedis(t, func(args []string) string { return answer(release, args) })
			t.Cleanup(func() { close(release) })
			core, lines := observer.New(zap.InfoLevel)
			client := redis.NewClient(&redis.Options{Addr: f.addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1, ContextTimeoutEnabled: true})
			t.Cleanup(func() { _ = client.Close() })
			r := keystore.NewReader(client, patience, zap.New(core))
			atOnce := 0
			for range 100 {
				begun := time.Now()
				_, _, err := r.Get(t.Context(), "key")
				if took := time.Since(begun); took > patience+slack {
					t.Errorf("took %v, want at most about %v", took, patience)
				} else if took < patience/2 {
					atOnce++
				}
				if got := keystore.OutageReason(err); got != keystore.OutageTimeout {
					t.Fatalf("got %v, of reason %q", err, got)
				}
			}
			if atOnce < 50 {
				t.Errorf("%d of 100 were refused at once", atOnce)
			}
			if n := lines.FilterMessage("the store does not answer lookups").Len(); n != 1 {
				t.Errorf("it logged %v", lines.All())
			}
		})
	}
}

// A storm: two servers of a Cluster, each of which says that the other one has
// the slot, whatever is asked.
func TestRedirectionsWithoutEndAreUnavailable(t *testing.T) {
	for _, kind := range []string{"MOVED", "ASK", "TRYAGAIN"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var addrs [2]string
			var ready sync.WaitGroup
			ready.Add(1)
			storm := func(other int) func([]string) string {
				return func(args []string) string {
					ready.Wait()
					switch strings.ToLower(args[0]) {
					case "cluster":
						host, port, _ := net.SplitHostPort(addrs[0])
						return respArray(respArray(":0\r\n", ":16383\r\n", respArray(respBulk(host), ":"+port+"\r\n", respBulk("id"))))
					case "asking":
						return "+OK\r\n"
					}
					if kind == "TRYAGAIN" {
						return "-TRYAGAIN Multiple keys request during rehashing of slot\r\n"
					}
					return fmt.Sprintf("-%s 1 %s\r\n", kind, addrs[other])
				}
			}
			addrs[0], addrs[1] = newFakeRedis(t, storm(1)).addr, newFakeRedis(t, storm(0)).addr
			ready.Done()
			client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs[:], Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true})
			t.Cleanup(func() { _ = client.Close() })
			r := keystore.NewReader(client, patience, zap.NewNop())
			for range 5 {
				begun := time.Now()
				_, _, err := r.Get(t.Context(), "key")
				took := time.Since(begun)
				if got := keystore.OutageReason(err); got != keystore.OutageClusterDown && got != keystore.OutageTimeout || took > patience+slack {
					t.Errorf("got %v, of reason %q, after %v", err, got, took)
				}
			}
		})
	}
}

func TestOutageReasons(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for _, row := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{context.Canceled, ""},
		{fmt.Errorf("%w: %w", keystore.ErrUnavailable, context.Canceled), ""},
		{fmt.Errorf("%w: %w", keystore.ErrUnavailable, context.DeadlineExceeded), keystore.OutageTimeout},
		{refused, keystore.OutageConnection},
		{io.EOF, keystore.OutageConnection},
		{io.ErrUnexpectedEOF, keystore.OutageConnection},
		{redis.ErrClosed, keystore.OutageConnection},
		{redis.ErrPoolTimeout, keystore.OutageOverloaded},
		{errors.New("?"), keystore.OutageOther},
		{keystore.ErrEmptied, keystore.OutageEmptied},
		{fmt.Errorf("%w: %w", keystore.ErrUnavailable, keystore.ErrOlder), keystore.OutageOlder},
		{keystore.ErrUnavailable, keystore.OutageOther},
	} {
		if got := keystore.OutageReason(row.err); got != row.want {
			t.Errorf("%v: got %q, want %q", row.err, got, row.want)
		}
		if row.want != "" && !slices.Contains(keystore.OutageReasons(), row.want) {
			t.Errorf("%q is not among the reasons", row.want)
		}
	}
}

// While a server is down one read at a time tries it, every so often, and all
// others are refused at once. When it is back, those who come share round trips
// as before: nobody has queued up meanwhile.
func TestADownServerIsTriedByOneAtATime(t *testing.T) {
	broken := errors.New("broken")
	bubble(t, 100, func(t *testing.T, b *bench) {
		var back atomic.Bool
		b.hold = func(_ int, _ context.Context) error {
			<-time.After(time.Millisecond) // on the bubble's clock
			if back.Load() {
				return nil
			}
			return broken
		}
		stop := make(chan struct{})
		var refused, slow atomic.Int64
		var clients sync.WaitGroup
		for i := range 100 {
			clients.Go(func() {
				for {
					begun := time.Now()
					if err := b.check(t.Context(), i); err != nil {
						refused.Add(1)
						if time.Since(begun) > 0 {
							slow.Add(1)
						}
					}
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond): // on the bubble's clock
					}
				}
			})
		}
		<-time.After(2 * time.Second) // on the bubble's clock
		down := b.count()
		// Two for those who came first, two for the first try, and then two every
		// 100 to 150 ms.
		if low, high := 2+2*int(2*time.Second/(keystore.ProbePause*3/2+2*time.Millisecond)), 4+2*int(2*time.Second/keystore.ProbePause); down < low || down > high {
			t.Errorf("%d round trips in 2s, want %d to %d", down, low, high)
		}
		if got := slow.Load(); got > 100+int64(down) {
			t.Errorf("%d of %d waited", got, refused.Load())
		}
		back.Store(true)
		<-time.After(2 * keystore.ProbePause) // on the bubble's clock
		before, at := refused.Load(), b.count()
		<-time.After(100 * time.Millisecond) // on the bubble's clock
		close(stop)
		clients.Wait()
		if refused.Load() != before {
			t.Error("reads are refused although it is back")
		}
		if trips := b.count() - at; trips > 110 {
			t.Errorf("%d round trips of a millisecond in 100ms", trips)
		}
		if downs, ups := b.lines.FilterMessage("the store does not answer lookups").Len(), b.lines.FilterMessage("the store answers lookups again").Len(); downs != 1 || ups != 1 {
			t.Errorf("it logged %d times that it is down and %d times that it is back", downs, ups)
		}
	})
}

// A single reply that is too slow fails those who wait for it alone: the reads
// that come later are asked, and none of them is refused.
func TestOneSlowReplyRefusesNobody(t *testing.T) {
	bubble(t, 3, func(t *testing.T, b *bench) {
		b.hold = func(number int, ctx context.Context) error {
			if number == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		first := b.start(t.Context(), 0)
		<-time.After(benchTimeout / 2) // on the bubble's clock
		second := b.start(t.Context(), 1)
		wantErr(t, <-first, context.DeadlineExceeded)
		if err := <-second; err != nil {
			t.Errorf("the one that waited meanwhile: %v", err)
		}
		synctest.Wait()
		if err := b.check(t.Context(), 2); err != nil {
			t.Errorf("the next one: %v", err)
		}
		b.wantCommands(1, 1, 1)
	})
}

// Reads of many keys are refused too while the server is down, and at most a
// few at a time take connections from lookups.
func TestReadsOfManyKeysAreBounded(t *testing.T) {
	bubble(t, 10, func(t *testing.T, b *bench) {
		var now, most atomic.Int64
		b.hold = func(int, context.Context) error {
			most.Store(max(most.Load(), now.Add(1)))
			<-time.After(time.Millisecond) // on the bubble's clock
			now.Add(-1)
			return nil
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if _, err := b.Many(t.Context(), []string{keyName(1), keyName(2)}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if most.Load() != 4 {
			t.Errorf("%d were under way at a time", most.Load())
		}
		broken := errors.New("broken")
		b.hold = func(int, context.Context) error { return broken }
		wantErr(t, b.check(t.Context(), 1), broken)
		at := b.count()
		_, err := b.Many(t.Context(), []string{keyName(1)})
		wantErr(t, err, broken)
		if b.count() != at {
			t.Error("a server that is down was asked")
		}
		b.hold = func(int, context.Context) error { return nil }
	})
}
