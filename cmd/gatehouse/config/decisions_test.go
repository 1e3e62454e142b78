package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/policy"
)

// TestMistakesInDecisions runs testdata/decisions: the file decisions.yaml of
// each archive has the error in the file error, or is ok.
func TestMistakesInDecisions(t *testing.T) {
	t.Parallel()
	c := mustParse(t, minimal, noEnv)
	names, err := filepath.Glob("testdata/decisions/*.txtar")
	if err != nil || len(names) < 5 {
		t.Fatalf("testdata has %d cases, %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			ds, err := config.ParseDecisions("decisions.yaml", archive.Files[0].Data, c, noEnv)
			got := "ok\n"
			if err != nil {
				got = err.Error() + "\n"
			}
			if (ds == nil) != (err != nil) {
				t.Errorf("got %v and %v; want decisions or an error", ds, err)
			}
			if *update {
				archive.Files[1].Data = []byte(got)
				if err := os.WriteFile(name, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestDescribedKeysAreWhatTheySay: what is left out is a default, and none of
// them is more than the key API's.
func TestDescribedKeysAreWhatTheySay(t *testing.T) {
	t.Parallel()
	ds, err := config.ParseDecisions("decisions.yaml", []byte(`
accounts:
  acme: {permissions: ["serp:*"], subaccounts: [5b0d9c6e-3f0a-4a57-9d0e-1c2f6a7b8c90]}
  asleep: {status: suspended}
keys:
  plain: {account: acme, permissions: ["serp:read"]}
  bound:
    account: acme
    allowed_subaccounts: [5b0d9c6e-3f0a-4a57-9d0e-1c2f6a7b8c90]
    allowed_ips: [203.0.113.9/24]
    expires_at: "2027-01-01T00:00:00Z"
    is_active: false
tests:
  - {name: a, request: GET /serp/, expect: allowed}
  - {name: b, request: GET /serp/, expect: allowed, client: "2001:db8::1", at: "2027-01-01T00:00:00Z"}
`), mustParse(t, minimal, noEnv), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	plain, account, known := ds.Key("plain")
	if !known || !plain.Active || !plain.Subaccounts.All() || !plain.Addresses.Any() || !plain.Expiry.Never() || !plain.Permissions.Has("serp:read") || plain.Account != "acme" {
		t.Errorf("plain is %+v", plain)
	}
	if account.Status != policy.Active || !account.Permissions.Has("serp:read") || account.Permissions.Has(policy.ReadKeys) || !account.Subaccounts.Contains("5b0d9c6e-3f0a-4a57-9d0e-1c2f6a7b8c90") {
		t.Errorf("its account is %+v", account)
	}
	bound, _, _ := ds.Key("bound")
	if bound.Active || bound.Subaccounts.All() || len(bound.Permissions) != 0 || bound.Expiry != policy.ExpiresAt(1798761600) ||
		!bound.Addresses.Contains(netip.MustParseAddr("203.0.113.7")) || bound.Addresses.Contains(netip.MustParseAddr("203.0.114.7")) {
		t.Errorf("bound is %+v", bound)
	}
	if _, _, known := ds.Key("nobody"); known {
		t.Error("a key that is not described is known")
	}
	if a, err := ds.Tests[0].Asked(); err != nil || a.Client != netip.MustParseAddr("192.0.2.1") || !ds.Tests[0].Moment().IsZero() || ds.Tests[0].Line != 14 || ds.Tests[0].Column != 5 {
		t.Errorf("the first test is %+v", ds.Tests[0])
	}
	if a, err := ds.Tests[1].Asked(); err != nil || a.Client != netip.MustParseAddr("2001:db8::1") || !ds.Tests[1].Moment().Equal(time.Unix(1798761600, 0)) {
		t.Errorf("the second test is %+v", ds.Tests[1])
	}
}
