package dashboard

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// keyFields are the fields of a key's form, as they were typed.
type keyFields struct {
	Name    string
	Expires bool
	// Date and Time are in UTC, as inputs of these types send them.
	Date, Time  string
	Addresses   []string
	Subaccounts []string
	Permissions []string
}

// The names of the fields, which are those of the API.
const (
	nameField        = "name"
	expiryField      = "expires_at"
	addressesField   = "allowed_ips"
	subaccountsField = "allowed_subaccounts"
	permissionsField = "permissions"
)

// fieldNames are the fields in the order of the form.
func fieldNames() []string {
	return []string{nameField, expiryField, addressesField, subaccountsField, permissionsField}
}

func readKeyFields(form url.Values) keyFields {
	return keyFields{
		Name: form.Get("name"), Expires: form.Has("expires"), Date: form.Get("expires_date"), Time: form.Get("expires_time"),
		Addresses: splitAddresses(form.Get("allowed_ips")), Subaccounts: form["allowed_subaccounts"], Permissions: form["permissions"],
	}
}

// splitAddresses reads a list as people paste it.
func splitAddresses(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n,;", r) })
}

// fieldsOf is what the form shows of the key. Permissions that do not exist
// any more cannot be shown.
func (d *Dashboard) fieldsOf(k policy.Key) keyFields {
	f := keyFields{
		Name: k.Name, Addresses: k.Addresses.Strings(), Subaccounts: contract.ShowSubaccounts(k.Subaccounts),
		Permissions: k.Permissions.Intersect(d.o.Catalogue.All()).Strings(),
	}
	if !k.Expiry.Never() {
		f.expireAt(time.Unix(k.Expiry.Unix(), 0))
	}
	return f
}

// expireAt sets the expiry, to the second.
func (f *keyFields) expireAt(at time.Time) {
	at = at.UTC()
	f.Expires, f.Date, f.Time = true, at.Format(time.DateOnly), at.Format("15:04")
	if at.Second() != 0 {
		f.Time = at.Format(time.TimeOnly)
	}
}

// expiry is the Unix second that was chosen; nil for none.
func (f *keyFields) expiry() (*int64, error) {
	if !f.Expires {
		return nil, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", time.DateTime} {
		if at, err := time.Parse(layout, f.Date+" "+f.Time); err == nil {
			second := at.Unix()
			return &second, nil
		}
	}
	return nil, problem.Invalid(problem.FieldError{Field: expiryField, Detail: "Choose a date and a time, or let the key not expire."})
}

// newKey is the key that is asked for, by the rules of the API, or a problem
// that names what is wrong with which field.
func (f *keyFields) newKey(account *policy.Account, catalogue policy.Catalogue, now time.Time) (keystore.NewKey, error) {
	expiry, wrong := f.expiry()
	asked, err := contract.NewKey{
		Name: f.Name, Permissions: f.Permissions, AllowedSubaccounts: f.Subaccounts, AllowedIPs: f.Addresses, ExpiresAt: expiry,
	}.Parse(account, catalogue, now)
	return asked, joinInvalid(wrong, joinInvalid(f.readable(), err))
}

// readable: bytes that are no text cannot be kept in a name.
func (f *keyFields) readable() error {
	if utf8.ValidString(f.Name) {
		return nil
	}
	return problem.Invalid(problem.FieldError{Field: nameField, Detail: "The name holds something that is no text (UTF-8). Enter it again."})
}

// update is the change from what the key holds to what was typed: nothing is
// asked for that is the same.
func (f *keyFields) update(current *keyFields, account *policy.Account, catalogue policy.Catalogue, now time.Time) (keystore.Update, error) {
	var body contract.UpdateKey
	var wrong error
	for _, field := range f.changed(current) {
		switch field {
		case nameField:
			body.Name, wrong = contract.Given[string]{Present: true, Value: f.Name}, f.readable()
		case expiryField:
			second, err := f.expiry()
			body.ExpiresAt = contract.Nullable[int64]{Present: err == nil, Value: second}
			wrong = joinInvalid(wrong, err)
		case addressesField:
			body.AllowedIPs = contract.Given[[]string]{Present: true, Value: f.Addresses}
		case subaccountsField:
			body.AllowedSubaccounts = contract.Given[[]string]{Present: true, Value: f.Subaccounts}
		case permissionsField:
			body.Permissions = contract.Given[[]string]{Present: true, Value: f.Permissions}
			if len(f.Permissions) == 0 { // the API ignores an empty list; somebody who unticked all of them means it
				wrong = joinInvalid(wrong, problem.Invalid(problem.FieldError{Field: permissionsField, Detail: "At least one permission is required."}))
			}
		}
	}
	asked, err := body.Parse(account, catalogue, now)
	return asked, joinInvalid(wrong, err)
}

// joinInvalid makes one problem of two that name fields.
func joinInvalid(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return problem.Invalid(append(slices.Clone(problem.From(a).Fields), problem.From(b).Fields...)...)
}

// value is a field in one spelling: two that mean the same are equal.
func (f *keyFields) value(field string) string {
	switch field {
	case nameField:
		return strings.TrimSpace(f.Name)
	case expiryField:
		at, err := f.expiry()
		switch {
		case err != nil:
			return f.Date + " " + f.Time
		case at == nil:
			return "never"
		}
		return strconv.FormatInt(*at, 10)
	case addressesField:
		return asSet(f.Addresses, func(s string) string {
			if p, err := policy.ParsePrefix(s); err == nil {
				return p.String()
			}
			return s
		})
	case subaccountsField:
		return asSet(f.Subaccounts, strings.ToLower)
	case permissionsField:
		return asSet(f.Permissions, strings.Clone)
	}
	return ""
}

func asSet(list []string, spell func(string) string) string {
	spelt := make([]string, 0, len(list))
	for _, s := range list {
		spelt = append(spelt, spell(s))
	}
	slices.Sort(spelt)
	return strings.Join(slices.Compact(spelt), "\n")
}

// changed are the fields that have another value than in the other fields.
func (f *keyFields) changed(other *keyFields) []string {
	return slices.DeleteFunc(fieldNames(), func(field string) bool { return f.value(field) == other.value(field) })
}

// marks stand for the values of all fields: a form carries those of what it
// showed, and so can tell which of them were changed, by whom.
func (f *keyFields) marks() string {
	list := make([]string, 0, len(fieldNames()))
	for _, field := range fieldNames() {
		sum := sha256.Sum256([]byte(f.value(field)))
		list = append(list, base64.RawURLEncoding.EncodeToString(sum[:9]))
	}
	return strings.Join(list, ".")
}

// changedSince are the fields that have another value than the form showed;
// all of them for marks that are none of ours.
func (f *keyFields) changedSince(marks string) []string {
	shown, now := strings.Split(marks, "."), strings.Split(f.marks(), ".")
	var changed []string
	for i, field := range fieldNames() {
		if len(shown) != len(now) || shown[i] != now[i] {
			changed = append(changed, field)
		}
	}
	return changed
}

// take copies a field of other fields.
func (f *keyFields) take(field string, from *keyFields) {
	switch field {
	case nameField:
		f.Name = from.Name
	case expiryField:
		f.Expires, f.Date, f.Time = from.Expires, from.Date, from.Time
	case addressesField:
		f.Addresses = from.Addresses
	case subaccountsField:
		f.Subaccounts = from.Subaccounts
	case permissionsField:
		f.Permissions = from.Permissions
	}
}
