package keyapi

import (
	"net/http"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// usage shows how many requests the keys of the caller's account made.
func (a *API) usage(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	filter, err := contract.ReadUsageQuery(r.URL.RawQuery, a.o.Now())
	if err != nil {
		return err
	}
	rows, err := a.o.Usage.Usage(r.Context(), by, filter)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Data: contract.ShowUsage(rows, filter)})
}
