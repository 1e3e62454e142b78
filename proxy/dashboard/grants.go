package dashboard

import (
	"slices"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// grantTable is what a key can be given, to tick: things of the account, and
// product by product.
type grantTable struct {
	Account []grantRow
	// Columns are the actions of products; each row of Products has a cell for
	// each of them.
	Columns  []grantColumn
	Products []grantRow
	// Lost are permissions of the key that the account has lost, Gone those that
	// do not exist any more.
	Lost, Gone []string
}

// grantColumn is an action. Bulk ones have a button that ticks them all.
type grantColumn struct {
	Action, Label string
	Bulk          bool
}

// grantRow is a product, or a thing of the account.
type grantRow struct {
	Name  string
	Cells []grantCell
}

// grantCell is one permission. An empty one, without ID, is no permission.
type grantCell struct {
	ID, Label    string
	Ticked, Lost bool
}

// bulkActions are those with a button, in the order of the columns.
func bulkActions() []string { return []string{"read", "write", "delete"} }

// grantTable offers what the session may grant, and shows what the key holds.
func (d *Dashboard) grantTable(v *visit, ticked []string, key *policy.Key) grantTable {
	table := grantTable{}
	mayGrant, held := v.caller.Permissions(), policy.PermissionSet(nil)
	if key != nil {
		held = key.Permissions
		table.Lost = mayGrant.Missing(held.Intersect(d.o.Catalogue.All())).Strings()
		table.Gone = d.o.Catalogue.All().Missing(held).Strings()
	}
	cell := func(id string) grantCell {
		p := policy.Permission(id)
		if !mayGrant.Has(p) && !held.Has(p) {
			return grantCell{}
		}
		return grantCell{ID: id, Label: capital(p.Action()), Ticked: slices.Contains(ticked, id), Lost: !mayGrant.Has(p)}
	}
	for _, t := range d.structure.Account.SubTypes {
		row := grantRow{Name: t.Name}
		for _, p := range t.Permissions {
			if c := cell(p.ID); c.ID != "" {
				row.Cells = append(row.Cells, c)
			}
		}
		if len(row.Cells) > 0 {
			table.Account = append(table.Account, row)
		}
	}
	table.addProducts(d.structure.Product.SubTypes, cell)
	return table
}

// addProducts makes a row of each product of which anything is offered, and a
// column of each action that any of them has.
func (t *grantTable) addProducts(products []contract.SubType, cell func(id string) grantCell) {
	byAction := make([]map[string]grantCell, len(products))
	actions := map[string]bool{}
	order := bulkActions()
	for i, product := range products {
		byAction[i] = map[string]grantCell{}
		for _, p := range product.Permissions {
			c, action := cell(p.ID), policy.Permission(p.ID).Action()
			if c.ID == "" {
				continue
			}
			byAction[i][action], actions[action] = c, true
			if !slices.Contains(order, action) {
				order = append(order, action)
			}
		}
	}
	for _, action := range order {
		if actions[action] {
			t.Columns = append(t.Columns, grantColumn{Action: action, Label: capital(action), Bulk: slices.Contains(bulkActions(), action)})
		}
	}
	for i, product := range products {
		if len(byAction[i]) == 0 {
			continue
		}
		row := grantRow{Name: product.Name}
		for _, column := range t.Columns {
			row.Cells = append(row.Cells, byAction[i][column.Action])
		}
		t.Products = append(t.Products, row)
	}
}

// withAll is what is ticked and, of each product, the action. What the account
// has lost is nobody's to tick.
func (t grantTable) withAll(action string) []string {
	var ticked []string
	for _, row := range t.Account {
		for _, c := range row.Cells {
			if c.Ticked {
				ticked = append(ticked, c.ID)
			}
		}
	}
	for _, row := range t.Products {
		for i, c := range row.Cells {
			if c.Ticked || c.ID != "" && !c.Lost && t.Columns[i].Action == action {
				ticked = append(ticked, c.ID)
			}
		}
	}
	return ticked
}
