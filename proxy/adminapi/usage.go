package adminapi

import (
	"errors"
	"net/http"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// rankUsage shows what had the most requests.
func (a *API) rankUsage(w http.ResponseWriter, r *http.Request, _ policy.Caller) error {
	ranking, err := contract.ReadRankingQuery(r.URL.RawQuery, a.o.Now())
	if err != nil {
		return err
	}
	rows, err := a.o.Usage.RankUsage(r.Context(), ranking)
	if errors.Is(err, keystore.ErrTooMuchUsage) {
		return problem.Invalid(problem.FieldError{Field: "from", Detail: "This is too much for one answer. Ask for a shorter time, for days, or for one account."})
	}
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Data: contract.ShowRankedUsage(rows, ranking.By)})
}
