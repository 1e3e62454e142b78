package check_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unconfined is what systemd would like better, and a gateway cannot have: the
// network, its sockets, and a disk that is the host's.
var unconfined = []string{"RootDirectory=", "PrivateNetwork=", "RestrictAddressFamilies=", "DeviceAllow=", "IPAddressDeny="}

// TestUnitIsHardened: systemd's own measure, from 0 to 10, is what the docs say,
// and nothing else is left open.
func TestUnitIsHardened(t *testing.T) {
	docs, err := os.ReadFile("../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	stated := regexp.MustCompile("exposure level of ([0-9.]+)").FindSubmatch(docs)
	if stated == nil {
		t.Fatal("docs/deploy.md states no exposure level")
	}
	said := analyze(t, "security", "--offline=true", "--no-pager", "../systemd/gatehouse.service")
	if want := "Overall exposure level for gatehouse.service: " + string(stated[1]) + " OK"; !strings.Contains(said, want) {
		t.Errorf("got %s, want %s", said, want)
	}
	for line := range strings.Lines(said) {
		fault, open := strings.CutPrefix(line, "✗ ")
		if open && !slices.ContainsFunc(unconfined, func(name string) bool { return strings.HasPrefix(fault, name) }) {
			t.Error(line)
		}
	}
}

// TestUnitsAreUnderstood by systemd; nothing but the program is missing.
func TestUnitsAreUnderstood(t *testing.T) {
	said := analyze(t, "verify", "../systemd/gatehouse.service", "../systemd/gatehouse.socket", "../systemd/gatehouse-admin.socket")
	for line := range strings.Lines(said) {
		if !strings.Contains(line, "/usr/local/bin/gatehouse is not executable") {
			t.Error(line)
		}
	}
}

func analyze(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		lack(t, "systemd-analyze")
	}
	said, _ := exec.Command("systemd-analyze", args...).CombinedOutput() // a missing program is a failure
	return string(said)
}
