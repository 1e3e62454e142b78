package dashboard

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// keyFormPage is the form of a key as it is shown.
type keyFormPage struct {
	// Name and ID are of the key that is changed; "" for a new one.
	Name, ID string
	// Path is where the form is sent, Back where it is left to.
	Path, Back string
	FormID     string
	Shown      string // the marks of what the form showed first
	Typed      keyFields
	Errors     faults
	Quick      []quickExpiry
	Addresses  addressCheck
	CheckPath  string
	// Subaccounts are those to choose from, and those that only the key has.
	Subaccounts     []subaccountChoice
	LostSubaccounts bool
	Grants          grantTable
}

// searchFrom is how many subaccounts are listed before a search helps.
const searchFrom = 10

// Searchable reports whether there are too many subaccounts to look through.
func (p keyFormPage) Searchable() bool { return len(p.Subaccounts) > searchFrom }

// Chosen is how many subaccounts are ticked.
func (p keyFormPage) Chosen() int {
	n := 0
	for _, s := range p.Subaccounts {
		if s.Ticked {
			n++
		}
	}
	return n
}

// titled is the title of the page: who hears it learns of errors first.
func (p keyFormPage) titled(title string) string {
	if p.Errors.Any() {
		return "Error: " + title
	}
	return title
}

// complete adds what the session may choose from. key is nil for a new one.
func (d *Dashboard) complete(v *visit, p *keyFormPage, key *policy.Key) {
	if key != nil {
		p.ID, p.Name = string(key.ID), key.Name
	}
	p.CheckPath, p.Quick = checkAddressesPath, d.quickExpiries()
	p.Addresses = d.checkAddresses(v, p.Typed.Addresses)
	p.Subaccounts = d.subaccountChoices(v, p.Typed.Subaccounts, key)
	p.LostSubaccounts = slices.ContainsFunc(p.Subaccounts, func(s subaccountChoice) bool { return s.Lost })
	p.Grants = d.grantTable(v, p.Typed.Permissions, key)
}

// quickExpiry is one click instead of a date.
type quickExpiry struct {
	Do, Label string
	// Days is for the reader's own calendar, in which days have 23 to 25 hours.
	Days int
	At   time.Time
}

func (d *Dashboard) quickExpiries() []quickExpiry {
	now := d.o.Now().UTC().Truncate(time.Minute).Add(time.Minute)
	return []quickExpiry{
		{"expire-7", "7 days", 7, now.AddDate(0, 0, 7)},
		{"expire-30", "30 days", 30, now.AddDate(0, 0, 30)},
		{"expire-90", "90 days", 90, now.AddDate(0, 0, 90)},
		{"expire-365", "1 year", 365, now.AddDate(1, 0, 0)},
	}
}

// subaccountChoice is a subaccount to tick. One that the account does not have
// any more is there because the key names it.
type subaccountChoice struct {
	subaccountView
	Ticked, Lost bool
}

// subaccountChoices: only what the session may reach is offered.
func (d *Dashboard) subaccountChoices(v *visit, ticked []string, key *policy.Key) []subaccountChoice {
	var ids []policy.SubaccountID
	for _, s := range v.account.Subaccounts {
		if v.caller.MayReach(s.ID) {
			ids = append(ids, s.ID)
		}
	}
	offered := len(ids)
	if key != nil {
		for _, id := range key.Subaccounts.IDs() {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	list := make([]subaccountChoice, 0, len(ids))
	for i, s := range d.viewSubaccounts(ids, v.account) {
		list = append(list, subaccountChoice{subaccountView: s, Ticked: slices.Contains(ticked, s.ID), Lost: i >= offered})
	}
	return list
}

// apply does what a button of the form does that does not send it off: those
// who have script never come here.
func (d *Dashboard) apply(v *visit, do string, f *keyFields, key *policy.Key) {
	for _, quick := range d.quickExpiries() {
		if quick.Do == do {
			f.expireAt(quick.At)
		}
	}
	if action, bulk := strings.CutPrefix(do, "all-"); bulk {
		f.Permissions = d.grantTable(v, f.Permissions, key).withAll(action)
	}
	switch do {
	case "clear":
		f.Permissions = nil
	case "add-address":
		if own := v.caller.Client; own.IsValid() && !slices.Contains(f.Addresses, own.String()) {
			f.Addresses = append(f.Addresses, own.String())
		}
	}
}

// faults say what is wrong, field by field; under "" what is wrong with none.
type faults map[string][]string

// faultsOf puts an error where it belongs in the form.
func faultsOf(err error) faults {
	p, found := problem.From(err), faults{}
	var excess *policy.Excess
	if errors.As(err, &excess) {
		found.add(exceeding(excess), p.Detail)
		return found
	}
	for _, f := range p.Fields {
		field, _, _ := strings.Cut(f.Field, "[")
		found.add(field, forPeople(f.Detail))
	}
	if len(p.Fields) == 0 {
		found.add("", p.Detail)
	}
	return found
}

// forPeople leaves out of a sentence of the API what only programs need.
func forPeople(detail string) string {
	detail = strings.Replace(detail, ", in Unix seconds.", ".", 1)
	detail, _, _ = strings.Cut(detail, " See GET ")
	return detail
}

// exceeding is the field that asks for more than the session may give.
func exceeding(e *policy.Excess) string {
	switch {
	case len(e.Permissions) > 0:
		return permissionsField
	case e.AllSubaccounts || len(e.Subaccounts) > 0:
		return subaccountsField
	case e.AnyAddress || len(e.Addresses) > 0:
		return addressesField
	}
	return expiryField
}

func (f faults) add(field, detail string) {
	if !slices.Contains(fieldNames(), field) {
		field = ""
	}
	f[field] = append(f[field], detail)
}

// Any reports whether anything is wrong.
func (f faults) Any() bool { return len(f) > 0 }

// On is what is wrong with the field.
func (f faults) On(field string) []string { return f[field] }

// fieldFaults is what the summary says of one field.
type fieldFaults struct {
	Label, Anchor string
	Details       []string
}

// List is what is wrong in the order of the form.
func (f faults) List() []fieldFaults {
	var list []fieldFaults
	for _, field := range fieldNames() {
		if details := f[field]; len(details) > 0 {
			list = append(list, fieldFaults{Label: fieldLabel(field), Anchor: fieldAnchor(field), Details: details})
		}
	}
	return list
}

// fieldAnchor is the id of the element that a link to the field leads to.
func fieldAnchor(field string) string {
	if field == expiryField {
		return "expires_date"
	}
	return field
}

// capital begins a word with a capital letter.
func capital(word string) string {
	first, size := utf8.DecodeRuneInString(word)
	return strings.ToUpper(string(first)) + word[size:]
}
