package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/deploy/prometheus/stage"
)

// runbook is the page of an alert.
func runbook(alert string) string { return "docs/runbooks/" + alert + ".md" }

var (
	interval = regexp.MustCompile(`(?m)^(  (?:scrape|evaluation)_interval): 15s$`)
	lasting  = regexp.MustCompile(`(?m)^        for: .*$`)
)

// impatient makes Prometheus look every second, and every alert fire two seconds
// after it became true. What the alerts go by stays as it is.
func impatient(text string) string {
	return lasting.ReplaceAllString(interval.ReplaceAllString(text, "$1: 1s"), "        for: 2s")
}

// watched is what docs/getting-started.md has set up, and its Prometheus.
type watched struct {
	*console
	prometheus *stage.Prometheus
}

// watch is what docs/getting-started.md has set up by then.
func watch(t *testing.T, s *console) watched {
	t.Helper()
	return watched{s, stage.PrometheusAt(s.ports.in(t, "127.0.0.1:9091"))}
}

// theLoad is what docs/getting-started.md asks on and on.
const theLoad = `rate(gatehouse_requests_total{reason="allowed",code="200"}[5s]) > 0`

// isQuiet: there is load, and no alert, before anything breaks.
func isQuiet(t *testing.T, s *console) {
	w := watch(t, s)
	w.shows(t, theLoad)
	if alerts, err := w.prometheus.Query("ALERTS"); err != nil || len(alerts) > 0 {
		t.Errorf("there are alerts before anything broke: %v, %v", alerts, err)
	}
}

// goThroughRunbooks breaks what docs/getting-started.md has set up and mended, one
// thing after the other, until the alert of each fires, and goes by its runbook.
func goThroughRunbooks(t *testing.T, s *console) {
	w := watch(t, s)
	w.run(t, `for i in $(seq 11); do`+ // and one in the document
		` until [ "$(curl -s -o try/answer -w '%{http_code}' -H "api-token: $OFFICE" $URL)" = 403 ]; do sleep 0.1; done; done`)
	w.shows(t, "gatehouse_store_available == 1 and gatehouse_store_changes_heard == 1")
	w.follows(t, runbook("GatehousePropagationSlow"))
	w.follow(t, "docs/operations.md", nil)

	w.run(t, "TARGET=http://127.0.0.1:9001 CONFIG=try/config.yaml LOG=try/gatehouse.log")
	for _, scene := range []struct{ alert, breaks, mends, mended string }{
		{
			"GatehouseUpstreamEjected", "kill $BACKEND && wait $BACKEND",
			"gatehouse demo-backend --listen 127.0.0.1:9001 > try/backend.log &\nBACKEND=$!", "min (gatehouse_upstream_target_up) == 1",
		},
		{
			"GatehouseReloadFailed", "cp try/config.yaml try/good.yaml; echo 'rotues: []' >> try/config.yaml",
			"mv try/good.yaml try/config.yaml", "gatehouse_config_last_reload_successful == 1",
		},
		{
			"GatehouseDown", "kill $GATEHOUSE && wait $GATEHOUSE",
			"gatehouse serve --config try/config.yaml >> try/gatehouse.log &\nGATEHOUSE=$!", "min (up) == 1",
		},
	} {
		w.shows(t, theLoad)
		w.run(t, scene.breaks)
		w.fires(t, scene.alert)
		w.follows(t, runbook(scene.alert))
		w.run(t, scene.mends)
		w.shows(t, scene.mended)
	}
	w.evicts(t)
	w.follows(t, runbook("GatehouseStoreOlder"))
	w.follows(t, runbook("GatehouseClockWrong"))
	w.follows(t, runbook("GatehouseRefusalsJumped")) // the log is whole now
	w.queries(t)
}

// evicts makes a cache of Redis, until both alerts of that fire, and undoes it.
func (w watched) evicts(t *testing.T) {
	t.Helper()
	w.run(t, "redis-cli -u $REDIS_URL config set maxmemory 1gb; redis-cli -u $REDIS_URL config set maxmemory-policy allkeys-lru")
	for _, alert := range []string{"GatehouseStoreEvicts", "GatehouseStoreNotWritable"} {
		w.fires(t, alert)
		w.follows(t, runbook(alert))
	}
	w.run(t, "redis-cli -u $REDIS_URL config set maxmemory-policy noeviction; redis-cli -u $REDIS_URL config set maxmemory 0")
	w.shows(t, "gatehouse_store_writable == 1")
}

