package dashboard

import (
	"strings"
	"time"

	"gatehouse/policy"
)

// idle is after which time without a request a key is said to be unused.
const idle = 90 * 24 * time.Hour

// unused reports whether a key that works was not used for so long that it may
// not be needed.
func unused(k policy.Key, now time.Time) bool {
	since := k.CreatedAt
	if k.LastUsedAt.After(since) {
		since = k.LastUsedAt
	}
	return works(k, now) && !k.Replaced() && now.Sub(since) >= idle
}

// forever reports whether a key works until somebody does something about it.
func forever(k policy.Key, now time.Time) bool { return works(k, now) && k.Expiry.Never() }

// works reports whether requests with the key are let through at all.
func works(k policy.Key, now time.Time) bool { return k.Active && !k.Expiry.Passed(now) }

const (
	// shownGrants is how many lines of permissions a row has, shownChips how
	// many addresses and how many subaccounts.
	shownGrants = 3
	shownChips  = 2
)

// keyRow is a key in the list, in short.
type keyRow struct {
	keyView
	Grants []grant
	// More* is how many are not shown.
	MoreGrants, MoreAddresses, MoreSubaccounts int
	// Superseded: the key was replaced, and works until its expiry alone.
	Superseded      bool
	Unused, Forever bool
	// May* is what the menu of the row offers.
	MayEdit, MayDisable, MayEnable, MayRegenerate, MayRevoke bool
	// Back is the query of the list, for the way back to it.
	Back string
}

// HasMenu reports whether there is anything to be done with the key.
func (r keyRow) HasMenu() bool { return r.MayEdit || r.MayRegenerate || r.MayRevoke }

func (d *Dashboard) rowOf(k policy.Key, v *visit, q keyQuery) keyRow {
	now, may := d.o.Now(), v.caller.Permissions().Has
	row := keyRow{
		keyView: d.viewKey(k, v.account), Grants: d.grantsOf(k.Permissions), Superseded: k.Replaced(),
		Unused: unused(k, now), Forever: forever(k, now), Back: q.Encode(),
	}
	row.Grants, row.MoreGrants = shorten(row.Grants, shownGrants)
	row.Addresses, row.MoreAddresses = shorten(row.Addresses, shownChips)
	row.Subaccounts, row.MoreSubaccounts = shorten(row.Subaccounts, shownChips)
	row.MayEdit = may(policy.UpdateKeys) && !row.Superseded
	row.MayDisable, row.MayEnable = row.MayEdit && k.Active, row.MayEdit && !k.Active
	row.MayRegenerate = may(policy.RegenerateKeys) && !row.Superseded
	row.MayRevoke = may(policy.DeleteKeys)
	return row
}

// shorten leaves the first few of a list, and says how many more there are. One
// more alone is shown: it takes no more room than saying so.
func shorten[T any](list []T, few int) ([]T, int) {
	if len(list) <= few+1 {
		return list, 0
	}
	return list[:few], len(list) - few
}

// grant is a line that says what a key may do: "All products", "read, write".
type grant struct{ Name, Actions string }

// manyActions is from how many on they are not listed one by one, where the key
// holds all of them.
const manyActions = 4

// grantsOf says what a key may do in short: products first, and all of them in
// one line where the key may do the same with each.
func (d *Dashboard) grantsOf(held policy.PermissionSet) []grant {
	if len(held.Missing(d.o.Catalogue.All())) == 0 {
		return []grant{{"Everything", "all permissions"}}
	}
	var products, account []grant
	full, same := true, true
	for _, r := range d.viewPermissions(held) {
		g := grant{r.Name, strings.Join(r.Actions, ", ")}
		if r.Full && len(r.Actions) >= manyActions {
			g.Actions = "all actions"
		}
		if !r.Product {
			account = append(account, g)
			continue
		}
		products = append(products, g)
		full, same = full && r.Full, same && g.Actions == products[0].Actions
	}
	if all := len(d.resources(true)); all > 1 && len(products) == all && (full || same) {
		joined := grant{"All products", products[0].Actions}
		if full && !same {
			joined.Actions = "all actions"
		}
		products = []grant{joined}
	}
	return append(products, account...)
}
