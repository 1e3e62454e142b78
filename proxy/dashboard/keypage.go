package dashboard

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// keyEvents is how many of its events the page of a key shows.
const keyEvents = 10

// keyPageRoutes are the pages of single keys.
func (d *Dashboard) keyPageRoutes() []*route {
	return []*route{{pattern: "GET " + keysPath + "/{id}", needs: policy.ReadKeys, answer: d.showKey}}
}

// keyContent is all about one key.
type keyContent struct {
	Key keyView
	// Abilities say what the key may do now, in sentences. Withheld are
	// permissions that it holds and its account does not.
	Abilities []string
	Withheld  []string
	// AllSubaccounts and AnyAddress: there is no restriction. Without them an
	// empty list means none at all.
	AllSubaccounts, AnyAddress bool
	Path                       string
	Advice                     []advice
	Usage                      *usageChart // nil: the account may not see it
	Events                     []eventView
	MoreEvents                 string
	Audited                    bool // the account may see events
}

// showKey shows one key of the account.
func (d *Dashboard) showKey(v *visit) error {
	id := policy.KeyID(v.r.PathValue("id"))
	if !contract.IsKeyID(string(id)) {
		return keystore.ErrNotFound // as for a key that there is not
	}
	k, err := d.o.Store.Get(v.r.Context(), v.caller, id)
	if err != nil {
		return err
	}
	has := v.caller.Permissions().Has
	content := keyContent{
		Key: d.viewKey(k, v.account), Withheld: v.caller.Permissions().Missing(k.Permissions).Strings(), Path: keyPath(id),
		AllSubaccounts: k.Subaccounts.All(), AnyAddress: k.Addresses.Any(), Audited: has(policy.ReadAudit),
	}
	for _, products := range []bool{true, false} { // what the key is for comes first
		for _, r := range d.viewPermissions(k.Permissions.Intersect(v.caller.Permissions())) {
			if r.Product == products {
				content.Abilities = append(content.Abilities, r.ability())
			}
		}
	}
	if has(policy.ReadUsage) {
		if content.Usage, err = d.usageOf(v, id); err != nil {
			return err
		}
	}
	if content.Advice, err = d.advise(v, k); err != nil {
		return err
	}
	if content.Audited {
		events, next, err := d.eventsPage(v, keystore.EventFilter{Key: id}, "", keyEvents)
		if err != nil {
			return err
		}
		if content.Events, err = d.viewEvents(d.newNaming(v), events); err != nil {
			return err
		}
		if next != "" {
			content.MoreEvents = auditOf(id)
		}
	}
	return d.show(v, page{name: "key", title: k.Name, current: keysPath, scripts: []string{"audit.js"}, content: content})
}

// ability says in a sentence what a key may do with the resource.
func (r resourceView) ability() string {
	of := r.Name
	if !r.Product {
		of = "this account’s " + uncapitalized(r.Name)
	}
	return "May " + inWords(r.Actions) + " " + of
}

// uncapitalized is the text as it stands in a sentence. "API keys" stays.
func uncapitalized(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	second, _ := utf8.DecodeRuneInString(s[size:])
	if unicode.IsUpper(second) {
		return s
	}
	return string(unicode.ToLower(first)) + s[size:]
}

// inWords joins what is listed: "read, write and delete".
func inWords(list []string) string {
	list = slices.Clone(list)
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	last := len(list) - 1
	return strings.Join(list[:last], ", ") + " and " + list[last]
}
