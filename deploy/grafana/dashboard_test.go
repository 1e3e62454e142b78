// Package grafana_test tries the dashboard on a real Prometheus.
package grafana_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatehouse/deploy/prometheus/stage"
)

func TestMain(m *testing.M) {
	code := m.Run()
	stage.RemoveBinary()
	os.Exit(code)
}

// panel is what the tests look at.
type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ H, W, X, Y int }
	Datasource  struct{ Type, UID string }
	Targets     []struct{ RefID, Expr, LegendFormat string }
	FieldConfig struct{ Defaults struct{ Unit string } }
}

type variable struct{ Name, Type, Definition string }

type dashboard struct {
	UID, Title  string
	Panels      []panel
	Annotations struct{ List []struct{ Expr string } }
	Templating  struct{ List []variable }
}

func read(t *testing.T) dashboard {
	t.Helper()
	raw, err := os.ReadFile("gatehouse.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPanelsAreWhole: each says what it shows and in which unit, none covers
// another, and none names a data source of somebody's own.
func TestPanelsAreWhole(t *testing.T) {
	t.Parallel()
	d := read(t)
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: its id %d is none of its own", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, is := taken[[2]int{x, y}]; is || x > 23 {
					t.Fatalf("%s covers %q, or is beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("%q lacks a title, a description, a query or the data source that is chosen", p.Title)
		}
		if p.Type != "table" && p.FieldConfig.Defaults.Unit == "" {
			t.Errorf("%s: no unit", p.Title)
		}
	}
}

// rateInterval stands for $__rate_interval: Prometheus scrapes once a second here.
const rateInterval = "10s"

var unfilled = regexp.MustCompile(`\$\{?[A-Za-z_]`)

// fill puts values in the place of variables, as Grafana does.
func fill(t *testing.T, expression string) string {
	t.Helper()
	filled := strings.NewReplacer("$__rate_interval", rateInterval, "$job", "gatehouse", "$instance", ".*", "$route", ".*").Replace(expression)
	if unfilled.MatchString(filled) {
		t.Errorf("a variable that the dashboard has not: %s", filled)
	}
	return filled
}

// TestEveryQueryShowsSomething of a Gatehouse that has some of everything to do.
func TestEveryQueryShowsSomething(t *testing.T) {
	t.Parallel()
	stage.Need(t, "prometheus")
	g := stage.StartGatehouse(t, stage.StartRedis(t))
	g.Load(t)
	prometheus := stage.StartPrometheus(t, g, "../prometheus")

	d := read(t)
	queries := map[string]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries[p.Title+" "+target.RefID] = fill(t, target.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			queries["variable "+v.Name] = labelValues(t, fill(t, v.Definition))
		}
	}
	const enough = 50
	if len(queries) < enough {
		t.Fatalf("only %d queries were found", len(queries))
	}
	const atMost = time.Minute
	stage.Eventually(t, atMost, "every query has a value", func() error {
		for name, query := range queries {
			if err := prometheus.Shows(query); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			delete(queries, name)
		}
		return nil
	})
	for _, a := range d.Annotations.List {
		if _, err := prometheus.Query(fill(t, a.Expr)); err != nil { // nothing was reloaded
			t.Errorf("annotation: %v", err)
		}
	}
}

var labelQuery = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// labelValues is a query that has a value where the variable has one.
func labelValues(t *testing.T, definition string) string {
	t.Helper()
	parts := labelQuery.FindStringSubmatch(definition)
	if parts == nil {
		t.Fatalf("%q is no label_values(…)", definition)
	}
	return fmt.Sprintf(`count by (%s) (%s) > 0`, parts[2], parts[1])
}
