package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"gatehouse/keystore"
)

// bench is a reader on a miniredis inside a synctest bubble: time moves only
// when everybody waits, and a goroutine that is left over fails the test.
type bench struct {
	keystore.Reader
	t      *testing.T
	client *redis.Client
	// commands are what the reader has sent, each as its keys.
	mu       sync.Mutex
	commands [][]string
	// hold is asked before each command is answered, in the order they come.
	hold  func(number int, ctx context.Context) error
	log   zapcore.Core
	lines *observer.ObservedLogs
}

const benchTimeout = 300 * time.Millisecond

func bubble(t *testing.T, keys int, test func(t *testing.T, b *bench)) {
	t.Helper()
	inBubble(t, func(t *testing.T) {
		m := miniredis.NewMiniRedis()
		for i := range keys {
			if err := m.Set(keyName(i), valueOf(i)); err != nil {
				t.Fatal(err)
			}
		}
		_ = m.Set("marker", "the store")
		core, lines := observer.New(zap.InfoLevel)
		b := &bench{t: t, hold: func(int, context.Context) error { return nil }, log: core, lines: lines}
		b.client = redis.NewClient(&redis.Options{
			Dialer:   func(context.Context, string, string) (net.Conn, error) { return m.Dial() },
			Protocol: 2, DisableIdentity: true, MaxRetries: -1, ContextTimeoutEnabled: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
		b.client.AddHook(hook(func(ctx context.Context, cmd redis.Cmder, next func() error) error {
			if cmd.Name() == "hello" { // a new connection's
				return next()
			}
			b.mu.Lock()
			var names []string
			for _, a := range cmd.Args()[1:] {
				names = append(names, a.(string))
			}
			b.commands = append(b.commands, names)
			number := len(b.commands)
			b.mu.Unlock()
			if err := b.hold(number, ctx); err != nil {
				return err
			}
			return next()
		}))
		b.Reader = keystore.NewReader(b.client, benchTimeout, zap.New(b.log))
		test(t, b)
		synctest.Wait()
		if !b.Idle() {
			t.Error("the reader is not idle at the end")
		}
		if err := b.client.Close(); err != nil {
			t.Error(err)
		}
		m.Close()
	})
}

func keyName(i int) string { return fmt.Sprintf("key:%d", i) }
func valueOf(i int) string { return fmt.Sprintf("the value of %d", i) }

// check reads key i, which has a value.
func (b *bench) check(ctx context.Context, i int) error {
	raw, found, err := b.Get(ctx, keyName(i))
	if err != nil {
		return err
	}
	if raw != valueOf(i) || !found {
		b.t.Errorf("key %d: got %q, %v", i, raw, found)
	}
	return nil
}

// start begins a read in a goroutine; the result is in the channel.
func (b *bench) start(ctx context.Context, i int) <-chan error {
	result := make(chan error, 1)
	go func() { result <- b.check(ctx, i) }()
	return result
}

// holdFirst holds the first command until release is closed.
func (b *bench) holdFirst() (release chan struct{}) {
	release = make(chan struct{})
	b.hold = func(number int, _ context.Context) error {
		if number == 1 {
			<-release
		}
		return nil
	}
	return release
}

func (b *bench) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.commands)
}

func (b *bench) wantCommands(want ...int) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var got []int
	for _, names := range b.commands {
		got = append(got, len(names)-1) // less the marker
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("commands with %v keys, want %v", got, want)
	}
}

func TestLoneReadIsOneCommand(t *testing.T) {
	bubble(t, 3, func(t *testing.T, b *bench) {
		begun := time.Now()
		for i := range 3 {
			if err := b.check(t.Context(), i); err != nil {
				t.Error(err)
			}
		}
		b.wantCommands(1, 1, 1)
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("they waited %v for nobody", waited)
		}
		if raw, found, err := b.Get(t.Context(), "nothing"); raw != "" || found || err != nil {
			t.Errorf("no value: got %q, %v, %v", raw, found, err)
		}
		b.Saw("nothing", 7)
		if marker, slot, known, err := b.Marker(t.Context(), "nothing"); marker != "the store" || slot != 0 || known != 7 || err != nil {
			t.Errorf("its marker: got %q, %d, %d, %v", marker, slot, known, err)
		}
	})
}

