package keyapi

import (
	"net/http"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// allowedPermissions lists what the caller may hand on: what it holds itself.
func (a *API) allowedPermissions(w http.ResponseWriter, _ *http.Request, by policy.Caller) error {
	return contract.Write(w, http.StatusOK, struct {
		AllowedPermissions []string `json:"allowed_permissions"`
	}{by.Permissions().Strings()})
}

// structure shows the catalogue as the dashboard groups it. The member names are
// those of the documented API.
type structure struct {
	Account group `json:"account"`
	Product group `json:"product"`
}

type group struct {
	SubTypes []subType `json:"sub_types"`
}

type subType struct {
	Name        string       `json:"name"`
	Description string       `json:"description"`
	Permissions []permission `json:"permissions"`
}

type permission struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// newStructure groups the permissions of the catalogue by what they are for.
func newStructure(o Options) structure {
	var s structure
	s.Account.add(o.Catalogue, "account:apikeys", "API keys", "Managing the API keys of this account.")
	s.Account.add(o.Catalogue, "account:audit", "Audit log", "Seeing who did what to the API keys of this account.")
	s.Account.add(o.Catalogue, "account:usage", "Usage", "Seeing how many requests the API keys of this account made.")
	s.Product.SubTypes = []subType{}
	for _, p := range o.Products {
		label := p.Label
		if label == "" {
			label = p.Name
		}
		s.Product.add(o.Catalogue, p.Name, label, "Using "+label+".")
	}
	return s
}

func (g *group) add(c policy.Catalogue, resource, name, description string) {
	t := subType{Name: name, Description: description}
	for _, p := range c.All() {
		if p.Resource() == resource {
			t.Permissions = append(t.Permissions, permission{ID: string(p), Name: p.Action(), Description: "May " + p.Action() + ": " + name + "."})
		}
	}
	if len(t.Permissions) > 0 {
		g.SubTypes = append(g.SubTypes, t)
	}
}

// permissionContext shows every permission there is, in groups, and those that
// the caller may hand on.
func (a *API) permissionContext(w http.ResponseWriter, _ *http.Request, by policy.Caller) error {
	return contract.Write(w, http.StatusOK, struct {
		Structure          structure `json:"structure"`
		AllowedPermissions []string  `json:"allowed_permissions"`
	}{a.structure, by.Permissions().Strings()})
}
