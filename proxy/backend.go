package proxy

import (
	"net/http"

	"gatehouse/policy"
)

// Access is what the gateway found out about a request that it let through.
type Access struct {
	Caller     policy.Caller
	Subaccount policy.SubaccountID
	Permission policy.Permission
	RequestID  string

	exchange *exchange // what an Upstream needs beside
}

// Backend answers requests that were let through: an upstream, or the key API
// in the same process. An error means that nothing was written yet; the
// gateway answers with it.
type Backend interface {
	Serve(w http.ResponseWriter, r *http.Request, a Access) error
}

// BackendFunc is a function that is a Backend.
type BackendFunc func(w http.ResponseWriter, r *http.Request, a Access) error

// Serve calls f.
func (f BackendFunc) Serve(w http.ResponseWriter, r *http.Request, a Access) error { return f(w, r, a) }
