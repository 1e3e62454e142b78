package adminapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

func TestGoldenAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	golden(t, "put_new", w.do(http.MethodPut, acme, accountBody))
	w.now.Add(60)
	golden(t, "put_again", w.do(http.MethodPut, acme, `{"name":" Acme Inc ","permissions":["*"],"status":"suspended"}`))
	golden(t, "get", w.do(http.MethodGet, acme, ""))
	golden(t, "list", w.do(http.MethodGet, accounts, ""))
	golden(t, "get_none", w.do(http.MethodGet, accounts+"/nobody", ""))
	golden(t, "delete", w.do(http.MethodDelete, acme, ""))
	golden(t, "delete_none", w.do(http.MethodDelete, acme, ""))
	golden(t, "list_none", w.do(http.MethodGet, accounts, ""))
}

// TestStatusThatIsLeftOutKeepsASuspension: only a word lifts it.
func TestStatusThatIsLeftOutKeepsASuspension(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, step := range []struct {
		field string
		want  policy.Status
	}{
		{``, policy.Active}, // a new one is active
		{`,"status":"suspended"`, policy.Suspended},
		{``, policy.Suspended},
		{`,"status":null`, policy.Suspended},
		{`,"status":"active"`, policy.Active},
		{``, policy.Active},
	} {
		out := w.must(http.MethodPut, acme, strings.TrimSuffix(accountBody, "}")+step.field+"}")
		if !strings.Contains(out.Body.String(), `"status":"`+string(step.want)+`"`) {
			t.Errorf("after %q: %s, want %s", step.field, out.Body, step.want)
		}
	}
}

// TestChangeOfAnAccountBindsItsKeysBeforeTheAnswer.
func TestChangeOfAnAccountBindsItsKeysBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	_, token := w.token("acme")
	decide := func(want policy.Reason) {
		t.Helper()
		e, err := w.lookup(token)
		if err != nil {
			t.Fatal(err)
		}
		d := policy.Decide(policy.Request{At: start, Subaccount: subA, Needs: "datacenter_shared:read"}, e.Key, e.Account)
		if d.Reason != want {
			t.Errorf("decided %s, want %s", d.Reason, want)
		}
	}
	decide(policy.Allowed)
	w.must(http.MethodPut, acme, strings.Replace(accountBody, "datacenter_shared:*", "serp_api:read", 1))
	decide(policy.PermissionDenied)
	w.must(http.MethodPut, acme, strings.Replace(accountBody, subA, subB, 1))
	decide(policy.SubaccountNotAllowed)
	w.must(http.MethodPut, acme, strings.TrimSuffix(accountBody, "}")+`,"status":"suspended"}`)
	decide(policy.AccountSuspended)
	w.must(http.MethodPut, acme, strings.TrimSuffix(accountBody, "}")+`,"status":"active"}`)
	decide(policy.Allowed)
}

func TestKeysDieWithTheirAccountBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	_, token := w.token("acme")
	w.must(http.MethodDelete, acme, "")
	if _, err := w.lookup(token); err != keystore.ErrUnknownToken { //nolint:errorlint // nothing else will do
		t.Errorf("the lookup says %v, want ErrUnknownToken", err)
	}
	w.must(http.MethodPut, acme, accountBody)
	if _, err := w.lookup(token); err != keystore.ErrUnknownToken { //nolint:errorlint // nothing else will do
		t.Errorf("in an account that took over the id the lookup says %v, want ErrUnknownToken", err)
	}
}

