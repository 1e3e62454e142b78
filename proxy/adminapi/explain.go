package adminapi

import (
	"net/http"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// explain says what the gateway would do with a request. It changes nothing.
func (a *API) explain(w http.ResponseWriter, r *http.Request, _ policy.Caller) error {
	var body contract.Explain
	if err := contract.ReadBody(w, r, contract.KeyBodyLimit, &body); err != nil {
		return err
	}
	asked, err := body.Parse()
	if err != nil {
		return err
	}
	explanation, err := a.o.Explain(r.Context(), asked)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Data: explanation})
}
