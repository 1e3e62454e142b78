package dashboard

import (
	"fmt"
	"slices"
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
	switch raw.Kind() {
	case '[':
		v := value{isList: true}
		if json.Unmarshal(raw, &v.list) != nil {
			return value{text: string(raw)}
		}
		return v
	case '"':
		var v value
		if json.Unmarshal(raw, &v.text) != nil {
			return value{text: string(raw)}
		}
		return v
	case 'n':
		return value{null: true}
	}
	return value{text: string(raw)}
}

// viewChanges says what the event changed.
func (d *Dashboard) viewChanges(e keystore.Event, account keystore.Account) []changeView {
	changes := make([]changeView, 0, len(e.Changes))
	update := e.Action == keystore.KeyUpdate
	for _, c := range e.Changes {
		before, after := readValue(c.Old), readValue(c.New)
		view := changeView{Label: fieldLabel(c.Field)}
		if len(before.list) > 0 && len(after.list) > 0 {
			view.Added = d.wordsOfList(c.Field, missing(after.list, before.list), account)
			view.Removed = d.wordsOfList(c.Field, missing(before.list, after.list), account)
		} else {
			view.Old, view.New = d.wordsOfValue(c.Field, before, update, account), d.wordsOfValue(c.Field, after, update, account)
		}
		changes = append(changes, view)
	}
	return changes
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

// wordsOfValue is a value in words. In an update an expiry that is not there
// means something; in what creates and removes it does not.
func (d *Dashboard) wordsOfValue(field string, v value, update bool, account keystore.Account) string {
	switch {
	case v.null && field == "expires_at" && update:
		return "never"
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