// What comes while a read is under way shares the next round trip, whatever
// its number, and everybody gets the value of their own key.
func TestWaitingReadsShareOneCommand(t *testing.T) {
	bubble(t, 200, func(t *testing.T, b *bench) {
		release := b.holdFirst()
		results := []<-chan error{b.start(t.Context(), 0)}
		synctest.Wait()
		for i := 1; i < 200; i++ {
			results = append(results, b.start(t.Context(), i))
		}
		synctest.Wait()
		if b.Waiting() != 199 {
			t.Errorf("%d wait, want 199", b.Waiting())
		}
		close(release)
		for i, result := range results {
			if err := <-result; err != nil {
				t.Errorf("read %d: %v", i, err)
			}
		}
		b.wantCommands(1, 199)
	})
}

// The same key asked for many times at once is many reads with one answer.
func TestWaitingReadsOfOneKey(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bench) {
		release := b.holdFirst()
		var results []<-chan error
		for range 20 {
			results = append(results, b.start(t.Context(), 0))
		}
		synctest.Wait()
		close(release)
		for _, result := range results {
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
		b.wantCommands(1, 19)
	})
}

// A caller that goes away does not wait any longer, and takes nobody with it:
// neither when its read is under way for others, nor when it is to lead the
// next batch.
func TestCallerThatIsCancelledFailsNobodyElse(t *testing.T) {
	bubble(t, 30, func(t *testing.T, b *bench) {
		release := b.holdFirst()
		ctx, cancel := context.WithCancel(t.Context())
		results := []<-chan error{b.start(ctx, 0)}
		synctest.Wait()
		for i := 1; i < 30; i++ {
			whose := t.Context()
			if i > 20 { // the last to come leads
				whose = ctx
			}
			results = append(results, b.start(whose, i))
			synctest.Wait()
		}
		cancel()
		for i := 21; i < 30; i++ {
			if err := <-results[i]; !errors.Is(err, context.Canceled) {
				t.Errorf("read %d: got %v, want its context's error", i, err)
			}
		}
		synctest.Wait()
		close(release)
		for i, result := range results[:21] {
			if err := <-result; err != nil {
				t.Errorf("read %d: %v", i, err)
			}
		}
		b.wantCommands(1, 20)
		if _, _, err := b.Get(ctx, keyName(1)); !errors.Is(err, context.Canceled) {
			t.Errorf("a read that begins cancelled: got %v", err)
		}
		b.wantCommands(1, 20)
	})
}

// When all who wait have gone, nobody leads, and the next read is not lost.
func TestEverybodyWhoWaitsLeaves(t *testing.T) {
	bubble(t, 10, func(t *testing.T, b *bench) {
		release := b.holdFirst()
		first := b.start(t.Context(), 0)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var results []<-chan error
		for i := 1; i < 10; i++ {
			results = append(results, b.start(ctx, i))
		}
		synctest.Wait()
		cancel()
		for _, result := range results {
			wantErr(t, <-result, context.Canceled)
		}
		close(release)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := b.check(t.Context(), 3); err != nil {
			t.Error(err)
		}
		b.wantCommands(1, 1)
	})
}

// A panic in the round trip that many share ends one caller, the leader: the
// others get an error, and those who come later an answer.
func TestPanicOfTheLeaderHangsNobody(t *testing.T) {
	bubble(t, 30, func(t *testing.T, b *bench) {
		release := make(chan struct{})
		b.hold = func(number int, _ context.Context) error {
			if number == 1 {
				<-release
			}
			if number <= 2 {
				panic("a bug")
			}
			return nil
		}
		results := make(chan error, 30)
		panics := make(chan any, 30)
		for i := range 30 {
			go func() {
				defer func() {
					if p := recover(); p != nil {
						panics <- p
					}
				}()
				results <- b.check(t.Context(), i)
			}()
			synctest.Wait()
		}
		close(release)
		for range 2 {
			if p := <-panics; p != "a bug" {
				t.Errorf("recovered %v", p)
			}
		}
		for range 28 {
			if err := <-results; err == nil {
				t.Error("a read whose round trip broke off has an answer")
			}
		}
		for i := range 30 {
			if err := b.check(t.Context(), i); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		}
	})
}

