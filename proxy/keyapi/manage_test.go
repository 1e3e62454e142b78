package keyapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// shownKey is a key as the API shows it.
type shownKey struct {
	ID                 string
	Name               string
	Permissions        []string
	AllowedSubaccounts []string `json:"allowed_subaccounts"`
	AllowedIPs         []string `json:"allowed_ips"`
	ExpiresAt          *int64   `json:"expires_at"`
	IsActive           bool     `json:"is_active"`
	LastUsedAt         *int64   `json:"last_used_at"`
	UpdatedFields      []string `json:"updated_fields"`
	OldID              string   `json:"old_id"`
	Token              string
	GraceEndsAt        *int64 `json:"grace_ends_at"`
}

// answer makes a request that must succeed, and decodes its data.
func answer[T any](w *world, method, path, body string) (data T, next *string) {
	w.t.Helper()
	out := w.do(method, path, body)
	var a struct {
		Success    bool
		Data       T
		NextCursor *string `json:"next_cursor"`
	}
	if err := json.Unmarshal(out.Body.Bytes(), &a); err != nil || out.Code != http.StatusOK || !a.Success {
		w.t.Fatalf("%s %s %s: answered %d %s, %v", method, path, body, out.Code, out.Body, err)
	}
	return a.Data, a.NextCursor
}

func TestGoldenManage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.putAccount(func(a *keystore.Account) { a.Permissions = []string{"*"} })
	w.now.Add(1)
	w.by, _ = w.key(func(*keystore.NewKey) {})
	w.now.Add(1)
	id := w.create(minimal).Data.ID
	golden(t, "get", w.do(http.MethodGet, keysPath+"/"+id, ""))
	golden(t, "list", w.do(http.MethodGet, keysPath+"?limit=3", ""))
	golden(t, "update", w.do(http.MethodPut, keysPath+"/"+id, `{"name":"CI 2","allowed_ips":["203.0.113.7"],"is_active":true}`))
	golden(t, "update_nothing", w.do(http.MethodPut, keysPath+"/"+id, `{}`))
	golden(t, "regenerate_grace", w.do(http.MethodPost, keysPath+"/"+id+"/regenerate", `{"grace_period_seconds":3600}`))
	golden(t, "revoke", w.do(http.MethodDelete, keysPath+"/"+id, ""))
	other := w.create(minimal).Data.ID
	golden(t, "regenerate", w.do(http.MethodPost, keysPath+"/"+other+"/regenerate", ""))
	golden(t, "permission_context", w.do(http.MethodGet, keysPath+"/permission-context", ""))
}

func TestListPagesThroughAllKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var want []string
	for range 5 {
		want = append(want, w.create(minimal).Data.ID)
	}
	var got []string
	path := keysPath + "?limit=2"
	for pages := 0; ; pages++ {
		keys, next := answer[[]shownKey](w, http.MethodGet, path, "")
		for _, k := range keys {
			got = append(got, k.ID)
		}
		if next == nil {
			break
		}
		path = keysPath + "?limit=2&cursor=" + *next
	}
	want = append(want, string(w.by.Key.ID))
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}

