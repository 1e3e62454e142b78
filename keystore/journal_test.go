package keystore_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
// come back, neither with the journal nor with a rewritten one.
func TestDroppedKeysDoNotComeBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, "embedded")
		n := w.node()
		person := n.account("acme")
		k, token := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(time.Hour) })
		w.clock.Advance(time.Hour + keystore.Retention - time.Second)
		n.account("other") // a change moves the store's clock
		if e := n.works(token); e.Key.ID != k.ID {
			t.Errorf("found %v", e.Key)
		}
		n = n.reopen()
		n.works(token)
		w.clock.Advance(time.Second)
		n = n.reopen()
		n.wantUnknown(token)
		if keys := n.list(person, 10); len(keys) != 0 {
			t.Errorf("listed: %v", keys)
		}
		w.clock.Advance(-time.Hour) // not even for a clock that was put back, once a change was made
		n.account("other")
		n.wantUnknown(token)
	})
}

func TestDroppedKeysGoWithAChange(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	person := n.account("acme")
	_, token := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(time.Hour) })
	w.clock.Advance(time.Hour + keystore.Retention)
	n.account("other")
	n.wantUnknown(token)
}

// shortJournal makes a journal of five lines: its format, the store's
// identity, an account, a key and the key's next.
func shortJournal(t *testing.T, w *world) (file string, content []byte) {
	t.Helper()
	n := w.node()
	person := n.account("acme")
	k, _ := n.key(person)
	n.must(n.Regenerate(t.Context(), person, k.ID, 0))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(w.options.EmbeddedFile)
	if err != nil {
		t.Fatal(err)
	}
	return w.options.EmbeddedFile, content
}

// state is what a journal adds up to, in an order of its own.
func state(content []byte) (string, error) {
	steps, err := keystore.ReadJournal("the file", content, time.Now())
	slices.SortFunc(steps, func(a, b keystore.Step) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Field, b.Field)) })
	return fmt.Sprint(steps), err
}

