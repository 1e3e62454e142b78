package keystore_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// oldJournal is a journal that the version before the file of today has written:
// see testdata/README.md.
func oldJournal(t testing.TB) (content []byte, about struct {
	At     int64
	Tokens map[string]string
	IDs    map[string]policy.KeyID
},
) {
	t.Helper()
	content, err := os.ReadFile("testdata/journal-1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("testdata/journal-1.json")
	if err == nil {
		err = json.Unmarshal(raw, &about)
	}
	if err != nil {
		t.Fatal(err)
	}
	return content, about
}

// journalWorld is a world whose store is that journal, at its time.
func journalWorld(t *testing.T, content []byte) *world {
	t.Helper()
	w := newWorld(t, "embedded")
	_, about := oldJournal(t)
	w.clock.nanos.Store(time.Unix(about.At, 0).UnixNano())
	w.options.Prefix, w.options.Create = "", false
	overwrite(t, w.options.EmbeddedFile, content)
	return w
}

func overwrite(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// token is one of the journal's.
func (n *node) token(name string) keystore.Token {
	n.t.Helper()
	_, about := oldJournal(n.t)
	token, err := keystore.ParseToken("gk_", about.Tokens[name])
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

// wantJournal checks that a store holds what the journal has told of.
func (n *node) wantJournal() {
	n.t.Helper()
	_, about := oldJournal(n.t)
	for _, name := range []string{"never", "expired", "expiring", "replaced", "next", "disabled"} {
		if e := n.works(n.token(name)); e.Key.ID != about.IDs[name] || e.Key.Active != (name != "disabled") || e.Key.Replaced() != (name == "replaced") {
			n.t.Errorf("%s is %+v", name, e.Key)
		}
	}
	n.wantUnknown(n.token("revoked"))
	n.wantUnknown(n.token("gone"))
	person := policy.Caller{Account: &policy.Account{ID: "acme"}}
	var names []string
	for _, k := range n.list(person, 2) {
		names = append(names, k.Name)
		if used := k.Name == "never"; used == k.LastUsedAt.IsZero() {
			n.t.Errorf("%s was last used at %v", k.Name, k.LastUsedAt)
		}
	}
	if diff := gocmp.Diff([]string{"disabled", "replaced", "replaced", "expiring", "expired", "never"}, names); diff != "" {
		n.t.Errorf("the keys (-want +got):\n%s", diff)
	}
	var ids []policy.AccountID
	for _, a := range n.accounts(1) {
		ids = append(ids, a.ID)
	}
	if !slices.Equal(ids, []policy.AccountID{"late", "other", "acme"}) {
		n.t.Errorf("the accounts are %v", ids)
	}
	if events := n.trail("acme", keystore.EventFilter{Users: true}, 100); len(events) != 13 || events[0].Outcome != "permission_denied" {
		n.t.Errorf("the trail has %d events: %q", len(events), tell(events))
	}
	if _, err := n.FindSession(n.t.Context(), "a session"); err != nil {
		n.t.Errorf("the session: %v", err)
	}
	counted := func(f *keystore.UsageFilter) { f.From, f.To = n.w.clock.Now().Add(-50*24*time.Hour), n.w.clock.Now() }
	if got := usageOf(n, person, counted); len(got) != 1 || !strings.HasSuffix(got[0], "allowed 3") {
		n.t.Errorf("counted are %q", got)
	}
	if _, err := n.Export(n.t.Context(), &bytes.Buffer{}); err != nil {
		n.t.Errorf("export: %v", err)
	}
}

// A journal of an earlier version becomes a file of today's form, with all that
// was in it, and stays beside it.
func TestJournalIsMoved(t *testing.T) {
	content, _ := oldJournal(t)
	w := journalWorld(t, content)
	overwrite(t, w.options.EmbeddedFile+".lock", nil)
	n := w.node()
	n.wantJournal()
	person := n.account("acme")
	_, token := n.key(person)
	n = n.reopen()
	n.wantJournal1(token)
	files := n.files()
	if len(files) != 2 || !strings.HasPrefix(files[1], "gatehouse.db.journal-20260410T120007") {
		t.Errorf("there are %q", files)
	}
	kept, err := os.ReadFile(filepath.Join(filepath.Dir(w.options.EmbeddedFile), files[1]))
	if err != nil || !bytes.Equal(kept, content) {
		t.Errorf("the journal that was kept differs (%v)", err)
	}
	onlyOurs(t, w.options.EmbeddedFile)
}

// wantJournal1 is a store that goes on where the journal ended.
func (n *node) wantJournal1(token keystore.Token) {
	n.t.Helper()
	n.works(n.token("never"))
	n.works(token)
	n.wantUnknown(n.token("revoked"))
}

// files are those beside the store's, and it.
func (n *node) files() []string { return filesOf(n.t, n.w) }

func filesOf(t *testing.T, w *world) []string {
	t.Helper()
	found, err := os.ReadDir(filepath.Dir(w.options.EmbeddedFile))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, f.Name())
	}
	return names
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

// What a crash may leave of a move does not keep it from being done again.
func TestMoveThatBrokeOffIsDoneAgain(t *testing.T) {
	content, _ := oldJournal(t)
	w := journalWorld(t, content)
	file := w.options.EmbeddedFile
	overwrite(t, file+".new-1", []byte("half"))
	overwrite(t, file+".lock", nil)
	if err := os.Link(file, file+".journal-20260101T000000.000000"); err != nil { // the last step before the new name
		t.Fatal(err)
	}
	w.node().wantJournal()
}

// A store that is only read leaves the journal as it is.
func TestJournalIsReadWithoutBeingMoved(t *testing.T) {
	content, _ := oldJournal(t)
	w := journalWorld(t, append(bytes.Clone(content), `{"crc32c":"`...))
	n := w.node(func(o *keystore.Options) { o.ReadOnly = true })
	n.wantJournal()
	if now, err := os.ReadFile(w.options.EmbeddedFile); err != nil || !bytes.HasPrefix(now, content) {
		t.Errorf("it was changed (%v)", err)
	}
	if files := slices.DeleteFunc(n.files(), func(f string) bool { return strings.HasSuffix(f, ".lock") }); len(files) != 1 {
		t.Errorf("there are %q", files)
	}
}

// Two processes cannot move the same journal, and an earlier version that has it
// open keeps it.
func TestJournalInUseIsNotMoved(t *testing.T) {
	content, _ := oldJournal(t)
	w := journalWorld(t, content)
	lock, err := os.OpenFile(w.options.EmbeddedFile+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if _, err := keystore.Open(t.Context(), w.options); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v", err)
	}
	if now, err := os.ReadFile(w.options.EmbeddedFile); err != nil || !bytes.Equal(now, content) {
		t.Errorf("it was changed (%v)", err)
	}
}

// A last line that was not written to its end, as when the disk was full or the
// machine lost power, was never acknowledged: it is left out, loudly, and kept.
func TestTornLineIsCutAndKept(t *testing.T) {
	content, _ := oldJournal(t)
	lastLine := bytes.LastIndexByte(content[:len(content)-1], '\n') + 1
	for _, row := range []struct {
		name string
		tail string
		rest []byte
	}{
		{"a line was begun", `{"crc32c":"`, content},
		{"zeros", strings.Repeat("\x00", 512), content},
		{"the end of the last line is missing", string(content[lastLine : len(content)-1]), content[:lastLine]},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := journalWorld(t, append(bytes.Clone(row.rest), row.tail...))
			core, logged := observer.New(zap.ErrorLevel)
			n := w.node(func(o *keystore.Options) { o.Log = zap.New(core) })
			n.works(n.token("never"))
			if logged.FilterMessageSnippet("last line of the journal").Len() != 1 {
				t.Errorf("logged is %v", logged.All())
			}
			cut := ""
			for _, f := range n.files() {
				if strings.HasPrefix(f, "gatehouse.db.cut-") {
					cut = filepath.Join(filepath.Dir(w.options.EmbeddedFile), f)
				}
			}
			if kept, err := os.ReadFile(cut); err != nil || string(kept) != row.tail {
				t.Errorf("kept is %q, %v", kept, err)
			}
			onlyOurs(t, cut)
		})
	}
}

