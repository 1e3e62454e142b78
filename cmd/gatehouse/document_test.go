package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// document is a page whose commands are run as they stand, one after the other
// in one shell, as somebody who follows it would. What stands in a block of text
// after a block of commands is what these print, where … is anything.
type document struct {
	file  string   // below the project's folder
	needs []string // programs beside gatehouse, curl and a shell
	files []string // files and folders of the project that its commands name

	// change rewrites a file of those, where a test has no minutes to wait.
	change func(text string) string
	// at is what is done beside it, in the same shell, after the block that holds a text.
	at map[string]func(t *testing.T, s *console)
}

// followed are the documents that are tried out. Its ports are made free ones, so
// that tests can run side by side, and nothing else about them is changed.
var followed = []document{
	{file: "README.md", needs: []string{"redis-server", "openssl", "go"}, files: []string{"cmd", "client", "keystore", "policy", "proxy", "go.mod", "go.sum", "config.example.yaml"}},
	{file: "docs/configuration.md", files: []string{"config.example.yaml"}},
	{file: "docs/getting-started.md", needs: []string{"redis-server", "redis-cli", "prometheus", "promtool", "openssl", "jq"}, files: []string{"deploy/prometheus"}, change: impatient, at: map[string]func(t *testing.T, s *console){
		"'gatehouse_store_available'":               isQuiet,
		"'ALERTS{alertstate=\"firing\"}'":           leadsToTheCause,
		"gatehouse health --store --wait 30s\ncurl": goThroughRunbooks,
	}},
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
	"docs/deploy.md":  "TestCommandsOfTheDeployDocument of deploy/check",
	"docs/explain.md": "TestCommandsOfTheExplainDocumentWork",

	"docs/operations.md":                            "goThroughRunbooks",
	"docs/runbooks/GatehouseDown.md":                "goThroughRunbooks",
	"docs/runbooks/GatehousePropagationSlow.md":     "goThroughRunbooks",
	"docs/runbooks/GatehouseRefusalsJumped.md":      "goThroughRunbooks",
	"docs/runbooks/GatehouseReloadFailed.md":        "goThroughRunbooks",
	"docs/runbooks/GatehouseStoreUnavailable.md":    "goThroughRunbooks",
	"docs/runbooks/GatehouseStoreOlder.md":          "goThroughRunbooks",
	"docs/runbooks/GatehouseStoreNotWritable.md":    "goThroughRunbooks",
	"docs/runbooks/GatehouseStoreEvicts.md":         "goThroughRunbooks",
	"docs/runbooks/GatehouseClockWrong.md":          "goThroughRunbooks",
	"docs/runbooks/GatehouseUpstreamEjected.md":     "goThroughRunbooks",
	"docs/reliability.md":                           "TestFaultMatrix", // it says how that is run
	"docs/runbooks/GatehouseCertificateExpiring.md": "TestRunbookOfCertificates",
}

// fenced is a block, and why it is not run, where that is said.
var fenced = regexp.MustCompile("(?ms)^(?:<!-- not run: ([^\n]+) -->\n)?```([a-z]+)\n(.*?)^```$")

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
	for _, program := range append([]string{"curl"}, d.needs...) {
		if _, err := exec.LookPath(program); err != nil {
			lack(t, program)
		}
	}
	s := openConsole(t)
	for _, name := range d.files {
		s.copyProject(t, name, d.change)
	}
	s.follow(t, d.file, d.at)
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
