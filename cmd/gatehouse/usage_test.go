package main_test

import (
	"net/http"
	"slices"
	"testing"
)

const usagePath = "/v4/account/usage"

type usage struct {
	At         int64   `json:"at"`
	KeyID      *string `json:"key_id"`
	Permission *string `json:"permission"`
	Outcome    string  `json:"outcome"`
	Requests   int64   `json:"requests"`
}

// TestUsageIsCounted by what becomes of each request, kept when the gateway
// stops, and shown by the next one to whoever may see it.
func TestUsageIsCounted(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		s := settings{Store: store}
		first := newTable(t, s)
		first.passes(t, first.base())
		first.passes(t, first.base())
		first.turnsAway(t, manage(first.key, "GET", usagePath, ""), refusal{status: http.StatusForbidden, code: "permission_denied", challenge: lacks("account:usage:read")})
		first.turnsAway(t, get(key{Token: unknownToken()}, proxyListOfA), refusal{status: http.StatusUnauthorized, code: "invalid_token", challenge: badToken})
		stop(t, first.process)
		second := startGateway(t, s)
		for _, step := range []string{"day", "hour"} {
			rows := manages[[]usage](t, second, manage(first.root, "GET", usagePath+"?group_by=key,permission&step="+step+"&key="+first.key.ID, ""))
			told := map[string]int64{}
			for _, u := range rows { // an hour may have ended meanwhile
				if u.KeyID == nil || *u.KeyID != first.key.ID || u.Permission == nil || u.At == 0 {
					t.Fatalf("shown is %+v", u)
				}
				told[*u.Permission+" "+u.Outcome] += u.Requests
			}
			if len(told) != 2 || told["datacenter_shared:read allowed"] != 2 || told["account:usage:read permission_denied"] != 1 {
				t.Errorf("by %s: %v", step, told)
			}
		}
		all := manages[[]usage](t, second, manage(first.root, "GET", usagePath, ""))
		if slices.ContainsFunc(all, func(u usage) bool { return u.Outcome == "invalid_token" || u.KeyID != nil }) {
			t.Errorf("shown is %+v", all)
		}
	})
}
