package main_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// table is a gateway in front of two backends, and keys that may do little.
type table struct {
	*gateway
	backends []*backend
	// explains: every request is explained too, as what was answered to it.
	explains bool
	root     key // may do everything
	key      key // reads on the shared datacenter, of A and B
}

// newTable makes the account and its keys as an operator and a customer would:
// the first key through the admin API, all others with it.
func newTable(t *testing.T, s settings) *table {
	t.Helper()
	datacenter, residential := startBackend(t, answerOK), startBackend(t, answerOK)
	s.Datacenter, s.Residential = datacenter.addr, residential.addr
	d := &table{gateway: startGateway(t, s), backends: []*backend{datacenter, residential}}
	d.putAccount(t, "acme", acme())
	d.putAccount(t, "other", account{Name: "Other", Permissions: []string{"*"}, Subaccounts: []subaccount{{subForeign, "", "serp_api"}}})
	d.root = d.firstKey(t, "acme", may(everything...))
	d.key = d.createKey(t, d.root, may("datacenter_shared:read"))
	return d
}

const spoofedTrace = "0af7651916cd43dd8448eb211c80319c"

// base is a request that passes. It is full of what a client could say to
// deceive a backend, and of what is its own affair.
func (d *table) base() request {
	return request{
		method: http.MethodGet, target: proxyListOfA + "?country=DE&country=%c3%bc&x=a+b%2F&&flag", host: "api.example.com:8080",
		header: []string{
			"api-token: " + d.key.Token,
			"User-Agent: tester/1.0", "accept: application/json", "Accept-Encoding: br", "X-Own: one", "X-Own: two", "Cookie: theme=dark",
			"X-Gatehouse-Account: evil", "X_Gatehouse_Account: evil", "x-gatehouse_key-id: evil", "X-GATEHOUSE-PERMISSION: evil",
			"X-Gatehouse-Subaccount: evil", "X_gatehouse_new: evil",
			"X-Forwarded-For: 203.0.113.9", "X_Forwarded_For: 203.0.113.9", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https",
			"Forwarded: for=203.0.113.9", "X-Real-Ip: 203.0.113.9", "X-Original-Url: /admin", "X-HTTP-Method-Override: DELETE",
			"X-Request-Id: spoofed", "Traceparent: 00-" + spoofedTrace + "-b7ad6b7169203331-01", "Tracestate: evil=1",
			"Api_Token: " + d.key.Token, "TE: trailers", "Keep-Alive: timeout=5", "Proxy-Authorization: Basic eDp5",
		},
	}
}

// who is the identity of a request of the key.
func (k key) who(subaccount, permission string) identity {
	return identity{account: "acme", key: k.ID, subaccount: subaccount, permission: permission}
}

// counts are the requests that each backend saw.
func (d *table) counts() []int {
	counts := make([]int, len(d.backends))
	for i, b := range d.backends {
		counts[i] = b.count()
	}
	return counts
}

var uuidV7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// forwards sends a request, which must reach one backend exactly as it was
// sent, but for what Gatehouse withholds and adds.
func (d *table) forwards(t *testing.T, r request, id identity) {
	t.Helper()
	before := d.counts()
	got := d.passes(t, r)
	var seen []received
	for i, b := range d.backends {
		seen = append(seen, b.seen(before[i])...)
	}
	if len(seen) != 1 {
		t.Fatalf("%s %s: the backends saw %d requests, want 1", r.method, r.target, len(seen))
	}
	requestID := strings.Join(got.header.Values("X-Request-Id"), " | ")
	if !uuidV7.MatchString(requestID) {
		t.Errorf("got X-Request-Id %q, want one UUID v7", requestID)
	}
	if got.header.Get("X-Product") != "datacenter" || got.header.Get("X-Gatehouse-Account") != "" {
		t.Errorf("the backend's own headers must pass, and its X-Gatehouse-* must not: %v", got.header)
	}
	checkForwarded(t, r, seen[0], id, requestID)
	if d.explains {
		d.explained(t, r, "allowed")
	}
}

// turnsAway sends a request, which must be refused, and unseen by all backends.
func (d *table) turnsAway(t *testing.T, r request, want refusal) answer {
	t.Helper()
	before := d.counts()
	got := d.refuses(t, r, want)
	for i, b := range d.backends {
		for _, seen := range b.seen(before[i]) {
			t.Errorf("a backend saw a refused request:\n%s", seen.raw)
		}
	}
	if d.explains {
		d.explained(t, r, want.code)
	}
	return got
}

// row is a request that differs from the base in one thing.
type row struct {
	name   string
	change func(r request) request
	want   refusal
}

// run holds every row, and that the base passes before and after them.
func (d *table) run(t *testing.T, base request, id identity, rows []row) {
	t.Helper()
	d.forwards(t, base, id)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { d.turnsAway(t, row.change(base), row.want) })
	}
	d.forwards(t, base, id)
}

// target is a row with another target.
func target(target string, want refusal) row {
	return row{target, func(r request) request { return r.at(http.MethodGet, target) }, want}
}

// expiring makes a key that has two seconds left. On a busy machine they can be
// over before the request arrives, which is then refused.
func (d *table) expiring(t *testing.T, create func(k newKey) answer, k newKey) key {
	t.Helper()
	var got answer
	eventually(t, patience, "a key is made in time", func() error {
		expires := time.Now().Unix() + 2
		k.ExpiresAt = &expires
		got = create(k)
		return unless(got.status == http.StatusCreated, got.body)
	})
	return created(t, got)
}
