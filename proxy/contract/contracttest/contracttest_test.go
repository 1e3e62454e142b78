package contracttest_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract/contracttest"
	"gatehouse/proxy/keyapi"
	"gatehouse/proxy/problem"
)

func load(t *testing.T) *contracttest.Contract {
	t.Helper()
	c, err := contracttest.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestContractHasEveryEndpoint, with what it needs, and no other.
func TestContractHasEveryEndpoint(t *testing.T) {
	c := load(t)
	catalogue, err := policy.NewCatalogue("datacenter_shared:read")
	if err != nil {
		t.Fatal(err)
	}
	api, err := keyapi.New(keyapi.Options{Keys: &keystore.Store{}, Audit: &keystore.Store{}, Usage: &keystore.Store{}, Catalogue: catalogue, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, e := range api.Endpoints() {
		want[e.Match] = strings.ReplaceAll(string(e.Needs), "-", " ")
	}
	got := map[string]string{}
	for path, item := range c.Document.Paths.Map() {
		for method, operation := range item.Operations() {
			needs, _ := operation.Extensions["x-permission"].(string)
			got[method+" "+path] = needs
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("endpoints (-code +contract):\n%s", diff)
	}
}

func TestContractHasEveryCode(t *testing.T) {
	var got []string
	for _, code := range load(t).Document.Components.Schemas["Code"].Value.Enum {
		got = append(got, code.(string))
	}
	var want []string
	for _, code := range problem.Codes() {
		want = append(want, string(code))
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("codes (-code +contract):\n%s", diff)
	}
}

func TestContractHasEveryAction(t *testing.T) {
	var got []keystore.Action
	for _, action := range load(t).Document.Components.Schemas["Action"].Value.Enum {
		got = append(got, keystore.Action(action.(string)))
	}
	if diff := cmp.Diff(keystore.Actions(), got); diff != "" {
		t.Errorf("actions (-code +contract):\n%s", diff)
	}
}

// TestWhatIsNotInTheContractIsSeen: a check that cannot fail holds nothing.
func TestWhatIsNotInTheContractIsSeen(t *testing.T) {
	c := load(t)
	const key = `{"id":"0d4a0b6e-6f0c-4b5e-9d3f-2f1a7c9b8e10","name":"CI","permissions":["a:b"],"allowed_subaccounts":[],"allowed_ips":[],` +
		`"expires_at":null,"is_active":true,"last_used_at":null,"token_preview":"gk_","created_at":1780000000}`
	const refused = `{"type":"about:blank","title":"Forbidden","status":403,"detail":"No.","success":false,"error":"permission_denied","request_id":"x"}`
	base := func() contracttest.Exchange {
		return contracttest.Exchange{
			Method: "GET", Target: "/v4/account/api-keys/0d4a0b6e-6f0c-4b5e-9d3f-2f1a7c9b8e10", Header: http.Header{}, Status: 200,
			AnswerHeader: http.Header{"Content-Type": {"application/json"}}, Answer: `{"success":true,"data":` + key + `}`,
		}
	}
	asProblem := func(e *contracttest.Exchange, status int, body string) {
		e.Status, e.Answer, e.AnswerHeader = status, body, http.Header{"Content-Type": {"application/problem+json"}}
	}
	for name, row := range map[string]struct {
		change func(e *contracttest.Exchange)
		ok     bool
	}{
		"nothing": {func(*contracttest.Exchange) {}, true},
		"a field more": {func(e *contracttest.Exchange) {
			e.Answer = strings.Replace(e.Answer, `"name"`, `"secret":"x","name"`, 1)
		}, false},
		"a field less":       {func(e *contracttest.Exchange) { e.Answer = strings.Replace(e.Answer, `"is_active":true,`, "", 1) }, false},
		"another type":       {func(e *contracttest.Exchange) { e.Answer = strings.Replace(e.Answer, `1780000000`, `"now"`, 1) }, false},
		"another status":     {func(e *contracttest.Exchange) { e.Status = 202 }, false},
		"another media type": {func(e *contracttest.Exchange) { e.AnswerHeader.Set("Content-Type", "text/plain") }, false},
		"a path more":        {func(e *contracttest.Exchange) { e.Target = "/v4/account/nothing" }, false},
		"a method more":      {func(e *contracttest.Exchange) { e.Method = "PATCH" }, false},
		"a refusal":          {func(e *contracttest.Exchange) { asProblem(e, 403, refused) }, true},
		"an unknown code": {func(e *contracttest.Exchange) {
			asProblem(e, 403, strings.Replace(refused, "permission_denied", "nope", 1))
		}, false},
		"a refusal that is not": {func(e *contracttest.Exchange) { asProblem(e, 403, strings.Replace(refused, "false", "true", 1)) }, false},
		"an unknown parameter that was granted": {func(e *contracttest.Exchange) {
			e.Method, e.Body = "PUT", `{"label":"x"}`
			e.Header.Set("Content-Type", "application/json")
			e.Answer = `{"success":true,"message":"m","data":` + key[:len(key)-1] + `,"updated_fields":[]}}`
		}, false},
	} {
		e := base()
		row.change(&e)
		if err := c.Check(t.Context(), e); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
