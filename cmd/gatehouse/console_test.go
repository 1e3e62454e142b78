package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// console is a bash in which documents are followed, with a folder of its own and
// free ports in the place of the well-known ones. What it starts ends with the
// test.
type console struct {
	folder  string
	ports   portsFor
	scripts string   // a folder: each script is a file, run in the shell itself
	next    *os.File // takes the names of these
	printed *os.File
	read    int // of what was printed
	runs    int
	tried   map[string]bool // the documents
	ended   chan error
}

// blockPatience is how long a block of commands may take.
const blockPatience = 2 * time.Minute

// readScripts runs one script after the other, and says after each that it is done.
const readScripts = `set -euo pipefail; while IFS= read -r -u 3 next; do . "$next"; printf '\001%s\n' "$next"; done`

// openConsole starts one in which a failing command is the end, with gatehouse in
// its PATH.
func openConsole(t *testing.T) *console {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		lack(t, "bash")
	}
	s := &console{folder: t.TempDir(), ports: portsFor{}, tried: map[string]bool{}, scripts: t.TempDir(), ended: make(chan error, 1)}
	printed, err := os.Create(filepath.Join(s.scripts, "printed"))
	names, next, err2 := os.Pipe()
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	s.printed, s.next = printed, next
	bash := exec.Command("bash", "-c", readScripts)
	bash.Dir, bash.Stdout, bash.Stderr, bash.ExtraFiles = s.folder, printed, printed, []*os.File{names}
	bash.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	bash.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GATEHOUSE_") }),
		"PATH="+binary(t)+":"+os.Getenv("PATH")+":/usr/sbin", "TMPDIR="+t.TempDir(), "GOCOVERDIR="+coverageFolder(t), hurry,
		"GATEHOUSE_ADMIN_URL="+s.ports.in(t, "http://127.0.0.1:9090"))
	if err := bash.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- bash.Wait() }()
	t.Cleanup(func() {
		endGroup(t, bash.Process.Pid)
		if err := errors.Join(next.Close(), names.Close(), printed.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run runs a script, ports replaced, and returns what was printed meanwhile.
func (s *console) run(t *testing.T, script string) string {
	t.Helper()
	s.runs++
	file := filepath.Join(s.scripts, strconv.Itoa(s.runs))
	if err := os.WriteFile(file, []byte(s.ports.in(t, script)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(s.next, file); err != nil {
		t.Fatal(err)
	}
	done, all := "\x01"+file+"\n", ""
	timeout := time.NewTimer(blockPatience)
	defer timeout.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text := s.everything(t)
		all = text[s.read:]
		if said, after, is := strings.Cut(all, done); is {
			s.read = len(text) - len(after)
			return said
		}
		select {
		case <-tick.C:
		case err := <-s.ended:
			t.Fatalf("%v after:\n%s\nwhich printed:\n%s", err, script, all)
		case <-timeout.C:
			t.Fatalf("not done within %s:\n%s\nwhich printed:\n%s", blockPatience, script, all)
		}
	}
}

// everything is what was printed from the beginning.
func (s *console) everything(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.printed.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// follow runs the commands of a document, and compares what they print. After a
// block that holds one of the texts of `at`, what is said there is done.
func (s *console) follow(t *testing.T, file string, at map[string]func(t *testing.T, s *console)) {
	t.Helper()
	s.tried[file] = true
	blocks, run, done := blocksOf(t, file), 0, map[string]bool{}
	for i, b := range blocks {
		if b.language != "sh" || b.notRun != "" {
			continue
		}
		run++
		printed := s.run(t, b.text)
		if i+1 < len(blocks) && blocks[i+1].language == "text" {
			expected(t, file, s.ports.in(t, blocks[i+1].text), printed)
		}
		for text, do := range at {
			if strings.Contains(b.text, text) {
				done[text] = true
				do(t, s)
			}
		}
	}
	if len(done) < len(at) {
		t.Errorf("%s has %d of the %d texts at which something is to be done", file, len(done), len(at))
	}
	if run == 0 {
		t.Errorf("%s has no commands", file)
	}
}

// endGroup ends the processes that a shell started: gracefully, or else at once.
func endGroup(t *testing.T, group int) {
	t.Helper()
	_ = syscall.Kill(-group, syscall.SIGTERM) // they may have ended
	timeout := time.NewTimer(5 * time.Second)
	defer timeout.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for syscall.Kill(-group, 0) == nil {
		select {
		case <-tick.C:
		case <-timeout.C:
			_ = syscall.Kill(-group, syscall.SIGKILL)
			return
		}
	}
}

// wellKnownPort is a port that documents and example files use.
var wellKnownPort = regexp.MustCompile(`\b(3000|3001|637[0-9]|700[0-9]|808[0-9]|8443|900[0-9]|909[0-9]|2637[0-9])\b`)

// portsFor has the free port that a test uses in the place of each well-known one.
type portsFor map[string]string

func (p portsFor) in(t testing.TB, text string) string {
	t.Helper()
	return wellKnownPort.ReplaceAllStringFunc(text, func(port string) string {
		if p[port] == "" {
			p[port] = freePort(t)
		}
		return p[port]
	})
}

// copyProject copies a file or folder of the project, with free ports and, where
// that is not nil, a change.
func (s *console) copyProject(t *testing.T, name string, change func(text string) string) {
	t.Helper()
	source := filepath.Join("../..", name)
	err := filepath.Walk(source, func(path string, about os.FileInfo, err error) error {
		if err != nil || about.IsDir() && (about.Name() == "node_modules" || about.Name() == "testdata") {
			return orSkip(err)
		}
		to := filepath.Join(s.folder, name, strings.TrimPrefix(path, source))
		if about.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if strings.HasSuffix(path, ".yaml") {
			text = []byte(s.ports.in(t, string(text)))
		}
		if change != nil {
			text = []byte(change(string(text)))
		}
		return os.WriteFile(to, text, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func orSkip(err error) error {
	if err != nil {
		return err
	}
	return filepath.SkipDir
}
