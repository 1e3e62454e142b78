package keyapi_test

import (
	"fmt"
	"net/http"
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
		Redis: &keystore.Redis{Addrs: []string{w.redis.Addr()}}, Prefix: "t:", Timeout: time.Second, Mode: keystore.Strict, CacheEntries: 100,
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

func TestGoldenUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, _ := w.key(func(*keystore.NewKey) {})
	w.count(func(n *keystore.Store) {
		for range 3 {
			n.Count(w.by.Key.ID, "acme", read, "allowed", start)
			n.Count(other.Key.ID, "acme", policy.AnyValidKey, "rate_limited", start.Add(-time.Hour))
		}
		n.Count(w.by.Key.ID, "acme", write, "permission_denied", start)
	})
	golden(t, "usage_days", w.do(http.MethodGet, usagePath, ""))
	golden(t, "usage_hours", w.do(http.MethodGet, usagePath+"?step=hour&group_by=key,permission", ""))
	golden(t, "usage_of_a_permission", w.do(http.MethodGet, usagePath+"?permission=datacenter_shared:read&outcome=allowed&group_by=permission&key="+string(w.by.Key.ID), ""))
}

func TestUsageQueriesAreStrict(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := string(w.by.Key.ID)
	year := start.Unix() - 401*24*3600
	for query, field := range map[string]string{
		"?key=x": "key", "?key=": "key", "?key=" + id + "&key=" + id: "key", "?permission=": "permission", "?permission=read": "permission",
		"?outcome=": "outcome", "?outcome=Allowed": "outcome", "?outcome=preflight": "outcome", "?step=minute": "step", "?step=": "step",
		"?group_by=": "group_by", "?group_by=outcome": "group_by", "?group_by=permission,key": "group_by", "?limit=1": "limit", "?cursor=x": "cursor",
		"?from=-1": "from", "?from=1.5": "from", "?to=253402300800": "to", "?from=5&to=5": "from", "?from=6&to=5": "from",
		fmt.Sprintf("?from=%d", year): "from", fmt.Sprintf("?step=hour&from=%d", start.Unix()-32*24*3600): "from", "?Step=day": "Step",
	} {
		w.refused(http.MethodGet, usagePath+query, "", problem.ValidationFailed, field)
	}
	for _, query := range []string{
		"", "?step=hour", "?step=day&group_by=key,permission", "?permission=any-valid-key", "?outcome=client_closed_request", "?key=" + id,
		fmt.Sprintf("?from=%d", start.Unix()-400*24*3600), fmt.Sprintf("?step=hour&from=%d", start.Unix()-31*24*3600), "?from=253402300000&to=253402300799",
	} {
		if got, _ := answer[[]struct{}](w, http.MethodGet, usagePath+query, ""); got == nil {
			t.Errorf("%s: no list", query)
		}
	}
}
