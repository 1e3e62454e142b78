package contract_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

func FuzzKeyUpdate(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, ``, minimal, `{"name":" x ","permissions":[],"allowed_subaccounts":[],"allowed_ips":[],"expires_at":null,"is_active":false}`,
		`{"permissions":["serp_api:read"],"allowed_subaccounts":["` + subA + `"],"allowed_ips":["10.0.0.1/8","2001:db8::1"],"expires_at":1900000000}`,
		`{"name":null}`, `{"is_active":null}`, `{"is_active":1}`, `{"expires_at":-1}`, `{"expires_at":1.5}`, `{"name":"\ud800"}`, `{"is_active":true,"is_active":false}`,
		`{"permissions":[null]}`, `{"Name":"x"}`, `[[[`, `{"name":"\u202e"}`, `{"expires_at":253402300800}`, `{"expires_at":"1"}`, `{} {}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := readUpdate(t, string(body))
		if err != nil {
			checkRefused(t, err)
			if diff := cmp.Diff(keystore.Update{}, got, same); diff != "" {
				t.Errorf("refused, and yet a change:\n%s", diff)
			}
			return
		}
		var given map[string]any
		if err := json.Unmarshal(body, &given); err != nil || given == nil || !utf8.Valid(body) {
			t.Fatalf("%q is no JSON object, and was accepted", body)
		}
		checkUpdate(t, given, got)

		// The change that was read, written out, asks for the same change.
		encoded, err := json.Marshal(asked(got))
		if err != nil {
			t.Fatal(err)
		}
		second, err := readUpdate(t, string(encoded))
		if diff := cmp.Diff(got, second, same); err != nil || diff != "" {
			t.Errorf("%s: %v (-first +second):\n%s", encoded, err, diff)
		}
	})
}

// checkUpdate: what was given is changed, nothing else is, and by the rules.
func checkUpdate(t *testing.T, given map[string]any, u keystore.Update) {
	t.Helper()
	permissions, _ := given["permissions"].([]any)
	changes := asked(u)
	for field, v := range given {
		if _, changed := changes[field]; changed == (field == "permissions" && len(permissions) == 0) {
			t.Errorf("%s was given as %v, and is among the changes: %v", field, v, changed)
		}
	}
	for field := range changes {
		if v, ok := given[field]; !ok || (v == nil && field != "expires_at") {
			t.Errorf("%s is changed, and was given as %v", field, v)
		}
	}
	if u.Name != nil {
		if checkName(t, *u.Name); *u.Name == "" {
			t.Error("accepted without a name")
		}
	}
	if u.Permissions != nil && (len(*u.Permissions) == 0 || len(catalogue(t).All().Missing(*u.Permissions)) > 0) {
		t.Errorf("accepted with the permissions %v", *u.Permissions)
	}
	if u.Subaccounts != nil && len(account().Subaccounts.Missing(policy.OnlySubaccounts(*u.Subaccounts...))) > 0 {
		t.Errorf("accepted with the subaccounts %v", *u.Subaccounts)
	}
	if u.Addresses != nil {
		addresses, _ := given["allowed_ips"].([]any)
		if len(u.Addresses.Strings()) > 100 || u.Addresses.Any() != (len(addresses) == 0) {
			t.Errorf("%v became %v", addresses, u.Addresses.Strings())
		}
	}
	if u.Expiry != nil && (u.Expiry.Passed(now) || u.Expiry.Never() != (given["expires_at"] == nil) || u.Expiry.Unix() >= 253402300800) {
		t.Errorf("accepted with the expiry %v", u.Expiry.Unix())
	}
	if u.Active != nil && *u.Active != given["is_active"] {
		t.Errorf("is_active became %v", *u.Active)
	}
}

// asked writes a change as the body that asks for it.
func asked(u keystore.Update) map[string]any {
	body := map[string]any{}
	if u.Name != nil {
		body["name"] = *u.Name
	}
	if u.Permissions != nil {
		body["permissions"] = u.Permissions.Strings()
	}
	if u.Subaccounts != nil {
		body["allowed_subaccounts"] = contract.ShowSubaccounts(policy.OnlySubaccounts(*u.Subaccounts...))
	}
	if u.Addresses != nil {
		body["allowed_ips"] = u.Addresses.Strings()
	}
	if u.Expiry != nil {
		body["expires_at"] = contract.ShowExpiry(*u.Expiry)
	}
	if u.Active != nil {
		body["is_active"] = *u.Active
	}
	return body
}

func FuzzRegeneration(f *testing.F) {
	for _, s := range []string{
		"", "{}", " ", "null", "{}{}", `{"grace_period_seconds":0}`, `{"grace_period_seconds":604800}`, `{"grace_period_seconds":604801}`, `{"grace_period_seconds":-0}`,
		`{"grace_period_seconds":null}`, `{"grace_period_seconds":1e2}`, `{"grace_period_seconds":9223372036854775808}`, `{"grace":1}`,
		`{"grace_period_seconds":1,"grace_period_seconds":1}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		grace, err := readRegeneration(body)
		if err != nil {
			checkRefused(t, err)
			if grace != 0 {
				t.Errorf("refused, and yet a grace of %s", grace)
			}
			return
		}
		if grace < 0 || grace > 7*24*time.Hour || grace%time.Second != 0 {
			t.Errorf("accepted with a grace of %s", grace)
		}
		var given map[string]json.Number
		if err := json.Unmarshal([]byte(body), &given); body != "" && (err != nil || given == nil) {
			t.Fatalf("%q was accepted: %v", body, err)
		}
		seconds := strconv.Itoa(int(grace / time.Second))
		if said, ok := given["grace_period_seconds"]; len(given) > 1 || (ok && strings.TrimPrefix(string(said), "-") != seconds) || (!ok && grace != 0) {
			t.Errorf("%q was read as %s", body, grace)
		}
		second, err := readRegeneration(`{"grace_period_seconds":` + seconds + `}`)
		if err != nil || second != grace {
			t.Errorf("%s, and then %s, %v", grace, second, err)
		}
	})
}