// At most so many wait. The next one is refused at once, and those who wait
// are answered in portions, the first to come first.
func TestTheQueueIsBounded(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bench) {
		release := b.holdFirst()
		results := []<-chan error{b.start(t.Context(), 0)}
		synctest.Wait()
		for range keystore.MaxWaiting {
			results = append(results, b.start(t.Context(), 0))
		}
		synctest.Wait()
		begun := time.Now()
		err := b.check(t.Context(), 0)
		if reason := keystore.OutageReason(err); reason != keystore.OutageOverloaded || time.Since(begun) != 0 {
			t.Errorf("one too many: %v (%q) after %v", err, reason, time.Since(begun))
		}
		close(release)
		for i, result := range results {
			if err := <-result; err != nil {
				t.Fatalf("read %d: %v", i, err)
			}
		}
		want := []int{1}
		for range keystore.MaxWaiting / keystore.MaxBatch {
			want = append(want, keystore.MaxBatch)
		}
		b.wantCommands(want...)
		if err := b.check(t.Context(), 0); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// What did not fit into a batch counts as waiting, and comes before what is new.
func TestTheRestOfABatchComesNext(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bench) {
		gates := []chan struct{}{make(chan struct{}), make(chan struct{})}
		b.hold = func(number int, _ context.Context) error {
			if number <= len(gates) {
				<-gates[number-1]
			}
			return nil
		}
		results := []<-chan error{b.start(t.Context(), 0)}
		synctest.Wait()
		start := func(n int) {
			for range n {
				results = append(results, b.start(t.Context(), 0))
			}
			synctest.Wait()
		}
		start(keystore.MaxBatch + 10)
		close(gates[0])
		synctest.Wait() // the second batch is under way, and 10 are left over
		if b.Waiting() != 10 {
			t.Errorf("%d wait, want 10", b.Waiting())
		}
		start(keystore.MaxWaiting - 10)
		if err := b.check(t.Context(), 0); keystore.OutageReason(err) != keystore.OutageOverloaded {
			t.Errorf("one too many: got %v", err)
		}
		close(gates[1])
		for i, result := range results {
			if err := <-result; err != nil {
				t.Fatalf("read %d: %v", i, err)
			}
		}
	})
}

// When the store fails twice in a row, those who have waited for it are refused
// with it, and so is for a short time whoever comes later.
func TestFailureReachesThoseWhoWait(t *testing.T) {
	broken := errors.New("broken")
	bubble(t, 60, func(t *testing.T, b *bench) {
		release := make(chan struct{})
		b.hold = func(number int, _ context.Context) error {
			if number <= 2 { // a read tries once more
				<-release
				return broken
			}
			return nil
		}
		results := []<-chan error{b.start(t.Context(), 0)}
		synctest.Wait()
		for i := 1; i < 60; i++ {
			results = append(results, b.start(t.Context(), i))
		}
		synctest.Wait()
		close(release)
		for i, result := range results {
			if err := <-result; !errors.Is(err, broken) {
				t.Errorf("read %d: got %v, want the failure", i, err)
			}
		}
		b.wantCommands(1, 1)
		if err := b.check(t.Context(), 7); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
}

// A connection that died while it was idle costs another try, not an answer.
func TestReadTriesOnceMore(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bench) {
		b.hold = func(number int, _ context.Context) error {
			if number == 1 {
				return io.EOF
			}
			return nil
		}
		if err := b.check(t.Context(), 0); err != nil {
			t.Error(err)
		}
		b.wantCommands(1, 1)
	})
}

// While the store hangs, every read ends with its timeout, to the nanosecond,
// also those that began while another was waiting.
func TestNobodyWaitsLongerThanTheTimeout(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bench) {
		b.hold = func(_ int, ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				<-time.After(time.Duration(i) * 10 * time.Millisecond) // on the bubble's clock
				begun := time.Now()
				_, _, err := b.Get(t.Context(), keyName(0))
				if waited := time.Since(begun); waited > benchTimeout || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("read %d waited %v and got %v", i, waited, err)
				}
			})
		}
		all.Wait()
	})
}