// state is what a journal adds up to, in an order of its own.
func state(content []byte) (string, []byte, error) {
	steps, cut, err := keystore.ReadJournal("the file", content, time.Now())
	slices.SortFunc(steps, func(a, b keystore.Step) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Field, b.Field)) })
	return fmt.Sprint(steps), cut, err
}

// A store never silently starts with less than it acknowledged: whichever byte
// of the file is damaged, the file is refused, naming the line, or it means
// the same, or it ends before a last line that is said to be left out.
func TestEveryDamagedByteIsFoundOrHarmless(t *testing.T) {
	t.Parallel()
	good, _ := oldJournal(t)
	want, _, err := state(good)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(good); at += 3 { // of which neither a line nor a field has a length
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		got, cut, err := state(bad)
		if err == nil {
			if got != want && len(cut) == 0 {
				t.Fatalf("byte %d: it starts with another state\n%s\nwant\n%s", at, got, want)
			}
			continue
		}
		line := 1 + bytes.Count(good[:at], []byte("\n"))
		if !strings.Contains(err.Error(), fmt.Sprintf("the file:%d: ", line)) {
			t.Fatalf("byte %d in line %d: got %v", at, line, err)
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
		{"the only line is torn", func(l []string) []string { return []string{l[0][:20]} }, 1, "only half written"},
		{"a line is missing", func(l []string) []string { return slices.Delete(l, 2, 3) }, 3, "is missing"},
		{"two lines are swapped", func(l []string) []string { l[3], l[4] = l[4], l[3]; return l }, 4, "is missing"},
		{"a line is there twice", func(l []string) []string { return slices.Insert(l, 3, l[3]) }, 5, "is missing"},
		{"the first line is missing", func(l []string) []string { return l[1:] }, 1, "gatehouse-journal-1"},
		{"the file is empty", func([]string) []string { return nil }, 1, "empty"},
		{"an empty line", func(l []string) []string { return slices.Insert(l, 2, "\n") }, 3, "damaged"},
		{"an empty line at the end", func(l []string) []string { return append(l, "\n") }, 25, "damaged"},
		{"another format", func(l []string) []string {
			return slices.Insert(l[1:], 0, `{"crc32c":"0","entry":{"number":1,"format":"gatehouse-journal-2"}}`+"\n")
		}, 1, "damaged"},
		{"no journal at all", func([]string) []string { return []string{"store:\n", "  embedded: {}\n"} }, 1, "damaged"},
		{"two journals in one", func(l []string) []string { return append(l, l...) }, 25, "is missing"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			good, _ := oldJournal(t)
			lines := strings.SplitAfter(string(good), "\n")
			bad := []byte(strings.Join(row.damage(lines[:len(lines)-1]), ""))
			w := journalWorld(t, bad)
			file := w.options.EmbeddedFile
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
			w.node().wantJournal()
		})
	}
}

// FuzzJournal: whatever is in the file, reading it ends, and what was taken for
// good can be read again.
func FuzzJournal(f *testing.F) {
	good, _ := oldJournal(f)
	lines := bytes.SplitAfter(good, []byte("\n"))
	f.Add(bytes.Join(lines[:4], nil))
	f.Add(bytes.Join(lines[:3], []byte("x")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		want, cut, err := state(content)
		if err != nil {
			return
		}
		got, again, err := state(content[:len(content)-len(cut)])
		if err != nil || len(again) > 0 || got != want {
			t.Errorf("without what was left out: %v, %q left out\n%s\nwant\n%s", err, again, got, want)
		}
	})
}