func TestAccountThatIsNotAskedForProperlyIsNotChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	before := w.must(http.MethodGet, acme, "").Body.String()
	with := func(field string) string { return strings.TrimSuffix(accountBody, "}") + "," + field + "}" }
	for _, row := range []struct {
		name, target, body string
		code               problem.Code
		says               string
	}{
		{"no body", acme, "", problem.InvalidRequest, ""},
		{"an empty object", acme, "{}", problem.ValidationFailed, `"permissions"`},
		{"null", acme, "null", problem.ValidationFailed, `"body"`},
		{"permissions left out", acme, `{"name":"Acme"}`, problem.ValidationFailed, `"permissions"`},
		{"permissions that are null", acme, `{"permissions":null}`, problem.ValidationFailed, `"permissions"`},
		{"a grant that stands for nothing", acme, `{"permissions":["datacenter:*"]}`, problem.ValidationFailed, `"permissions[0]"`},
		{"a misspelt status", acme, with(`"state":"suspended"`), problem.ValidationFailed, `"state"`},
		{"a status in another letter case", acme, with(`"Status":"suspended"`), problem.ValidationFailed, `"Status"`},
		{"a status that is none", acme, with(`"status":"paused"`), problem.ValidationFailed, `"status"`},
		{"a status that is empty", acme, with(`"status":""`), problem.ValidationFailed, `"status"`},
		{"a field twice", acme, with(`"name":"Other"`), problem.InvalidRequest, ""},
		{"another id in the body", acme, with(`"id":"other"`), problem.ValidationFailed, `"id"`},
		{"a product that is none", acme, strings.Replace(accountBody, `"product":"datacenter_shared"`, `"product":"x"`, 1), problem.ValidationFailed, "subaccounts[0].product"},
		{"two bodies", acme, accountBody + accountBody, problem.InvalidRequest, ""},
		{"too much", acme, accountBody + strings.Repeat(" ", contract.AccountBodyLimit), problem.BodyTooLarge, ""},
		{"an id with a space", accounts + "/a%20b", accountBody, problem.ValidationFailed, `"id"`},
		{"an id that is not ASCII", accounts + "/%C3%A4", accountBody, problem.ValidationFailed, `"id"`},
		{"an id of 65 characters", accounts + "/" + strings.Repeat("a", 65), accountBody, problem.ValidationFailed, `"id"`},
		{"an id with a brace", accounts + "/a%7Db", accountBody, problem.ValidationFailed, `"id"`},
	} {
		t.Run(row.name, func(t *testing.T) { check(t, w.do(http.MethodPut, row.target, row.body), row.code, row.says) })
	}
	r := httptest.NewRequest(http.MethodPut, acme, strings.NewReader(accountBody))
	r.Header.Set("Authorization", "Bearer "+adminToken)
	check(t, w.serve(r), problem.UnsupportedMediaType, "")
	if after := w.must(http.MethodGet, acme, "").Body.String(); after != before {
		t.Errorf("the account was %s and is %s", before, after)
	}
	if list := w.must(http.MethodGet, accounts, "").Body.String(); strings.Count(list, `"id":"`) != 2 { // acme and its subaccount
		t.Errorf("there are %s", list)
	}
}

func TestLongestAndOddestIDsWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range []string{"a", strings.Repeat("a", 64), "A-b_c.9", "...", "-"} {
		if out := w.must(http.MethodPut, accounts+"/"+id, accountBody); out.Header().Get("Location") != accounts+"/"+id {
			t.Errorf("%s: Location is %q", id, out.Header().Get("Location"))
		}
		w.must(http.MethodGet, accounts+"/"+id, "")
		w.must(http.MethodDelete, accounts+"/"+id, "")
	}
}

func TestAccountsAreListedInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 5 {
		w.now.Add(1)
		w.must(http.MethodPut, fmt.Sprintf("%s/a%d", accounts, i), `{"permissions":[]}`)
	}
	cursor := ""
	for _, want := range []string{"a4 a3", "a2 a1", "a0"} {
		var page struct {
			Data       []struct{ ID string }
			NextCursor *string `json:"next_cursor"`
		}
		out := w.must(http.MethodGet, accounts+"?limit=2&cursor="+url.QueryEscape(cursor), "")
		if err := json.Unmarshal(out.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		ids := make([]string, len(page.Data))
		for i, a := range page.Data {
			ids[i] = a.ID
		}
		if got := strings.Join(ids, " "); got != want || (page.NextCursor == nil) != (want == "a0") {
			t.Errorf("the page is %s, want %s", out.Body, want)
		}
		if page.NextCursor != nil {
			cursor = *page.NextCursor
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "Limit=1", "page=1", "cursor=x", "cursor=%21"} {
		check(t, w.do(http.MethodGet, accounts+"?"+query, ""), problem.ValidationFailed, "")
	}
	check(t, w.do(http.MethodGet, accounts+"?limit=%zz", ""), problem.AmbiguousQuery, "")
}
