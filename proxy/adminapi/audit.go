package adminapi

import (
	"net/http"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// auditLog shows the audit trail of an account, also of one that was deleted,
// and of earlier ones of the same id.
func (a *API) auditLog(w http.ResponseWriter, r *http.Request, _ policy.Caller) error {
	id, err := accountID(r)
	if err != nil {
		return err
	}
	filter, limit, cursor, err := contract.ReadEventQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	filter.Predecessors, filter.Users = true, true
	events, next, err := a.o.Audit.AuditLog(r.Context(), id, filter, cursor, limit)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.PageOf(events, contract.ShowEvent, next))
}
