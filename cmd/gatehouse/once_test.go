package main_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestAtMostOnce: a backend that acted on a request, and whose connection died
// before the answer, never sees the request again, whatever its method and
// headers say. Only what merely reads is sent once more.
func TestAtMostOnce(t *testing.T) {
	t.Parallel()
	// Every connection answers one request, and dies of the next.
	dying := func(c net.Conn, r received) bool {
		if r.nth > 1 {
			return false
		}
		return answerOK(c, r)
	}
	datacenter, residential := startBackend(t, dying), startBackend(t, dying)
	g := startGateway(t, settings{Store: embeddedStore(t), Datacenter: datacenter.addr, Residential: residential.addr})
	g.putAccount(t, "acme", acme())
	k := g.firstKey(t, "acme", may(everything...))

	repeatable := []string{"Idempotency-Key: 1", "X-Idempotency-Key: 1"}
	for _, row := range []struct {
		name           string
		method, target string
		header         []string
		body           string
		chunked        bool
		safe           bool
	}{
		{name: "add", method: "GET", target: whitelistOfA + "?type=add&ip=203.0.113.7"},
		{name: "set", method: "GET", target: whitelistOfA + "?type=set"},
		{name: "remove", method: "GET", target: whitelistOfA + "?type=remove"},
		{name: "add, said to be repeatable", method: "GET", target: whitelistOfA + "?type=add", header: repeatable},
		{name: "add, asked for with HEAD", method: "HEAD", target: whitelistOfA + "?type=add"},
		{name: "POST", method: "POST", target: subusersOfA},
		{name: "POST, said to be repeatable", method: "POST", target: subusersOfA, header: repeatable[:1]},
		{name: "POST, said otherwise to be repeatable", method: "POST", target: subusersOfA, header: repeatable[1:]},
		{name: "POST with a body, said to be repeatable", method: "POST", target: subusersOfA, header: repeatable, body: `{"username": "u"}`},
		{name: "POST in chunks, said to be repeatable", method: "POST", target: subusersOfA, header: repeatable, body: `{"username": "u"}`, chunked: true},
		{name: "POST, in another letter case", method: "POST", target: subusersOfA, header: []string{"IDEMPOTENCY-KEY: 1", "x-idempotency-key: 1"}},
		{name: "DELETE", method: "DELETE", target: subusersOfA + "/7"},
		{name: "DELETE, said to be repeatable", method: "DELETE", target: subusersOfA + "/7", header: repeatable[:1]},
		{name: "DELETE, said otherwise to be repeatable", method: "DELETE", target: subusersOfA + "/7", header: repeatable[1:]},
		{name: "PUT, said to be repeatable", method: "PUT", target: "/v4/account/" + subA + "/details", header: repeatable},
		{name: "a read", method: "GET", target: whitelistOfA + "?type=get", safe: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := residential
			if strings.Contains(row.target, "datacenter") {
				b = datacenter
			}
			r := request{method: row.method, target: row.target, host: "api.example.com", header: row.header, body: row.body, chunked: row.chunked}.by(k.Token)
			got, seen := g.second(t, b, r, get(k, map[*backend]string{datacenter: proxyListOfA, residential: subusersOfA}[b]))
			if row.safe {
				if got.status != http.StatusOK || len(seen) != 2 {
					t.Errorf("got %d, and the backend saw %d requests; want 200, and 2", got.status, len(seen))
				}
				return
			}
			if len(seen) != 1 {
				t.Errorf("the backend acted %d times", len(seen))
			}
			if got.status != http.StatusBadGateway {
				t.Errorf("got %d %s, want 502", got.status, got.body)
			}
			if row.method != http.MethodHead {
				refusal{status: 502, code: "upstream_unreachable"}.check(t, got)
			}
			for _, line := range row.header {
				name, _, _ := strings.Cut(strings.ToLower(line), ":")
				if len(seen[0].header[name]) != 1 {
					t.Errorf("the backend did not get %s:\n%s", name, seen[0].raw)
				}
			}
		})
	}
}

// second sends r so that it comes second on a connection, behind first, and
// returns what the backend saw of it. first may die with the connection before,
// and is read again.
func (g *gateway) second(t *testing.T, b *backend, r, first request) (answer, []received) {
	t.Helper()
	const tries = 50 // the connection may not be free again in time
	var got answer
	for range tries {
		g.passes(t, first)
		before := b.count()
		got = g.send(t, r)
		if seen := b.seen(before); len(seen) > 0 && seen[0].nth > 1 {
			return got, seen
		}
	}
	t.Fatalf("no connection was used again, which proves nothing; the last answer is %d %s", got.status, got.body)
	return answer{}, nil
}
