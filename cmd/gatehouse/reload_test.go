package main_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// metric returns the value of a metric without labels, or with these.
func (g *gateway) metric(t testing.TB, name string) float64 {
	t.Helper()
	said, err := g.probe("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(said)
	if found == nil {
		t.Fatalf("there is no metric %s", name)
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

const (
	reloaded    = `gatehouse_config_reloads_total{result="success"}`
	notReloaded = `gatehouse_config_reloads_total{result="failure"}`
)

// reload sends SIGHUP and waits until the configuration was looked at.
func (g *gateway) reload(t testing.TB, change func(s *settings)) {
	t.Helper()
	said, err := g.probe("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	before := strings.Count(said, "gatehouse_config_reloads_total{")
	done := 0.0
	if before > 0 {
		done = g.reloads(t)
	}
	g.configure(t, change)
	g.signal(t, syscall.SIGHUP)
	eventually(t, patience, "it looks at its configuration", func() error {
		return unless(g.reloads(t) > done, "not yet")
	})
}

// reloads counts them, whatever came of them.
func (g *gateway) reloads(t testing.TB) (n float64) {
	t.Helper()
	said, err := g.probe("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^gatehouse_config_reloads_total\{.*\} (\S+)$`).FindAllStringSubmatch(said, -1) {
		one, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		n += one
	}
	return n
}

const parrots = `
  - match: GET /parrots/{id}
    permission: parrot:read
    upstream: residential
`

func withParrots(s *settings) {
	s.Products, s.Routes = "  parrot: {label: Parrots, actions: [read]}", parrots
}

// TestReload: what a new configuration says counts from then on.
func TestReload(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t)})
	d.putAccount(t, "zoo", account{Name: "Zoo", Permissions: []string{"*"}})
	asked := get(d.key, "/parrots/7")
	d.turnsAway(t, asked, refusal{status: 404, code: "unknown_route"})

	d.reload(t, withParrots)
	d.turnsAway(t, asked, refusal{status: 403, code: "permission_denied", challenge: lacks("parrot:read")})
	keeper := d.firstKey(t, "zoo", may("parrot:read"))
	d.passes(t, get(keeper, "/parrots/7"))

	other := startBackend(t, answerOK)
	d.reload(t, func(s *settings) { withParrots(s); s.Residential = other.addr })
	d.passes(t, get(keeper, "/parrots/8"))
	if other.count() != 1 {
		t.Errorf("the new backend saw %d requests, want 1", other.count())
	}

	d.reload(t, func(s *settings) { withParrots(s); s.Key = "{rate: 0.001, burst: 1}" })
	d.passes(t, get(keeper, "/parrots/8"))
	d.refuses(t, get(keeper, "/parrots/8"), refusal{status: 429, code: "rate_limited", retry: true})
	d.reload(t, func(s *settings) { withParrots(s); s.Key = "{rate: 0.001, burst: 1}"; s.Level = "error" })
	d.refuses(t, get(keeper, "/parrots/8"), refusal{status: 429, code: "rate_limited", retry: true}) // a budget is not refilled

	d.reload(t, func(*settings) {})
	d.refuses(t, get(keeper, "/parrots/8"), refusal{status: 404, code: "unknown_route"})
	d.forwards(t, d.base(), d.key.who(subA, "datacenter_shared:read"))
}

// TestBadConfigurationChangesNothing, and is visible.
func TestBadConfigurationChangesNothing(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t)})
	for name, change := range map[string]func(s *settings){
		"syntax":                 func(s *settings) { s.Key = "{" },
		"unknown setting":        func(s *settings) { s.Key = "{rates: 1}" },
		"route without upstream": func(s *settings) { s.Routes = "  - {match: GET /x, permission: \"serp_api:read\", upstream: nowhere}" },
		"routes that conflict": func(s *settings) {
			s.Routes = "  - {match: GET /serp/v1/, permission: \"serp_api:read\", upstream: residential}"
		},
		"certificate that is not there": func(s *settings) { s.Upstreams = "  x: {targets: [\"https://x\"], tls: {ca_file: /nowhere}}" },
	} {
		before := d.metric(t, notReloadedOrZero(t, d))
		d.reload(t, change)
		if d.metric(t, notReloaded) != before+1 || d.metric(t, "gatehouse_config_last_reload_successful") != 0 {
			t.Errorf("%s: it was taken", name)
		}
		d.forwards(t, d.base(), d.key.who(subA, "datacenter_shared:read"))
	}
	d.reload(t, func(*settings) {})
	if d.metric(t, "gatehouse_config_last_reload_successful") != 1 {
		t.Error("a good one did not help")
	}
	if !strings.Contains(d.stdout.String(), "nowhere") {
		eventually(t, patience, "the log names the fault", func() error {
			return unless(strings.Contains(d.stdout.String(), "nowhere"), "not yet")
		})
	}
}

