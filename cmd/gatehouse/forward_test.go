package main_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func (d *table) testPermission(t *testing.T) {
	denied := func(permission string) refusal {
		return refusal{status: 403, code: "permission_denied", challenge: lacks(permission), detail: permission}
	}
	none := d.createKey(t, d.root, may("account:apikeys:read"))
	d.turnsAway(t, d.base().by(none.Token), denied("datacenter_shared:read"))

	// Each use needs the one permission that is written beside it, and no other.
	uses := []struct{ method, target, permission string }{
		{"GET", whitelistOfA + "?type=get", "datacenter_shared:read"},
		{"GET", whitelistOfA + "?ip=1&type=add", "datacenter_shared:write"},
		{"GET", whitelistOfA + "?type=set&ip=", "datacenter_shared:write"},
		{"GET", whitelistOfA + "?type=remove", "datacenter_shared:delete"},
		{"HEAD", whitelistOfA + "?type=remove", "datacenter_shared:delete"},
		{"GET", subusersOfA, "residential:read"},
		{"HEAD", subusersOfA, "residential:read"},
		{"POST", subusersOfA, "residential:write"},
		{"DELETE", subusersOfA + "/7", "residential:delete"},
		{"GET", "/v4/account/" + subA + "/details", "subaccount:read"},
		{"PUT", "/v4/account/" + subA + "/details", "subaccount:write"},
		{"GET", "/serp/v1/search", "serp_api:read"},
		{"POST", "/serp/v1/jobs", "serp_api:write"},
		{"DELETE", "/serp/v1/jobs/1", "serp_api:delete"},
	}
	keys := map[string]key{}
	for _, use := range uses {
		if _, ok := keys[use.permission]; !ok {
			keys[use.permission] = d.createKey(t, d.root, may(use.permission))
		}
	}
	for _, use := range uses {
		t.Run(use.method+" "+use.target, func(t *testing.T) {
			sub := subA
			if strings.HasPrefix(use.target, "/serp") {
				sub = ""
			}
			base := d.base().without("Api_Token").at(use.method, use.target)
			if use.method == http.MethodPost || use.method == http.MethodPut {
				base.body = `{"username": "u", "nested": "é"}`
				base = base.with("Content-Type: application/json")
			}
			for permission, k := range keys {
				switch {
				case permission == use.permission:
					d.forwards(t, base.by(k.Token), k.who(sub, permission))
				case use.method == http.MethodHead:
					if got := d.send(t, base.by(k.Token)); got.status != http.StatusForbidden || got.header.Get("WWW-Authenticate") != lacks(use.permission) {
						t.Errorf("with %s alone: got %d %v, want 403", permission, got.status, got.header)
					}
				default:
					d.turnsAway(t, base.by(k.Token), denied(use.permission))
				}
			}
		})
	}
}

func (d *table) testBody(t *testing.T) {
	writer := d.createKey(t, d.root, may("serp_api:write"))
	base := d.base().by(writer.Token).without("Api_Token").at("POST", "/serp/v1/jobs").with("Content-Type: application/octet-stream")
	who := writer.who("", "serp_api:write")
	binary := "\x00\xff\r\n\r\n0\r\n\r\n" + strings.Repeat("x", 5000)
	for _, body := range []string{"", binary, strings.Repeat("y", maxBody)} {
		base.body = body
		d.forwards(t, base, who)
		if body != "" {
			chunked := base
			chunked.chunked = true
			d.forwards(t, chunked, who)
		}
	}
	tooLarge := refusal{status: 413, code: "body_too_large"}
	base.body = strings.Repeat("z", maxBody+1)
	d.turnsAway(t, base, tooLarge)
	chunked := base
	chunked.chunked = true
	d.turnsAway(t, chunked, tooLarge) // the backend saw a body that breaks off, and no request
	for name, rest := range map[string]string{
		"no chunk":                     "Transfer-Encoding: chunked\r\n\r\nZZZ\r\n",
		"a bad chunk behind a chunk":   "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
		"a chunk of another length":    "Transfer-Encoding: chunked\r\n\r\n5\r\nhello, world\r\n0\r\n\r\n",
		"a chunk of a negative length": "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			before := d.counts()
			c, err := d.dial(base)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }() // the answer was read
			raw := "POST /serp/v1/jobs HTTP/1.1\r\nHost: api.example.com\r\napi-token: " + writer.Token + "\r\n" + rest
			got, err := exchangeOn(c, bufio.NewReader(c), http.MethodPost, []byte(raw))
			if err != nil {
				t.Fatal(err)
			}
			refusal{status: 400, code: "invalid_request"}.check(t, got)
			if after := d.counts(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("a backend took a body that broke off for a whole one")
			}
		})
	}
	base.body = "small"
	d.forwards(t, base, who)
}

