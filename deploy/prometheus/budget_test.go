package prometheus_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"gatehouse/deploy/prometheus/stage"
)

const (
	// fixedSeries and seriesOfRoute are the budget that docs/metrics.md states:
	// so many for a node, and so many more for each route that is asked for.
	fixedSeries, seriesOfRoute = 400, 150
	accounts, keysOfAccount    = 1000, 10
	scanned                    = 10_000
)

// TestSeriesStayInTheirBudget, whatever clients do: ten thousand keys of a
// thousand accounts, and a scan of random paths with random methods, tokens
// and hosts, add not a single one.
func TestSeriesStayInTheirBudget(t *testing.T) {
	t.Parallel()
	g := stage.StartGatehouse(t, stage.StartRedis(t))
	use := func(from, to int) {
		t.Helper()
		each(t, from, to, func(i int) error {
			account := fmt.Sprintf("account-%d", i)
			if err := g.PutAccount(account, ""); err != nil {
				return err
			}
			for range keysOfAccount {
				k, err := g.CreateKey(account, "datacenter_shared:read")
				if err != nil {
					return err
				}
				_, status, err := g.Ask(t.Context(), http.MethodGet, g.List(), k.Token)
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("a new key got %d", status)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	scan := func(n int) {
		t.Helper()
		each(t, 0, n, func(i int) error {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			method := []string{http.MethodGet, http.MethodPost, http.MethodDelete, "PROPFIND", fmt.Sprintf("X%d", r.Uint32())}[i%5]
			path := fmt.Sprintf("/%d/%x?%d=%d", r.Uint32(), r.Uint64(), r.Uint32(), r.Uint32())
			token := []string{"", fmt.Sprintf("gk_%d", r.Uint64())}[i%2]
			_, status, err := g.Ask(t.Context(), method, g.Public()+path, token)
			if err == nil && status/100 != 4 && status != http.StatusNotImplemented {
				err = fmt.Errorf("%s %s got %d", method, path, status)
			}
			return err
		})
	}
	const some = 20
	use(0, some)
	scan(10 * some)
	before := series(g.Metrics())
	use(some, accounts)
	scan(scanned)
	after := series(g.Metrics())
	for name := range after {
		if !before[name] {
			t.Errorf("a new series: %s", name)
		}
	}
	budget := fixedSeries + seriesOfRoute*len(routesOf(after))
	t.Logf("%d series with %d routes, and %d are allowed", len(after), len(routesOf(after)), budget)
	if len(after) > budget {
		t.Errorf("%d series, want %d at the most", len(after), budget)
	}
}

// TestBudgetIsStated: the document says what the test holds.
func TestBudgetIsStated(t *testing.T) {
	t.Parallel()
	if want := fmt.Sprintf("%d series, and %d more for each route", fixedSeries, seriesOfRoute); !strings.Contains(read(t, document), want) {
		t.Errorf("docs/metrics.md does not say %q", want)
	}
}

// each does it for every number, some at a time.
func each(t *testing.T, from, to int, do func(i int) error) {
	t.Helper()
	const workers = 8
	numbers := make(chan int)
	var done sync.WaitGroup
	for range workers {
		done.Go(func() {
			for i := range numbers {
				if err := do(i); err != nil {
					t.Errorf("number %d: %v", i, err)
				}
			}
		})
	}
	for i := from; i < to && !t.Failed(); i++ {
		numbers <- i
	}
	close(numbers)
	done.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// series are the names and labels of all that is shown.
func series(text string) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(text) {
		if name, _, ok := cutLast(line); ok && !strings.HasPrefix(line, "#") {
			all[name] = true
		}
	}
	return all
}

// cutLast cuts the value off.
func cutLast(line string) (name, value string, ok bool) {
	i := strings.LastIndex(line, " ")
	if i < 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

var routeLabel = regexp.MustCompile(`route="([^"]*)"`)

func routesOf(all map[string]bool) map[string]bool {
	routes := map[string]bool{}
	for name := range all {
		if found := routeLabel.FindStringSubmatch(name); found != nil {
			routes[found[1]] = true
		}
	}
	return routes
}
