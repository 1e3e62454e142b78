package dashboard

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// auditFilter is which events are asked for, as typed, and what that means.
type auditFilter struct {
	Key, Action, Outcome, From, Until string
	// Errors say what is wrong with a field, by its name.
	Errors map[string]string
	// KeyName is what the key is called that the filter names by its id.
	KeyName string
	filter  keystore.EventFilter
}

// auditTimes are the forms of a time in a filter: those of a datetime-local
// field, or a day. All are UTC: a page without script knows no other.
func auditTimes() []string {
	return []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.DateOnly}
}

// readAuditFilter reads the filter of a query. People see what users did too:
// whoever may read the audit log is to know who signed in, and who let them.
func readAuditFilter(n *naming, q url.Values) (auditFilter, error) {
	f := auditFilter{
		Key: strings.TrimSpace(q.Get("key")), Action: q.Get("action"), Outcome: q.Get("outcome"), From: q.Get("from"), Until: q.Get("until"),
		Errors: map[string]string{}, filter: keystore.EventFilter{Users: true},
	}
	if err := f.readKey(n); err != nil {
		return f, err
	}
	f.filter.Action, f.filter.Outcome = keystore.Action(f.Action), f.Outcome
	if f.Action != "" && !slices.Contains(keystore.Actions(), f.filter.Action) {
		f.Errors["action"] = "There is no such action."
	}
	if f.Outcome != "" && f.Outcome != keystore.Done && f.Outcome != keystore.NotDone {
		f.Errors["outcome"] = "There is no such outcome."
	}
	f.filter.From = f.readTime("from", f.From)
	f.filter.To = f.readTime("until", f.Until)
	if !f.filter.From.IsZero() && !f.filter.To.IsZero() && !f.filter.From.Before(f.filter.To) {
		f.Errors["until"] = "The end must be later than the beginning."
	}
	return f, nil
}

// readKey finds the key that is meant: by its id, also when it is gone, by its
// token's preview, or by its name where one key alone has it.
func (f *auditFilter) readKey(n *naming) error {
	if f.Key == "" {
		return nil
	}
	if contract.IsKeyID(f.Key) {
		f.filter.Key = policy.KeyID(f.Key)
		k, err := n.key(f.filter.Key)
		f.KeyName = k.Name
		return err
	}
	all, err := n.allKeys()
	if err != nil {
		return err
	}
	for _, k := range all {
		switch {
		case k.Name != f.Key && k.Preview != f.Key:
		case f.filter.Key != "":
			f.Errors["key"] = "Several keys are called so. Use the id of one of them, which its page shows."
		default:
			f.filter.Key, f.KeyName = k.ID, k.Name
		}
	}
	if f.filter.Key == "" {
		f.Errors["key"] = "There is no key of this name. One that is gone can be found by its id."
	}
	return nil
}

func (f *auditFilter) readTime(field, text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	for _, layout := range auditTimes() {
		if at, err := time.Parse(layout, text); err == nil {
			return at
		}
	}
	f.Errors[field] = "This is no date and time, such as 2026-01-31T08:00."
	return time.Time{}
}

// query spells the filter, with a cursor where there is one.
func (f auditFilter) query(cursor string) string {
	q := url.Values{}
	for name, value := range map[string]string{
		"key": f.Key, "action": f.Action, "outcome": f.Outcome, "from": f.From, "until": f.Until, "cursor": cursor,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q.Encode()
}

// Any reports whether the filter leaves anything out.
func (f auditFilter) Any() bool { return f.query("") != "" }

// option is a choice of a filter.
type option struct{ Value, Label string }

// actionOptions are the actions by what they are done to.
func actionOptions() []optionGroup {
	group := func(label, prefix string) optionGroup {
		g := optionGroup{Label: label}
		for _, a := range keystore.Actions() {
			if strings.HasPrefix(string(a), prefix) {
				g.Options = append(g.Options, option{string(a), actionLabel(a)})
			}
		}
		return g
	}
	return []optionGroup{group("Keys", "key."), group("Users", "user."), group("Account", "account.")}
}

type optionGroup struct {
	Label   string
	Options []option
}

func actionLabel(a keystore.Action) string {
	switch a {
	case keystore.KeyCreate:
		return "Create a key"
	case keystore.KeyUpdate:
		return "Change a key"
	case keystore.KeyRevoke:
		return "Revoke a key"
	case keystore.KeyRegenerate:
		return "Regenerate a key"
	case keystore.AccountPut:
		return "Change the account"
	case keystore.AccountDelete:
		return "Delete the account"
	case keystore.AccountImport:
		return "Import the account"
	case keystore.UserCreate:
		return "Add a user"
	case keystore.UserUpdate:
		return "Change a user"
	case keystore.UserDelete:
		return "Remove a user"
	case keystore.UserPassword:
		return "Choose or set a password"
	case keystore.UserTOTP:
		return "Set up or remove an authenticator"
	case keystore.UserSignIn:
		return "Sign in"
	case keystore.UserSignOut:
		return "End sessions"
	}
	return string(a)
}