func overwrite(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A store never silently starts with less than it acknowledged: whichever byte
// of the file is damaged, the file is refused, naming the line, or it means
// the same. In every second byte one bit is turned over, in the others all.
func TestEveryDamagedByteIsFoundOrHarmless(t *testing.T) {
	t.Parallel()
	_, good := shortJournal(t, newWorld(t, "embedded"))
	want, err := state(good)
	if err != nil {
		t.Fatal(err)
	}
	harmless := 0
	for at := range good {
		bits := byte(0xff)
		if at%2 == 0 {
			bits = 1 << (at / 2 % 8)
		}
		bad := bytes.Clone(good)
		bad[at] ^= bits
		got, err := state(bad)
		if err == nil {
			if harmless++; got != want {
				t.Fatalf("byte %d, bits %#x: it starts with another state\n%s\nwant\n%s", at, bits, got, want)
			}
			continue
		}
		line := 1 + bytes.Count(good[:at], []byte("\n"))
		if !strings.Contains(err.Error(), fmt.Sprintf("the file:%d: ", line)) {
			t.Fatalf("byte %d in line %d, bits %#x: got %v", at, line, bits, err)
		}
	}
	t.Logf("%d of %d damages do not matter", harmless, len(good))
}

// Cut off anywhere, as by a crash while the last line was written, the file is
// refused or, cut at a line's end, is that of an earlier moment.
func TestCutJournal(t *testing.T) {
	t.Parallel()
	_, good := shortJournal(t, newWorld(t, "embedded"))
	lastLine := bytes.LastIndexByte(good[:len(good)-1], '\n') + 1
	for size := range len(good) {
		if size < lastLine && size%7 != 0 && good[size] != '\n' && (size == 0 || good[size-1] != '\n') {
			continue // each in the last line, and around the ends of the others
		}
		_, err := state(good[:size])
		line := 1 + bytes.Count(good[:size], []byte("\n"))
		whole := size > 0 && good[size-1] == '\n'
		switch {
		case whole && err != nil:
			t.Errorf("whole lines, and refused: %v", err)
		case !whole && err == nil:
			t.Errorf("cut to %d bytes, and not refused", size)
		case !whole && !strings.Contains(err.Error(), fmt.Sprintf("the file:%d: ", line)):
			t.Errorf("cut to %d bytes, in line %d: got %v", size, line, err)
		}
	}
}

func TestDamagedJournalIsRefused(t *testing.T) {
	rows := []struct {
		name   string
		damage func(lines []string) []string
		line   int
		says   string
	}{
		{"the last line is torn", func(l []string) []string { return append(l[:len(l)-1], l[len(l)-1][:20]) }, 5, "only half written"},
		{"a line is missing", func(l []string) []string { return slices.Delete(l, 2, 3) }, 3, "is missing"},
		{"two lines are swapped", func(l []string) []string { l[3], l[4] = l[4], l[3]; return l }, 4, "is missing"},
		{"a line is there twice", func(l []string) []string { return slices.Insert(l, 3, l[3]) }, 5, "is missing"},
		{"the last line is there twice", func(l []string) []string { return append(l, l[len(l)-1]) }, 6, "is missing"},
		{"the first line is missing", func(l []string) []string { return l[1:] }, 1, "gatehouse-journal-1"},
		{"the file is empty", func([]string) []string { return nil }, 1, "empty"},
		{"an empty line", func(l []string) []string { return slices.Insert(l, 2, "\n") }, 3, "damaged"},
		{"an empty line at the end", func(l []string) []string { return append(l, "\n") }, 6, "damaged"},
		{"another format", func(l []string) []string {
			return slices.Insert(l[1:], 0, `{"crc32c":"0","entry":{"number":1,"format":"gatehouse-journal-2"}}`+"\n")
		}, 1, "damaged"},
		{"no journal at all", func([]string) []string { return []string{"store:\n", "  embedded: {}\n"} }, 1, "damaged"},
		{"two journals in one", func(l []string) []string { return append(l, l...) }, 6, "is missing"},
		{"zeros at the end", func(l []string) []string { return append(l, strings.Repeat("\x00", 512)) }, 6, "half written"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, "embedded")
			file, good := shortJournal(t, w)
			lines := strings.SplitAfter(string(good), "\n")
			lines = lines[:len(lines)-1]
			if len(lines) != 5 {
				t.Fatalf("%d lines, want 5", len(lines))
			}
			bad := []byte(strings.Join(row.damage(lines), ""))
			overwrite(t, file, bad)
			s, err := keystore.Open(t.Context(), w.options)
			if err == nil {
				t.Fatalf("opened: %v", s.Close())
			}
			if got := err.Error(); !strings.Contains(got, fmt.Sprintf("%s:%d: ", file, row.line)) || !strings.Contains(got, row.says) {
				t.Errorf("got %v, want line %d, %q", err, row.line, row.says)
			}
			if now, _ := os.ReadFile(file); !bytes.Equal(now, bad) {
				t.Error("the refused file was changed")
			}
			overwrite(t, file, good) // restored from a backup
			if err := w.node().Ready(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// The message says what to do about a torn last line, and that helps.
func TestTornLineCanBeCutAsTheMessageSays(t *testing.T) {
	w := newWorld(t, "embedded")
	file, good := shortJournal(t, w)
	overwrite(t, file, append(bytes.Clone(good), `{"crc32c":"`...))
	_, err := keystore.Open(t.Context(), w.options)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("truncate --size=%d", len(good))) {
		t.Fatalf("got %v", err)
	}
	if err := os.Truncate(file, int64(len(good))); err != nil {
		t.Fatal(err)
	}
	if keys := w.node().list(policy.Caller{Account: &policy.Account{ID: "acme"}}, 10); len(keys) != 1 {
		t.Errorf("%d keys, want 1", len(keys))
	}
}

func TestJournalInUseIsRefused(t *testing.T) {
	w := newWorld(t, "embedded")
	first := w.node()
	_, token := first.key(first.account("acme"))
	_, err := keystore.Open(t.Context(), w.options)
	if err == nil || !strings.Contains(err.Error(), w.options.EmbeddedFile) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v", err)
	}
	first.works(token) // and goes on
	first.key(first.account("acme"))
	first.reopen().works(token)
}

// A link stands for the file that it names: one lock, and one file that is
// rewritten.
func TestJournalBehindALink(t *testing.T) {
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
	if _, err := keystore.Open(t.Context(), w.options); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second process, through a link: got %v", err)
	}
	n = n.reopen()
	keystore.CompactFrom(n.Store, 1)
	tokens := append(n.many(n.account("acme"), 10), token)
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	w.options.EmbeddedFile = file
	n = n.reopen()
	for _, token := range tokens {
		n.works(token)
	}
}

// However much there is, no line of a rewritten journal is too long to read.
func TestRewrittenLinesAreOfABoundedLength(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	person := n.account("acme")
	long := strings.Repeat("x", 300_000)
	for range 5 {
		n.key(person, func(k *keystore.NewKey) { k.Name = long })
	}
	keystore.CompactFrom(n.Store, 1)
	n.key(person)
	raw, err := os.ReadFile(w.options.EmbeddedFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		if len(line) > 2<<20 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	if lines := bytes.Count(raw, []byte("\n")); lines < 3 || lines > 6 {
		t.Errorf("%d lines: it was not rewritten in portions", lines)
	}
	if keys := n.reopen().list(person, 100); len(keys) != 6 {
		t.Errorf("%d keys, want 6", len(keys))
	}
}

func TestJournalThatCannotBeWrittenOrRead(t *testing.T) {
	w := newWorld(t, "embedded")
	w.options.EmbeddedFile = filepath.Join(t.TempDir(), "nowhere", "gatehouse.db.jsonl")
	if _, err := keystore.Open(t.Context(), w.options); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that is not there: got %v", err)
	}
	w.options.EmbeddedFile = filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(w.options.EmbeddedFile, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := keystore.Open(t.Context(), w.options); err == nil {
		t.Error("a folder was opened as a journal")
	}
}

// onlyOurs checks that nobody else may read what the store has written.
func onlyOurs(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", file, info.Mode())
		}
	}
}

