package keyapi_test

import (
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

const usagePath = "/v4/account/usage"

// count has another node count requests, and write them down.
func (w *world) count(requests func(n *keystore.Store)) {
	w.t.Helper()
	n, err := keystore.Open(w.t.Context(), keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{w.redis.Addr()}}, Prefix: "t:", Timeout: time.Second, Mode: keystore.Strict, Create: true, CacheEntries: 100,
		Catalogue: catalogue(w.t), TokenPrefix: "gk_", MaxKeys: 10, Now: func() time.Time { return start }, Log: zap.NewNop(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	requests(n)
	if err := n.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// counted is a request of a key of acme.
func counted(key policy.KeyID, permission policy.Permission, outcome string, at time.Time) keystore.CountedRequest {
	route := "GET /v4/account/{subaccount}/datacenter_shared/proxy-list"
	if permission == write {
		route = "POST /v4/account/{subaccount}/datacenter_shared/proxy-list"
	}
	if permission == policy.AnyValidKey {
		route = "GET /v4/account/whoami"
	}
	return keystore.CountedRequest{Key: key, Account: "acme", Permission: permission, Outcome: outcome, Route: route, At: at}
}

func TestGoldenUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, _ := w.key(func(*keystore.NewKey) {})
	w.count(func(n *keystore.Store) {
		for range 3 {
			n.Count(counted(w.by.Key.ID, read, "allowed", start))
			n.Count(counted(other.Key.ID, policy.AnyValidKey, "rate_limited", start.Add(-time.Hour)))
		}
		n.Count(counted(w.by.Key.ID, write, "permission_denied", start))
		n.Count(keystore.CountedRequest{Key: w.by.Key.ID, Account: "acme", Permission: write, Outcome: "allowed", At: start}) // as before routes were counted
	})
	golden(t, "usage_days", w.do(http.MethodGet, usagePath, ""))
	golden(t, "usage_hours", w.do(http.MethodGet, usagePath+"?step=hour&group_by=key,permission", ""))
	golden(t, "usage_of_a_permission", w.do(http.MethodGet, usagePath+"?permission=datacenter_shared:read&outcome=allowed&group_by=permission&key="+string(w.by.Key.ID), ""))
	golden(t, "usage_routes", w.do(http.MethodGet, usagePath+"?group_by=product,route", ""))
	golden(t, "usage_of_a_route", w.do(http.MethodGet, usagePath+"?group_by=route&product=datacenter_shared&route=GET+/v4/account/%7Bsubaccount%7D/datacenter_shared/proxy-list", ""))
}

func TestUsageQueriesAreStrict(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := string(w.by.Key.ID)
	year := start.Unix() - 401*24*3600
	for query, field := range map[string]string{
		"?key=x": "key", "?key=": "key", "?key=" + id + "&key=" + id: "key", "?permission=": "permission", "?permission=read": "permission",
		"?outcome=": "outcome", "?outcome=Allowed": "outcome", "?outcome=preflight": "outcome", "?step=minute": "step", "?step=": "step",
		"?group_by=": "group_by", "?group_by=outcome": "group_by", "?group_by=permission,key": "group_by", "?group_by=key,key": "group_by",
		"?group_by=route,product": "group_by", "?group_by=key,": "group_by", "?group_by=,key": "group_by", "?group_by=key,%20route": "group_by", "?group_by=key,permission,product,route,route": "group_by",
		"?product=": "product", "?product=Serp": "product", "?product=a+b": "product", "?product=a:": "product", "?product=any-key": "product", "?product=" + strings.Repeat("a", 124): "product",
		"?route=": "route", "?route=/serp/v1/": "route", "?route=GET": "route", "?route=get+/serp": "route", "?route=+/serp": "route", "?route=GET+serp": "route", "?route=GET+/a%0Ab": "route", "?route=GET+/%FF": "route",
		"?route=GET+/a&route=GET+/a": "route", "?Route=GET+/a": "Route", "?limit=1": "limit", "?cursor=x": "cursor",
		"?from=-1": "from", "?from=1.5": "from", "?to=253402300800": "to", "?from=5&to=5": "from", "?from=6&to=5": "from",
		fmt.Sprintf("?from=%d", year): "from", fmt.Sprintf("?step=hour&from=%d", start.Unix()-32*24*3600): "from", "?Step=day": "Step",
	} {
		w.refused(http.MethodGet, usagePath+query, "", problem.ValidationFailed, field)
	}
	for _, query := range []string{
		"", "?step=hour", "?step=day&group_by=key,permission", "?permission=any-valid-key", "?product=any-valid-key", "?product=account:apikeys", "?product=serp_api&group_by=product",
		"?route=GET+/serp/v1/", "?route=DELETE+api.example.com/a%20b/%7Brest...%7D", "?route=GET+/" + strings.Repeat("a", 1000), "?group_by=key,permission,product,route", "?group_by=permission,route", "?outcome=client_closed_request", "?key=" + id,
		fmt.Sprintf("?from=%d", start.Unix()-400*24*3600), fmt.Sprintf("?step=hour&from=%d", start.Unix()-31*24*3600), "?from=253402300000&to=253402300799",
	} {
		if got, _ := answer[[]struct{}](w, http.MethodGet, usagePath+query, ""); got == nil {
			t.Errorf("%s: no list", query)
		}
	}
}
