package keystore_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
)

const someHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Records of this version, as they lie in stores that are in use: they must be
// understood for as long as there is a version 1.
const (
	keyRecordV1 = `{"v":1,"token_hash":"` + someHash + `","id":"6f1e","account":"acme","account_uid":"u1","name":"CI ✓",` +
		`"permissions":["proxies:read","account:apikeys:create"],"all_subaccounts":false,"subaccounts":["aaaaaaaa-0000-4000-8000-000000000001"],` +
		`"any_address":false,"addresses":["203.0.113.0/24","198.51.100.7","2001:db8::/32"],"never_expires":false,"expires_at":1790000000,` +
		`"active":true,"preview":"gk_Ab3x…9fQz","created_at":1780000000}`
	accountRecordV1 = `{"v":1,"uid":"u1","id":"acme","name":"Acme","status":"active","permissions":["proxies:*"],` +
		`"subaccounts":[{"id":"aaaaaaaa-0000-4000-8000-000000000001","label":"EU","product":"proxies"}],"created_at":1780000000,"updated_at":1780000001}`
)

func TestRecordsOfVersion1AreUnderstood(t *testing.T) {
	got, again, err := keystore.TwiceKey(keyRecordV1, someHash)
	if err != nil {
		t.Fatal(err)
	}
	want := policy.Key{
		ID: "6f1e", Account: "acme", Name: "CI ✓", Permissions: policy.NewPermissionSet(read, policy.CreateKeys),
		Subaccounts: policy.OnlySubaccounts(subA), Addresses: policy.OnlyAddresses(office, home, mustPrefix("2001:db8::/32")),
		Expiry: policy.ExpiresAt(1790000000), Active: true, Preview: "gk_Ab3x…9fQz", CreatedAt: got.CreatedAt,
	}
	if diff := cmp.Diff([]policy.Key{want, want}, []policy.Key{got, again}, same); diff != "" || got.CreatedAt.Unix() != 1780000000 {
		t.Errorf("key (-want +got):\n%s", diff)
	}
	replaced := strings.NewReplacer(`{"v":1`, `{"v":2`, `"created_at":1780000000}`, `"created_at":1780000000,"replaced_at":1780000005}`).Replace(keyRecordV1)
	got, again, err = keystore.TwiceKey(replaced, someHash)
	if err != nil || got.ReplacedAt.Unix() != 1780000005 || again.ReplacedAt != got.ReplacedAt {
		t.Errorf("got %v, %v, %v", got.ReplacedAt, again.ReplacedAt, err)
	}
	for _, mixed := range []string{strings.Replace(keyRecordV1, `{"v":1`, `{"v":2`, 1), strings.Replace(replaced, `{"v":2`, `{"v":1`, 1)} {
		if _, _, err := keystore.TwiceKey(mixed, someHash); err == nil {
			t.Errorf("it was understood: %s", mixed)
		}
	}
	account, accountAgain, err := keystore.TwiceAccount(accountRecordV1, "acme", policy.Catalogue{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(account, accountAgain, same); diff != "" || account.Name != "Acme" || account.UpdatedAt.Unix() != 1780000001 {
		t.Errorf("account %+v (-first +second):\n%s", account, diff)
	}
}

// TestAccountsWithAPlanHaveAVersionOfTheirOwn: one without stays what earlier
// gateways understand.
func TestAccountsWithAPlanHaveAVersionOfTheirOwn(t *testing.T) {
	planned := strings.NewReplacer(`{"v":1`, `{"v":2`, `"updated_at":1780000001}`, `"updated_at":1780000001,"plan":"gold"}`).Replace(accountRecordV1)
	first, second, err := keystore.TwiceAccount(planned, "acme", policy.Catalogue{})
	if err != nil || first.Plan != "gold" || second.Plan != "gold" {
		t.Errorf("got the plans %q and %q, %v", first.Plan, second.Plan, err)
	}
	for _, mixed := range []string{
		strings.Replace(accountRecordV1, `{"v":1`, `{"v":2`, 1), strings.Replace(planned, `{"v":2`, `{"v":1`, 1), strings.Replace(planned, `"gold"`, `""`, 1),
	} {
		if _, _, err := keystore.TwiceAccount(mixed, "acme", policy.Catalogue{}); err == nil {
			t.Errorf("it was understood: %s", mixed)
		}
	}
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		by := n.account("acme")
		_, token := n.key(by)
		raw := dump(t, keystore.ClientOf(n.Store), w.options.Prefix+"account:{acme}")[w.options.Prefix+"account:{acme}"]
		if !strings.HasPrefix(raw, `{"v":1,`) || strings.Contains(raw, "plan") || n.works(token).Account.Plan != "" {
			t.Errorf("without a plan it is stored as %s", raw)
		}
		n.account("acme", func(a *keystore.Account) { a.Plan = "gold" })
		raw = dump(t, keystore.ClientOf(n.Store), w.options.Prefix+"account:{acme}")[w.options.Prefix+"account:{acme}"]
		if got := n.works(token).Account.Plan; got != "gold" || !strings.HasPrefix(raw, `{"v":2,`) {
			t.Errorf("the plan is %q, stored as %s", got, raw)
		}
		if a, err := n.GetAccount(t.Context(), "acme"); err != nil || a.Plan != "gold" {
			t.Errorf("got %+v, %v", a, err)
		}
		n.account("acme")
		if got := n.works(token).Account.Plan; got != "" {
			t.Errorf("after it was taken away the plan is %q", got)
		}
		events, _, err := n.AuditLog(t.Context(), "acme", keystore.EventFilter{Action: keystore.AccountPut}, "", 10)
		if err != nil || len(events) != 3 {
			t.Fatalf("there are the events %v, %v", events, err)
		}
		for i, want := range []string{`plan "gold" null`, `plan null "gold"`} { // the newest first
			if got := events[i].Changes; len(got) != 1 || got[0].Field+" "+string(got[0].Old)+" "+string(got[0].New) != want {
				t.Errorf("event %d is about %v, want %s", i, got, want)
			}
		}
	})
}

