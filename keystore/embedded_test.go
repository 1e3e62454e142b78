package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// reopen closes the node and opens the store again, as another process would.
func (n *node) reopen(changes ...func(*keystore.Options)) *node {
	n.t.Helper()
	if err := n.Close(); err != nil {
		n.t.Fatal(err)
	}
	return n.w.node(changes...)
}

// everything is all that a store holds.
func (n *node) everything() map[string]string {
	n.t.Helper()
	return dump(n.t, keystore.ClientOf(n.Store), n.w.options.Prefix)
}

func TestEveryChangeIsBackAfterReopening(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	person := n.account("acme")
	kept, keptToken := n.key(person, func(k *keystore.NewKey) { k.Name = "kept ✓ <&> \u2028" })
	revoked, revokedToken := n.key(person)
	old, oldToken := n.key(person)
	expiring, expiringToken := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(time.Hour) })
	_, _ = n.key(n.account("gone"))
	if _, err := n.Revoke(t.Context(), person, revoked.ID); err != nil {
		t.Fatal(err)
	}
	next, nextToken, err := n.Regenerate(t.Context(), person, old.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	n.update(person, kept.ID, keystore.Update{Active: ptr(false)})
	n.update(person, expiring.ID, keystore.Update{Name: ptr("renamed")})
	n.delete("gone")
	w.clock.Advance(time.Minute)
	n.account("acme", func(a *keystore.Account) { a.Name, a.Subaccounts = "Acme 2", a.Subaccounts[:1] })

	before, listed := n.everything(), n.list(person, 100)
	for range 3 { // each time from what the time before has left
		n = n.reopen()
		if diff := gocmp.Diff(before, n.everything()); diff != "" {
			t.Fatalf("after reopening (-want +got):\n%s", diff)
		}
	}
	if diff := gocmp.Diff(listed, n.list(person, 100), same); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if n.works(keptToken).Key.Active || n.works(nextToken).Key.ID != next.ID || n.works(expiringToken).Key.Name != "renamed" {
		t.Error("a key is not as it was")
	}
	n.wantKept(expiringToken, 30*24*time.Hour+time.Hour)
	n.wantUnknown(revokedToken)
	n.wantUnknown(oldToken)
	_, err = n.GetAccount(t.Context(), "gone")
	wantErr(t, err, keystore.ErrNotFound)
	if a, err := n.GetAccount(t.Context(), "acme"); err != nil || a.Name != "Acme 2" || len(a.Subaccounts) != 1 {
		t.Errorf("account %+v, %v", a, err)
	}
}

// On a fake clock: a key is dropped when its retention is over, and does not
// come back, neither by a restart nor by a clock that is put back.
func TestDroppedKeysDoNotComeBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, "embedded")
		n := w.node()
		person := n.account("acme")
		k, token := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(time.Hour) })
		w.clock.Advance(time.Hour + keystore.Retention - time.Second)
		if e := n.works(token); e.Key.ID != k.ID {
			t.Errorf("found %v", e.Key)
		}
		n = n.reopen()
		n.works(token)
		w.clock.Advance(time.Second)
		n.wantUnknown(token)
		n.account("other") // a change moves the store's clock
		w.clock.Advance(-time.Hour)
		n.wantUnknown(token)
		w.clock.Advance(time.Hour)
		n = n.reopen()
		n.wantUnknown(token)
		if keys := n.list(person, 10); len(keys) != 0 {
			t.Errorf("listed: %v", keys)
		}
		w.clock.Advance(-time.Hour)
		n = n.reopen()
		n.wantUnknown(token)
	})
}

// What has ended takes no room for more than an hour.
func TestWhatHasEndedIsSwept(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, "embedded")
		n := w.node()
		person := n.account("acme")
		before := keystore.Keys(n.Store, keystore.ValuesBucket)
		const keys = 2500 // more than a portion
		n.many(person, 1)
		var steps []keystore.Step
		for i := range keys {
			steps = append(steps, keystore.Step{Kind: keystore.StepSet, Key: fmt.Sprintf("%sending %d", w.options.Prefix, i), Value: "x", Ends: w.clock.Now().Add(time.Minute).Unix()})
		}
		n.must(nil, nil, keystore.CommitTo(t.Context(), n.Store, nil, steps))
		if got := keystore.Keys(n.Store, keystore.ValuesBucket); got != before+1+keys {
			t.Fatalf("%d values, want %d", got, before+1+keys)
		}
		w.clock.Advance(time.Minute)
		<-time.After(time.Hour + time.Second)
		n.account("acme") // behind the sweep
		if got := keystore.Keys(n.Store, keystore.ValuesBucket); got != before+1 {
			t.Errorf("%d values are left, want %d", got, before+1)
		}
	})
}

