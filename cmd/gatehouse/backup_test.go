package main_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMoveFromTheEmbeddedStoreToRedis: while it is used, the import killed again
// and again, and at last everything works on the other side, and what is revoked
// there does not come back.
func TestMoveFromTheEmbeddedStoreToRedis(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t), Level: "warn"})
	keys := []key{d.root, d.key}
	for range 300 {
		keys = append(keys, d.firstKey(t, "acme", may("datacenter_shared:read")))
	}
	folder := t.TempDir()
	export, config := filepath.Join(folder, "export.jsonl"), filepath.Join(folder, "redis.yaml")
	out := gatehouse(t, "export", "--admin", "http://"+d.admin, "--out", export)
	if said, err := out.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	written, err := os.ReadFile(export)
	if err != nil {
		t.Fatal(err)
	}
	checkNoToken(t, "the export", string(written))

	server := startRedis(t)
	e := &gateway{config: config, set: d.set}
	e.set.Store = server.yaml()
	e.configure(t, func(*settings) {})
	e.initStore(t)
	killed := 0
	for after := 20 * time.Millisecond; ; after += after / 2 {
		run := startProcess(t, gatehouse(t, "import", export, "--config", config))
		patience := time.NewTimer(after)
		select {
		case <-run.ended:
		case <-patience.C:
			run.kill()
			killed++
		}
		patience.Stop()
		if code := run.cmd.ProcessState.ExitCode(); code == 0 {
			break
		} else if code > 0 {
			t.Fatalf("the import ended with %d: %s%s", code, run.stdout.String(), run.stderr.String())
		}
		if held := server.client.Exists(t.Context(), "gatehouse:importing").Val(); held == 1 {
			said, err := gatehouse(t, "import", export, "--config", config).CombinedOutput()
			if err == nil || !strings.Contains(string(said), "less than a minute ago: nothing was changed; run it again then") {
				t.Errorf("right behind one that was killed: %v: %s", err, said)
			}
			server.client.Del(t.Context(), "gatehouse:importing") // the minute passes
		}
	}
	t.Logf("%d imports were killed", killed)

	there := newTableLike(t, d, server.yaml())
	for _, k := range keys[1:] {
		there.passes(t, get(k, proxyListOfA))
	}
	if got := there.operate(t, http.MethodDelete, "/accounts/acme/keys/"+keys[2].ID, nil); got.status != http.StatusOK {
		t.Fatalf("revoke: %d %s", got.status, got.body)
	}
	for range 2 {
		said, err := gatehouse(t, "import", export, "--config", config).CombinedOutput()
		if err != nil || !strings.Contains(string(said), "key "+keys[2].ID+" of account acme: left out: it was removed here") {
			t.Errorf("%v: %s", err, said)
		}
		there.refuses(t, get(keys[2], proxyListOfA), refusal{status: 401, code: "invalid_token", challenge: badToken})
	}
	listed := dataOf[[]managed](t, there.operate(t, http.MethodGet, "/accounts/acme/keys", nil))
	if len(listed) != len(keys)-1 {
		t.Errorf("%d keys are listed, want %d", len(listed), len(keys)-1)
	}
	if trail := there.operate(t, http.MethodGet, "/accounts/acme/audit-log?action=account.import&limit=1", nil); !strings.Contains(trail.body, `"account.import"`) {
		t.Errorf("the audit trail says nothing of it: %s", trail.body)
	}
}

// newTableLike is another gateway in front of the same backends.
func newTableLike(t *testing.T, d *table, store string) *table {
	t.Helper()
	s := d.set
	s.Store = store
	return &table{gateway: startGateway(t, s), backends: d.backends, root: d.root, key: d.key}
}

// TestBrokenExportLeavesNoFile: of a gateway that goes away, nothing is left that
// could be taken for a backup.
func TestBrokenExportLeavesNoFile(t *testing.T) {
	t.Parallel()
	half := startHalfExport(t)
	folder := t.TempDir()
	said, err := gatehouse(t, "export", "--admin", "http://"+half, "--out", filepath.Join(folder, "backup.jsonl")).CombinedOutput()
	if err == nil {
		t.Errorf("half an export was taken: %s", said)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v (%s)", left, err, said)
	}
}

// startHalfExport serves an export without its end.
func startHalfExport(t *testing.T) string {
	t.Helper()
	line := `{"export":{"format":"gatehouse-export-1","store":"x","token_prefix":"gk_","begun_at":1}}` + "\n"
	b := startBackend(t, func(c net.Conn, _ received) bool {
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(line)) + "\r\n\r\n" + line))
		return false
	})
	return b.addr
}
