package contract

import (
	"slices"
	"strings"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// UpdateKey is the body of a request that changes a key. What is left out
// stays as it is.
type UpdateKey struct {
	Name               Given[string]   `json:"name"`
	Permissions        Given[[]string] `json:"permissions"`
	AllowedSubaccounts Given[[]string] `json:"allowed_subaccounts"`
	AllowedIPs         Given[[]string] `json:"allowed_ips"`
	ExpiresAt          Nullable[int64] `json:"expires_at"`
	IsActive           Given[bool]     `json:"is_active"`
}

// Parse checks every field that is there and returns the change that is asked
// for, or a 422 problem that names each fault. Empty permissions are ignored, as
// documented: a key always has some.
func (k UpdateKey) Parse(account *policy.Account, catalogue policy.Catalogue, now time.Time) (keystore.Update, error) {
	var wrong faults
	var u keystore.Update
	if k.Name.Present {
		name := requireName(k.Name.Value, &wrong)
		u.Name = &name
	}
	if k.Permissions.Present && len(k.Permissions.Value) > 0 {
		permissions := parsePermissions(k.Permissions.Value, catalogue, &wrong)
		u.Permissions = &permissions
	}
	if k.AllowedSubaccounts.Present {
		subaccounts := parseSubaccounts(k.AllowedSubaccounts.Value, account, &wrong)
		u.Subaccounts = &subaccounts
	}
	if k.AllowedIPs.Present {
		addresses := parseAddresses(k.AllowedIPs.Value, &wrong)
		u.Addresses = &addresses
	}
	if k.ExpiresAt.Present {
		expiry := parseExpiry(k.ExpiresAt.Value, now, &wrong)
		u.Expiry = &expiry
	}
	if k.IsActive.Present {
		u.Active = &k.IsActive.Value
	}
	if err := wrong.err(); err != nil {
		return keystore.Update{}, err
	}
	return u, nil
}

// updatedKey is a key as the answer to its update shows it.
type updatedKey struct {
	Key
	UpdatedFields []string `json:"updated_fields"`
}

// Updated is the answer to a request that changed a key. It names the fields
// that really have another value now.
func Updated(after, before policy.Key) Envelope {
	return Envelope{
		Success: true, Message: "API key updated successfully",
		Data: updatedKey{Key: ShowKey(after), UpdatedFields: changedFields(ShowKey(after), ShowKey(before))},
	}
}

func changedFields(after, before Key) []string {
	changed := []string{}
	add := func(field string, same bool) {
		if !same {
			changed = append(changed, field)
		}
	}
	add("name", after.Name == before.Name)
	add("permissions", slices.Equal(after.Permissions, before.Permissions))
	add("allowed_subaccounts", slices.Equal(after.AllowedSubaccounts, before.AllowedSubaccounts))
	add("allowed_ips", slices.Equal(after.AllowedIPs, before.AllowedIPs))
	add("expires_at", equal(after.ExpiresAt, before.ExpiresAt))
	add("is_active", after.IsActive == before.IsActive)
	return changed
}

func equal[T comparable](a, b *T) bool {
	return (a == nil) == (b == nil) && (a == nil || *a == *b)
}

// requireName reads a name that must not be empty.
func requireName(given string, wrong *faults) string {
	name, fault := readName(given)
	switch {
	case fault != "":
		wrong.add("name", fault)
	case strings.TrimSpace(name) == "":
		wrong.add("name", "A name is required.")
	}
	return name
}
