package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore/redistest"
)

// neighbour is the last commit whose gateways know neither markers nor formats
// of the store.
const neighbour = "4c10fcc"

// neighbourBinary builds the gatehouse of that commit. Where the history does
// not reach back to it, as in a shallow clone, the test is skipped, aloud.
func neighbourBinary(t *testing.T) string {
	t.Helper()
	if said, err := exec.Command("git", "cat-file", "-e", neighbour+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: the history has no commit %s: %v %s", neighbour, err, said)
	}
	top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	archive := exec.Command("git", "-C", strings.TrimSpace(string(top)), "archive", "--format=tar", neighbour)
	unpack := exec.Command("tar", "-x", "-C", folder)
	var complaints bytes.Buffer
	archive.Stderr, unpack.Stderr = &complaints, &complaints
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{unpack.Start, archive.Run, unpack.Wait} {
		if err := do(); err != nil {
			t.Fatalf("%v\n%s", err, complaints.String())
		}
	}
	binary := filepath.Join(folder, "gatehouse-before")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "./cmd/gatehouse")
	build.Dir = folder
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, said)
	}
	return binary
}

// TestNeighbouringVersions: a gateway of the version before and one of today
// serve one store, as they do while one replaces the other. What one is told
// counts at the other, within a second.
func TestNeighbouringVersions(t *testing.T) {
	needsFaults(t)
	t.Parallel()
	redistest.Need(t)
	before := neighbourBinary(t)
	topology := redistest.Start(t, redistest.Standalone, redistest.Options{})
	yaml := fmt.Sprintf("redis: {addrs: [%q]}\n  %s", topology.Nodes[0].Addr(), modes()[1].yaml)
	f := startFleet(t, plan{
		nodes: 2, binaries: []string{before, ""}, store: []string{yaml}, timeout: "1s", unchanged: 10, changing: 20, accounts: 2,
		pace: 20 * time.Millisecond, changers: 2, rest: 50 * time.Millisecond, streams: 3,
	})
	f.run()
	defer f.stop()
	pass(5 * time.Second)
	f.conclusion(t)
	for account := range f.roots {
		var lists [2][]string
		for node := range lists {
			got := f.manage(context.Background(), account, node, http.MethodGet, keysPath, nil)
			var page struct{ Data []managed }
			if err := json.Unmarshal(got.body, &page); err != nil || got.status != http.StatusOK {
				t.Fatalf("%d %s, %v", got.status, got.body, err)
			}
			for _, k := range page.Data {
				k.LastUsedAt = nil // is written with a delay
				lists[node] = append(lists[node], string(encode(t, k)))
			}
		}
		if len(lists[0]) == 0 || !slices.Equal(lists[0], lists[1]) {
			t.Errorf("the lists differ:\n%s\n%s", strings.Join(lists[0], "\n"), strings.Join(lists[1], "\n"))
		}
	}
	t.Logf("%d changes acknowledged, %d unsure; heeded after %s at the latest", f.findings.changes-f.findings.unsure, f.findings.unsure, f.findings.latestElsewhere)
}
