package dashboard

import (
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

const (
	// unusedPermission and unusedKey are how long a permission, or a key, is
	// not used before its page says so.
	unusedPermission = 30 * 24 * time.Hour
	unusedKey        = 90 * 24 * time.Hour
	// adviceEvents is how many changes of a key are looked at.
	adviceEvents = 200
)

// advice is something about a key that its owner could make better.
type advice struct {
	Title, Text string
	// Items are what it is about, where it is about several.
	Items []string
	// Link leads to where it is done, which needs Needs.
	Link, Do string
	Needs    policy.Permission
}

// advise looks at how the key is used. Of one that does not work nothing is
// said but that it is there.
func (d *Dashboard) advise(v *visit, k policy.Key) ([]advice, error) {
	now := d.o.Now()
	if k.Expiry.Passed(now) || k.Replaced() {
		return nil, nil
	}
	list := []advice{}
	unused := k.CreatedAt.Before(now.Add(-unusedKey)) && k.LastUsedAt.Before(now.Add(-unusedKey))
	if unused {
		list = append(list, unusedAdvice(k))
	}
	if !k.Active {
		return list, nil
	}
	if !unused {
		idle, err := d.idlePermissions(v, k)
		if err != nil {
			return nil, err
		}
		if len(idle) > 0 {
			list = append(list, d.idleAdvice(k, idle))
		}
	}
	if k.Expiry.Never() {
		list = append(list, advice{
			Title: "This key never expires",
			Text:  "If its token leaks, it works for whoever has it until somebody notices. Set an expiry, and regenerate the key before it is reached.",
			Link:  keyPath(k.ID) + "/edit", Do: "Set an expiry", Needs: policy.UpdateKeys,
		})
	}
	return list, nil
}

func unusedAdvice(k policy.Key) advice {
	a := advice{
		Title: "Not used for more than 90 days",
		Text:  "If nothing needs this key any more, revoke it. If you are not sure, disable it first: it can be enabled again.",
		Link:  keyPath(k.ID) + "/revoke", Do: "Revoke this key", Needs: policy.DeleteKeys,
	}
	if k.LastUsedAt.IsZero() {
		a.Title = "Never used"
	}
	if !k.Active {
		a.Text = "It is disabled as well. If nobody has missed it, revoke it."
	}
	return a
}

func (d *Dashboard) idleAdvice(k policy.Key, idle policy.PermissionSet) advice {
	a := advice{
		Title: "Permissions that were not used in the last 30 days",
		Text:  "A key should hold what it needs, and no more: whoever gets hold of its token may do all of this. Take away what is not needed.",
		Link:  keyPath(k.ID) + "/edit", Do: "Edit permissions", Needs: policy.UpdateKeys,
	}
	for _, p := range idle {
		a.Items = append(a.Items, d.permissionLabel(p))
	}
	return a
}

// idlePermissions are those that the key has held, and could have used, for the
// last 30 days, and has not. A key that is younger has none, nor has one whose
// requests were not counted, or that was switched on meanwhile.
func (d *Dashboard) idlePermissions(v *visit, k policy.Key) (policy.PermissionSet, error) {
	since := d.o.Now().Add(-unusedPermission)
	if !v.caller.Permissions().Has(policy.ReadUsage) || k.CreatedAt.After(since) {
		return nil, nil
	}
	rows, err := d.o.Store.Usage(v.r.Context(), v.caller, keystore.UsageFilter{
		Key: k.ID, Step: keystore.ByDay, From: since, To: d.o.Now().Add(time.Second), ByPermission: true,
	})
	if err != nil {
		return nil, err
	}
	var used policy.PermissionSet
	for _, row := range rows {
		if groupOf(row.Outcome).reached() {
			used = append(used, row.Permission)
		}
	}
	if len(used) == 0 && k.LastUsedAt.After(since) {
		return nil, nil // it was used, and nobody counted
	}
	idle := used.Missing(k.Permissions.Intersect(v.caller.Permissions()))
	if len(idle) == 0 {
		return nil, nil
	}
	return d.heldSince(v, k, since, idle)
}

// heldSince leaves out what the key was given later; nothing is left where that
// cannot be told.
func (d *Dashboard) heldSince(v *visit, k policy.Key, since time.Time, idle policy.PermissionSet) (policy.PermissionSet, error) {
	changes, more, err := d.eventsPage(v, keystore.EventFilter{Key: k.ID, Action: keystore.KeyUpdate, Outcome: keystore.Done, From: since}, "", adviceEvents)
	if err != nil || more != "" {
		return nil, err
	}
	var given policy.PermissionSet
	for _, e := range changes {
		for _, c := range e.Changes {
			before, after := readValue(c.Old), readValue(c.New)
			switch c.Field {
			case "is_active":
				return nil, nil
			case "permissions":
				for _, p := range missing(after.list, before.list) {
					given = append(given, policy.Permission(p))
				}
			}
		}
	}
	return given.Missing(idle), nil
}
