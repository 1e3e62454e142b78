package keyapi

import (
	"net/http"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

func (a *API) create(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	var body contract.NewKey
	if err := contract.ReadBody(w, r, contract.KeyBodyLimit, &body); err != nil {
		return err
	}
	asked, err := body.Parse(by.Account, a.o.Catalogue, a.o.Now())
	if err != nil {
		return err
	}
	key, token, err := a.o.Keys.Create(r.Context(), by, asked)
	if err != nil {
		return err
	}
	w.Header().Set("Location", keysPath+"/"+string(key.ID))
	return contract.Write(w, http.StatusCreated, contract.Created(key, token))
}

func (a *API) list(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	limit, cursor, err := contract.ReadPage(r.URL.RawQuery)
	if err != nil {
		return err
	}
	keys, next, err := a.o.Keys.List(r.Context(), by, cursor, limit)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.PageOf(keys, contract.ShowKey, next))
}

func (a *API) get(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	id, err := keyID(r)
	if err != nil {
		return err
	}
	key, err := a.o.Keys.Get(r.Context(), by, id)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Data: contract.ShowKey(key)})
}

func (a *API) update(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	id, err := keyID(r)
	if err != nil {
		return err
	}
	var body contract.UpdateKey
	if err := contract.ReadBody(w, r, contract.KeyBodyLimit, &body); err != nil {
		return err
	}
	asked, err := body.Parse(by.Account, a.o.Catalogue, a.o.Now())
	if err != nil {
		return err
	}
	after, before, err := a.o.Keys.Update(r.Context(), by, id, asked)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Updated(after, before))
}

func (a *API) revoke(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	id, err := keyID(r)
	if err != nil {
		return err
	}
	at, err := a.o.Keys.Revoke(r.Context(), by, id)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Revoked(id, at))
}

func (a *API) regenerate(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	id, err := keyID(r)
	if err != nil {
		return err
	}
	var body contract.RegenerateKey
	if err := contract.ReadOptionalBody(w, r, contract.KeyBodyLimit, &body); err != nil {
		return err
	}
	grace, err := body.Parse()
	if err != nil {
		return err
	}
	key, token, err := a.o.Keys.Regenerate(r.Context(), by, id, grace)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Regenerated(key, token, id, grace))
}

// keyID: an id that cannot be one is like one that does not exist, and never
// gets into the name of a record.
func keyID(r *http.Request) (policy.KeyID, error) {
	id := r.PathValue("id")
	if !contract.IsKeyID(id) {
		return "", keystore.ErrNotFound
	}
	return policy.KeyID(id), nil
}
