package adminapi

import (
	"net/http"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// operator is the caller of a request about the keys of an account: bounded
// by the account, and by nothing else.
func (a *API) operator(r *http.Request, by policy.Caller) (policy.Caller, error) {
	id, err := accountID(r)
	if err != nil {
		return by, err
	}
	account, err := a.o.Store.Rules(r.Context(), id)
	if err != nil {
		return by, err
	}
	by.Account = account
	return by, nil
}

func (a *API) createKey(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	by, err := a.operator(r, by)
	if err != nil {
		return err
	}
	var body contract.NewKey
	if err := contract.ReadBody(w, r, contract.KeyBodyLimit, &body); err != nil {
		return err
	}
	asked, err := body.Parse(by.Account, a.o.Catalogue, a.o.Now())
	if err != nil {
		return err
	}
	key, token, err := a.o.Store.Create(r.Context(), by, asked)
	if err != nil {
		return err
	}
	w.Header().Set("Location", Prefix+"accounts/"+string(by.Account.ID)+"/keys/"+string(key.ID))
	return contract.Write(w, http.StatusCreated, contract.Created(key, token))
}

func (a *API) listKeys(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	by, err := a.operator(r, by)
	if err != nil {
		return err
	}
	limit, cursor, err := contract.ReadPage(r.URL.RawQuery)
	if err != nil {
		return err
	}
	keys, next, err := a.o.Store.List(r.Context(), by, cursor, limit)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.PageOf(keys, contract.ShowKey, next))
}

func (a *API) revokeKey(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	by, err := a.operator(r, by)
	if err != nil {
		return err
	}
	id := policy.KeyID(r.PathValue("key"))
	if !contract.IsKeyID(string(id)) {
		return keystore.ErrNotFound
	}
	at, err := a.o.Store.Revoke(r.Context(), by, id)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Revoked(id, at))
}
