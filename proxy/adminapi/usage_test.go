package adminapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

const (
	usagePath = "/admin/v1/usage"

	readRoute  = "GET /v4/account/{subaccount}/datacenter_shared/proxy-list"
	writeRoute = "POST /v4/account/{subaccount}/datacenter_shared/proxy-list"
)

// usage is the store's, unless that is to fail.
type usage struct {
	*keystore.Store
	fails error
}

func (u *usage) RankUsage(ctx context.Context, r keystore.UsageRanking) ([]keystore.RankedUsage, error) {
	if u.fails != nil {
		return nil, u.fails
	}
	return u.Store.RankUsage(ctx, r)
}

// used has another node count requests, and write them.
func (w *world) used(requests func(count func(account, key string, permission policy.Permission, outcome, route string))) {
	w.t.Helper()
	catalogue, err := policy.NewCatalogue("datacenter_shared:read", "datacenter_shared:write")
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := keystore.Open(w.t.Context(), keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{w.redis.Addr()}}, Prefix: "t:", Timeout: time.Second, Mode: keystore.Strict, Create: true, CacheEntries: 100,
		Catalogue: catalogue, TokenPrefix: "gk_", MaxKeys: 10, Now: func() time.Time { return start }, Log: zap.NewNop(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	requests(func(account, key string, permission policy.Permission, outcome, route string) {
		n.Count(keystore.CountedRequest{Key: policy.KeyID(key), Account: policy.AccountID(account), Permission: permission, Outcome: outcome, Route: route, At: start})
	})
	if err := n.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func TestGoldenRankings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	w.must(http.MethodPut, accounts+"/zeta", strings.Replace(accountBody, "Acme", "Zeta Ltd", 1))
	golden(t, "usage_none", w.must(http.MethodGet, usagePath, ""))
	ours, _ := w.token("acme")
	theirs, _ := w.token("zeta")
	w.used(func(count func(account, key string, permission policy.Permission, outcome, route string)) {
		for range 3 {
			count("acme", ours, "datacenter_shared:read", "allowed", readRoute)
		}
		count("acme", ours, "datacenter_shared:write", "permission_denied", writeRoute)
		count("zeta", theirs, policy.AnyValidKey, "allowed", "GET /v4/account/whoami")
		count("zeta", theirs, "datacenter_shared:read", "allowed", "") // as before routes were counted
	})
	w.must(http.MethodPut, accounts+"/zeta", strings.Replace(accountBody, `"name":"Acme"`, `"name":"Zeta Ltd","status":"suspended"`, 1))
	if got, want := w.must(http.MethodGet, usagePath, "").Body.String(), w.must(http.MethodGet, usagePath+"?by=account", "").Body.String(); got != want {
		t.Errorf("without a word of by it is %s, want accounts", got)
	}
	for _, by := range keystore.UsageSubjects() {
		golden(t, "usage_by_"+string(by), w.must(http.MethodGet, usagePath+"?by="+string(by), ""))
	}
	for query, want := range map[string]string{
		"?by=key&limit=1":                                      "4",
		"?by=key&account=zeta":                                 "2",
		"?by=account&outcome=permission_denied":                "1",
		"?by=account&permission=any-valid-key":                 "1",
		"?by=product&product=datacenter_shared&account=acme":   "4",
		"?by=route&route=GET+/v4/account/whoami":               "1",
		"?by=outcome&step=hour&limit=1":                        "5",
		fmt.Sprintf("?by=outcome&to=%d", start.Unix()-24*3600): "",
	} {
		if got := requestsOf(t, w.must(http.MethodGet, usagePath+query, "").Body.Bytes()); got != want {
			t.Errorf("%s: %q requests, want %q", query, got, want)
		}
	}
}

// requestsOf are those of each row.
func requestsOf(t *testing.T, body []byte) string {
	t.Helper()
	var answer struct{ Data []struct{ Requests int64 } }
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range answer.Data {
		all = append(all, fmt.Sprint(r.Requests))
	}
	return strings.Join(all, " ")
}

func TestRankingQueriesAreStrict(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	for query, field := range map[string]string{
		"?by=": "by", "?by=subaccount": "by", "?by=Key": "by", "?by=key&by=key": "by", "?by=account,key": "by", "?By=key": "By",
		"?limit=0": "limit", "?limit=101": "limit", "?limit=": "limit", "?limit=1.0": "limit", "?limit=-1": "limit", "?cursor=x": "cursor",
		"?account=": "account", "?account=a/b": "account", "?account=a%7D:x": "account", "?key=" + subA: "key", "?group_by=key": "group_by",
		"?permission=read": "permission", "?product=": "product", "?route=whoami": "route", "?outcome=ok": "outcome", "?step=month": "step",
		"?from=x": "from", "?from=5&to=5": "from", fmt.Sprintf("?step=hour&from=%d", start.Unix()-32*24*3600): "from",
	} {
		check(t, w.do(http.MethodGet, usagePath+query, ""), problem.ValidationFailed, `"field":"`+field+`"`)
	}
	check(t, w.do(http.MethodGet, usagePath+"?account=nobody", ""), problem.NotFound, "")
	check(t, w.do(http.MethodGet, usagePath+"?by=%zz", ""), problem.AmbiguousQuery, "")
	for _, query := range []string{"?limit=1", "?limit=100", "?account=acme", fmt.Sprintf("?from=%d&by=route", start.Unix()-400*24*3600)} {
		w.must(http.MethodGet, usagePath+query, "")
	}
}

// TestRankingsThatCannotBeMade say so, and are never an empty answer.
func TestRankingsThatCannotBeMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	w.usage.fails = fmt.Errorf("rank usage: %w", keystore.ErrUsageBusy)
	out := w.do(http.MethodGet, usagePath, "")
	check(t, out, problem.RateLimited, "Ask again shortly")
	if got := out.Header().Get("Retry-After"); got != "5" {
		t.Errorf("Retry-After is %q", got)
	}
	w.usage.fails = fmt.Errorf("rank usage: %w", keystore.ErrTooMuchUsage)
	check(t, w.do(http.MethodGet, usagePath, ""), problem.ValidationFailed, "for one account")
	w.usage.fails = nil
	w.must(http.MethodGet, usagePath, "")
	w.redis.FlushAll()
	check(t, w.do(http.MethodGet, usagePath, ""), problem.KeyStoreUnavailable, "")
}