// Nobody begins a store but who is told to: another disk, or none, is no reason
// to say of every key that it is unknown.
func TestNoStoreIsBegunUnasked(t *testing.T) {
	w := newWorld(t, "embedded")
	for _, change := range []func(*keystore.Options){
		func(o *keystore.Options) { o.Create = false },
		func(o *keystore.Options) { o.ReadOnly = true },
	} {
		o := w.options
		change(&o)
		_, err := keystore.Open(t.Context(), o)
		wantErr(t, err, keystore.ErrNoStore)
		if !strings.Contains(err.Error(), w.options.EmbeddedFile) {
			t.Errorf("it does not name the file: %v", err)
		}
	}
	if files := filesOf(t, w); len(files) > 0 {
		t.Errorf("left are %q", files)
	}
	n := w.node()
	_, token := n.key(n.account("acme"))
	onlyOurs(t, w.options.EmbeddedFile)
	w.options.Create = false
	n = n.reopen()
	n.works(token)
	if files := n.files(); len(files) != 1 {
		t.Errorf("there are %q", files)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	w.node(func(o *keystore.Options) { o.ReadOnly = true }).works(token)
}

// Of processes that begin the same store at the same moment one has it.
func TestOneBeginsTheStore(t *testing.T) {
	w := newWorld(t, "embedded")
	var all sync.WaitGroup
	var opened atomic.Int64
	for range 8 {
		all.Go(func() {
			s, err := keystore.Open(t.Context(), w.options)
			if err != nil {
				return
			}
			opened.Add(1)
			t.Cleanup(func() { _ = s.Close() })
		})
	}
	all.Wait()
	if files := filesOf(t, w); opened.Load() != 1 || len(files) != 1 {
		t.Errorf("%d have it, and there are %q", opened.Load(), files)
	}
}

func TestFileInUseIsRefused(t *testing.T) {
	w := newWorld(t, "embedded")
	first := w.node()
	_, token := first.key(first.account("acme"))
	hard := filepath.Join(filepath.Dir(w.options.EmbeddedFile), "the same file")
	if err := os.Link(w.options.EmbeddedFile, hard); err != nil {
		t.Fatal(err)
	}
	soft := filepath.Join(t.TempDir(), "a link to it")
	if err := os.Symlink(w.options.EmbeddedFile, soft); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{w.options.EmbeddedFile, hard, soft} {
		for _, readOnly := range []bool{false, true} {
			o := w.options
			o.EmbeddedFile, o.ReadOnly = file, readOnly
			if _, err := keystore.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "in use by another process") {
				t.Errorf("as %s: got %v", file, err)
			}
		}
	}
	first.works(token) // and goes on
	first.key(first.account("acme"))
	first.reopen().works(token)
}

// A link stands for the file that it names.
func TestFileBehindALink(t *testing.T) {
	w := newWorld(t, "embedded")
	file := w.options.EmbeddedFile
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	w.options.EmbeddedFile = link
	if s, err := keystore.Open(t.Context(), w.options); err == nil || !strings.Contains(err.Error(), link) {
		t.Errorf("a link to nothing: got %v, %v", s, err)
	}
	w.options.EmbeddedFile = file
	n := w.node()
	_, token := n.key(n.account("acme"))
	w.options.EmbeddedFile = link
	n = n.reopen()
	n.works(token)
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
}

func TestFileThatCannotBeWrittenOrRead(t *testing.T) {
	w := newWorld(t, "embedded")
	w.options.EmbeddedFile = filepath.Join(t.TempDir(), "nowhere", "gatehouse.db")
	if _, err := keystore.Open(t.Context(), w.options); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that is not there: got %v", err)
	}
	w.options.EmbeddedFile = filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(w.options.EmbeddedFile, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := keystore.Open(t.Context(), w.options); err == nil {
		t.Error("a folder was opened as a store")
	}
}

// When the disk is full, what is not on it is not acknowledged, and does not
// happen; what was acknowledged goes on working; and when there is room again,
// changes are made again, without a restart.
func TestFullDiskIsNotForGood(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	n.wantFullDisk(person, k, token, 10, func(n *node) (func() error, error) {
		for range 20 { // so that the file has room: only writing to it fails
			k, _ := n.key(person)
			if _, err := n.Revoke(t.Context(), person, k.ID); err != nil {
				t.Fatal(err)
			}
		}
		return keystore.FillDisk(n.Store)
	})
}

