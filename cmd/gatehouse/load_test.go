package main_test

import (
	"bufio"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestManyClients: no request of a thousand clients is lost, repeated, or
// answered with another one's answer, and nothing stays behind. It needs the
// whole machine, and so runs alone.
func TestManyClients(t *testing.T) {
	const (
		clients = 1000
		each    = 10
		atMost  = 2 * time.Minute
	)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < 4*clients {
		t.Skipf("SKIPPED: this needs %d open files, and there are %d (%v)", 4*clients, files.Cur, err)
	}
	redis := startRedis(t)
	d := newTable(t, settings{Store: redis.yaml(), Timeout: "20s", Level: "warn"})
	for range 3 {
		d.forwards(t, d.base(), d.key.who(subA, "datacenter_shared:read"))
	}
	d.backends[0].disconnect()
	before := d.goroutines(t)
	seenBefore := d.backends[0].count()

	var answered atomic.Int64
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	ready.Add(clients)
	begun := time.Now()
	for n := range clients {
		done.Go(func() {
			got, err := d.client1000(n, each, &ready, start)
			answered.Add(int64(got))
			if err != nil {
				t.Errorf("client %d, after %d answers: %v", n, got, err)
			}
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	took := time.Since(begun)
	t.Logf("%d requests in %s", answered.Load(), took)
	if took > atMost {
		t.Errorf("it took %s, want %s at the most", took, atMost)
	}
	nonces := map[string]int{}
	for _, seen := range d.backends[0].seen(seenBefore) {
		nonces[strings.Join(seen.header["x-nonce"], "")]++
	}
	if len(nonces) != clients*each || answered.Load() != clients*each || d.backends[0].count()-seenBefore != clients*each {
		t.Errorf("%d answers, %d requests at the backend, %d different ones, want %d of each",
			answered.Load(), d.backends[0].count()-seenBefore, len(nonces), clients*each)
	}
	metrics, err := d.probe("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	counted := regexp.MustCompile(`(?m)^gatehouse_requests_total\{code="200",method="read",reason="allowed",route="GET /v4/account/\{subaccount\}/datacenter_shared/proxy-list"\} (\S+)$`).FindStringSubmatch(metrics)
	if want := strconv.Itoa(clients*each + 3); len(counted) == 0 || counted[1] != want && counted[1] != strconv.FormatFloat(clients*each+3, 'e', -1, 64) {
		t.Errorf("the metrics count %v, want %s", counted, want)
	}
	d.backends[0].disconnect() // the gateway keeps its connections for later
	const some = 20
	eventually(t, patience, "the goroutines end", func() error {
		now := d.goroutines(t)
		return unless(now <= before+some, fmt.Sprintf("%d goroutines, and %d before", now, before))
	})
}

// client1000 makes its requests one after the other on one connection.
func (d *table) client1000(n, each int, ready *sync.WaitGroup, start <-chan struct{}) (answered int, err error) {
	c, err := d.dial(request{})
	ready.Done()
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }() // all answers were read
	<-start
	in := bufio.NewReader(c)
	for i := range each {
		nonce := fmt.Sprintf("%d-%d", n, i)
		got, err := exchangeOn(c, in, http.MethodGet, get(d.key, proxyListOfA).with("X-Nonce: "+nonce).bytes())
		if err != nil {
			return answered, err
		}
		if got.status != http.StatusOK || !strings.Contains(got.body, `"nonce":"`+nonce+`"`) {
			return answered, fmt.Errorf("request %s got %d %s", nonce, got.status, got.body)
		}
		answered++
	}
	return answered, nil
}

var goroutineCount = regexp.MustCompile(`^goroutine profile: total (\d+)`)

func (g *gateway) goroutines(t *testing.T) int {
	t.Helper()
	g.client.CloseIdleConnections()
	said, err := g.probe("/debug/pprof/goroutine?debug=1")
	found := goroutineCount.FindStringSubmatch(said)
	if err != nil || found == nil {
		t.Fatalf("%v in %s", err, said)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
