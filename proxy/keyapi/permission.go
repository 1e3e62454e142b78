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

// permissionContext shows every permission there is, in groups, and those that
// the caller may hand on.
func (a *API) permissionContext(w http.ResponseWriter, _ *http.Request, by policy.Caller) error {
	return contract.Write(w, http.StatusOK, struct {
		Structure          contract.Structure `json:"structure"`
		AllowedPermissions []string           `json:"allowed_permissions"`
	}{a.structure, by.Permissions().Strings()})
}
