package contract

import (
	"net/netip"
	"strconv"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

const (
	// maxAllowedIPs bounds the address list of a key.
	maxAllowedIPs = 100
	// endOfTime is the first second of the year 10000, which no date format
	// that clients use can show.
	endOfTime = 253402300800
	// onceWarning stands by every answer with a token.
	onceWarning = "This token will only be shown once. Please copy it now."
)

// NewKey is the body of a request that creates a key.
type NewKey struct {
	Name               string  `json:"name"`
	Permissions        Strings `json:"permissions"`
	AllowedSubaccounts Strings `json:"allowed_subaccounts"`
	AllowedIPs         Strings `json:"allowed_ips"`
	ExpiresAt          *int64  `json:"expires_at"`
}

// Parse checks every field and returns the key that is asked for, or a 422
// problem that names each fault. Whether the caller may create it is for the
// store to say.
func (k NewKey) Parse(account *policy.Account, catalogue policy.Catalogue, now time.Time) (keystore.NewKey, error) {
	var wrong faults
	parsed := keystore.NewKey{
		Name:        requireName(k.Name, &wrong),
		Permissions: parsePermissions(k.Permissions, catalogue, &wrong),
		Subaccounts: parseSubaccounts(k.AllowedSubaccounts, account, &wrong),
		Addresses:   parseAddresses(k.AllowedIPs, &wrong),
		Expiry:      parseExpiry(k.ExpiresAt, now, &wrong),
	}
	if len(k.Permissions) == 0 {
		wrong.add("permissions", "At least one permission is required.")
	}
	return parsed, wrong.err()
}

func parsePermissions(given []string, catalogue policy.Catalogue, wrong *faults) policy.PermissionSet {
	known := make([]policy.Permission, 0, len(catalogue.All()))
	for i, s := range given {
		if wrong.full() {
			break
		}
		if p := policy.Permission(s); catalogue.Has(p) {
			known = append(known, p)
		} else {
			wrong.addValue("permissions", i, s, " is not a permission. See GET /v4/account/api-keys/allowed-permissions.")
		}
	}
	return policy.NewPermissionSet(known...)
}

func parseSubaccounts(given []string, account *policy.Account, wrong *faults) []policy.SubaccountID {
	ids := make([]policy.SubaccountID, 0, len(given))
	for i, s := range given {
		if wrong.full() {
			break
		}
		id, err := policy.ParseSubaccountID(s)
		switch {
		case err != nil:
			wrong.addValue("allowed_subaccounts", i, s, " is not a UUID.")
		case !account.Subaccounts.Contains(id):
			wrong.addAt("allowed_subaccounts", i, string(id)+" is not a subaccount of this account.")
		default:
			ids = append(ids, id)
		}
	}
	return policy.OnlySubaccounts(ids...).IDs()
}

// parseAddresses: here, and only here, an empty list of addresses means that
// there is no restriction.
func parseAddresses(given []string, wrong *faults) policy.AddressSet {
	if len(given) == 0 {
		return policy.AnyAddress()
	}
	if len(given) > maxAllowedIPs {
		wrong.add("allowed_ips", "There must be at most "+strconv.Itoa(maxAllowedIPs)+" addresses.")
		return policy.AddressSet{}
	}
	prefixes := make([]netip.Prefix, 0, len(given))
	for i, s := range given {
		p, err := policy.ParsePrefix(s)
		if err != nil {
			wrong.addValue("allowed_ips", i, s, " is not an IPv4 or IPv6 address or CIDR range.")
			continue
		}
		prefixes = append(prefixes, p)
	}
	return policy.OnlyAddresses(prefixes...)
}

func parseExpiry(given *int64, now time.Time, wrong *faults) policy.Expiry {
	switch {
	case given == nil:
		return policy.NeverExpires()
	case *given <= now.Unix():
		wrong.add("expires_at", "The expiry must be in the future, in Unix seconds.")
	case *given >= endOfTime:
		wrong.add("expires_at", "The expiry must be before the year 10000, in Unix seconds.")
	}
	return policy.ExpiresAt(*given)
}

// Key is a key as listings show it.
type Key struct {
	ID                 string   `json:"id"`
	Name               string   `json:"name"`
	Permissions        []string `json:"permissions"`
	AllowedSubaccounts []string `json:"allowed_subaccounts"`
	AllowedIPs         []string `json:"allowed_ips"`
	ExpiresAt          *int64   `json:"expires_at"`
	IsActive           bool     `json:"is_active"`
	LastUsedAt         *int64   `json:"last_used_at"`
	TokenPreview       string   `json:"token_preview"`
	CreatedAt          int64    `json:"created_at"`
}

// ShowKey gives a key its documented form.
func ShowKey(k policy.Key) Key {
	return Key{
		ID: string(k.ID), Name: k.Name, Permissions: k.Permissions.Strings(),
		AllowedSubaccounts: ShowSubaccounts(k.Subaccounts), AllowedIPs: k.Addresses.Strings(),
		ExpiresAt: ShowExpiry(k.Expiry), IsActive: k.Active, LastUsedAt: showMoment(k.LastUsedAt),
		TokenPreview: k.Preview, CreatedAt: k.CreatedAt.Unix(),
	}
}

// showMoment is the Unix second of a moment; nil for never.
func showMoment(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	at := t.Unix()
	return &at
}

// createdKey is a key as the answer shows it that also has its token.
type createdKey struct {
	ID                 string   `json:"id"`
	Token              string   `json:"token"`
	Name               string   `json:"name"`
	Permissions        []string `json:"permissions"`
	AllowedSubaccounts []string `json:"allowed_subaccounts"`
	AllowedIPs         []string `json:"allowed_ips"`
	ExpiresAt          *int64   `json:"expires_at"`
	CreatedAt          int64    `json:"created_at"`
}

// Created is the answer to a request that created a key. It and Regenerated are
// the only places where a token is ever shown.
func Created(k policy.Key, t keystore.Token) Envelope {
	return Envelope{Success: true, Message: "API key created successfully", Data: showCreated(k, t), Warning: onceWarning}
}

func showCreated(k policy.Key, t keystore.Token) createdKey {
	return createdKey{
		ID: string(k.ID), Token: t.Reveal(), Name: k.Name, Permissions: k.Permissions.Strings(),
		AllowedSubaccounts: ShowSubaccounts(k.Subaccounts), AllowedIPs: k.Addresses.Strings(),
		ExpiresAt: ShowExpiry(k.Expiry), CreatedAt: k.CreatedAt.Unix(),
	}
}

// Revoked is the answer to a request that revoked a key.
func Revoked(id policy.KeyID, at time.Time) Envelope {
	return Envelope{
		Success: true, Message: "API key revoked successfully",
		Data: struct {
			ID        string `json:"id"`
			RevokedAt int64  `json:"revoked_at"`
		}{string(id), at.Unix()},
	}
}

// ShowSubaccounts lists a limited set; an empty list stands for all.
func ShowSubaccounts(s policy.SubaccountSet) []string {
	ids := make([]string, 0, len(s.IDs()))
	for _, id := range s.IDs() {
		ids = append(ids, string(id))
	}
	return ids
}

// ShowExpiry is the Unix second of an expiry; nil for none.
func ShowExpiry(e policy.Expiry) *int64 {
	if e.Never() {
		return nil
	}
	at := e.Unix()
	return &at
}
