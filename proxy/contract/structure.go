package contract

import "gatehouse/policy"

// Product is a product as the permission context shows it. Its permissions are
// those of the catalogue whose resource is its name.
type Product struct{ Name, Label string }

// Structure shows the catalogue in groups, as the dashboard does. Its member
// names are those of the documented API.
type Structure struct {
	Account Group `json:"account"`
	Product Group `json:"product"`
}

// Group is what belongs to the account, or to its products.
type Group struct {
	SubTypes []SubType `json:"sub_types"`
}

// SubType is one resource: a product, or something of the account.
type SubType struct {
	Name        string           `json:"name"`
	Description string           `json:"description"`
	Permissions []PermissionItem `json:"permissions"`
}

// PermissionItem is one permission, and what it is for.
type PermissionItem struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// NewStructure groups the permissions of the catalogue by what they are for.
func NewStructure(c policy.Catalogue, products []Product) Structure {
	var s Structure
	s.Account.add(c, "account:apikeys", "API keys", "Managing the API keys of this account.")
	s.Account.add(c, "account:audit", "Audit log", "Seeing who did what to the API keys of this account.")
	s.Account.add(c, "account:usage", "Usage", "Seeing how many requests the API keys of this account made.")
	s.Product.SubTypes = []SubType{}
	for _, p := range products {
		label := p.Label
		if label == "" {
			label = p.Name
		}
		s.Product.add(c, p.Name, label, "Using "+label+".")
	}
	return s
}

func (g *Group) add(c policy.Catalogue, resource, name, description string) {
	t := SubType{Name: name, Description: description}
	for _, p := range c.All() {
		if p.Resource() == resource {
			t.Permissions = append(t.Permissions, PermissionItem{ID: string(p), Name: p.Action(), Description: "May " + p.Action() + ": " + name + "."})
		}
	}
	if len(t.Permissions) > 0 {
		g.SubTypes = append(g.SubTypes, t)
	}
}
