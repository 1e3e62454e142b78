package contract_test

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func key() policy.Key {
	ips, err := policy.ParsePrefix("203.0.113.0/24")
	if err != nil {
		panic(err)
	}
	one, err := policy.ParsePrefix("2001:db8::1")
	if err != nil {
		panic(err)
	}
	return policy.Key{
		ID: "11111111-0000-4000-8000-000000000001", Account: "acme", Name: "CI <b>&</b> \u2028 \"x\"", Active: true,
		Permissions: policy.NewPermissionSet("serp_api:read", "datacenter_shared:read"), Subaccounts: policy.OnlySubaccounts(subB, subA),
		Addresses: policy.OnlyAddresses(ips, one), Expiry: policy.ExpiresAt(1_790_000_000),
		Preview: "gk_Ab3x…9fQz", CreatedAt: time.Unix(1_780_000_000, 5),
	}
}

// TestGoldenAnswers are the documented forms of success, whole.
func TestGoldenAnswers(t *testing.T) {
	t.Parallel()
	unrestricted := key()
	unrestricted.Name, unrestricted.Active = "all", false
	unrestricted.Subaccounts, unrestricted.Addresses, unrestricted.Expiry = policy.AllSubaccounts(), policy.AnyAddress(), policy.NeverExpires()
	account := contract.ShowAccount(keystore.Account{
		ID: "acme", Name: "Acme", Status: policy.Active, Permissions: []string{"*"},
		Subaccounts: []policy.Subaccount{{ID: subA, Label: "EU", Product: "serp_api"}}, CreatedAt: now, UpdatedAt: now,
	})
	for name, v := range map[string]any{
		"created":      contract.Created(key(), keystore.Token{}),
		"revoked":      contract.Revoked(key().ID, now),
		"keys":         contract.NewPage([]contract.Key{contract.ShowKey(key()), contract.ShowKey(unrestricted)}, "next"),
		"no_keys":      contract.NewPage([]contract.Key{}, ""),
		"account":      contract.Envelope{Success: true, Data: account},
		"zero_key":     contract.ShowKey(policy.Key{}),
		"zero_account": contract.ShowAccount(keystore.Account{}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			if err := contract.Write(w, http.StatusOK, v); err != nil {
				t.Fatal(err)
			}
			var head []string
			for field, values := range w.Header() {
				head = append(head, field+": "+strings.Join(values, ", "))
			}
			slices.Sort(head)
			golden(t, name, fmt.Sprintf("%d\n%s\n\n%s\n", w.Code, strings.Join(head, "\n"), w.Body))
		})
	}
}

func TestAnswerThatCannotBeEncodedIsAnErrorAndNothingIsWritten(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	if err := contract.Write(w, http.StatusCreated, func() {}); err == nil || w.Body.Len() > 0 || len(w.Header()) > 0 || w.Code != http.StatusOK {
		t.Errorf("got %v, and wrote %d %q %v", err, w.Code, w.Body, w.Header())
	}
}

func TestReadPage(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		query  string
		limit  int
		cursor string
		want   refusal
	}{
		{"", 1000, "", refusal{}},
		{"limit=1", 1, "", refusal{}},
		{"limit=1000", 1000, "", refusal{}},
		{"cursor=MTox&limit=7", 7, "MTox", refusal{}},
		{"cursor=%20", 1000, " ", refusal{}},
		{"cursor=", 1000, "", refusal{}},
		{"limit=0", 0, "", refused(problem.ValidationFailed, "limit")},
		{"limit=-1", 0, "", refused(problem.ValidationFailed, "limit")},
		{"limit=1001", 0, "", refused(problem.ValidationFailed, "limit")},
		{"limit=", 0, "", refused(problem.ValidationFailed, "limit")},
		{"limit", 0, "", refused(problem.ValidationFailed, "limit")},
		{"limit=ten", 0, "", refused(problem.ValidationFailed, "limit")},
		{"limit=1.0", 0, "", refused(problem.ValidationFailed, "limit")},
		{"limit=0x10", 0, "", refused(problem.ValidationFailed, "limit")},
		{"limit=99999999999999999999", 0, "", refused(problem.ValidationFailed, "limit")},
		{"limit=1&limit=1", 0, "", refused(problem.ValidationFailed, "limit")},
		{"cursor=a&cursor=b", 0, "", refused(problem.ValidationFailed, "cursor")},
		{"Limit=1", 0, "", refused(problem.ValidationFailed, "Limit")},
		{"page=2", 0, "", refused(problem.ValidationFailed, "page")},
		{"limit[]=2", 0, "", refused(problem.ValidationFailed, "limit[]")},
		{"=", 0, "", refused(problem.ValidationFailed, "")},
		{"z=1&limit=0&a=1&limit2=1", 0, "", refused(problem.ValidationFailed, "a", "limit", "limit2", "z")},
		{"limit=1;cursor=x", 0, "", refused(problem.AmbiguousQuery)},
		{"limit=%zz", 0, "", refused(problem.AmbiguousQuery)},
	} {
		t.Run(row.query, func(t *testing.T) {
			t.Parallel()
			limit, cursor, err := contract.ReadPage(row.query)
			row.want.check(t, err)
			if err == nil && (limit != row.limit || cursor != row.cursor) {
				t.Errorf("got %d and %q, want %d and %q", limit, cursor, row.limit, row.cursor)
			}
		})
	}
}

func TestPageFaultsAreAtMostTwenty(t *testing.T) {
	t.Parallel()
	var query strings.Builder
	for i := range 100 {
		fmt.Fprintf(&query, "%s%d=1&", strings.Repeat("x", 200), i)
	}
	_, _, err := contract.ReadPage(query.String())
	fields := problem.From(err).Fields
	if len(fields) != 20 || len([]rune(fields[0].Field)) != 101 {
		t.Errorf("%d faults, the first of %q", len(fields), fields[0].Field)
	}
}