// TestUpdateChangesWhatIsGiven, and names what really changed.
func TestUpdateChangesWhatIsGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	whole := fmt.Sprintf(`{"name":"CI","permissions":["datacenter_shared:read"],"allowed_subaccounts":[%q],"allowed_ips":["203.0.113.0/24"],"expires_at":1900000000}`, subA)
	for _, row := range []struct {
		body    string
		changed []string
		check   func(k shownKey) bool
	}{
		{`{}`, []string{}, func(k shownKey) bool { return k.Name == "CI" }},
		{`{"name":"CI"}`, []string{}, func(k shownKey) bool { return k.Name == "CI" }},
		{`{"name":" other "}`, []string{"name"}, func(k shownKey) bool { return k.Name == "other" }},
		{`{"permissions":[]}`, []string{}, func(k shownKey) bool { return len(k.Permissions) == 1 }},
		{`{"permissions":["datacenter_shared:write"]}`, []string{"permissions"}, func(k shownKey) bool { return k.Permissions[0] == string(write) }},
		{`{"allowed_subaccounts":[]}`, []string{"allowed_subaccounts"}, func(k shownKey) bool { return len(k.AllowedSubaccounts) == 0 }},
		{`{"allowed_ips":[]}`, []string{"allowed_ips"}, func(k shownKey) bool { return len(k.AllowedIPs) == 0 }},
		{`{"allowed_ips":["203.0.113.77/24"]}`, []string{}, func(k shownKey) bool { return k.AllowedIPs[0] == "203.0.113.0/24" }},
		{`{"expires_at":null}`, []string{"expires_at"}, func(k shownKey) bool { return k.ExpiresAt == nil }},
		{`{"expires_at":1900000001}`, []string{"expires_at"}, func(k shownKey) bool { return *k.ExpiresAt == 1900000001 }},
		{`{"is_active":false}`, []string{"is_active"}, func(k shownKey) bool { return !k.IsActive }},
		{`{"is_active":true}`, []string{}, func(k shownKey) bool { return k.IsActive }},
		{
			`{"is_active":false,"expires_at":null,"name":"n"}`,
			[]string{"name", "expires_at", "is_active"},
			func(k shownKey) bool { return !k.IsActive && k.ExpiresAt == nil && k.Name == "n" },
		},
	} {
		c := w.create(whole)
		got, _ := answer[shownKey](w, http.MethodPut, keysPath+"/"+c.Data.ID, row.body)
		stored, _ := answer[shownKey](w, http.MethodGet, keysPath+"/"+c.Data.ID, "")
		if diff := cmp.Diff(row.changed, got.UpdatedFields); diff != "" || !row.check(got) {
			t.Errorf("%s: %+v, updated fields (-want +got):\n%s", row.body, got, diff)
		}
		got.UpdatedFields = nil
		if diff := cmp.Diff(stored, got); diff != "" {
			t.Errorf("%s: the answer is not what is stored:\n%s", row.body, diff)
		}
		if w.do(http.MethodDelete, keysPath+"/"+c.Data.ID, "").Code != http.StatusOK {
			t.Fatal("it cannot be revoked")
		}
	}
}

// refused makes a request that must be refused with the code, and at the field.
func (w *world) refused(method, path, body string, code problem.Code, field string) {
	w.t.Helper()
	out := w.do(method, path, body)
	var p struct {
		Error  problem.Code
		Errors []problem.FieldError
	}
	if err := json.Unmarshal(out.Body.Bytes(), &p); err != nil || p.Error != code || out.Code != code.Status() {
		w.t.Errorf("%s %s %.200s: answered %d %.300s, %v; want %s", method, path, body, out.Code, out.Body, err, code)
	}
	if named := slices.ContainsFunc(p.Errors, func(e problem.FieldError) bool { return e.Field == field }); named != (field != "") {
		w.t.Errorf("%s %s %.200s: the answer names %v, want %q", method, path, body, p.Errors, field)
	}
}

func TestUpdateRefusesWhatIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(minimal).Data.ID
	for body, field := range map[string]string{
		`{"name":null}`: "name", `{"name":""}`: "name", `{"name":" "}`: "name", `{"name":"a\u202eb"}`: "name", `{"name":7}`: "name",
		`{"name":"` + strings.Repeat("é", 101) + `"}`: "name",
		`{"permissions":null}`:                        "permissions", `{"permissions":["nonsense"]}`: "permissions[0]", `{"permissions":"x"}`: "permissions",
		`{"allowed_subaccounts":null}`: "allowed_subaccounts", `{"allowed_subaccounts":["` + string(subC) + `"]}`: "allowed_subaccounts[0]",
		`{"allowed_ips":null}`: "allowed_ips", `{"allowed_ips":["10.0.0.0/33"]}`: "allowed_ips[0]", `{"allowed_ips":[null]}`: "allowed_ips[0]",
		`{"expires_at":1}`: "expires_at", `{"expires_at":-1}`: "expires_at", `{"expires_at":253402300800}`: "expires_at", `{"expires_at":1e400}`: "expires_at",
		`{"expires_at":1900000000.5}`: "expires_at", `{"expires_at":"1900000000"}`: "expires_at", `{"expires_at":99999999999999999999}`: "expires_at",
		`{"is_active":null}`: "is_active", `{"is_active":1}`: "is_active", `{"is_active":"true"}`: "is_active",
		`{"allowed_ip":[]}`: "allowed_ip", `{"Name":"x"}`: "Name", `{"id":"x"}`: "id", `{"token":"x"}`: "token",
	} {
		w.refused(http.MethodPut, keysPath+"/"+id, body, problem.ValidationFailed, field)
	}
	for _, body := range []string{`{"name":"a","name":"b"}`, `{"is_active":false}{}`, ``, `{`, "{\"name\":\"\xff\"}"} {
		w.refused(http.MethodPut, keysPath+"/"+id, body, problem.InvalidRequest, "")
	}
	w.refused(http.MethodPut, keysPath+"/"+id, `null`, problem.ValidationFailed, "body")
	if k, _ := answer[shownKey](w, http.MethodGet, keysPath+"/"+id, ""); k.Name != "CI" || !k.IsActive {
		t.Errorf("a refused update has changed the key: %+v", k)
	}
}

func TestRegenerateReplacesTheToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, body := range []string{"", `{}`, `{"grace_period_seconds":0}`} {
		c := w.create(minimal)
		next, _ := answer[shownKey](w, http.MethodPost, keysPath+"/"+c.Data.ID+"/regenerate", body)
		if next.OldID != c.Data.ID || next.ID == c.Data.ID || next.Name != "CI" || next.GraceEndsAt != nil {
			t.Errorf("%q: got %+v", body, next)
		}
		if k := w.lookup(next.Token).Key; string(k.ID) != next.ID || k.Name != "CI" {
			t.Errorf("%q: the new token is that of %+v", body, k)
		}
		w.refused(http.MethodGet, keysPath+"/"+c.Data.ID, "", problem.NotFound, "")
	}
	c := w.create(minimal)
	next, _ := answer[shownKey](w, http.MethodPost, keysPath+"/"+c.Data.ID+"/regenerate", `{"grace_period_seconds":604800}`)
	if want := start.Add(7 * 24 * time.Hour).Unix(); next.GraceEndsAt == nil || *next.GraceEndsAt != want || w.lookup(c.Data.Token).Key.Expiry.Unix() != want {
		t.Errorf("got %+v, want a grace until %d", next, want)
	}
	w.refused(http.MethodPost, keysPath+"/"+c.Data.ID+"/regenerate", "", problem.Conflict, "")
	w.refused(http.MethodPut, keysPath+"/"+c.Data.ID, `{"expires_at":null}`, problem.Conflict, "")
}

func TestRegenerateRefusesWhatIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(minimal).Data.ID
	path := keysPath + "/" + id + "/regenerate"
	for _, grace := range []string{"-1", "604801", "1.5", "1e400", `"60"`, "null", "true", "[]", "99999999999999999999", "-0.1"} {
		w.refused(http.MethodPost, path, `{"grace_period_seconds":`+grace+`}`, problem.ValidationFailed, "grace_period_seconds")
	}
	w.refused(http.MethodPost, path, `{"grace":60}`, problem.ValidationFailed, "grace")
	w.refused(http.MethodPost, path, `{"grace_period_seconds":1,"grace_period_seconds":1}`, problem.InvalidRequest, "")
	w.refused(http.MethodPost, path, `{}x`, problem.InvalidRequest, "")
	answer[shownKey](w, http.MethodGet, keysPath+"/"+id, "")
}

