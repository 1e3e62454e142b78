package policy_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"gatehouse/policy"

	"github.com/google/go-cmp/cmp"
)

func TestAccountIDIsOneSafePathSegment(t *testing.T) {
	rows := []struct {
		name string
		id   string
		want bool
	}{
		{"word", "acme", true},
		{"every kind of character", "Acme-2.eu_west", true},
		{"one character", "a", true},
		{"64 characters", strings.Repeat("a", 64), true},
		{"65 characters", strings.Repeat("a", 65), false},
		{"empty", "", false},
		{"one dot", ".", false},
		{"two dots", "..", false},
		{"three dots", "...", true},
		{"dot in front", ".acme", true},
		{"slash", "a/b", false},
		{"colon", "a:b", false},
		{"space", "a b", false},
		{"newline at the end", "acme\n", false},
		{"NUL", "acme\x00", false},
		{"at sign, one before A", "@", false},
		{"backtick, one before a", "`", false},
		{"opening bracket, one behind Z", "[", false},
		{"opening brace, one behind z", "{", false},
		{"slash, one before 0", "/", false},
		{"colon, one behind 9", ":", false},
		{"the edges of the ranges", "azAZ09", true},
		{"percent sign", "a%41", false},
		{"umlaut", "ä", false},
		{"long s", "ſ", false},
		{"invalid UTF-8", "\xff", false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := policy.ValidAccountID(row.id); got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestExpiryHasPassedFromItsSecondOn(t *testing.T) {
	rows := []struct {
		name   string
		expiry policy.Expiry
		at     time.Time
		want   bool
	}{
		{"the second before", policy.ExpiresAt(expiry), time.Unix(expiry-1, 999_999_999), false},
		{"the very second", policy.ExpiresAt(expiry), time.Unix(expiry, 0), true},
		{"the second after", policy.ExpiresAt(expiry), time.Unix(expiry+1, 0), true},
		{"never, today", policy.NeverExpires(), time.Unix(expiry, 0), false},
		{"never, at the end of time", policy.NeverExpires(), time.Unix(math.MaxInt32, 0), false},
		{"zero value, today", policy.Expiry{}, time.Unix(expiry, 0), true},
		{"zero value, at the epoch", policy.Expiry{}, time.Unix(0, 0), true},
		{"zero value, before the epoch", policy.Expiry{}, time.Unix(-1, 0), true},
		{"zero value, at the zero time", policy.Expiry{}, time.Time{}, true},
		{"the epoch itself, today", policy.ExpiresAt(0), time.Unix(expiry, 0), true},
		{"before the epoch, today", policy.ExpiresAt(-1), time.Unix(expiry, 0), true},
		{"the largest second, today", policy.ExpiresAt(math.MaxInt64), time.Unix(expiry, 0), false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := row.expiry.Passed(row.at); got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestExpiryOutlastsOnlyAnEarlierEnd(t *testing.T) {
	never, soon, late, zero := policy.NeverExpires(), policy.ExpiresAt(expiry), policy.ExpiresAt(expiry+1), policy.Expiry{}
	rows := []struct {
		name     string
		e, other policy.Expiry
		want     bool
	}{
		{"later", late, soon, true},
		{"the same", soon, soon, false},
		{"earlier", soon, late, false},
		{"never against an end", never, late, true},
		{"an end against never", late, never, false},
		{"never against never", never, never, false},
		{"an end against the zero value", soon, zero, true},
		{"never against the zero value", never, zero, true},
		{"the zero value against an end", zero, soon, false},
		{"the zero value against itself", zero, zero, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := row.e.Outlasts(row.other); got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestExpiryKeepsWhatItWasGiven(t *testing.T) {
	if e := policy.ExpiresAt(expiry); e.Unix() != expiry || e.Never() {
		t.Errorf("got %d, never %v, want %d, never false", e.Unix(), e.Never(), expiry)
	}
	if e := policy.NeverExpires(); e.Unix() != 0 || !e.Never() {
		t.Errorf("got %d, never %v, want 0, never true", e.Unix(), e.Never())
	}
	if (policy.Expiry{}).Never() {
		t.Error("got a zero Expiry that never expires")
	}
}

func TestCallerMayDoWhatKeyAndAccountBothHold(t *testing.T) {
	account := allowedKase().account
	key := allowedKase().key
	key.Permissions = policy.NewPermissionSet(writeShared, policy.CreateKeys, readShared)
	rows := []struct {
		name   string
		caller policy.Caller
		want   []string
	}{
		{"key, in the key's order, without what the account lacks", policy.Caller{Account: account, Key: key}, []string{"datacenter_shared:write", "datacenter_shared:read"}},
		{"person", policy.Caller{Account: account}, []string{"datacenter_shared:read", "datacenter_shared:write", "serp_api:read"}},
		{"key without an account", policy.Caller{Key: key}, []string{}},
		{"zero key", policy.Caller{Account: account, Key: &policy.Key{}}, []string{}},
		{"zero account", policy.Caller{Account: &policy.Account{}, Key: key}, []string{}},
		{"person of a zero account", policy.Caller{Account: &policy.Account{}}, []string{}},
		{"nobody", policy.Caller{}, []string{}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, row.caller.Permissions().Strings()); diff != "" {
				t.Errorf("permissions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCallerReachesSubaccountsOfKeyAndAccount(t *testing.T) {
	account := allowedKase().account
	account.Subaccounts = policy.OnlySubaccounts(subA, subB)
	limited := allowedKase().key
	limited.Subaccounts = policy.OnlySubaccounts(subB, subC)
	unlimited := allowedKase().key
	unlimited.Subaccounts = policy.AllSubaccounts()

	rows := []struct {
		name   string
		caller policy.Caller
		want   []policy.SubaccountID
	}{
		{"limited key", policy.Caller{Account: account, Key: limited}, []policy.SubaccountID{subB}},
		{"unlimited key", policy.Caller{Account: account, Key: unlimited}, []policy.SubaccountID{subA, subB}},
		{"person", policy.Caller{Account: account}, []policy.SubaccountID{subA, subB}},
		{"zero key", policy.Caller{Account: account, Key: &policy.Key{}}, nil},
		{"unlimited key of a zero account", policy.Caller{Account: &policy.Account{}, Key: unlimited}, nil},
		{"unlimited key without an account", policy.Caller{Key: unlimited}, nil},
		{"nobody", policy.Caller{}, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var got []policy.SubaccountID
			for _, id := range []policy.SubaccountID{"", subA, subB, subC} {
				if row.caller.MayReach(id) {
					got = append(got, id)
				}
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("subaccounts (-want +got):\n%s", diff)
			}
		})
	}
}
