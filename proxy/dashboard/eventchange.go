package dashboard

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// changeView is one field that an event changed, in words. Of a list it says
// what was added and removed.
type changeView struct {
	Label string
	// Old and New are "" where there was or is nothing.
	Old, New       string
	Added, Removed []string
}

// maxShown bounds how much of a list a page repeats; exports have all of it.
const maxShown = 20

// value is a value of an event, in its one form: a list, a text, or neither.
type value struct {
	text   string // also of a number and of yes or no
	list   []string
	isList bool
	null   bool
}

func readValue(raw jsontext.Value) value {
	list, text := value{isList: true}, value{}
	switch {
	case raw.Kind() == jsontext.KindNull:
		return value{null: true}
	case raw.Kind() == jsontext.KindBeginArray && json.Unmarshal(raw, &list.list) == nil:
		return list
	case raw.Kind() == jsontext.KindString && json.Unmarshal(raw, &text.text) == nil:
		return text
	}
	return value{text: string(raw)}
}

// openChanges is up to how many changes are shown unasked.
const openChanges = 2

// showChanges says what the event changed. What made something has no values
// before, and what removed it none after.
func (view *eventView) showChanges(d *Dashboard, e keystore.Event, account keystore.Account) {
	made, removed := len(e.Changes) > 0, len(e.Changes) > 0
	for _, c := range e.Changes {
		made, removed = made && readValue(c.Old).null, removed && readValue(c.New).null
	}
	for _, c := range e.Changes {
		view.Changes = append(view.Changes, d.viewChange(c, !made && !removed, account))
	}
	switch n := len(e.Changes); {
	case made:
		view.ChangesLabel = "Details"
	case removed:
		view.ChangesLabel = "What it was"
	case n == 1:
		view.ChangesLabel, view.Open = "1 change", true
	default:
		view.ChangesLabel, view.Open = strconv.Itoa(n)+" changes", n <= openChanges
	}
}

// viewChange says what became of one field. In an update, what is not there is
// said too.
func (d *Dashboard) viewChange(c keystore.FieldChange, update bool, account keystore.Account) changeView {
	before, after := readValue(c.Old), readValue(c.New)
	view := changeView{Label: fieldLabel(c.Field)}
	if len(before.list) > 0 && len(after.list) > 0 {
		view.Added = d.wordsOfList(c.Field, missing(after.list, before.list), account)
		view.Removed = d.wordsOfList(c.Field, missing(before.list, after.list), account)
		if len(view.Added) == 0 && len(view.Removed) == 0 {
			view.New = "the same, in another order"
		}
		return view
	}
	view.Old, view.New = d.wordsOfValue(c.Field, before, account), d.wordsOfValue(c.Field, after, account)
	if !update || c.Field == "grace_ends_at" {
		return view
	}
	none := "none"
	if c.Field == "expires_at" {
		none = "never"
	}
	view.Old, view.New = cmp.Or(view.Old, none), cmp.Or(view.New, none)
	return view
}

// fieldLabel is what a field of the API is called on pages.
func fieldLabel(field string) string {
	switch field {
	case "allowed_ips":
		return "IP Restrictions"
	case "allowed_subaccounts":
		return "Subaccount Access"
	case "expires_at":
		return "Expiration"
	case "is_active":
		return "State"
	case "id":
		return "Id"
	case "token_preview":
		return "Token"
	case "grace_ends_at":
		return "Old token works until"
	case "email":
		return "E-mail address"
	case "must_change":
		return "Must choose a password"
	case "totp":
		return "Authenticator"
	}
	words := strings.ReplaceAll(field, "_", " ")
	if words == "" {
		return words
	}
	return strings.ToUpper(words[:1]) + words[1:]
}

// wordsOfValue is a value in words; "" for null.
func (d *Dashboard) wordsOfValue(field string, v value, account keystore.Account) string {
	switch {
	case v.null:
		return ""
	case v.isList && len(v.list) == 0:
		return wordsOfNone(field)
	case v.isList:
		return strings.Join(d.wordsOfList(field, v.list, account), ", ")
	}
	switch field {
	case "expires_at", "grace_ends_at":
		if at, err := unixTime(v.text); err == nil {
			return exact(at)
		}
	case "is_active":
		return yesOrNo(v.text, "active", "disabled")
	case "must_change", "disabled":
		return yesOrNo(v.text, "yes", "no")
	case "totp":
		return yesOrNo(v.text, "set up", "none")
	}
	return v.text
}

// wordsOfNone: where a key has no list of them, there is no restriction.
func wordsOfNone(field string) string {
	switch field {
	case "allowed_ips":
		return "any address"
	case "allowed_subaccounts":
		return "all subaccounts"
	}
	return "none"
}

func yesOrNo(text, yes, no string) string {
	switch text {
	case "true":
		return yes
	case "false":
		return no
	}
	return text
}

func (d *Dashboard) wordsOfList(field string, list []string, account keystore.Account) []string {
	shown := make([]string, 0, min(len(list), maxShown+1))
	for i, item := range list {
		if i == maxShown {
			return append(shown, fmt.Sprintf("… and %d more", len(list)-maxShown))
		}
		switch field {
		case "permissions":
			item = d.permissionLabel(policy.Permission(item))
		case "allowed_subaccounts":
			item = subaccountLabel(policy.SubaccountID(item), account)
		}
		shown = append(shown, item)
	}
	return shown
}

// permissionLabel names a permission as forms do: "Shared datacenter: read".
func (d *Dashboard) permissionLabel(p policy.Permission) string {
	for _, group := range [][]resourceView{d.resources(false), d.resources(true)} {
		for _, r := range group {
			if slices.Contains(r.Actions, string(p)) {
				return r.Name + ": " + p.Action()
			}
		}
	}
	return string(p)
}

// subaccountLabel names a subaccount, also one that the account has no more.
func subaccountLabel(id policy.SubaccountID, account keystore.Account) string {
	for _, s := range account.Subaccounts {
		if s.ID == id && s.Label != "" {
			return s.Label
		}
	}
	return string(id)
}

// missing are those of list that the other one has not.
func missing(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}

func unixTime(text string) (time.Time, error) {
	var seconds int64
	if err := json.Unmarshal([]byte(text), &seconds); err != nil {
		return time.Time{}, err
	}
	return time.Unix(seconds, 0).UTC(), nil
}
