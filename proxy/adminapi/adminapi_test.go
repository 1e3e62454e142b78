package adminapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"

	"gatehouse/policy"
	"gatehouse/proxy/adminapi"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// endpoints are all there are, with a request that each would take.
var endpoints = []struct{ method, target, body string }{
	{http.MethodPut, acme, accountBody},
	{http.MethodGet, acme, ""},
	{http.MethodGet, accounts, ""},
	{http.MethodPost, acme + "/keys", keyBody},
	{http.MethodGet, acme + "/keys", ""},
	{http.MethodDelete, acme + "/keys/11111111-0000-4000-8000-000000000001", ""},
	{http.MethodPost, explainPath, `{"method":"GET","url":"/","client_address":"::1"}`},
	{http.MethodGet, "/admin/v1/export", ""},
	{http.MethodGet, usagePath + "?by=key", ""},
	{http.MethodDelete, acme, ""},
}

// TestNobodyWithoutTheTokenDoesAnything, at no endpoint and nowhere else.
func TestNobodyWithoutTheTokenDoesAnything(t *testing.T) {
	t.Parallel()
	changed := []byte(adminToken)
	changed[len(changed)-1]++
	for _, row := range []struct {
		name          string
		authorization []string
		code          problem.Code
	}{
		{"nothing", nil, problem.MissingCredentials},
		{"an empty header", []string{""}, problem.InvalidToken},
		{"the scheme alone", []string{"Bearer"}, problem.InvalidToken},
		{"an empty token", []string{"Bearer "}, problem.InvalidToken},
		{"the token alone", []string{adminToken}, problem.InvalidToken},
		{"another scheme", []string{"Basic " + adminToken}, problem.InvalidToken},
		{"another separator", []string{"Bearer\t" + adminToken}, problem.InvalidToken},
		{"another token", []string{"Bearer " + strings.Repeat("x", len(adminToken))}, problem.InvalidToken},
		{"the last character changed", []string{"Bearer " + string(changed)}, problem.InvalidToken},
		{"a token too short", []string{"Bearer " + adminToken[:len(adminToken)-1]}, problem.InvalidToken},
		{"a token too long", []string{"Bearer " + adminToken + "0"}, problem.InvalidToken},
		{"a very long token", []string{"Bearer " + strings.Repeat(adminToken, 1000)}, problem.InvalidToken},
		{"another letter case", []string{"Bearer " + strings.ToUpper(adminToken)}, problem.InvalidToken},
		{"spaces before it", []string{"Bearer  " + adminToken}, problem.InvalidToken},
		{"two headers, both right", []string{"Bearer " + adminToken, "Bearer " + adminToken}, problem.InvalidToken},
		{"two headers, one right", []string{"Bearer " + adminToken, "Bearer x"}, problem.InvalidToken},
		{"two tokens in one header", []string{"Bearer " + adminToken + ", Bearer " + adminToken}, problem.InvalidToken},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.must(http.MethodPut, acme, accountBody)
			before := w.redis.Dump()
			others := append(endpoints, endpoints[0], endpoints[0], endpoints[0])
			others[len(endpoints)].target = "/admin/v1/nothing"
			others[len(endpoints)+1].target = "/admin/v1//accounts"
			others[len(endpoints)+2].method = http.MethodPatch
			for _, e := range others {
				r := httptest.NewRequest(e.method, e.target+"?token="+adminToken, strings.NewReader(e.body))
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Api-Token", adminToken)
				if row.authorization != nil {
					r.Header["Authorization"] = row.authorization
				}
				out := w.serve(r)
				check(t, out, row.code, "")
				if !strings.HasPrefix(out.Header().Get("WWW-Authenticate"), `Bearer realm="gatehouse"`) {
					t.Errorf("%s %s: WWW-Authenticate is %q", e.method, e.target, out.Header().Get("WWW-Authenticate"))
				}
			}
			if w.redis.Dump() != before {
				t.Error("the store has changed")
			}
			if strings.Contains(w.log.String(), adminToken) {
				t.Errorf("the log shows the token: %s", w.log)
			}
		})
	}
}

func TestSchemeHasNoLetterCase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, scheme := range []string{"Bearer", "bearer", "BEARER"} {
		r := httptest.NewRequest(http.MethodGet, accounts, nil)
		r.Header.Set("Authorization", scheme+" "+adminToken)
		if out := w.serve(r); out.Code != http.StatusOK {
			t.Errorf("%s: answered %d", scheme, out.Code)
		}
	}
}

func TestLogNeverShowsASecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var tokens []string
	for _, e := range endpoints[:len(endpoints)-1] {
		out := w.do(e.method, e.target+"?x=secret", e.body)
		tokens = append(tokens, variable.FindAllString(out.Body.String(), -1)...)
	}
	_, token := w.token("acme")
	log := w.log.String()
	for _, secret := range append(tokens, token, adminToken, "secret", "EU scraping", "first") {
		if strings.HasPrefix(secret, "gk_") || !strings.Contains(secret, "-") {
			if strings.Contains(log, secret) {
				t.Errorf("the log shows %q: %s", secret, log)
			}
		}
	}
	if !strings.Contains(log, `"http.request.method":"PUT","http.route":"/admin/v1/accounts/{id}","http.response.status_code":201,"gatehouse.reason":"allowed"`) {
		t.Errorf("the log has no line of the change: %s", log)
	}
}