// notReloadedOrZero names a metric of the failures so far, or one that is 0.
func notReloadedOrZero(t *testing.T, d *table) string {
	t.Helper()
	said, err := d.probe("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(said, notReloaded) {
		return notReloaded
	}
	return `gatehouse_live_requests{kind="grpc"}`
}

// TestChangedFileIsReloaded: without a signal.
func TestChangedFileIsReloaded(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t)})
	d.configure(t, withParrots)
	eventually(t, patience, "it is loaded", func() error {
		got, err := d.exchange(get(d.key, "/parrots/7"))
		return unless(err == nil && got.status == http.StatusForbidden, fmt.Sprint(got.status, err))
	})
}

// TestSettingsThatLastAreKept until the next start, and the rest is taken.
func TestSettingsThatLastAreKept(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t)})
	d.reload(t, func(s *settings) {
		withParrots(s)
		s.Listen = "127.0.0.1:1"
		s.Token = `{prefix: "xx_"}`
	})
	d.turnsAway(t, get(d.key, "/parrots/7"), refusal{status: 403, code: "permission_denied", challenge: lacks("parrot:read")})
	eventually(t, patience, "the log names them", func() error {
		said := d.stdout.String()
		return unless(strings.Contains(said, `"listen"`) && strings.Contains(said, `"token.prefix"`), said)
	})
}

// TestCertificateIsReloaded when its files change.
func TestCertificateIsReloaded(t *testing.T) {
	t.Parallel()
	certFile, keyFile, _ := certificate(t)
	d := newPlainTable(t, settings{Store: embeddedStore(t), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile)})
	nextCert, nextKey, roots := certificate(t)
	for from, to := range map[string]string{nextCert: certFile, nextKey: keyFile} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, "the new certificate is shown", func() error { return trusts(d.addr, roots) })
}

func trusts(addr string, roots *x509.CertPool) error {
	conn, err := tls.Dial("tcp", addr, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots})
	if err != nil {
		return err
	}
	return conn.Close()
}

// TestReloadUnderLoad: while the configuration changes ten times a second, no
// request fails, and each gets an answer that one of the two gives.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	const (
		clients = 8
		during  = 5 * time.Second
		pause   = 100 * time.Millisecond
	)
	d := newTable(t, settings{Store: embeddedStore(t), Level: "warn"})
	denied := d.createKey(t, d.root, may("residential:read"))
	stop := make(chan struct{})
	var all sync.WaitGroup
	var sent atomic.Int64
	for range clients {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				d.askBoth(t, denied)
				sent.Add(1)
			}
		})
	}
	done := time.After(during)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
			d.configure(t, func(s *settings) {
				if n%2 == 0 {
					withParrots(s)
					s.Key, s.Residential = "{rate: 1000000, burst: 1000000}", d.backends[0].addr
				}
			})
			d.signal(t, syscall.SIGHUP)
			continue
		case <-done:
		}
		break
	}
	close(stop)
	all.Wait()
	if n := d.metric(t, reloaded); n < 5 { // a busy machine does fewer than it is asked for
		t.Errorf("it was reloaded %v times", n)
	}
	t.Logf("%d rounds of requests, %v reloads", sent.Load(), d.metric(t, reloaded))
}

// askBoth makes requests that both configurations decide alike, and one that
// they do not.
func (d *table) askBoth(t *testing.T, denied key) {
	for _, row := range []struct {
		r    request
		want []int
	}{
		{get(d.key, proxyListOfA), []int{200}},
		{get(denied, subusersOfA), []int{200}},
		{get(denied, proxyListOfA), []int{403}},
		{get(d.key, whitelistOfA+"?type=add"), []int{403}},
		{get(d.key, "/parrots/7"), []int{403, 404}},
	} {
		got, err := d.exchange(row.r)
		if err != nil || got.status != row.want[0] && got.status != row.want[len(row.want)-1] {
			t.Errorf("%s: got %d %s, %v, want %v", row.r.target, got.status, got.body, err, row.want)
		}
	}
}
