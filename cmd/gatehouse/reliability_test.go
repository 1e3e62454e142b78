package main_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/keystore/redistest"
)

var reliability = flag.String("reliability", "", "the document whose measured tables are written anew")

// writeSection puts lines in the place of those between the marks of a section
// of the document, which must be there.
func writeSection(t *testing.T, name string, lines []string) {
	t.Helper()
	if *reliability == "" || t.Failed() {
		return
	}
	reliabilityMu.Lock()
	defer reliabilityMu.Unlock()
	text, err := os.ReadFile(*reliability)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := []byte("<!-- "+name+" -->\n"), []byte("<!-- end of "+name+" -->")
	before, rest, found := bytes.Cut(text, begin)
	_, after, ended := bytes.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no section %q", *reliability, name)
	}
	var b bytes.Buffer
	b.Write(before)
	b.Write(begin)
	b.WriteString(strings.Join(lines, "\n") + "\n")
	b.Write(end)
	b.Write(after)
	if err := os.WriteFile(*reliability, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

var reliabilityMu sync.Mutex

// matrixTable collects the cells of the matrix.
type matrixTable struct {
	mu    sync.Mutex
	cells map[string]string
}

func cellName(kind redistest.Kind, fault, mode string) string {
	return string(kind) + "/" + fault + "/" + mode
}

func (m *matrixTable) add(kind redistest.Kind, fault, mode string, r report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cells == nil {
		m.cells = map[string]string{}
	}
	cell := fmt.Sprintf("%d, %d, %d; %s; %s", r.letThrough, r.refused, r.lost, inSeconds(r.toUnavailable), inSeconds(r.toNormal))
	if mode == "stale" && kind != embeddedKind {
		cell += fmt.Sprintf("; %.1f %%", 100*r.passed)
	}
	m.cells[cellName(kind, fault, mode)] = cell
}

func inSeconds(d time.Duration) string {
	if d < 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// write writes the table, if every cell of it is there.
func (m *matrixTable) write(t *testing.T) {
	if *reliability == "" {
		return
	}
	lines := []string{"| fault | store | strict | cached | cached, with stale |", "| --- | --- | --- | --- | --- |"}
	for _, f := range faults() {
		for _, kind := range []redistest.Kind{redistest.Standalone, redistest.Sentinel, redistest.Cluster, embeddedKind} {
			row := fmt.Sprintf("| %s | %s |", f.name, kind)
			if why := f.without(kind); why != "" {
				lines = append(lines, row+" – ("+why+") | – | – |")
				continue
			}
			for _, mode := range modes() {
				cell, ok := m.cells[cellName(kind, f.name, mode.name)]
				if !ok {
					t.Logf("the table is not written: %s was not run", cellName(kind, f.name, mode.name))
					return
				}
				row += " " + cell + " |"
			}
			lines = append(lines, row)
		}
	}
	writeSection(t, "fault matrix", lines)
}