func TestRequestIDIsOnTheAnswerAndInTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, target := range []string{accounts, accounts + "/nobody", "/admin/v1/nothing"} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.Header.Set("Authorization", "Bearer "+adminToken)
		r.Header.Set("X-Request-Id", "evil")
		out := w.serve(r)
		id := out.Header().Get("X-Request-Id")
		if !variable.MatchString(id) || !strings.Contains(w.log.String(), `"gatehouse.request_id":"`+id+`"`) ||
			out.Code != http.StatusOK && !strings.Contains(out.Body.String(), `"request_id":"`+id+`"`) {
			t.Errorf("%s: the id is %q, answered %s, logged %s", target, id, out.Body, w.log)
		}
	}
}

func TestPathHasOneSpelling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	for _, row := range []struct {
		target string
		code   problem.Code
	}{
		{"/admin/v1//accounts/acme", problem.AmbiguousPath},
		{"/admin/v1/./accounts/acme", problem.AmbiguousPath},
		{"/admin/v1/x/../accounts/acme", problem.AmbiguousPath},
		{"/admin/v1/accounts/other/../acme", problem.AmbiguousPath},
		{"/admin/v1/accounts/acme/", problem.AmbiguousPath},
		{"/admin/v1/accounts/%61cme", problem.AmbiguousPath},
		{"/admin/v1/accounts%2Facme", problem.AmbiguousPath},
		{"/admin/v1/accounts/acme%2Fkeys", problem.AmbiguousPath},
		{"/admin/v1/accounts/%2e%2e", problem.AmbiguousPath},
		{"/admin/v1/accounts/*", problem.AmbiguousPath},
		{"/admin/v1/accounts/acme%00", problem.NotFound},
		{"/admin/v1/accounts/acme%20", problem.NotFound},
		{"/admin/v1/accounts/acme;x", problem.NotFound},
		{"/admin/v1/accounts/ACME", problem.NotFound},
		{"/admin/v1/Accounts/acme", problem.UnknownRoute},
		{"/admin/v1/accounts/acme/nothing", problem.UnknownRoute},
		{"/admin/v1/", problem.AmbiguousPath},
		{"/admin/v1", problem.UnknownRoute},
		{"/", problem.UnknownRoute},
	} {
		out := w.do(http.MethodGet, row.target, "")
		t.Run(row.target, func(t *testing.T) {
			check(t, out, row.code, "")
			if out.Header().Get("Location") != "" {
				t.Errorf("redirected to %q", out.Header().Get("Location"))
			}
		})
	}
}

func TestOtherMethodsAreRefusedWithThoseThatAreNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for target, row := range map[string]struct{ allow, others string }{
		accounts:           {"GET, HEAD", "POST PUT DELETE PATCH OPTIONS"},
		acme:               {"DELETE, GET, HEAD, PUT", "POST PATCH OPTIONS"},
		acme + "/keys":     {"GET, HEAD, POST", "PUT DELETE PATCH OPTIONS"},
		acme + "/keys/abc": {"DELETE", "GET HEAD POST PUT PATCH OPTIONS"},
	} {
		for method := range strings.FieldsSeq(row.others) {
			out := w.do(method, target, "")
			check(t, out, problem.MethodNotAllowed, "")
			if got := out.Header().Get("Allow"); got != row.allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, target, got, row.allow)
			}
		}
	}
}

func TestOutageIsA503WithoutAWordOfTheInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	w.redis.SetError("LOADING inside")
	for _, e := range endpoints {
		out := w.do(e.method, e.target, e.body)
		check(t, out, problem.KeyStoreUnavailable, "")
		if strings.Contains(out.Body.String(), "inside") || out.Header().Get("Retry-After") != "1" {
			t.Errorf("%s %s: answered %v %s", e.method, e.target, out.Header(), out.Body)
		}
	}
	if !strings.Contains(w.log.String(), "inside") {
		t.Errorf("the log does not say why: %s", w.log)
	}
}

func TestAPINeedsItsOptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	catalogue, err := policy.NewCatalogue("serp_api:read")
	if err != nil {
		t.Fatal(err)
	}
	whole := adminapi.Options{Store: w.store, Audit: w.store, Users: w.store, Usage: w.store, Passwords: w.passwords, Token: adminToken, Catalogue: catalogue, Levels: &w.levels, Now: start.UTC, Log: zap.NewNop()}
	whole.Export = w.store.Export
	whole.Explain = func(context.Context, contract.ExplainedRequest) (contract.Explanation, error) {
		return contract.Explanation{}, nil
	}
	if _, err := adminapi.New(whole); err != nil {
		t.Error(err)
	}
	for name, remove := range map[string]func(*adminapi.Options){
		"token": func(o *adminapi.Options) { o.Token = "" }, "store": func(o *adminapi.Options) { o.Store = nil },
		"audit": func(o *adminapi.Options) { o.Audit = nil }, "clock": func(o *adminapi.Options) { o.Now = nil }, "log": func(o *adminapi.Options) { o.Log = nil },
		"users": func(o *adminapi.Options) { o.Users = nil }, "usage": func(o *adminapi.Options) { o.Usage = nil }, "levels": func(o *adminapi.Options) { o.Levels = nil }, "passwords": func(o *adminapi.Options) { o.Passwords = nil },
		"export":  func(o *adminapi.Options) { o.Export = nil },
		"explain": func(o *adminapi.Options) { o.Explain = nil },
	} {
		o := whole
		remove(&o)
		if _, err := adminapi.New(o); err == nil {
			t.Errorf("an API without %s, want an error", name)
		}
	}
}
