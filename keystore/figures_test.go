package keystore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// figuresEnv is how many keys TestEmbeddedFigures makes; it is not run without.
const figuresEnv = "GATEHOUSE_TEST_FIGURES"

// residentMiB is how much memory this process has, the mapped file included.
func residentMiB(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); fields[0] == "VmRSS:" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// filled makes a store in a file on a disk with so many keys of a hundredth as
// many accounts, and returns tokens of some.
func (w *world) filled(t testing.TB, keys int) (tokens []keystore.Token) {
	t.Helper()
	n := w.node(func(o *keystore.Options) { o.MaxKeys = keys })
	for i := range keys / 100 {
		person := n.account(policy.AccountID(fmt.Sprintf("account%d", i)))
		made := n.many(person, 100)
		tokens = append(tokens, made[0])
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	return tokens
}

// The figures of docs/decisions/0017: with a hundred thousand keys, how long a
// start takes, and how much memory a process has that has read everything.
func TestEmbeddedFigures(t *testing.T) {
	keys, err := strconv.Atoi(os.Getenv(figuresEnv))
	if err != nil {
		t.Skipf("SKIPPED: %s=100000 runs it, for some minutes", figuresEnv)
	}
	w := newWorld(t, "embedded")
	if file := os.Getenv(figuresEnv + "_FILE"); file != "" { // of an earlier run
		w.options.EmbeddedFile = file
	}
	if _, err := os.Stat(w.options.EmbeddedFile); err != nil {
		w.filled(t, keys)
		t.Logf("filled: %d MiB, in the process that did it", residentMiB(t))
	}
	info, err := os.Stat(w.options.EmbeddedFile)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	n := w.node()
	started := time.Since(begun)
	t.Logf("%d keys: a file of %d MiB, started in %v, %d MiB resident", keys, info.Size()>>20, started, residentMiB(t))
	if started > 2*time.Second {
		t.Errorf("it started in %v", started)
	}
	if got := residentMiB(t); got > 250 {
		t.Errorf("%d MiB are resident", got)
	}
	person := n.account("account1")
	var commits []time.Duration
	for range 200 {
		begun := time.Now()
		n.key(person)
		commits = append(commits, time.Since(begun))
	}
	t.Logf("a key is made in %v at the median", median(commits))
}

func median(all []time.Duration) time.Duration {
	sorted := append([]time.Duration{}, all...)
	for i := range sorted { // few
		for j := i; j > 0 && sorted[j] < sorted[j-1]; j-- {
			sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
		}
	}
	return sorted[len(sorted)/2]
}

// BenchmarkEmbedded: what a lookup and a change take, alone and by many at the
// same moment. The file is on a disk.
func BenchmarkEmbedded(b *testing.B) {
	open := func(b *testing.B) (*keystore.Store, policy.Caller, keystore.Token) {
		b.Helper()
		s, err := keystore.Open(b.Context(), childOptions(filepath.Join(b.TempDir(), "gatehouse.db")))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		if _, _, err := s.PutAccount(b.Context(), policy.Caller{}, keystore.Account{ID: "acme", Permissions: []string{"*"}}); err != nil {
			b.Fatal(err)
		}
		rules, err := s.Rules(b.Context(), "acme")
		if err != nil {
			b.Fatal(err)
		}
		person := policy.Caller{Account: rules}
		_, token, err := s.Create(b.Context(), person, newKey())
		if err != nil {
			b.Fatal(err)
		}
		return s, person, token
	}
	b.Run("lookup", func(b *testing.B) {
		s, _, token := open(b)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Lookup(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lookups", func(b *testing.B) {
		s, _, token := open(b)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := s.Lookup(b.Context(), token); err != nil {
					b.Error(err)
				}
			}
		})
	})
	for _, row := range []struct {
		name       string
		goroutines int
	}{{"change", 1}, {"changes of 32", 32}} {
		b.Run(row.name, func(b *testing.B) {
			s, _, _ := open(b)
			b.SetParallelism(row.goroutines)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					set := keystore.Step{Kind: keystore.StepSet, Key: "gatehouse:bench", Value: "value"}
					if err := keystore.CommitTo(b.Context(), s, nil, []keystore.Step{set}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