// The longest wait there is: one comes just behind a read that takes almost
// the whole timeout and succeeds, and then the store hangs.
func TestWaitBehindASlowReadIsOneTimeout(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bench) {
		b.hold = func(number int, ctx context.Context) error {
			if number == 1 {
				<-time.After(benchTimeout - time.Millisecond) // on the bubble's clock
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		first := b.start(t.Context(), 0)
		synctest.Wait()
		begun := time.Now()
		if err := <-b.start(t.Context(), 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(begun); waited > benchTimeout {
			t.Errorf("waited %v, want at most %v", waited, benchTimeout)
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

// A batch may go on for as long as the youngest of its reads waits; the others
// end by their own time all the same.
func TestOlderReadsOfABatchEndInTheirTime(t *testing.T) {
	bubble(t, 3, func(t *testing.T, b *bench) {
		release := make(chan struct{})
		b.hold = func(number int, ctx context.Context) error {
			if number == 1 {
				<-release
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		begun := time.Now()
		results := []<-chan error{b.start(t.Context(), 0)}
		synctest.Wait() // it leads
		results = append(results, b.start(t.Context(), 1))
		synctest.Wait()
		<-time.After(benchTimeout / 2) // on the bubble's clock
		results = append(results, b.start(t.Context(), 2))
		synctest.Wait()
		close(release)
		for i, want := range []time.Duration{benchTimeout / 2, benchTimeout, benchTimeout * 3 / 2} {
			err := <-results[i]
			if took := time.Since(begun); took != want || (err != nil) != (i > 0) {
				t.Errorf("read %d: %v after %v, want %v", i, err, took, want)
			}
		}
	})
}

func TestManyReadsComeBackInTheirOrder(t *testing.T) {
	bubble(t, 450, func(t *testing.T, b *bench) {
		var names, want []string
		for i := range 500 { // the last 50 have no value
			names = append(names, keyName(i))
			if i < 450 {
				want = append(want, valueOf(i))
			} else {
				want = append(want, "")
			}
		}
		got, err := b.Many(t.Context(), names)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, %v", got, err)
		}
		b.wantCommands(200, 200, 100)
		if got, err := b.Many(t.Context(), nil); len(got) != 0 || err != nil {
			t.Errorf("of nothing: %v, %v", got, err)
		}
	})
}

// Under load on a real connection: 10,000 keys, 200 goroutines, each of which
// gets the value of its own key, with far fewer commands than reads.
func TestEveryReadGetsTheValueOfItsOwnKey(t *testing.T) {
	const keys, workers, reads = 10_000, 200, 250
	m := miniredis.RunT(t)
	for i := range keys {
		_ = m.Set(keyName(i), valueOf(i))
	}
	client := redis.NewClient(&redis.Options{Addr: m.Addr(), Protocol: 2, DisableIdentity: true, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	var commands atomic.Int64
	client.AddHook(hook(func(_ context.Context, _ redis.Cmder, next func() error) error {
		commands.Add(1)
		return next()
	}))
	r := keystore.NewReader(client, 30*time.Second, zap.NewNop())
	together(workers, func(worker int) {
		random := rand.New(rand.NewPCG(1, uint64(worker)))
		for range reads {
			i := random.IntN(2 * keys) // half of them have no value
			raw, found, err := r.Get(t.Context(), keyName(i))
			if want := i < keys; err != nil || found != want || (found && raw != valueOf(i)) {
				t.Errorf("key %d: got %q, %v, %v", i, raw, found, err)
				return
			}
		}
	})
	if !r.Idle() {
		t.Error("the reader is not idle at the end")
	}
	t.Logf("%d reads in %d commands", workers*reads, commands.Load())
	if commands.Load() > workers*reads/4 {
		t.Errorf("%d commands for %d reads", commands.Load(), workers*reads)
	}
}

// Under a store that fails, dawdles and loses callers at random, a read has
// its own value or an error that was made here, and the reader ends idle.
func TestReaderUnderRandomFailures(t *testing.T) {
	broken := errors.New("broken")
	for seed := range uint64(8) {
		bubble(t, 500, func(t *testing.T, b *bench) {
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(seed, 2))
			draw := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			b.hold = func(_ int, ctx context.Context) error {
				switch draw(10) {
				case 0:
					return broken
				case 1:
					<-ctx.Done()
					return ctx.Err()
				default:
					<-time.After(time.Duration(draw(20)) * time.Millisecond) // on the bubble's clock
					return nil
				}
			}
			var good, bad atomic.Int64
			var all sync.WaitGroup
			for range 60 {
				all.Go(func() {
					for range 40 {
						<-time.After(time.Duration(draw(30)) * time.Millisecond) // on the bubble's clock
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(draw(200))*time.Millisecond)
						switch err := b.check(ctx, draw(500)); {
						case err == nil:
							good.Add(1)
						case errors.Is(err, broken) || errors.Is(err, context.DeadlineExceeded):
							bad.Add(1)
						default:
							t.Errorf("got %v", err)
						}
						cancel()
					}
				})
			}
			all.Wait()
			if good.Load() == 0 || bad.Load() == 0 {
				t.Errorf("%d good, %d bad: nothing was tested", good.Load(), bad.Load())
			}
		})
	}
}
