package main_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestCommandsOfTheAPIDocumentWork runs every command of docs/api.md as it
// stands, on a gateway of its own.
func TestCommandsOfTheAPIDocumentWork(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		lack(t, "curl")
	}
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	d := newTable(t, settings{Store: embeddedStore(t)})
	blocks := shellBlock.FindAllStringSubmatch(string(text), -1)
	run := 0
	for _, block := range blocks {
		for command := range strings.SplitSeq(strings.ReplaceAll(block[1], "\\\n", " "), "\n") {
			if command == "" {
				continue
			}
			run++
			k := d.createKey(t, d.root, may("datacenter_shared:read"))
			local := strings.NewReplacer("localhost:8080", d.addr, "localhost:9090", d.admin).Replace(command)
			sh := exec.Command("sh", "-ec", `curl() { command curl -sS --fail-with-body "$@"; }; `+local)
			sh.Env = append(os.Environ(), "TOKEN="+d.root.Token, "KEY="+k.ID, "GATEHOUSE_ADMIN_TOKEN="+operatorToken)
			said, err := sh.CombinedOutput()
			if err != nil || !strings.Contains(string(said), `"success":true`) && !strings.Contains(string(said), `"allowed_permissions":[`) {
				t.Errorf("%s\n%v: %s", command, err, said)
			}
		}
	}
	if endpoints := 13; run < endpoints {
		t.Errorf("%d commands were found, want one for each endpoint at least: %d", run, endpoints)
	}
}
