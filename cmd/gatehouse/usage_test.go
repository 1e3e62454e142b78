package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

const usagePath = "/v4/account/usage"

type usage struct {
	At         int64   `json:"at"`
	KeyID      *string `json:"key_id"`
	Permission *string `json:"permission"`
	Product    *string `json:"product"`
	Route      *string `json:"route"`
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

// TestUsageByRouteAndRanked: what two accounts asked of several routes is told
// to each of them, and ranked for the operator, by the admin API and on the
// command line.
func TestUsageByRouteAndRanked(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store string) {
		s := settings{Store: store}
		first := newTable(t, s)
		theirs := first.firstKey(t, "other", may("serp_api:read", "account:usage:read"))
		subuserOfA := subusersOfA + "/7"
		for range 3 {
			first.passes(t, first.base())
		}
		first.passes(t, get(first.root, whitelistOfA+"?type=get"))
		first.turnsAway(t, get(first.key, whitelistOfA+"?type=add"), refusal{status: http.StatusForbidden, code: "permission_denied", challenge: lacks("datacenter_shared:write")})
		first.turnsAway(t, get(first.key, subusersOfA), refusal{status: http.StatusForbidden, code: "permission_denied", challenge: lacks("residential:read")})
		first.passes(t, request{method: http.MethodDelete, target: subuserOfA, host: "api.example.com", header: []string{"api-token: " + first.root.Token}})
		for range 6 {
			first.passes(t, get(theirs, "/serp/v1/search?q=x"))
		}
		first.passes(t, get(theirs, whoamiPath))
		first.turnsAway(t, get(theirs, "/nowhere"), refusal{status: http.StatusNotFound, code: "unknown_route"})
		stop(t, first.process)

		second := startGateway(t, s)
		proxyList, whitelist := "GET /v4/account/{subaccount}/datacenter_shared/proxy-list", "GET /v4/account/{subaccount}/datacenter_shared/whitelist"
		serp, subusers, subuser := "GET /serp/v1/", "GET /v4/account/{subaccount}/residential/subusers", "DELETE /v4/account/{subaccount}/residential/subusers/{subuser}"
		for by, want := range map[string][]string{
			"account":                        {"acme|Acme 8", "other|Other 7"},
			"key":                            {"other|" + theirs.ID + "|a key 7", "acme|" + first.key.ID + "|a key 5", "acme|" + first.root.ID + "|a key 3"},
			"product":                        {"serp_api 6", "datacenter_shared 5", "residential 2", "account:apikeys 1", "any-valid-key 1"},
			"route&limit=2":                  {serp + " 6", proxyList + " 3"},
			"outcome":                        {"allowed 13", "permission_denied 2"},
			"permission&account=other":       {"serp_api:read 6", "any-valid-key 1"},
			"key&outcome=permission_denied":  {"acme|" + first.key.ID + "|a key 2"},
			"account&product=residential":    {"acme|Acme 2"},
			"account&step=hour&route=GET+/x": nil,
		} {
			ranked(t, second, by, want)
		}
		said, err := gatehouse(t, "usage", "--admin", "http://"+second.admin, "--by", "key", "--limit", "1", "--product", "serp_api").Output()
		if want := []string{"ACCOUNT", "KEY", "NAME", "TOKEN", "REQUESTS", "other", theirs.ID, "a", "key", theirs.Token[:7] + "…" + theirs.Token[60:], "6"}; err != nil || !slices.Equal(strings.Fields(string(said)), want) {
			t.Errorf("the command line says %q, %v, want %q", said, err, want)
		}
		for _, step := range []string{"day", "hour"} {
			told := toldUsage(t, second, first.root, "group_by=product,route&step="+step+"&from="+yesterday())
			want := []string{
				"account:apikeys|POST /v4/account/api-keys|allowed 1", "datacenter_shared|" + proxyList + "|allowed 3", "datacenter_shared|" + whitelist + "|allowed 1",
				"datacenter_shared|" + whitelist + "|permission_denied 1", "residential|" + subuser + "|allowed 1", "residential|" + subusers + "|permission_denied 1",
			}
			if !slices.Equal(told, want) {
				t.Errorf("acme is told by %s %q, want %q", step, told, want)
			}
		}
		if told, want := toldUsage(t, second, first.root, "route="+url.QueryEscape(whitelist)+"&product=datacenter_shared&from="+yesterday()), []string{"||allowed 1", "||permission_denied 1"}; !slices.Equal(told, want) {
			t.Errorf("acme is told of a route %q, want %q", told, want)
		}
		if told, want := toldUsage(t, second, theirs, "group_by=product,route&from="+yesterday()), []string{"any-valid-key|GET /v4/account/whoami|allowed 1", "serp_api|" + serp + "|allowed 6"}; !slices.Equal(told, want) {
			t.Errorf("other is told %q, want %q", told, want)
		}
	})
}

func yesterday() string { return fmt.Sprint(time.Now().Add(-24 * time.Hour).Unix()) }

// toldUsage is what the key is told of products, routes and outcomes, of all
// hours or days, which may have ended meanwhile, but of its own questions.
func toldUsage(t *testing.T, g *gateway, by key, query string) []string {
	t.Helper()
	sums := map[string]int64{}
	for _, u := range manages[[]usage](t, g, manage(by, "GET", usagePath+"?"+query, "")) {
		if u.Product != nil && *u.Product == "account:usage" {
			continue // it depends on how long the test takes
		}
		said := ""
		for _, s := range []*string{u.Product, u.Route} {
			if s != nil {
				said += *s
			}
			said += "|"
		}
		sums[said+u.Outcome] += u.Requests
	}
	var lines []string
	for said, requests := range sums {
		lines = append(lines, fmt.Sprint(said, " ", requests))
	}
	slices.Sort(lines)
	return lines
}

// ranked checks what the operator is told.
func ranked(t *testing.T, g *gateway, by string, want []string) {
	t.Helper()
	var got []string
	for _, row := range dataOf[[]map[string]any](t, g.operate(t, "GET", "/usage?by="+by, nil)) {
		var words []string
		for _, member := range []string{"account_id", "key_id", "name", "permission", "product", "route", "outcome"} {
			if said, has := row[member]; has {
				words = append(words, fmt.Sprint(said))
			}
		}
		got = append(got, fmt.Sprint(strings.Join(words, "|"), " ", row["requests"]))
	}
	if !slices.Equal(got, want) {
		t.Errorf("by %s ranked are %q, want %q", by, got, want)
	}
}
