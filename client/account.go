package client

import (
	"context"
	"net/http"
	"time"
)

// Whoami is what the gateway sees of the calling key.
type Whoami struct {
	AccountID, KeyID, Name string
	Permissions            []string
	AllowedSubaccounts     []string
	ExpiresAt              time.Time // zero for never
	ClientIP               string
}

// Whoami returns what the gateway sees of the calling key.
func (c *Client) Whoami(ctx context.Context) (Whoami, error) {
	var answer struct {
		Data struct {
			AccountID          string   `json:"account_id"`
			KeyID              string   `json:"key_id"`
			Name               string   `json:"name"`
			Permissions        []string `json:"permissions"`
			AllowedSubaccounts []string `json:"allowed_subaccounts"`
			ExpiresAt          *int64   `json:"expires_at"`
			ClientIP           string   `json:"client_ip"`
		}
	}
	err := c.call(ctx, http.MethodGet, "/v4/account/whoami", nil, nil, &answer)
	d := answer.Data
	return Whoami{
		AccountID: d.AccountID, KeyID: d.KeyID, Name: d.Name, Permissions: d.Permissions, AllowedSubaccounts: d.AllowedSubaccounts,
		ExpiresAt: moment(d.ExpiresAt), ClientIP: d.ClientIP,
	}, err
}

// AllowedPermissions returns what the calling key may hand on.
func (c *Client) AllowedPermissions(ctx context.Context) ([]string, error) {
	var answer struct {
		AllowedPermissions []string `json:"allowed_permissions"`
	}
	err := c.call(ctx, http.MethodGet, keysPath+"/allowed-permissions", nil, nil, &answer)
	return answer.AllowedPermissions, err
}

// PermissionContext is every permission there is, in groups, and what the
// calling key may hand on of it.
type PermissionContext struct {
	Account            []PermissionSubType
	Product            []PermissionSubType
	AllowedPermissions []string
}

// PermissionSubType is what belongs together: a product, or a part of managing
// the account.
type PermissionSubType struct {
	Name        string       `json:"name"`
	Description string       `json:"description"`
	Permissions []Permission `json:"permissions"`
}

// Permission is one thing that a key may do. ID is how a key names it.
type Permission struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// PermissionContext returns every permission there is.
func (c *Client) PermissionContext(ctx context.Context) (PermissionContext, error) {
	type group struct {
		SubTypes []PermissionSubType `json:"sub_types"`
	}
	var answer struct {
		Structure struct {
			Account group `json:"account"`
			Product group `json:"product"`
		} `json:"structure"`
		AllowedPermissions []string `json:"allowed_permissions"`
	}
	err := c.call(ctx, http.MethodGet, keysPath+"/permission-context", nil, nil, &answer)
	return PermissionContext{
		Account: answer.Structure.Account.SubTypes, Product: answer.Structure.Product.SubTypes, AllowedPermissions: answer.AllowedPermissions,
	}, err
}
