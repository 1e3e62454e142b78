package keystore

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/go-json-experiment/json"

	"gatehouse/policy"
)

// recordVersion is the version of all records but those that have a field
// more: of keys that were replaced (replacedVersion), and of accounts with a
// plan (planVersion). A record of another version is not understood, and so
// opens nothing; a record without the field stays one that earlier gateways
// understand.
const (
	recordVersion   = 1
	replacedVersion = 2
	planVersion     = 2

	userEventVersion = 2 // of events about a user
)

// errRecord is wrapped by everything that is wrong with a stored record. A
// record that is not fully understood could restrict more than was read, so
// it makes the store unavailable for its key.
var errRecord = errors.New("unreadable record")

// keyRecord is a key as it is stored. Every field must be there: nothing in a
// record means something by being absent or empty.
type keyRecord struct {
	Version        *int      `json:"v"`
	TokenHash      *string   `json:"token_hash"`
	ID             *string   `json:"id"`
	Account        *string   `json:"account"`
	AccountUID     *string   `json:"account_uid"`
	Name           *string   `json:"name"`
	Permissions    *[]string `json:"permissions"`
	AllSubaccounts *bool     `json:"all_subaccounts"`
	Subaccounts    *[]string `json:"subaccounts"`
	AnyAddress     *bool     `json:"any_address"`
	Addresses      *[]string `json:"addresses"`
	NeverExpires   *bool     `json:"never_expires"`
	ExpiresAt      *int64    `json:"expires_at"`
	Active         *bool     `json:"active"`
	Preview        *string   `json:"preview"`
	CreatedAt      *int64    `json:"created_at"`
	// ReplacedAt is that of a key that was replaced, and of no other.
	ReplacedAt *int64 `json:"replaced_at,omitempty"`
}

// understood reports whether the version is one that has these fields.
func (r *keyRecord) understood() bool {
	if r.ReplacedAt != nil {
		return *r.Version == replacedVersion
	}
	return *r.Version == recordVersion
}

// storedKey is a decoded key record with what only the store needs of it.
type storedKey struct {
	key        policy.Key
	tokenHash  string
	accountUID string
	// indexed is the time by which its index entry is ordered, in Unix
	// milliseconds; 0 where the key was found by its token.
	indexed int64
}

func encodeKey(k storedKey) (string, error) {
	version, created, expires := recordVersion, k.key.CreatedAt.Unix(), k.key.Expiry.Unix()
	var replacedAt *int64
	if k.key.Replaced() {
		at := k.key.ReplacedAt.Unix()
		version, replacedAt = replacedVersion, &at
	}
	id, account := string(k.key.ID), string(k.key.Account)
	permissions, addresses := k.key.Permissions.Strings(), k.key.Addresses.Strings()
	all, anyAddress, never := k.key.Subaccounts.All(), k.key.Addresses.Any(), k.key.Expiry.Never()
	subaccounts := subaccountStrings(k.key.Subaccounts)
	raw, err := json.Marshal(keyRecord{
		Version: &version, TokenHash: &k.tokenHash, ID: &id, Account: &account, AccountUID: &k.accountUID,
		Name: &k.key.Name, Permissions: &permissions, AllSubaccounts: &all, Subaccounts: &subaccounts,
		AnyAddress: &anyAddress, Addresses: &addresses, NeverExpires: &never, ExpiresAt: &expires,
		Active: &k.key.Active, Preview: &k.key.Preview, CreatedAt: &created, ReplacedAt: replacedAt,
	})
	if err != nil {
		return "", fmt.Errorf("encode key %s: %w", k.key.ID, err)
	}
	return string(raw), nil
}

// decodeKey reads the record that is stored under the token hash, in either
// form. A record that names another hash was delivered to the wrong reader and
// is refused.
func decodeKey(raw, tokenHash string) (*storedKey, error) {
	if isCompact(raw) {
		return decodeCompactKey(raw, tokenHash)
	}
	return decodeJSONKey(raw, tokenHash)
}

