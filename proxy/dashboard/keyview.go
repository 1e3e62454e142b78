package dashboard

import (
	"fmt"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// soon is how long before its expiry a key is said to expire soon.
const soon = 7 * 24 * time.Hour

// keyState is what a key is, in the words of the pages and of their filter.
type keyState string

const (
	stateActive   keyState = "active"
	stateSoon     keyState = "soon"
	stateDisabled keyState = "disabled"
	stateExpired  keyState = "expired"
	// stateReplaced is that of a key which works on until its grace ends.
	stateReplaced keyState = "replaced"
)

// Class is the name of the state in style sheets and queries.
func (s keyState) Class() string { return string(s) }

func (s keyState) String() string {
	switch s {
	case stateActive:
		return "Active"
	case stateSoon:
		return "Expires soon"
	case stateDisabled:
		return "Disabled"
	case stateExpired:
		return "Expired"
	case stateReplaced:
		return "Replaced"
	}
	return string(s)
}

func stateOf(k policy.Key, now time.Time) keyState {
	switch {
	case k.Expiry.Passed(now):
		return stateExpired
	case !k.Active:
		return stateDisabled
	case k.Replaced():
		return stateReplaced
	case !k.Expiry.Never() && k.Expiry.Passed(now.Add(soon)):
		return stateSoon
	}
	return stateActive
}

// keyView is a key as pages show it.
type keyView struct {
	policy.Key
	State       keyState
	Permissions []resourceView
	Subaccounts []subaccountView // none: all
	Addresses   []string         // none: any
	// ExpiresAt, CreatedAt and LastUsedAt are zero for never.
	ExpiresAt time.Time
}

// resourceView is what a key may do with one product, or with one thing of the
// account: "Shared datacenter", and read and write.
type resourceView struct {
	Name    string
	Product bool
	Actions []string
	Full    bool // these are all actions that there are
}

// subaccountView is a subaccount with the label of its product. One that the
// account does not have any more has no label.
type subaccountView struct {
	ID, Label, Product string
	Hue                int // of its chip, by its product: 0 to 7
}

// hues is how many colours of chips there are in css/keys.css.
const hues = 8

func (d *Dashboard) viewKey(k policy.Key, account keystore.Account) keyView {
	view := keyView{Key: k, State: stateOf(k, d.o.Now()), Permissions: d.viewPermissions(k.Permissions)}
	if !k.Expiry.Never() {
		view.ExpiresAt = time.Unix(k.Expiry.Unix(), 0).UTC()
	}
	if !k.Addresses.Any() {
		view.Addresses = k.Addresses.Strings()
	}
	if !k.Subaccounts.All() {
		view.Subaccounts = d.viewSubaccounts(k.Subaccounts.IDs(), account)
	}
	return view
}

// viewPermissions groups permissions as the structure of the API does, in its order.
func (d *Dashboard) viewPermissions(held policy.PermissionSet) []resourceView {
	var list []resourceView
	for i, group := range [][]resourceView{d.resources(false), d.resources(true)} {
		for _, r := range group {
			var actions []string
			for _, action := range r.Actions {
				if held.Has(policy.Permission(action)) {
					actions = append(actions, policy.Permission(action).Action())
				}
			}
			if len(actions) > 0 {
				list = append(list, resourceView{Name: r.Name, Product: i == 1, Actions: actions, Full: len(actions) == len(r.Actions)})
			}
		}
	}
	return list
}

// resources are those of the account, or the products, with all permissions.
func (d *Dashboard) resources(products bool) []resourceView {
	group := d.structure.Account
	if products {
		group = d.structure.Product
	}
	var list []resourceView
	for _, t := range group.SubTypes {
		r := resourceView{Name: t.Name, Product: products}
		for _, p := range t.Permissions {
			r.Actions = append(r.Actions, p.ID)
		}
		list = append(list, r)
	}
	return list
}

func (d *Dashboard) viewSubaccounts(ids []policy.SubaccountID, account keystore.Account) []subaccountView {
	list := make([]subaccountView, 0, len(ids))
	for _, id := range ids {
		s := subaccountView{ID: string(id)}
		for _, known := range account.Subaccounts {
			if known.ID == id {
				s.Label, s.Product, s.Hue = known.Label, d.productLabel(known.Product), d.hueOf(known.Product)
			}
		}
		list = append(list, s)
	}
	return list
}

func (d *Dashboard) productLabel(name string) string {
	for _, p := range d.o.Products {
		if p.Name == name && p.Label != "" {
			return p.Label
		}
	}
	return name
}

func (d *Dashboard) hueOf(product string) int {
	for i, p := range d.o.Products {
		if p.Name == product {
			return i % hues
		}
	}
	return 0
}

// ago says how long something is past or ahead, in words: "3 days ago", "in 2 hours".
func ago(t, now time.Time) string {
	distance, form := now.Sub(t), "%s ago"
	if distance < 0 {
		distance, form = -distance, "in %s"
	}
	for _, unit := range timeUnits() {
		if distance < unit.long {
			continue
		}
		n := int(distance / unit.long)
		words := fmt.Sprintf("%d %s", n, unit.name)
		if n != 1 {
			words += "s"
		}
		return fmt.Sprintf(form, words)
	}
	return fmt.Sprintf(form, "less than a minute")
}

type timeUnit struct {
	name string
	long time.Duration
}

func timeUnits() []timeUnit {
	const day = 24 * time.Hour
	return []timeUnit{{"year", 365 * day}, {"month", 30 * day}, {"day", day}, {"hour", time.Hour}, {"minute", time.Minute}}
}

// keyPath is where the page of a key is.
func keyPath(id policy.KeyID) string { return keysPath + "/" + string(id) }
