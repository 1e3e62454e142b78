package keystore_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
)

// usualKey is a key as most are: four permissions of 52 characters together, two
// ranges, a subaccount, an expiry.
const usualKey = `{"v":1,"token_hash":"` + someHash + `","id":"0a1b2c3d-0000-4000-8000-00000000abcd","account":"acme-europe",` +
	`"account_uid":"9f8e7d6c-0000-4000-8000-00000000dcba","name":"Nightly import, EU 2",` +
	`"permissions":["serp:read","proxies:read","proxies:write","proxies:residential"],"all_subaccounts":false,` +
	`"subaccounts":["aaaaaaaa-0000-4000-8000-000000000001"],"any_address":false,"addresses":["203.0.113.0/24","2001:db8::/32"],` +
	`"never_expires":false,"expires_at":1790000000,"active":true,"preview":"gk_Ab3x…9fQz","created_at":1780000000}`

// keyRecords are JSON records of all kinds.
func keyRecords() []string {
	unlimited := strings.NewReplacer(`"all_subaccounts":false,"subaccounts":["aaaaaaaa-0000-4000-8000-000000000001"]`, `"all_subaccounts":true,"subaccounts":[]`,
		`"any_address":false,"addresses":["203.0.113.0/24","2001:db8::/32"]`, `"any_address":true,"addresses":[]`,
		`"never_expires":false,"expires_at":1790000000`, `"never_expires":true,"expires_at":0`, `"active":true`, `"active":false`).Replace(usualKey)
	return []string{
		usualKey, keyRecordV1, unlimited,
		strings.NewReplacer(`{"v":1`, `{"v":2`, `"created_at":1780000000}`, `"created_at":1780000000,"replaced_at":1780000005}`).Replace(usualKey),
		strings.Replace(usualKey, `["203.0.113.0/24","2001:db8::/32"]`, `[]`, 1),
		strings.Replace(usualKey, `["203.0.113.0/24","2001:db8::/32"]`, `["0.0.0.0/0","::/0","198.51.100.7","2001:db8::1","10.0.0.0/9","2001:db8::/33"]`, 1),
		strings.Replace(usualKey, `["aaaaaaaa-0000-4000-8000-000000000001"]`, `[]`, 1),
		strings.Replace(usualKey, "1790000000", "-9223372036854775808", 1),
		strings.Replace(usualKey, "Nightly import, EU 2", "", 1),
		strings.Replace(usualKey, "0a1b2c3d", "0A1B2C3D", 1),
	}
}

func TestCompactRecordIsSmall(t *testing.T) {
	raw, err := keystore.CompactKey(usualKey, someHash)
	if err != nil {
		t.Fatal(err)
	}
	// What Redis allocates for it in its class of 224 bytes, of which it needs 4.
	if t.Logf("%d bytes, %d as JSON", len(raw), len(usualKey)); len(raw) > 220 {
		t.Errorf("the record has %d bytes", len(raw))
	}
	field, value, ok := keystore.CompactIndex(keystore.IndexEntry{
		ID: "0a1b2c3d-0000-4000-8000-00000000abcd", Created: 1<<62 - 1, TokenHash: someHash, Ends: 1 << 61,
	})
	if !ok || len(field) != 16 || len(value) > 64 {
		t.Errorf("%d and %d bytes in the index", len(field), len(value))
	}
}

// TestCompactRecordMeansTheSame as the JSON record that it was made of, and
// nothing but the whole of it means anything.
func TestCompactRecordMeansTheSame(t *testing.T) {
	for _, record := range keyRecords() {
		want, _, err := keystore.TwiceKey(record, someHash)
		if err != nil {
			t.Fatalf("%v: %s", err, record)
		}
		raw, err := keystore.CompactKey(record, someHash)
		if err != nil {
			t.Fatalf("%v: %s", err, record)
		}
		got, uid, again, exported, err := keystore.ThroughCompactKey(raw, someHash)
		if diff := cmp.Diff(want, got, same); err != nil || diff != "" || again != raw || !strings.Contains(record, `"account_uid":"`+uid+`"`) {
			t.Errorf("%v, uid %s; encoded again the same: %t; (-JSON +compact)\n%s", err, uid, again == raw, diff)
		}
		if exported != record {
			t.Errorf("as JSON it is\n%s, was\n%s", exported, record)
		}
		if _, _, _, _, err := keystore.ThroughCompactKey(raw, strings.Replace(someHash, "e", "f", 1)); err == nil {
			t.Error("it was taken for that of another token")
		}
		for end := range raw {
			if _, _, _, _, err := keystore.ThroughCompactKey(raw[:end], someHash); err == nil {
				t.Errorf("the first %d of %d bytes were accepted", end, len(raw))
			}
		}
		if _, _, _, _, err := keystore.ThroughCompactKey(raw+"\x00", someHash); err == nil {
			t.Error("it was accepted with something behind it")
		}
	}
}

