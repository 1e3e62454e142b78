package check_test

import (
	"os"
	"strings"
	"testing"
)

const rulesFolder = "../prometheus/"

// TestChartHasTheRules of deploy/prometheus: a chart takes nothing from outside
// its folder. `make golden` copies them.
func TestChartHasTheRules(t *testing.T) {
	given := deepCopy(t, valueSets(t)["production"])
	set(given, true, "prometheusRule", "enabled")
	if _, err := os.Stat(rulesFolder); err != nil {
		if _, err := render(t, given); err == nil || !strings.Contains(err.Error(), "without rules") {
			t.Errorf("got %v, want to be told that there are no rules", err)
		}
		t.Skip("SKIPPED: this tree has no rules for Prometheus")
	}
	for _, name := range []string{"recording.yaml", "alerts.yaml"} {
		source, err := os.ReadFile(rulesFolder + name)
		if err != nil {
			t.Fatal(err)
		}
		if copied, err := os.ReadFile(chartFolder + "/rules/" + name); err != nil || string(copied) != string(source) {
			t.Errorf("%s: the chart's differs; run make golden (%v)", name, err)
		}
	}
	made, err := render(t, given)
	if err != nil {
		t.Fatal(err)
	}
	rules := made.one(t, "PrometheusRule", fullname)
	if err := invalid(kubeconform(t), rules.text); err != nil {
		t.Errorf("%v\n%s", err, rules.text)
	}
	for _, want := range []string{"GatehouseDown", "{{ $labels.instance }}"} {
		if !strings.Contains(rules.text, want) {
			t.Errorf("the rules have no %s:\n%s", want, rules.text)
		}
	}
}