// TestForeignKeysAreAsUnknownAsNone: whatever is tried with an id of another
// account, or with what is no id, the answer has the same bytes.
func TestForeignKeysAreAsUnknownAsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, _, err := w.store.PutAccount(t.Context(), policy.Caller{}, keystore.Account{ID: "rival", Permissions: []string{"*"}}); err != nil {
		t.Fatal(err)
	}
	rules, err := w.store.Rules(t.Context(), "rival")
	if err != nil {
		t.Fatal(err)
	}
	foreign, token, err := w.store.Create(t.Context(), policy.Caller{Account: rules}, keystore.NewKey{
		Name: "theirs", Permissions: policy.NewPermissionSet(read), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []struct{ method, rest, body string }{
		{http.MethodGet, "", ""}, {http.MethodPut, "", `{"name":"mine"}`}, {http.MethodPut, "", `{}`}, {http.MethodDelete, "", ""}, {http.MethodPost, "/regenerate", ""},
	} {
		bodies := map[string]bool{}
		for _, id := range []string{"99999999-0000-4000-8000-000000000009", string(foreign.ID), strings.ToUpper(string(foreign.ID)), "nonsense", strings.Repeat("a", 5000)} {
			w.refused(request.method, keysPath+"/"+id+request.rest, request.body, problem.NotFound, "")
			bodies[w.do(request.method, keysPath+"/"+id+request.rest, request.body).Body.String()] = true
		}
		if len(bodies) != 1 {
			t.Errorf("%s %s tells ids apart: %v", request.method, request.rest, bodies)
		}
	}
	if k := w.lookup(token.Reveal()).Key; k.Name != "theirs" {
		t.Errorf("it was changed: %+v", k)
	}
}

func TestKeyInUseChangesNothingOfItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	own := keysPath + "/" + string(w.by.Key.ID)
	w.refused(http.MethodPut, own, `{"allowed_ips":[]}`, problem.KeyInUse, "")
	w.refused(http.MethodDelete, own, "", problem.KeyInUse, "")
	w.refused(http.MethodPost, own+"/regenerate", "", problem.KeyInUse, "")
	answer[shownKey](w, http.MethodGet, own, "")
}

func TestGoldenAuditLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.create(minimal)
	w.by.RequestID = "request"
	answer[shownKey](w, http.MethodPut, keysPath+"/"+c.Data.ID, `{"name":"renamed"}`)
	golden(t, "audit_log", w.do(http.MethodGet, "/v4/account/audit-log?action=key.update&key="+c.Data.ID, ""))
}

func TestAuditLogIsFiltered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.create(minimal)
	answer[shownKey](w, http.MethodPut, keysPath+"/"+c.Data.ID, `{"name":"renamed"}`)
	type event struct{ Action string }
	for query, want := range map[string]int{
		"": 4, "?action=key.update": 1, "?action=key.revoke": 0, "?key=" + c.Data.ID: 2, fmt.Sprintf("?from=%d", start.Unix()+1): 0,
		fmt.Sprintf("?to=%d", start.Unix()): 0, fmt.Sprintf("?from=%d&to=%d&action=key.create", start.Unix(), start.Unix()+1): 2,
	} {
		if got, next := answer[[]event](w, http.MethodGet, "/v4/account/audit-log"+query, ""); len(got) != want || next != nil {
			t.Errorf("%s: got %v, want %d", query, got, want)
		}
	}
	for query, field := range map[string]string{
		"?limit=0": "limit", "?limit=1001": "limit", "?limit=x": "limit", "?cursor=x": "cursor", "?key=x": "key", "?key=": "key", "?action=key.get": "action",
		"?from=-1": "from", "?from=1.5": "from", "?to=253402300800": "to", "?key=" + c.Data.ID + "&key=" + c.Data.ID: "key", "?since=1": "since", "?Action=key.create": "Action",
	} {
		w.refused(http.MethodGet, "/v4/account/audit-log"+query, "", problem.ValidationFailed, field)
	}
}

func TestKeysSeeNothingOfUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	person := w.by
	person.Key = nil
	u, err := w.store.CreateUser(t.Context(), person, keystore.NewUser{Email: "ada@example.com", PasswordHash: "hash"})
	if err != nil {
		t.Fatal(err)
	}
	type event struct {
		Action string
		UserID string `json:"user_id"`
	}
	if w.by.Key == nil {
		t.Fatal("the caller is no key")
	}
	for _, query := range []string{"", "?action=user.create"} {
		got, _ := answer[[]event](w, http.MethodGet, "/v4/account/audit-log"+query, "")
		for _, e := range got {
			if e.UserID != "" || e.Action == "user.create" {
				t.Errorf("%s: a key sees %+v", query, e)
			}
		}
	}
	w.by = person
	if got, _ := answer[[]event](w, http.MethodGet, "/v4/account/audit-log?action=user.create", ""); len(got) != 1 || got[0].UserID != string(u.ID) {
		t.Errorf("a person sees %+v", got)
	}
}