// What is accepted has one encoding, and means the same as JSON.
func FuzzCompactKey(f *testing.F) {
	for _, record := range keyRecords() {
		raw, err := keystore.CompactKey(record, someHash)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(raw[:len(raw)/2])
	}
	f.Fuzz(func(t *testing.T, raw string) {
		k, uid, again, record, err := keystore.ThroughCompactKey(raw, someHash)
		if err != nil {
			if strings.Contains(err.Error(), "accepted, but") {
				t.Fatal(err)
			}
			return
		}
		if again != raw {
			t.Fatalf("%q was accepted, and is encoded as %q", raw, again)
		}
		twin, _, err := keystore.TwiceKey(record, someHash)
		if diff := cmp.Diff(k, twin, same); err != nil || diff != "" {
			t.Fatalf("%v (-compact +JSON)\n%s", err, diff)
		}
		if fromJSON, err := keystore.CompactKey(record, someHash); err != nil || fromJSON != raw {
			t.Fatalf("through JSON it is %q, %v", fromJSON, err)
		}
		if k.Subaccounts.All() && len(k.Subaccounts.IDs()) > 0 || k.Addresses.Any() && len(k.Addresses.Prefixes()) > 0 ||
			k.Expiry.Never() && (k.Expiry.Unix() != 0 || k.Replaced()) {
			t.Fatalf("limited and unlimited: %+v", k)
		}
		if len(uid) == 0 && !strings.Contains(record, `"account_uid":""`) {
			t.Fatal("its account's uid is missing")
		}
	})
}

// Every JSON record that is understood can be written compact, and means the
// same then.
func FuzzCompactOfJSON(f *testing.F) {
	for _, record := range keyRecords() {
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, record string) {
		want, _, err := keystore.TwiceKey(record, someHash)
		if err != nil {
			return
		}
		raw, err := keystore.CompactKey(record, someHash)
		if err != nil {
			t.Fatalf("understood, but it cannot be written: %v", err)
		}
		got, _, _, _, err := keystore.ThroughCompactKey(raw, someHash)
		if diff := cmp.Diff(want, got, same); err != nil || diff != "" {
			t.Fatalf("%v (-JSON +compact)\n%s", err, diff)
		}
	})
}

func FuzzIndexEntry(f *testing.F) {
	const id = "0a1b2c3d-0000-4000-8000-00000000abcd"
	f.Add(id, someHash+":1780000000000")
	f.Add(id, someHash+":1780000000000:1790000000")
	for _, e := range []keystore.IndexEntry{{id, 1780000000000, someHash, 0}, {id, -1, someHash, 1790000000}} {
		field, value, _ := keystore.CompactIndex(e)
		f.Add(field, value)
		f.Add(id, value)
		f.Add(field, value[:35])
	}
	f.Fuzz(func(t *testing.T, field, value string) {
		e, err := keystore.ParseIndex(field, value)
		if err != nil {
			return
		}
		compactField, compact, ok := keystore.CompactIndex(e)
		if strings.HasPrefix(value, "\x02") && (!ok || compactField != field || compact != value) {
			t.Fatalf("%q: %q was accepted, and is written as %q: %q", field, value, compactField, compact)
		}
		if !ok {
			return
		}
		if again, err := keystore.ParseIndex(compactField, compact); err != nil || again != e {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}

// TestNoIDHasTwoForms: what is not a UUID in its canonical form stays as it is.
func TestNoIDHasTwoForms(t *testing.T) {
	for _, id := range []string{"6f1e", "0A1B2C3D-0000-4000-8000-00000000ABCD", "0a1b2c3d00004000800000000000abcd", "0a1b2c3d-0000-4000-80000-0000000abcd", strings.Repeat("-", 36)} {
		if field, _, ok := keystore.CompactIndex(keystore.IndexEntry{ID: id, TokenHash: someHash}); ok || field != id {
			t.Errorf("%s is written as %q", id, field)
		}
	}
}