// A journal that has grown is rewritten, in place, with all that counts.
func TestCompactionKeepsTheState(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "embedded")
	n := w.node()
	keystore.CompactFrom(n.Store, 1<<16)
	person := n.account("acme")
	onlyOurs(t, w.options.EmbeddedFile, w.options.EmbeddedFile+".lock")
	_, token := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(time.Hour) })
	_, dropped := n.key(person, func(k *keystore.NewKey) { k.Expiry = w.clock.In(-keystore.Retention + time.Minute) })
	tokens := append(n.many(person, 40), token)
	w.clock.Advance(time.Hour)
	rewritten, last := 0, int64(0)
	for i := range 200 {
		k, token := n.key(person)
		if i%10 == 0 {
			tokens = append(tokens, token)
		} else if _, err := n.Revoke(t.Context(), person, k.ID); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(w.options.EmbeddedFile)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < last {
			rewritten++
			onlyOurs(t, w.options.EmbeddedFile)
		}
		last = info.Size()
	}
	if rewritten < 2 {
		t.Errorf("the journal has %d bytes and was rewritten %d times", last, rewritten)
	}
	before := n.everything()
	n = n.reopen()
	if diff := gocmp.Diff(before, n.everything()); diff != "" {
		t.Errorf("after reopening (-want +got):\n%s", diff)
	}
	for _, token := range tokens {
		n.works(token)
	}
	n.wantUnknown(dropped)
	left, err := filepath.Glob(w.options.EmbeddedFile + "*")
	if err != nil || len(left) != 2 {
		t.Errorf("left are %v, %v, want the journal and its lock", left, err)
	}
}

// A journal that cannot be rewritten, here because its folder is elsewhere for
// a while, goes on being written to.
func TestCompactionThatFailsLosesNothing(t *testing.T) {
	w := newWorld(t, "embedded")
	folder := filepath.Join(filepath.Dir(w.options.EmbeddedFile), "store")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	w.options.EmbeddedFile = filepath.Join(folder, "gatehouse.db.jsonl")
	n := w.node()
	keystore.CompactFrom(n.Store, 1<<10)
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	tokens := n.many(n.account("acme"), 20)
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	n = n.reopen()
	for _, token := range tokens {
		n.works(token)
	}
}

// When the disk is full, what is not on it is not acknowledged, and does not
// happen; what was acknowledged goes on working.
func TestFullDiskEndsAllChanges(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	before := n.everything()
	if err := keystore.BreakJournal(n.Store); err != nil {
		t.Skipf("SKIPPED: no /dev/full: %v", err)
	}
	for range 2 {
		_, _, err := n.Create(t.Context(), person, newKey())
		wantErr(t, err, keystore.ErrUnavailable)
		_, err = n.Revoke(t.Context(), person, k.ID)
		wantErr(t, err, keystore.ErrUnavailable)
		wantErr(t, n.DeleteAccount(t.Context(), policy.Caller{}, "acme"), keystore.ErrUnavailable)
	}
	n.works(token)
	if diff := gocmp.Diff(before, n.everything()); diff != "" {
		t.Errorf("refused changes have happened (-want +got):\n%s", diff)
	}
	n = n.reopen()
	n.works(token)
	n.key(person)
	if diff := gocmp.Diff(1+1, len(n.list(person, 10))); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}
