package prometheus_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/deploy/prometheus/stage"
)

// TestRules: promtool reads them, and they do what alerts.test.yaml says.
func TestRules(t *testing.T) {
	t.Parallel()
	stage.Need(t, "promtool")
	for _, arguments := range [][]string{
		{"check", "config", "prometheus.yaml"}, {"check", "rules", "recording.yaml", "alerts.yaml"}, {"test", "rules", "alerts.test.yaml"},
	} {
		if said, err := stage.Output(t, "", "promtool", arguments...); err != nil {
			t.Errorf("%v", err)
		} else if strings.Contains(said, "FAILED") {
			t.Error(said)
		}
	}
}

// TestEveryAlertFiresInATest, and stays silent in one.
func TestEveryAlertFiresInATest(t *testing.T) {
	t.Parallel()
	cases := strings.Split(read(t, "alerts.test.yaml"), "- eval_time:")[1:]
	for _, r := range rules(t, "alerts.yaml") {
		fires, stays := false, false
		for _, c := range cases {
			if regexp.MustCompile(`alertname: ` + r.Alert + `\n`).MatchString(c) {
				isSilent := strings.Contains(c, "exp_alerts: []")
				fires, stays = fires || !isSilent && strings.Contains(c, `severity: "`+r.Labels["severity"]+`"`), stays || isSilent
			}
		}
		if !fires || !stays {
			t.Errorf("%s, %s: fires in a test: %v, stays silent in one: %v", r.Alert, r.Labels["severity"], fires, stays)
		}
	}
}

// TestEveryAlertHasItsRunbook, and every runbook its alert.
func TestEveryAlertHasItsRunbook(t *testing.T) {
	t.Parallel()
	alerts := map[string]bool{}
	for _, r := range rules(t, "alerts.yaml") {
		alerts[r.Alert] = true
		if want := "docs/runbooks/" + r.Alert + ".md"; r.Annotations["runbook"] != want || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: annotations %v, want a summary, a description and the runbook %s", r.Alert, r.Annotations, want)
		}
		if severity := r.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s: severity %q", r.Alert, severity)
		}
		text := read(t, runbooks+r.Alert+".md")
		for _, part := range []string{"# " + r.Alert, "## What it means", "## What to look at", "## What to do"} {
			if !strings.Contains("\n"+text, "\n"+part+"\n") {
				t.Errorf("the runbook of %s lacks %q", r.Alert, part)
			}
		}
		if len(queries(text)) == 0 {
			t.Errorf("the runbook of %s has no query", r.Alert)
		}
	}
	files, err := filepath.Glob(runbooks + "*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := strings.TrimSuffix(filepath.Base(file), ".md"); !alerts[name] {
			t.Errorf("%s is the runbook of no alert", file)
		}
	}
}

var metricName = regexp.MustCompile(`\bgatehouse_[a-z0-9_]+\b`)

// TestOnlyMetricsThatExistAreUsed in rules, dashboard and runbooks.
func TestOnlyMetricsThatExistAreUsed(t *testing.T) {
	t.Parallel()
	known := documented(t)
	files, err := filepath.Glob(runbooks + "*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "recording.yaml", "alerts.yaml", "alerts.test.yaml", "../grafana/gatehouse.json") {
		for _, name := range metricName.FindAllString(withoutRecorded(read(t, file)), -1) {
			if _, is := known[name]; is {
				continue
			}
			family, _ := strings.CutSuffix(name, name[strings.LastIndex(name, "_"):])
			suffix := strings.TrimPrefix(name, family)
			if m, is := known[family]; !is || m.kind != "histogram" || !slices.Contains([]string{"_bucket", "_sum", "_count"}, suffix) {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
}

var recorded = regexp.MustCompile(`\bjob[a-z_]*:[a-z0-9_]+:[a-z0-9_]+`)

// withoutRecorded leaves out what is recorded under names of its own.
func withoutRecorded(text string) string { return recorded.ReplaceAllString(text, "") }

// TestRecordedSeriesAreThoseThatAreUsed: an alert or panel of one that nobody
// records would stay silent.
func TestRecordedSeriesAreThoseThatAreUsed(t *testing.T) {
	t.Parallel()
	var names []string
	for _, r := range rules(t, "recording.yaml") {
		names = append(names, r.Record)
	}
	for _, file := range []string{"recording.yaml", "alerts.yaml", "../grafana/gatehouse.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, used := range recorded.FindAllString(string(text), -1) {
			if !slices.Contains(names, used) {
				t.Errorf("%s: nobody records %s", file, used)
			}
		}
	}
}