// testUpgrade: no connection is ever handed over, whoever asks for it.
func (d *table) testUpgrade(t *testing.T, switching *backend) {
	k := d.createKey(t, d.root, may("serp_api:read"))
	who := k.who("", "serp_api:read")
	base := d.base().by(k.Token).without("Api_Token").without("TE").at("GET", "/serp/v1/stream")
	for _, lines := range [][]string{
		{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="},
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"},
		{"Connection: upgrade", "Upgrade: TLS/1.0"},
		{"Upgrade: websocket"},
		{"Connection: X-Own, X-Gatehouse-Account, X-Request-Id, X-Forwarded-For"},
	} {
		d.forwards(t, base.with(lines...), who)
	}
	unreachable := refusal{status: 502, code: "upstream_unreachable"}
	for _, r := range []request{
		get(k, "/switching/x"),
		get(k, "/switching/x").with("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
	} {
		got := d.turnsAway(t, r, unreachable)
		if strings.Contains(got.body, "unjudged") {
			t.Errorf("the client got what came behind the 101: %s", got.body)
		}
	}
	for _, seen := range switching.seen(0) {
		if seen.header["upgrade"] != nil || seen.header["connection"] != nil {
			t.Errorf("the backend was asked to switch:\n%s", seen.raw)
		}
	}
}

func (d *table) testUpstream(t *testing.T, hanging *backend) {
	k := d.createKey(t, d.root, may("serp_api:read", "serp_api:write"))
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		got := d.turnsAway(t, get(k, "/dead/x").at(method, "/dead/x"), refusal{status: 502, code: "upstream_unreachable"})
		checkSaysNothing(t, got.body)
		begun := time.Now()
		got = d.turnsAway(t, get(k, "/hanging/x").at(method, "/hanging/x"), refusal{status: 504, code: "upstream_timeout"})
		checkSaysNothing(t, got.body)
		if took := time.Since(begun); took < time.Second {
			t.Errorf("the answer came after %s, before the upstream's timeout of 1s", took)
		}
	}
	if hanging.count() != 2 {
		t.Errorf("the hanging backend saw %d requests, want 2: none may be repeated", hanging.count())
	}
	d.forwards(t, d.base(), d.key.who(subA, "datacenter_shared:read"))
}

// checkSaysNothing: no error tells of the inside.
func checkSaysNothing(t *testing.T, body string) {
	t.Helper()
	for _, inside := range []string{"127.0.0.1", "dial", "tcp", "refused", "EOF", "timeout awaiting"} {
		if strings.Contains(body, inside) {
			t.Errorf("the answer tells of the inside: %s", body)
		}
	}
}

// TestLimits: a rate is a budget of its own for each key, and for the bad
// tokens of each address.
func TestLimits(t *testing.T) {
	t.Parallel()
	// So slow that the budgets of the test never fill up again.
	d := newTable(t, settings{Store: embeddedStore(t), Key: "{rate: 0.01, burst: 4}", FailedAuth: "{rate: 0.02, burst: 5}"})
	who := d.key.who(subA, "datacenter_shared:read")
	limited := func(t *testing.T, r request, policy string) {
		t.Helper()
		got := d.turnsAway(t, r, refusal{status: 429, code: "rate_limited", retry: true})
		name, _, _ := strings.Cut(policy, ";")
		if limit := got.header.Get("RateLimit"); limit != name+`;r=0;t=`+got.header.Get("Retry-After") {
			t.Errorf("got RateLimit %s with Retry-After %s", limit, got.header.Get("Retry-After"))
		}
		if got.header.Get("RateLimit-Policy") != policy {
			t.Errorf("got RateLimit-Policy %s, want %s", got.header.Get("RateLimit-Policy"), policy)
		}
	}
	bad := d.base().by(unknownToken())
	for range 5 {
		d.turnsAway(t, bad, refusal{status: 401, code: "invalid_token", challenge: badToken})
	}
	limited(t, bad, `"failed_auth";q=5;w=250`)
	limited(t, d.base().by("malformed"), `"failed_auth";q=5;w=250`)
	t.Run("a good key from the same address passes", func(t *testing.T) { d.forwards(t, d.base(), who) })
	t.Run("another address has its own budget", func(t *testing.T) {
		elsewhere := bad
		elsewhere.from = "127.0.0.9"
		d.turnsAway(t, elsewhere, refusal{status: 401, code: "invalid_token", challenge: badToken})
	})
	t.Run("a request without a token costs nothing", func(t *testing.T) {
		d.turnsAway(t, d.base().without("api-token"), refusal{status: 401, code: "missing_credentials", challenge: challenge})
	})
	for range 2 {
		d.forwards(t, d.base(), who)
	}
	d.turnsAway(t, d.base().at("GET", proxyListOfA+"//"), refusal{status: 400, code: "ambiguous_path"}) // costs nothing
	d.forwards(t, d.base(), who)
	limited(t, d.base(), `"key";q=4;w=400`)
	d.passes(t, d.base().at("GET", whoamiPath)) // has a budget of its own
	t.Run("another key has its own budget", func(t *testing.T) {
		other := d.firstKey(t, "acme", may("datacenter_shared:read"))
		d.forwards(t, d.base().by(other.Token), other.who(subA, "datacenter_shared:read"))
	})
}

// TestAmbiguousFraming: a request whose end two readers could see at different
// places is refused, or is the last one of its connection.
func TestAmbiguousFraming(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t)})
	k := d.createKey(t, d.root, may("serp_api:write", "serp_api:read"))
	inner := "GET /serp/v1/smuggled HTTP/1.1\r\nHost: api.example.com\r\napi-token: " + k.Token + "\r\n\r\n"
	head := "Host: api.example.com\r\napi-token: " + k.Token + "\r\nConnection: keep-alive\r\n"
	for name, raw := range map[string]string{
		"HTTP/1.0 chunked":   "POST /serp/v1/x HTTP/1.0\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner),
		"two lengths":        "POST /serp/v1/x HTTP/1.1\r\n" + head + "Content-Length: 5\r\nContent-Length: 0\r\n\r\n" + inner,
		"a signed length":    "POST /serp/v1/x HTTP/1.1\r\n" + head + "Content-Length: +5\r\n\r\n" + inner,
		"unknown encoding":   "POST /serp/v1/x HTTP/1.1\r\n" + head + "Transfer-Encoding: xchunked\r\n\r\n" + inner,
		"two encodings":      "POST /serp/v1/x HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
		"a space before ':'": "POST /serp/v1/x HTTP/1.1\r\n" + head + "Content-Length : 5\r\n\r\n" + inner,
		"two hosts":          "GET /serp/v1/x HTTP/1.1\r\nHost: a\r\n" + head + "\r\n" + inner,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := d.dial(request{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }() // all was read
			in := bufio.NewReader(c)
			if _, err := exchangeOn(c, in, http.MethodPost, []byte(raw)); err != nil {
				t.Logf("the first request got no answer: %v", err)
				return
			}
			if got, err := exchangeOn(c, in, http.MethodGet, nil); err == nil {
				t.Errorf("a second request on the same connection was answered with %d", got.status)
			}
		})
	}
	for _, b := range d.backends {
		for _, seen := range b.seen(0) {
			if strings.Contains(seen.target, "smuggled") || strings.Contains(seen.raw, "smuggled") {
				t.Errorf("a backend saw a request that was smuggled in:\n%s", seen.raw)
			}
		}
	}
}
