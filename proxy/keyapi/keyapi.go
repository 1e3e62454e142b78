// Package keyapi serves the key API below /v4/account to the customers' own
// keys. It is a backend in the same process: the gateway has authenticated
// the caller and checked the endpoint's permission before it is asked. Whether
// a caller may hand on what it asks for is for keystore and policy to say.
package keyapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

const (
	keysPath   = "/v4/account/api-keys"
	whoamiPath = "/v4/account/whoami"
)

// Reserved returns the paths below which nothing but this API answers.
func Reserved() []string { return []string{keysPath, whoamiPath} }

// Keys is what the API needs of keystore.Store.
type Keys interface {
	Create(ctx context.Context, by policy.Caller, k keystore.NewKey) (policy.Key, keystore.Token, error)
}

// Options is what an API is made of. All are needed.
type Options struct {
	Keys      Keys
	Catalogue policy.Catalogue
	Now       func() time.Time
}

// API serves the endpoints. It may be used concurrently.
type API struct{ o Options }

// New makes an API.
func New(o Options) (*API, error) {
	if o.Keys == nil || o.Now == nil || len(o.Catalogue.All()) == 0 {
		return nil, errors.New("new key API: an option is missing")
	}
	return &API{o: o}, nil
}

// Endpoint is one route of the API: a pattern of http.ServeMux, what a caller
// needs for it, and what answers. An error that Serve returns means that it
// has written nothing.
type Endpoint struct {
	Match string
	Needs policy.Permission
	Serve func(w http.ResponseWriter, r *http.Request, by policy.Caller) error
}

// Endpoints lists the API.
func (a *API) Endpoints() []Endpoint {
	return []Endpoint{
		{"POST " + keysPath, policy.CreateKeys, a.create},
		{"GET " + keysPath + "/allowed-permissions", policy.AnyValidKey, a.allowedPermissions},
		{"GET " + whoamiPath, policy.AnyValidKey, a.whoami},
	}
}

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

// allowedPermissions lists what the caller may hand on: what it holds itself.
func (a *API) allowedPermissions(w http.ResponseWriter, _ *http.Request, by policy.Caller) error {
	return contract.Write(w, http.StatusOK, struct {
		AllowedPermissions []string `json:"allowed_permissions"`
	}{by.Permissions().Strings()})
}

// whoami shows the caller what the gateway sees of it.
func (a *API) whoami(w http.ResponseWriter, _ *http.Request, by policy.Caller) error {
	client := ""
	if by.Client.IsValid() {
		client = by.Client.String()
	}
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Data: struct {
		AccountID          string   `json:"account_id"`
		KeyID              string   `json:"key_id"`
		Name               string   `json:"name"`
		Permissions        []string `json:"permissions"`
		AllowedSubaccounts []string `json:"allowed_subaccounts"`
		ExpiresAt          *int64   `json:"expires_at"`
		ClientIP           string   `json:"client_ip"`
	}{
		AccountID: string(by.Account.ID), KeyID: string(by.Key.ID), Name: by.Key.Name,
		Permissions: by.Permissions().Strings(), AllowedSubaccounts: contract.ShowSubaccounts(by.Key.Subaccounts),
		ExpiresAt: contract.ShowExpiry(by.Key.Expiry), ClientIP: client,
	}})
}
