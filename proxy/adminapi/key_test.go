package adminapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

func TestGoldenKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	golden(t, "create_key", w.do(http.MethodPost, acme+"/keys", keyBody))
	golden(t, "list_keys", w.do(http.MethodGet, acme+"/keys", ""))
	golden(t, "list_keys_of_nobody", w.do(http.MethodGet, accounts+"/nobody/keys", ""))
	id, _ := w.token("acme")
	golden(t, "revoke_key", w.do(http.MethodDelete, acme+"/keys/"+id, ""))
	golden(t, "revoke_key_again", w.do(http.MethodDelete, acme+"/keys/"+id, ""))
}

// TestOperatorIsBoundedByTheAccountAndNothingElse: it grants what the account
// holds, and a key without subaccounts gets all of the account's.
func TestOperatorIsBoundedByTheAccountAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	_, token := w.token("acme")
	e, err := w.lookup(token)
	if err != nil || !e.Key.Subaccounts.All() || !e.Key.Addresses.Any() || !e.Key.Expiry.Never() {
		t.Errorf("stored is %+v, %v", e.Key, err)
	}
	check(t, w.do(http.MethodPost, acme+"/keys", `{"name":"x","permissions":["serp_api:read"]}`), problem.PermissionNotGrantable, "serp_api:read")
	check(t, w.do(http.MethodPost, acme+"/keys", fmt.Sprintf(`{"name":"x","permissions":["datacenter_shared:read"],"allowed_subaccounts":[%q]}`, subB)),
		problem.ValidationFailed, "allowed_subaccounts[0]")
	check(t, w.do(http.MethodPost, acme+"/keys", `{"name":"x","permissions":["*"]}`), problem.ValidationFailed, "permissions[0]")
}

func TestKeyIsAskedForAsStrictlyAsByCustomers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	for body, code := range map[string]problem.Code{
		"":                problem.InvalidRequest,
		keyBody + keyBody: problem.InvalidRequest,
		strings.Replace(keyBody, "}", `,"allowed_ip":["1.2.3.4"]}`, 1):    problem.ValidationFailed,
		strings.Replace(keyBody, "}", `,"allowed_ips":null}`, 1):          problem.ValidationFailed,
		strings.Replace(keyBody, "}", `,"Expires_At":1900000000}`, 1):     problem.ValidationFailed,
		strings.Replace(keyBody, "first", "a\\u0000b", 1):                 problem.ValidationFailed,
		strings.Replace(keyBody, "}", strings.Repeat(" ", 64<<10)+"}", 1): problem.BodyTooLarge,
	} {
		check(t, w.do(http.MethodPost, acme+"/keys", body), code, "")
	}
	if list := w.must(http.MethodGet, acme+"/keys", "").Body.String(); !strings.Contains(list, `"data":[]`) {
		t.Errorf("a key was made: %s", list)
	}
}

// TestIDThatCannotBeIsLikeOneThatDoesNotExist, to the byte.
func TestIDThatCannotBeIsLikeOneThatDoesNotExist(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	for _, pair := range [][2]string{
		{accounts + "/nobody", accounts + "/a%20b"},
		{accounts + "/nobody/keys", accounts + "/a%20b/keys"},
		{acme + "/keys/11111111-0000-4000-8000-000000000001", acme + "/keys/x"},
	} {
		var bodies [2]string
		for i, target := range pair {
			bodies[i] = variable.ReplaceAllString(w.do(map[bool]string{true: http.MethodDelete, false: http.MethodGet}[strings.Contains(target, "/keys/")], target, "").Body.String(), "")
		}
		if bodies[0] != bodies[1] || !strings.Contains(bodies[0], "not_found") {
			t.Errorf("%s is told from %s: %s and %s", pair[0], pair[1], bodies[0], bodies[1])
		}
	}
}

