package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// commandsOf are the shell commands of a document, one each.
func commandsOf(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, block := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		for command := range strings.SplitSeq(strings.ReplaceAll(block[1], "\\\n", " "), "\n") {
			if command != "" {
				commands = append(commands, command)
			}
		}
	}
	return commands
}

// TestCommandsOfTheExplainDocumentWork as they stand, in the project's folder.
func TestCommandsOfTheExplainDocumentWork(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		lack(t, "curl")
	}
	d := newTable(t, settings{Store: embeddedStore(t)})
	k := d.createKey(t, d.root, may("serp_api:read"))
	commands := commandsOf(t, "../../docs/explain.md")
	for _, command := range commands {
		sh := exec.Command("sh", "-ec", `curl() { command curl -sS --fail-with-body "$@"; }; `+strings.ReplaceAll(command, "localhost:9090", d.admin))
		sh.Dir = "../.."
		sh.Env = append(gatehouse(t).Env, "PATH="+binary(t)+string(os.PathListSeparator)+os.Getenv("PATH"),
			"GATEHOUSE_TOKEN="+k.Token, "KEY="+k.ID, "GATEHOUSE_ADMIN_URL=http://"+d.admin)
		said, err := sh.CombinedOutput()
		want := regexp.MustCompile(`(?s)^allowed\n|"allowed":true|decisions are as expected|^refused: 403 ip_not_allowed`)
		if strings.Contains(command, "--key ci") {
			want = regexp.MustCompile(`^refused: 401 key_expired|^refused: 403 permission_denied`) // by the date
		}
		if err != nil || !want.Match(said) {
			t.Errorf("%s\n%v: %s", command, err, said)
		}
	}
	if len(commands) < 6 {
		t.Errorf("%d commands were found", len(commands))
	}
}

// TestCommandsOfTheBackupDocumentWork one after the other, with a Redis.
func TestCommandsOfTheBackupDocumentWork(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: startRedis(t).yaml()})
	folder := t.TempDir()
	if err := os.Symlink(d.config, filepath.Join(folder, "gatehouse.yaml")); err != nil {
		t.Fatal(err)
	}
	commands := commandsOf(t, "../../docs/backup.md")
	for _, command := range commands {
		sh := exec.Command("sh", "-ec", command)
		sh.Dir = folder
		sh.Env = append(gatehouse(t).Env, "PATH="+binary(t)+string(os.PathListSeparator)+os.Getenv("PATH"), "GATEHOUSE_ADMIN_URL=http://"+d.admin)
		said, err := sh.CombinedOutput()
		isImport := strings.Contains(command, "import")
		if err != nil || isImport && !regexp.MustCompile(`(?m)^keys +0 +2 +0 +0 +0 +0 +0$`).Match(said) {
			t.Errorf("%s\n%v: %s", command, err, said)
		}
	}
	for _, name := range []string{"backup.jsonl", "again.jsonl", "backup.jsonl.gz"} {
		if about, err := os.Stat(filepath.Join(folder, name)); err != nil || about.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(commands) < 5 {
		t.Errorf("%d commands were found", len(commands))
	}
}

// TestCommandsOfTheAPIDocumentWork runs every command of docs/api.md as it
// stands, on a gateway of its own.
func TestCommandsOfTheAPIDocumentWork(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		lack(t, "curl")
	}
	d := newTable(t, settings{Store: embeddedStore(t)})
	commands := commandsOf(t, "../../docs/api.md")
	for _, command := range commands {
		k := d.createKey(t, d.root, may("datacenter_shared:read"))
		local := strings.NewReplacer("localhost:8080", d.addr, "localhost:9090", d.admin).Replace(command)
		sh := exec.Command("sh", "-ec", `curl() { command curl -sS --fail-with-body "$@"; }; `+local)
		sh.Env = append(os.Environ(), "TOKEN="+d.root.Token, "KEY="+k.ID, "GATEHOUSE_ADMIN_TOKEN="+operatorToken)
		said, err := sh.CombinedOutput()
		if err != nil || !strings.Contains(string(said), `"success":true`) && !strings.Contains(string(said), `"allowed_permissions":[`) {
			t.Errorf("%s\n%v: %s", command, err, said)
		}
	}
	if endpoints := 13; len(commands) < endpoints {
		t.Errorf("%d commands were found, want one for each endpoint at least: %d", len(commands), endpoints)
	}
}

// TestCommandsOfTheConfigurationDocumentWork as they stand, beside the example.
func TestCommandsOfTheConfigurationDocumentWork(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	example, err := os.ReadFile("../../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "config.example.yaml"), example, 0o600); err != nil {
		t.Fatal(err)
	}
	commands := commandsOf(t, "../../docs/configuration.md")
	for _, command := range commands {
		sh := exec.Command("sh", "-ec", command)
		sh.Dir = folder
		sh.Env = append(gatehouse(t).Env, "PATH="+binary(t)+string(os.PathListSeparator)+os.Getenv("PATH"))
		if said, err := sh.CombinedOutput(); err != nil {
			t.Errorf("%s\n%v: %s", command, err, said)
		}
	}
	made, err := os.ReadFile(filepath.Join(folder, "config.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("../../docs/config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, committed) || len(commands) != 2 {
		t.Errorf("%d commands make a schema of %d bytes; docs/config.schema.json has %d", len(commands), len(made), len(committed))
	}
}