func decodeJSONKey(raw, tokenHash string) (*storedKey, error) {
	var r keyRecord
	if err := json.Unmarshal([]byte(raw), &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w of a key: %w", errRecord, err)
	}
	if r.Version == nil || !r.understood() || r.TokenHash == nil || r.ID == nil || r.Account == nil ||
		r.AccountUID == nil || r.Name == nil || r.Permissions == nil || r.AllSubaccounts == nil || r.Subaccounts == nil ||
		r.AnyAddress == nil || r.Addresses == nil || r.NeverExpires == nil || r.ExpiresAt == nil || r.Active == nil ||
		r.Preview == nil || r.CreatedAt == nil {
		return nil, fmt.Errorf("%w of a key: another version, or a field is missing", errRecord)
	}
	if *r.TokenHash != tokenHash {
		return nil, fmt.Errorf("%w of key %s: it belongs to another token", errRecord, *r.ID)
	}
	key := policy.Key{
		ID: policy.KeyID(*r.ID), Account: policy.AccountID(*r.Account), Name: *r.Name,
		Active: *r.Active, Preview: *r.Preview, CreatedAt: time.Unix(*r.CreatedAt, 0).UTC(),
		Expiry: policy.ExpiresAt(*r.ExpiresAt), Permissions: make(policy.PermissionSet, len(*r.Permissions)),
	}
	if *r.NeverExpires && *r.ExpiresAt != 0 {
		return nil, fmt.Errorf("%w of key %s: it expires and never expires", errRecord, *r.ID)
	}
	if *r.NeverExpires && r.ReplacedAt != nil {
		return nil, fmt.Errorf("%w of key %s: it was replaced and never expires", errRecord, *r.ID)
	}
	if r.ReplacedAt != nil {
		key.ReplacedAt = time.Unix(*r.ReplacedAt, 0).UTC()
	}
	if *r.NeverExpires {
		key.Expiry = policy.NeverExpires()
	}
	for i, p := range *r.Permissions {
		key.Permissions[i] = policy.Permission(p)
	}
	var err error
	if key.Subaccounts, err = decodeSubaccounts(*r.AllSubaccounts, *r.Subaccounts); err != nil {
		return nil, fmt.Errorf("%w of key %s: %w", errRecord, *r.ID, err)
	}
	if key.Addresses, err = decodeAddresses(*r.AnyAddress, *r.Addresses); err != nil {
		return nil, fmt.Errorf("%w of key %s: %w", errRecord, *r.ID, err)
	}
	return &storedKey{key: key, tokenHash: tokenHash, accountUID: *r.AccountUID}, nil
}

func decodeSubaccounts(all bool, ids []string) (policy.SubaccountSet, error) {
	if all && len(ids) > 0 {
		return policy.SubaccountSet{}, errors.New("it is limited to subaccounts and not limited")
	}
	if all {
		return policy.AllSubaccounts(), nil
	}
	only := make([]policy.SubaccountID, 0, len(ids))
	for _, s := range ids {
		id, err := policy.ParseSubaccountID(s)
		if err != nil {
			return policy.SubaccountSet{}, fmt.Errorf("subaccount %q: %w", s, err)
		}
		only = append(only, id)
	}
	return policy.OnlySubaccounts(only...), nil
}

func decodeAddresses(anyAddress bool, ranges []string) (policy.AddressSet, error) {
	if anyAddress && len(ranges) > 0 {
		return policy.AddressSet{}, errors.New("it is limited to addresses and not limited")
	}
	if anyAddress {
		return policy.AnyAddress(), nil
	}
	only := make([]netip.Prefix, 0, len(ranges))
	for _, s := range ranges {
		p, err := policy.ParsePrefix(s)
		if err != nil {
			return policy.AddressSet{}, fmt.Errorf("address %q: %w", s, err)
		}
		only = append(only, p)
	}
	return policy.OnlyAddresses(only...), nil
}