// The same on a disk that is really full.
func TestFullFileSystemIsNotForGood(t *testing.T) {
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("SKIPPED: no file system can be mounted: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(folder, syscall.MNT_DETACH) })
	w := newWorld(t, "embedded")
	w.options.EmbeddedFile = filepath.Join(folder, "gatehouse.db")
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	ballast := filepath.Join(folder, "ballast")
	n.wantFullDisk(person, k, token, 200_000, func(n *node) (func() error, error) {
		f, err := os.Create(ballast)
		if err != nil {
			return nil, err
		}
		for full := false; !full; {
			_, err := f.Write(make([]byte, 1024))
			full = err != nil
		}
		_ = f.Close()
		for range 200 { // until the pages that the file has free are used
			_, _, refused := n.Create(t.Context(), person, newKey(func(k *keystore.NewKey) { k.Name = strings.Repeat("x", 50_000) }))
			if full := refused != nil; full {
				break
			}
		}
		return func() error { return os.Remove(ballast) }, nil //nolint:nilerr // that there is no room is what was wanted
	})
}

func (n *node) wantFullDisk(person policy.Caller, k policy.Key, token keystore.Token, size int, fill func(*node) (free func() error, err error)) {
	t := n.t
	t.Helper()
	big := func(k *keystore.NewKey) { k.Name = strings.Repeat("x", size) }
	for round := range 2 {
		free, err := fill(n)
		if err != nil {
			t.Skipf("SKIPPED: the disk cannot be filled: %v", err)
		}
		before := n.everything()
		for range 2 {
			_, _, err := n.Create(t.Context(), person, newKey(big))
			wantErr(t, err, keystore.ErrUnavailable)
		}
		if err := keystore.LastWriteError(n.Store); err == nil {
			t.Error("the last write is said to have succeeded")
		}
		n.works(token)
		if diff := gocmp.Diff(before, n.everything()); diff != "" {
			t.Errorf("refused changes have happened (-want +got):\n%s", diff)
		}
		n.must(nil, nil, free())
		keystore.Probe(n.Store)
		if err := keystore.LastWriteError(n.Store); err != nil {
			t.Errorf("there is room again, and the last write is said to have ended with %v", err)
		}
		_, next := n.key(person, big)
		n.works(next)
		if round > 0 {
			break
		}
		n = n.reopen() // which looks at all of the file
		n.works(next)
	}
	if _, err := n.Revoke(t.Context(), person, k.ID); err != nil {
		t.Fatal(err)
	}
	n = n.reopen()
	n.wantUnknown(token)
}

// A change that is in the file, and of which only the disk's word is missing, may
// be there after a restart or not: nothing more is written to that file, so that
// what was acknowledged stays whole.
func TestDiskThatDoesNotConfirmEndsAllChanges(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	person := n.account("acme")
	_, token := n.key(person)
	failing := errors.New("input/output error")
	keystore.FailWrites(n.Store, true, func() error { return failing })
	_, _, err := n.Create(t.Context(), person, newKey())
	wantErr(t, err, keystore.ErrUnavailable)
	failing = nil
	_, _, err = n.Create(t.Context(), person, newKey())
	wantErr(t, err, keystore.ErrUnavailable)
	if !strings.Contains(err.Error(), "restart") {
		t.Errorf("it does not say what to do: %v", err)
	}
	keystore.Probe(n.Store)
	if err := keystore.LastWriteError(n.Store); err == nil {
		t.Error("writes are said to succeed")
	}
	n.works(token)
	n = n.reopen()
	n.works(token)
	n.key(person)
}

// Changes that come at the same moment share a transaction, and each has its own
// outcome.
func TestChangesTogether(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	transactions, hold := atomic.Int64{}, make(chan struct{})
	keystore.HoldWrites(n.Store, func() {
		if transactions.Add(1) == 1 {
			<-hold
		}
	})
	set := func(name, from, to string) error {
		name = w.options.Prefix + name
		return keystore.CommitTo(t.Context(), n.Store, []keystore.Guard{{Key: name, Want: from}}, []keystore.Step{{Kind: keystore.StepSet, Key: name, Value: to}})
	}
	first := make(chan error)
	go func() { first <- set("first", "", "1") }()
	eventually(t, "the first is being written", func() bool { return transactions.Load() == 1 })
	const others = 20
	outcomes := make(chan error, others)
	for i := range others {
		go func() { outcomes <- set("counter", "", fmt.Sprint(i)) }() // of which one can be first
	}
	bad := make(chan error)
	go func() {
		bad <- keystore.CommitTo(t.Context(), n.Store, nil, []keystore.Step{{Kind: "unheard of", Key: "x"}})
	}()
	close(hold)
	n.must(nil, nil, <-first)
	done := 0
	for range others {
		switch err := <-outcomes; {
		case err == nil:
			done++
		case !errors.Is(err, keystore.ErrMoved):
			t.Errorf("got %v", err)
		}
	}
	if err := <-bad; err == nil || errors.Is(err, keystore.ErrMoved) || done != 1 {
		t.Errorf("the bad one got %v, and %d of the others were first", err, done)
	}
	if err := keystore.LastWriteError(n.Store); err != nil {
		t.Errorf("a change that cannot be made is taken for a disk that fails: %v", err)
	}
}

// What a caller has asked for who goes away is done in whole, and a store that was
// closed takes nothing.
func TestChangeOfACallerThatGoesAway(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	person := n.account("acme")
	hold, held := make(chan struct{}), make(chan struct{})
	keystore.HoldWrites(n.Store, func() {
		held <- struct{}{}
		<-hold
	})
	ctx, cancel := context.WithCancel(t.Context())
	outcome := make(chan error)
	go func() {
		_, _, err := n.Create(ctx, person, newKey())
		outcome <- err
	}()
	<-held
	cancel()
	hold <- struct{}{}
	n.must(nil, nil, <-outcome)
	if keys := n.list(person, 10); len(keys) != 1 {
		t.Errorf("%d keys, want that of the caller who went away", len(keys))
	}
	n.must(nil, nil, n.Close())
	_, _, err := n.Create(t.Context(), person, newKey())
	wantErr(t, err, keystore.ErrUnavailable)
}

// What is damaged in the file is never taken for what was never there: neither
// while the store is open nor at the next start.
func TestDamagedValueIsUnavailable(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"a bit":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"its end": func(b []byte) []byte { return b[:len(b)-1] },
		"all":     func([]byte) []byte { return []byte{0} },
	} {
		w := newWorld(t, "embedded")
		n := w.node()
		person := n.account("acme")
		k, token := n.key(person)
		_, other := n.key(person)
		n.must(nil, nil, keystore.Damage(n.Store, keystore.ValuesBucket, n.recordName(token), damage))
		n.wantUnavailable(token)
		n.works(other)
		_, err := n.Revoke(t.Context(), person, k.ID)
		wantErr(t, err, keystore.ErrUnavailable)
		n.key(person) // what does not touch it goes on
		n.must(nil, nil, n.Close())
		if _, err := keystore.Open(t.Context(), w.options); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: opened with %v", name, err)
		}
	}
}

