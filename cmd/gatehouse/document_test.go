package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// document is a page whose commands are run as they stand, one after the other
// in one shell, as somebody who follows it would. What stands in a block of text
// after a block of commands is what these print, where … is anything.
type document struct {
	file  string   // below the project's folder
	needs []string // programs beside gatehouse, curl and a shell
	files []string // files and folders of the project that its commands name
}

// followed are the documents that are tried out. Its ports are made free ones, so
// that tests can run side by side, and nothing else about them is changed.
var followed = []document{
	{file: "README.md", needs: []string{"redis-server", "openssl", "go"}, files: []string{"cmd", "client", "keystore", "policy", "proxy", "go.mod", "go.sum", "config.example.yaml"}},
	{file: "docs/guides/billing.md", needs: []string{"jq", "openssl"}},
	{file: "docs/guides/existing-api.md", needs: []string{"openssl"}},
	{file: "docs/guides/load-balancer.md", needs: []string{"openssl"}},
	{file: "docs/guides/redis-cluster-sentinel.md", needs: []string{"openssl", "redis-server"}},
	{file: "docs/guides/rotate-keys.md", needs: []string{"jq", "openssl"}},
	{file: "docs/guides/upgrade.md", needs: []string{"openssl", "redis-server"}},
}

// elsewhere says which test tries the commands of a document, where it is another.
var elsewhere = map[string]string{
	"docs/api.md":     "TestCommandsOfTheAPIDocumentWork",
	"docs/backup.md":  "TestCommandsOfTheBackupDocumentWork",
	"docs/explain.md": "TestCommandsOfTheExplainDocumentWork",
}

// documentPatience is how long following a document may take.
const documentPatience = 2 * time.Minute

var (
	// fenced is a block, and why it is not run, where that is said.
	fenced = regexp.MustCompile("(?ms)^(?:<!-- not run: ([^\n]+) -->\n)?```([a-z]+)\n(.*?)^```$")
	// wellKnownPort is a port that documents and example files use.
	wellKnownPort = regexp.MustCompile(`\b(3000|3001|637[0-9]|700[0-9]|808[0-9]|8443|900[0-9]|909[0-9]|2637[0-9])\b`)
)

func TestDocumentsCanBeFollowed(t *testing.T) {
	t.Parallel()
	for _, d := range followed {
		t.Run(strings.ReplaceAll(d.file, "/", "_"), func(t *testing.T) {
			t.Parallel()
			d.follow(t)
		})
	}
}

// TestEveryDocumentIsTriedOut: no page has commands that nothing runs.
func TestEveryDocumentIsTriedOut(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	for _, d := range followed {
		tried[d.file] = true
	}
	for file, test := range elsewhere {
		tried[file] = test != ""
	}
	files, err := filepath.Glob("../../docs/*/*.md")
	above, err2 := filepath.Glob("../../docs/*.md")
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	for _, file := range append(files, append(above, "../../README.md")...) {
		file = strings.TrimPrefix(filepath.ToSlash(file), "../../")
		commands := 0
		for _, b := range blocksOf(t, file) {
			if b.language == "sh" && b.notRun == "" {
				commands++
			}
		}
		if commands > 0 && !tried[file] {
			t.Errorf("%s has commands that no test runs", file)
		}
	}
}

// block is a fenced block of a document.
type block struct{ notRun, language, text string }

func blocksOf(t testing.TB, file string) []block {
	t.Helper()
	text, err := os.ReadFile("../../" + file)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	for _, found := range fenced.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, block{found[1], found[2], found[3]})
	}
	return blocks
}