// shows waits until an expression has a value.
func (w watched) shows(t *testing.T, expression string) {
	t.Helper()
	eventually(t, patience, expression, func() error { return w.prometheus.Shows(expression) })
}

// fires waits until an alert does.
func (w watched) fires(t *testing.T, alert string) {
	t.Helper()
	eventually(t, patience, alert+" fires", func() error {
		alerts, err := w.prometheus.Alerts(alert)
		if err != nil {
			return err
		}
		fires := slices.ContainsFunc(alerts, func(a stage.Alert) bool {
			return a.State == "firing" && a.Annotations["runbook"] == runbook(alert)
		})
		return unless(fires, fmt.Sprint(alerts))
	})
}

// leadsToTheCause: Redis was ended under load, the alert of that fires, and its
// runbook leads to the cause: its queries have data, its commands say what it
// shows, and what the node says is the row of its table that says so.
func leadsToTheCause(t *testing.T, s *console) {
	w, page := watch(t, s), runbook("GatehouseStoreUnavailable")
	w.run(t, "export REDIS_URL=redis://127.0.0.1:6379")
	w.fires(t, "GatehouseStoreUnavailable")
	w.follows(t, page)
	w.shows(t, `sum by (reason) (rate(gatehouse_requests_total{reason="key_store_unavailable",code="503"}[10s])) > 0`)
	w.shows(t, "gatehouse_store_changes_heard == 0")
	if said := w.everything(t); strings.Contains(said, "redis:") {
		t.Errorf("the gateway writes lines that are none of its log:\n%s", said)
	}
	for _, b := range blocksOf(t, page) {
		if b.language == "promql" {
			for query := range strings.Lines(b.text) {
				w.shows(t, query)
			}
		}
	}
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	said := w.run(t, "curl -s http://127.0.0.1:9090/readyz?store=1")
	var causes []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*`) \\| (.*) \\| .* \\|$").FindAllStringSubmatch(string(text), -1) {
		for _, words := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			if strings.Contains(said, words[1]) {
				causes = append(causes, row[2])
			}
		}
	}
	if len(causes) != 1 || !strings.HasPrefix(causes[0], "Redis is down") {
		t.Errorf("%s leads from %q to %q", page, said, causes)
	}
}

// follows runs the commands of a runbook, which may fail: something is broken. Each
// shows what it says then.
func (s *console) follows(t *testing.T, page string) {
	t.Helper()
	s.tried[page] = true
	blocks, run := blocksOf(t, page), 0
	for i, b := range blocks {
		if b.language != "sh" {
			continue
		}
		run++
		if i+1 == len(blocks) || blocks[i+1].language != "text" {
			t.Errorf("%s does not show what its commands print", page)
			continue
		}
		expected(t, page, s.ports.in(t, blocks[i+1].text), s.run(t, "set +e\n"+b.text+"set -e\n"))
	}
	if run == 0 {
		t.Errorf("%s has no commands", page)
	}
}

// queries asks Prometheus for every query of every runbook, whose commands must
// have been tried by then.
func (w watched) queries(t *testing.T) {
	t.Helper()
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d runbooks, %v", len(pages), err)
	}
	for _, page := range pages {
		page = strings.TrimPrefix(filepath.ToSlash(page), "../../")
		for _, b := range blocksOf(t, page) {
			if b.language == "sh" && !w.tried[page] && page != runbook("GatehouseCertificateExpiring") {
				t.Errorf("nothing has tried the commands of %s", page)
			}
			if b.language != "promql" {
				continue
			}
			for query := range strings.Lines(b.text) {
				if _, err := w.prometheus.Query(strings.TrimSpace(query)); err != nil {
					t.Errorf("%s: %s: %v", page, query, err)
				}
			}
		}
	}
}

// TestRunbookOfCertificates: it shows the same certificate in the file and on the
// node.
func TestRunbookOfCertificates(t *testing.T) {
	t.Parallel()
	certFile, keyFile, _ := certificate(t)
	g := startGateway(t, settings{Store: embeddedStore(t), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile)})
	s := openConsole(t)
	s.run(t, fmt.Sprintf("CERTIFICATE=%q HOST=%q\n", certFile, g.addr))
	s.follows(t, runbook("GatehouseCertificateExpiring"))
	dates := s.run(t, `openssl s_client -connect "$HOST" </dev/null 2>/dev/null | openssl x509 -noout -enddate; openssl x509 -noout -enddate -in "$CERTIFICATE"`)
	if file, node, _ := strings.Cut(strings.TrimSpace(dates), "\n"); file != node {
		t.Errorf("the node serves %q, and the file has %q", node, file)
	}
}
