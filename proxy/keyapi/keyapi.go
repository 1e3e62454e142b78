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
	keyPath    = keysPath + "/{id}"
	auditPath  = "/v4/account/audit-log"
	usagePath  = "/v4/account/usage"
	whoamiPath = "/v4/account/whoami"
)

// Reserved returns the paths below which nothing but this API answers.
func Reserved() []string {
	return []string{keysPath, auditPath, usagePath, whoamiPath, openapiPath, docsPath}
}

// Keys is what the API needs of keystore.Store to manage keys.
type Keys interface {
	Create(ctx context.Context, by policy.Caller, k keystore.NewKey) (policy.Key, keystore.Token, error)
	List(ctx context.Context, by policy.Caller, cursor string, limit int) ([]policy.Key, string, error)
	Get(ctx context.Context, by policy.Caller, id policy.KeyID) (policy.Key, error)
	Update(ctx context.Context, by policy.Caller, id policy.KeyID, u keystore.Update) (after, before policy.Key, err error)
	Revoke(ctx context.Context, by policy.Caller, id policy.KeyID) (time.Time, error)
	Regenerate(ctx context.Context, by policy.Caller, id policy.KeyID, grace time.Duration) (policy.Key, keystore.Token, error)
}

// Audit is what the API needs of keystore.Store for the audit trail.
type Audit interface {
	AuditLog(ctx context.Context, account policy.AccountID, f keystore.EventFilter, cursor string, limit int) ([]keystore.Event, string, error)
}

// Usage is what the API needs of keystore.Store for the counters of requests.
type Usage interface {
	Usage(ctx context.Context, by policy.Caller, f keystore.UsageFilter) ([]keystore.Usage, error)
}

// Options is what an API is made of. All but Products are needed.
type Options struct {
	Keys      Keys
	Audit     Audit
	Usage     Usage
	Catalogue policy.Catalogue
	Products  []contract.Product
	Now       func() time.Time
}

// API serves the endpoints. It may be used concurrently.
type API struct {
	o         Options
	structure contract.Structure
}

// New makes an API.
func New(o Options) (*API, error) {
	if o.Keys == nil || o.Audit == nil || o.Usage == nil || o.Now == nil || len(o.Catalogue.All()) == 0 {
		return nil, errors.New("new key API: an option is missing")
	}
	return &API{o: o, structure: contract.NewStructure(o.Catalogue, o.Products)}, nil
}

// Endpoint is one route of the API: a pattern of http.ServeMux, what a caller
// needs for it, and what answers. An error that Serve returns means that it
// has written nothing.
type Endpoint struct {
	Match string
	Needs policy.Permission
	Serve func(w http.ResponseWriter, r *http.Request, by policy.Caller) error
	// Action is what the endpoint does to a key, for the audit trail; "" for
	// one that only reads.
	Action keystore.Action
}

// Endpoints lists the API.
func (a *API) Endpoints() []Endpoint {
	return []Endpoint{
		{"POST " + keysPath, policy.CreateKeys, a.create, keystore.KeyCreate},
		{"GET " + keysPath, policy.ReadKeys, a.list, ""},
		{"GET " + keyPath, policy.ReadKeys, a.get, ""},
		{"PUT " + keyPath, policy.UpdateKeys, a.update, keystore.KeyUpdate},
		{"DELETE " + keyPath, policy.DeleteKeys, a.revoke, keystore.KeyRevoke},
		{"POST " + keyPath + "/regenerate", policy.RegenerateKeys, a.regenerate, keystore.KeyRegenerate},
		{"GET " + keysPath + "/allowed-permissions", policy.AnyValidKey, a.allowedPermissions, ""},
		{"GET " + keysPath + "/permission-context", policy.AnyValidKey, a.permissionContext, ""},
		{"GET " + auditPath, policy.ReadAudit, a.auditLog, ""},
		{"GET " + usagePath, policy.ReadUsage, a.usage, ""},
		{"GET " + whoamiPath, policy.AnyValidKey, a.whoami, ""},
	}
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