// follow runs the commands of the document, and compares what they print.
func (d document) follow(t *testing.T) {
	for _, program := range append([]string{"curl", "bash"}, d.needs...) {
		if _, err := exec.LookPath(program); err != nil {
			lack(t, program)
		}
	}
	ports := portsFor{}
	folder := t.TempDir()
	for _, name := range d.files {
		copyProject(t, folder, name, ports)
	}
	blocks := blocksOf(t, d.file)
	said, err := d.run(t, folder, ports, ports.in(t, scriptOf(blocks)))
	printed := strings.Split(said, mark)
	if err != nil {
		t.Fatalf("%s: %v after:\n%s", d.file, err, printed[len(printed)-1])
	}
	run := 0
	for i, b := range blocks {
		if b.language != "sh" || b.notRun != "" {
			continue
		}
		run++
		if i+1 < len(blocks) && blocks[i+1].language == "text" {
			expected(t, d.file, ports.in(t, blocks[i+1].text), printed[run])
		}
	}
	if run == 0 {
		t.Errorf("%s has no commands", d.file)
	}
}

// mark is printed before the commands of each block.
const mark = "\x01----\n"

// scriptOf is the blocks of commands as one script.
func scriptOf(blocks []block) string {
	script := "set -euo pipefail\n"
	for _, b := range blocks {
		if b.language == "sh" && b.notRun == "" {
			script += "printf '\\001----\\n'\n" + b.text
		}
	}
	return script
}

// run runs the script, ends all that it leaves running, and returns what was
// printed.
func (d document) run(t *testing.T, folder string, ports portsFor, script string) (string, error) {
	out, err := os.Create(filepath.Join(t.TempDir(), "printed"))
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.Command("bash", "-c", script)
	shell.Dir, shell.Stdout, shell.Stderr = folder, out, out
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	shell.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GATEHOUSE_") }),
		"PATH="+binary(t)+":"+os.Getenv("PATH")+":/usr/sbin", "TMPDIR="+t.TempDir(), "GOCOVERDIR="+coverageFolder(t),
		"GATEHOUSE_ADMIN_URL="+ports.in(t, "http://127.0.0.1:9090"))
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- shell.Wait() }()
	timeout := time.NewTimer(documentPatience)
	defer timeout.Stop()
	select {
	case err = <-ended:
	case <-timeout.C:
		err = fmt.Errorf("not done within %s", documentPatience)
	}
	endGroup(t, shell.Process.Pid)
	said, readErr := os.ReadFile(out.Name())
	if closeErr := out.Close(); readErr != nil || closeErr != nil {
		t.Fatal(readErr, closeErr)
	}
	return string(said), err
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

// expected compares lines that a document shows with what was printed: each must
// be there, in that order, and … is anything.
func expected(t *testing.T, file, shown, printed string) {
	t.Helper()
	rest := strings.Split(printed, "\n")
	for line := range strings.SplitSeq(strings.TrimSpace(shown), "\n") {
		line = strings.TrimSpace(line)
		pattern := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + "$")
		found := line == "" || line == "…"
		for i := 0; i < len(rest) && !found; i++ {
			if pattern.MatchString(strings.TrimSpace(rest[i])) {
				found, rest = true, rest[i+1:]
			}
		}
		if !found {
			t.Errorf("%s shows %q, which is not in:\n%s", file, line, printed)
			return
		}
	}
}

// portsFor has the free port that a test uses in the place of each well-known one.
type portsFor map[string]string

func (p portsFor) in(t testing.TB, text string) string {
	t.Helper()
	return wellKnownPort.ReplaceAllStringFunc(text, func(port string) string {
		for p[port] == "" || len(p[port]) > 5 || p[port] > "50000" { // Redis Cluster takes that plus 10000 too
			p[port] = freePort(t)
		}
		return p[port]
	})
}

// copyProject copies a file or folder of the project, with free ports.
func copyProject(t *testing.T, folder, name string, ports portsFor) {
	t.Helper()
	source := filepath.Join("../..", name)
	err := filepath.Walk(source, func(path string, about os.FileInfo, err error) error {
		if err != nil || about.IsDir() && (about.Name() == "node_modules" || about.Name() == "testdata") {
			return orSkip(err)
		}
		to := filepath.Join(folder, name, strings.TrimPrefix(path, source))
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
			text = []byte(ports.in(t, string(text)))
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