// What is accepted means the same when it is written and read again, and no
// accepted record is one that restricts and does not restrict.
func FuzzKeyRecord(f *testing.F) {
	f.Add(keyRecordV1)
	f.Add(strings.NewReplacer(`"all_subaccounts":false,"subaccounts":["aaaaaaaa-0000-4000-8000-000000000001"]`, `"all_subaccounts":true,"subaccounts":[]`,
		`"any_address":false,"addresses":["203.0.113.0/24","198.51.100.7","2001:db8::/32"]`, `"any_address":true,"addresses":[]`,
		`"never_expires":false,"expires_at":1790000000`, `"never_expires":true,"expires_at":0`).Replace(keyRecordV1))
	f.Add(strings.Replace(keyRecordV1, "203.0.113.0/24", "::ffff:1.2.3.4", 1))
	f.Add(strings.Replace(keyRecordV1, "203.0.113.0/24", "::ffff:0:0/95", 1))
	f.Add(strings.Replace(keyRecordV1, "aaaaaaaa", "AAAAAAAA", 1))
	f.Add(strings.Replace(keyRecordV1, "1790000000", "-9223372036854775808", 1))
	f.Add(strings.Replace(keyRecordV1, "1780000000", "9223372036854775807", 1))
	f.Add(strings.Replace(keyRecordV1, "CI ✓", "\ufffd\u2028\\u0000", 1))
	f.Add(strings.Replace(keyRecordV1, `"account:apikeys:create"`, `null`, 1))
	f.Fuzz(func(t *testing.T, raw string) {
		first, second, err := keystore.TwiceKey(raw, someHash)
		if err != nil {
			if strings.Contains(err.Error(), "accepted, but") {
				t.Fatal(err)
			}
			return
		}
		if diff := cmp.Diff(first, second, same); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
		if first.Subaccounts.All() && len(first.Subaccounts.IDs()) > 0 || first.Addresses.Any() && len(first.Addresses.Strings()) > 0 ||
			first.Expiry.Never() && first.Expiry.Unix() != 0 {
			t.Fatalf("limited and unlimited: %+v", first)
		}
		for _, field := range []string{
			"v", "token_hash", "id", "account", "account_uid", "name", "permissions", "all_subaccounts", "subaccounts", "any_address",
			"addresses", "never_expires", "expires_at", "active", "preview", "created_at",
		} {
			if !strings.Contains(raw, field) && !strings.Contains(raw, `\`) {
				t.Fatalf("accepted without %s", field)
			}
		}
	})
}

func FuzzAccountRecord(f *testing.F) {
	f.Add(accountRecordV1)
	f.Add(strings.Replace(accountRecordV1, `[{"id":"aaaaaaaa-0000-4000-8000-000000000001","label":"EU","product":"proxies"}]`, `[]`, 1))
	f.Add(strings.Replace(accountRecordV1, `"proxies:*"`, `"*","nothing:*",""`, 1))
	f.Add(strings.Replace(accountRecordV1, `"label":"EU",`, ``, 1))
	f.Add(strings.Replace(accountRecordV1, `"active"`, `""`, 1))
	f.Add(strings.NewReplacer(`{"v":1`, `{"v":2`, `1780000001}`, `1780000001,"plan":"gold"}`).Replace(accountRecordV1))
	catalogue, err := policy.NewCatalogue(read, write, other)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		first, second, err := keystore.TwiceAccount(raw, "acme", catalogue)
		if err != nil {
			if strings.Contains(err.Error(), "accepted, but") {
				t.Fatal(err)
			}
			return
		}
		if diff := cmp.Diff(first, second, same); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
		if first.ID != "acme" {
			t.Fatalf("the record of acme is of %q", first.ID)
		}
	})
}
