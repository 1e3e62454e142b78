package prometheus_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"gatehouse/deploy/prometheus/stage"
)

// patience is for how long something is waited for that has no promised time.
const patience = time.Minute

var forLine = regexp.MustCompile(`(?m)^        for: .*$`)

// impatient makes every alert fire two seconds after it became true.
func impatient(rules string) string { return forLine.ReplaceAllString(rules, "        for: 2s") }

// TestBrokenStoreIsFoundOut: Redis ends under load, the alert of that fires, its
// runbook leads to the cause, and the alert ends when Redis is back.
func TestBrokenStoreIsFoundOut(t *testing.T) {
	t.Parallel()
	const alert = "GatehouseStoreUnavailable"
	stage.Need(t, "prometheus")
	redis := stage.StartRedis(t)
	g := stage.StartGatehouse(t, redis)
	g.Load(t)
	prometheus := stage.StartPrometheus(t, g, ".", impatient)
	isAt := func(state string) func() error {
		return func() error {
			alerts, err := prometheus.Alerts(alert)
			if err != nil {
				return err
			}
			for _, a := range alerts {
				if a.State == state {
					return nil
				}
			}
			return fmt.Errorf("it is %v", alerts)
		}
	}
	stage.Eventually(t, patience, "the load is seen", func() error {
		return prometheus.Shows(`rate(gatehouse_requests_total{reason="allowed"}[10s]) > 0`)
	})
	if alerts, err := prometheus.Alerts(alert); err != nil || len(alerts) > 0 {
		t.Fatalf("the alert is there before anything broke: %v, %v", alerts, err)
	}

	redis.Break()
	stage.Eventually(t, patience, alert+" fires", isAt("firing"))
	for _, shows := range []string{
		"gatehouse_store_available == 0",
		`sum by (reason) (rate(gatehouse_requests_total{reason="key_store_unavailable",code="503"}[10s])) > 0`,
		`sum (rate(gatehouse_lookups_total{outcome="unavailable"}[10s])) > 0`,
		"gatehouse_store_changes_heard == 0",
	} {
		stage.Eventually(t, patience, "the cause shows", func() error { return prometheus.Shows(shows) })
	}
	files, err := filepath.Glob(runbooks + "*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d runbooks, %v", len(files), err)
	}
	for _, file := range files {
		for _, query := range queries(read(t, file)) {
			if _, err := prometheus.Query(query); err != nil {
				t.Errorf("%s: %s: %v", file, query, err)
			}
		}
	}

	redis.Mend()
	stage.Eventually(t, patience, "keys are looked up again", func() error { return prometheus.Shows("gatehouse_store_available == 1") })
}
