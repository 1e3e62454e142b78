// Package prometheus_test tries the rules, and what they go by, on real
// programs.
package prometheus_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"gatehouse/deploy/prometheus/stage"
)

func TestMain(m *testing.M) {
	code := m.Run()
	stage.RemoveBinary()
	os.Exit(code)
}

// patience is for how long something is waited for that has no promised time.
const patience = time.Minute

const (
	runbooks = "../../docs/runbooks/"
	document = "../../docs/metrics.md"
)

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rule is an alert, or a series that is recorded.
type rule struct {
	Alert, Record, Expr string
	Annotations         map[string]string
	Labels              map[string]string
}

func rules(t *testing.T, file string) []rule {
	t.Helper()
	var text struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, file)), &text); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range text.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

var fence = regexp.MustCompile("(?s)```promql\n(.*?)```")

// queries are those of a runbook, one a line.
func queries(text string) []string {
	var all []string
	for _, block := range fence.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); line != "" {
				all = append(all, line)
			}
		}
	}
	return all
}