// Whichever byte of the file is overwritten, it opens with all that was there, or
// is refused.
func TestDamagedFileIsNeverTakenForWhole(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	person := n.account("acme")
	tokens := n.many(person, 30)
	n.must(nil, nil, n.Close())
	good, err := os.ReadFile(w.options.EmbeddedFile)
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	for at := 0; at < len(good); at += max(97, len(good)/700|1) {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		overwrite(t, w.options.EmbeddedFile, bad)
		s, err := keystore.Open(t.Context(), w.options)
		if err != nil {
			continue
		}
		opened++
		for _, token := range tokens {
			if _, err := s.Lookup(t.Context(), token); err != nil {
				t.Errorf("byte %d: opened, and a key got %v", at, err)
				break
			}
		}
		n.must(nil, nil, s.Close())
	}
	for _, size := range []int{1, 100, 4096, 8192, len(good) / 2, len(good) - 4096} {
		overwrite(t, w.options.EmbeddedFile, good[:size])
		if s, err := keystore.Open(t.Context(), w.options); err == nil {
			_, lost := s.Lookup(t.Context(), tokens[0])
			n.must(nil, nil, s.Close())
			if lost != nil {
				t.Errorf("cut to %d bytes, it was opened, and a key got %v", size, lost)
			}
		}
	}
	t.Logf("%d damages do not matter", opened)
}

// The head that stands for the last change is damaged: the file is refused, until
// an operator takes it without that change.
func TestFileWithoutItsLastChangeIsRefused(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	person := n.account("acme")
	_, kept := n.key(person)
	k, token := n.key(person)
	if _, err := n.Revoke(t.Context(), person, k.ID); err != nil { // the last change
		t.Fatal(err)
	}
	n.must(nil, nil, n.Close())
	content, err := os.ReadFile(w.options.EmbeddedFile)
	if err != nil {
		t.Fatal(err)
	}
	newest := 0
	const head, txid = 16, 48
	page := os.Getpagesize()
	if bytes.Compare(reversed(content[head+txid:head+txid+8]), reversed(content[page+head+txid:page+head+txid+8])) < 0 {
		newest = page
	}
	content[newest+head+txid] ^= 0x40
	overwrite(t, w.options.EmbeddedFile, content)
	if _, err := keystore.Open(t.Context(), w.options); err == nil || !strings.Contains(err.Error(), "store accept") {
		t.Fatalf("opened: %v", err)
	}
	n.must(nil, nil, keystore.Accept(t.Context(), w.options))
	n = w.node()
	n.works(kept)
	n.works(token) // which its owner has to revoke again
	_, next := n.key(person)
	n.reopen().works(next)
}

// reversed is a little-endian number as bytes that sort like it.
func reversed(b []byte) []byte {
	r := bytes.Clone(b)
	slices.Reverse(r)
	return r
}