// TestKeysAreReachedThroughTheirOwnAccountOnly: another account's key is like
// one that does not exist.
func TestKeysAreReachedThroughTheirOwnAccountOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	w.must(http.MethodPut, accounts+"/other", accountBody)
	id, token := w.token("acme")
	theirs := w.do(http.MethodDelete, accounts+"/other/keys/"+id, "")
	none := w.do(http.MethodDelete, accounts+"/other/keys/11111111-0000-4000-8000-000000000001", "")
	check(t, theirs, problem.NotFound, "")
	if a, b := variable.ReplaceAllString(theirs.Body.String(), ""), variable.ReplaceAllString(none.Body.String(), ""); a != b {
		t.Errorf("another account's key is told from none: %s and %s", a, b)
	}
	if _, err := w.lookup(token); err != nil {
		t.Errorf("the key is gone: %v", err)
	}
	if list := w.must(http.MethodGet, accounts+"/other/keys", "").Body.String(); strings.Contains(list, id) {
		t.Errorf("the other account lists %s", list)
	}
}

func TestRevokedTokenIsUnknownBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	id, token := w.token("acme")
	w.must(http.MethodDelete, acme+"/keys/"+id, "")
	if _, err := w.lookup(token); err != keystore.ErrUnknownToken { //nolint:errorlint // nothing else will do
		t.Errorf("the lookup says %v, want ErrUnknownToken", err)
	}
}

func TestIDsThatCannotBeAreNotFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	w.token("acme")
	before := w.records()
	for _, id := range []string{"x", "11111111000040008000000000000001", "a%7Bb", strings.Repeat("a", 5000)} {
		check(t, w.do(http.MethodDelete, acme+"/keys/"+id, ""), problem.NotFound, "")
	}
	for _, id := range []string{"nobody", "a%7Db", "%20", strings.Repeat("a", 65)} {
		check(t, w.do(http.MethodPost, accounts+"/"+id+"/keys", keyBody), problem.NotFound, "")
		check(t, w.do(http.MethodGet, accounts+"/"+id+"/keys", ""), problem.NotFound, "")
		check(t, w.do(http.MethodDelete, accounts+"/"+id+"/keys/x", ""), problem.NotFound, "")
		check(t, w.do(http.MethodDelete, accounts+"/"+id, ""), problem.NotFound, "")
	}
	if diff := cmp.Diff(before, w.records()); diff != "" {
		t.Errorf("the store has changed:\n%s", diff)
	}
}

// records are the names of all that is in the store but the notes of refusals.
func (w *world) records() []string {
	return slices.DeleteFunc(w.redis.Keys(), func(name string) bool { return strings.HasSuffix(name, ":refused") })
}

func TestKeysAreListedInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	var ids []string
	for range 3 {
		w.now.Add(1)
		id, _ := w.token("acme")
		ids = append(ids, id)
	}
	first := w.must(http.MethodGet, acme+"/keys?limit=2", "").Body.String()
	if strings.Index(first, ids[2]) > strings.Index(first, ids[1]) || strings.Contains(first, ids[0]) || !strings.Contains(first, `"next_cursor":"`) {
		t.Errorf("the first page is %s, of %v", first, ids)
	}
	_, cursor, _ := strings.Cut(first, `"next_cursor":"`)
	second := w.must(http.MethodGet, acme+"/keys?limit=2&cursor="+strings.TrimSuffix(cursor, `"}`), "").Body.String()
	if strings.Count(second, `"id":`) != 1 || !strings.Contains(second, ids[0]) || !strings.Contains(second, `"next_cursor":null`) {
		t.Errorf("the second page is %s, of %v", second, ids)
	}
	check(t, w.do(http.MethodGet, acme+"/keys?limit=0", ""), problem.ValidationFailed, "limit")
	check(t, w.do(http.MethodGet, acme+"/keys?cursor=x", ""), problem.ValidationFailed, "cursor")
}

// TestOperatorMayMakeKeysForAnAccountThatIsSuspended: they do not work until
// it is active again.
func TestOperatorMayMakeKeysForAnAccountThatIsSuspended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, strings.TrimSuffix(accountBody, "}")+`,"status":"suspended"}`)
	_, token := w.token("acme")
	e, err := w.lookup(token)
	if err != nil || policy.Decide(policy.Request{At: start, Needs: "datacenter_shared:read"}, e.Key, e.Account).Reason != policy.AccountSuspended {
		t.Errorf("found %+v, %v", e, err)
	}
}
