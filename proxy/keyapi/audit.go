package keyapi

import (
	"net/http"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// auditLog shows what was done, or refused, to the keys of the caller's account.
// A key sees nothing of users: their e-mail addresses are none of its business.
func (a *API) auditLog(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	filter, limit, cursor, err := contract.ReadEventQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	filter.Users = by.Key == nil
	events, next, err := a.o.Audit.AuditLog(r.Context(), by.Account.ID, filter, cursor, limit)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.PageOf(events, contract.ShowEvent, next))
}
