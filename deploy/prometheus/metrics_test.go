package prometheus_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/deploy/prometheus/stage"
)

// metric is what is said of one in the document, or by a node of itself.
type metric struct {
	kind   string
	labels string // in order of the alphabet, with commas
}

var tableRow = regexp.MustCompile("(?m)^\\| `(gatehouse_[a-z0-9_]+)` \\| ([a-z]+) \\| ([^|]*) \\|")

// documented are the metrics in the tables of docs/metrics.md.
func documented(t *testing.T) map[string]metric {
	t.Helper()
	all := map[string]metric{}
	for _, row := range tableRow.FindAllStringSubmatch(read(t, document), -1) {
		var labels []string
		for _, quoted := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[3], -1) {
			labels = append(labels, quoted[1])
		}
		slices.Sort(labels)
		if _, twice := all[row[1]]; twice {
			t.Errorf("%s is there twice", row[1])
		}
		all[row[1]] = metric{kind: row[2], labels: strings.Join(labels, ",")}
	}
	return all
}

var (
	typeLine = regexp.MustCompile(`^# TYPE (gatehouse_\S+) (\S+)$`)
	sample   = regexp.MustCompile(`^(gatehouse_[a-z0-9_]+)(?:\{(.*)\})? \S+$`)
	pair     = regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
)

// shown are the metrics that a node shows.
func shown(text string) map[string]metric {
	all := map[string]metric{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if declared := typeLine.FindStringSubmatch(line); declared != nil {
			all[declared[1]] = metric{kind: declared[2]}
			continue
		}
		one := sample.FindStringSubmatch(line)
		if one == nil {
			continue
		}
		name := one[1]
		if _, is := all[name]; !is {
			name = name[:strings.LastIndex(name, "_")] // _bucket, _sum, _count
		}
		var labels []string
		for _, p := range pair.FindAllStringSubmatch(one[2], -1) {
			if p[1] != "le" {
				labels = append(labels, p[1])
			}
		}
		slices.Sort(labels)
		m := all[name]
		m.labels = strings.Join(labels, ",")
		all[name] = m
	}
	return all
}

// TestDocumentSaysWhatANodeShows, no more and no less, with types and labels;
// and promtool finds nothing wrong with it.
func TestDocumentSaysWhatANodeShows(t *testing.T) {
	t.Parallel()
	stage.Need(t, "promtool")
	g := stage.StartGatehouse(t, stage.StartRedis(t))
	g.Load(t)
	want := documented(t)
	var text string
	stage.Eventually(t, patience, "all metrics show", func() error {
		text = g.Metrics()
		if diff := cmp.Diff(want, shown(text), cmp.AllowUnexported(metric{})); diff != "" {
			return fmt.Errorf("docs/metrics.md and /metrics differ (-document +node):\n%s", diff)
		}
		return nil
	})
	if _, err := stage.Output(t, text, "promtool", "check", "metrics"); err != nil {
		t.Error(err)
	}
}

var expiry = regexp.MustCompile(`(?m)^gatehouse_certificate_expiry_timestamp_seconds\{certificate="listen"\} (\S+)$`)

// TestCertificateExpiryIsThatOfTheFile, to the second.
func TestCertificateExpiryIsThatOfTheFile(t *testing.T) {
	t.Parallel()
	g := stage.StartGatehouse(t, stage.StartRedis(t))
	found := expiry.FindStringSubmatch(g.Metrics())
	if found == nil {
		t.Fatal("it is not shown")
	}
	at, err := strconv.ParseFloat(found[1], 64)
	if want := g.CertificateExpires.Unix(); err != nil || int64(at) != want {
		t.Errorf("it is %s (%v), want %d", found[1], err, want)
	}
}
