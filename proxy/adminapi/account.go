package adminapi

import (
	"net/http"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

func (a *API) putAccount(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	id := r.PathValue("id")
	if !policy.ValidAccountID(id) {
		return problem.Invalid(problem.FieldError{Field: "id", Detail: "An account's id has 1 to 64 characters of A-Z, a-z, 0-9, dot, underscore and dash."})
	}
	var body contract.NewAccount
	if err := contract.ReadBody(w, r, contract.AccountBodyLimit, &body); err != nil {
		return err
	}
	asked, err := body.Parse(policy.AccountID(id), a.o.Catalogue, a.o.Products, a.o.Plans)
	if err != nil {
		return err
	}
	account, created, err := a.o.Store.PutAccount(r.Context(), by, asked)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		w.Header().Set("Location", Prefix+"accounts/"+id)
		status = http.StatusCreated
	}
	return contract.Write(w, status, contract.Envelope{Success: true, Data: contract.ShowAccount(account)})
}

func (a *API) getAccount(w http.ResponseWriter, r *http.Request, _ policy.Caller) error {
	id, err := accountID(r)
	if err != nil {
		return err
	}
	account, err := a.o.Store.GetAccount(r.Context(), id)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Data: contract.ShowAccount(account)})
}

func (a *API) listAccounts(w http.ResponseWriter, r *http.Request, _ policy.Caller) error {
	limit, cursor, err := contract.ReadPage(r.URL.RawQuery)
	if err != nil {
		return err
	}
	accounts, next, err := a.o.Store.ListAccounts(r.Context(), cursor, limit)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.PageOf(accounts, contract.ShowAccount, next))
}

func (a *API) deleteAccount(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	id, err := accountID(r)
	if err != nil {
		return err
	}
	if err := a.o.Store.DeleteAccount(r.Context(), by, id); err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Message: "Account deleted", Data: struct {
		ID        string `json:"id"`
		DeletedAt int64  `json:"deleted_at"`
	}{string(id), a.o.Now().Unix()}})
}

// accountID: an id that cannot be one is like one that does not exist, and
// never gets into the name of a record.
func accountID(r *http.Request) (policy.AccountID, error) {
	id := r.PathValue("id")
	if !policy.ValidAccountID(id) {
		return "", keystore.ErrNotFound
	}
	return policy.AccountID(id), nil
}