// accountRecord is an account as it is stored; every field must be there, but
// the plan of one that has none.
type accountRecord struct {
	Version *int `json:"v"`
	// UID tells this account from an earlier one of the same id: keys of a
	// deleted account stay dead when its id is used again.
	UID         *string             `json:"uid"`
	ID          *string             `json:"id"`
	Name        *string             `json:"name"`
	Status      *string             `json:"status"`
	Permissions *[]string           `json:"permissions"`
	Subaccounts *[]subaccountRecord `json:"subaccounts"`
	CreatedAt   *int64              `json:"created_at"`
	UpdatedAt   *int64              `json:"updated_at"`
	Plan        *string             `json:"plan,omitempty"`
}

// understood reports whether the version is one that has these fields.
func (r *accountRecord) understood() bool {
	if r.Plan != nil {
		return *r.Version == planVersion && *r.Plan != ""
	}
	return *r.Version == recordVersion
}

type subaccountRecord struct {
	ID      string `json:"id"`
	Label   string `json:"label"`
	Product string `json:"product"`
}

// storedAccount is a decoded account record.
type storedAccount struct {
	account Account
	uid     string
	rules   policy.Account
}

func encodeAccount(a storedAccount) (string, error) {
	version, created, updated := recordVersion, a.account.CreatedAt.Unix(), a.account.UpdatedAt.Unix()
	var plan *string
	if a.account.Plan != "" {
		version, plan = planVersion, &a.account.Plan
	}
	id, status := string(a.account.ID), string(a.account.Status)
	permissions := append([]string{}, a.account.Permissions...)
	subaccounts := make([]subaccountRecord, 0, len(a.account.Subaccounts))
	for _, s := range a.account.Subaccounts {
		subaccounts = append(subaccounts, subaccountRecord{string(s.ID), s.Label, s.Product})
	}
	raw, err := json.Marshal(accountRecord{
		Version: &version, UID: &a.uid, ID: &id, Name: &a.account.Name, Status: &status,
		Permissions: &permissions, Subaccounts: &subaccounts, CreatedAt: &created, UpdatedAt: &updated, Plan: plan,
	})
	if err != nil {
		return "", fmt.Errorf("encode account %s: %w", id, err)
	}
	return string(raw), nil
}

// decodeAccount reads the record that is stored under the account's id; its
// grants are resolved against the catalogue as it is now. A record that names
// another account was delivered to the wrong reader and is refused.
func decodeAccount(raw string, stored policy.AccountID, catalogue policy.Catalogue) (*storedAccount, error) {
	var r accountRecord
	if err := json.Unmarshal([]byte(raw), &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w of an account: %w", errRecord, err)
	}
	if r.Version == nil || !r.understood() || r.UID == nil || r.ID == nil || r.Name == nil || r.Status == nil ||
		r.Permissions == nil || r.Subaccounts == nil || r.CreatedAt == nil || r.UpdatedAt == nil {
		return nil, fmt.Errorf("%w of an account: another version, or a field is missing", errRecord)
	}
	if *r.ID != string(stored) {
		return nil, fmt.Errorf("%w of account %s: it belongs to account %s", errRecord, stored, *r.ID)
	}
	a := &storedAccount{uid: *r.UID, account: Account{
		ID: policy.AccountID(*r.ID), Name: *r.Name, Status: policy.Status(*r.Status), Permissions: *r.Permissions,
		CreatedAt: time.Unix(*r.CreatedAt, 0).UTC(), UpdatedAt: time.Unix(*r.UpdatedAt, 0).UTC(),
	}}
	if r.Plan != nil {
		a.account.Plan = *r.Plan
	}
	ids := make([]policy.SubaccountID, 0, len(*r.Subaccounts))
	for _, s := range *r.Subaccounts {
		id, err := policy.ParseSubaccountID(s.ID)
		if err != nil {
			return nil, fmt.Errorf("%w of account %s: subaccount %q: %w", errRecord, *r.ID, s.ID, err)
		}
		ids = append(ids, id)
		a.account.Subaccounts = append(a.account.Subaccounts, policy.Subaccount{ID: id, Label: s.Label, Product: s.Product})
	}
	a.rules = policy.Account{
		ID: a.account.ID, Status: a.account.Status, Plan: a.account.Plan,
		Permissions: catalogue.Resolve(a.account.Permissions), Subaccounts: policy.OnlySubaccounts(ids...),
	}
	return a, nil
}
