// Package adminapi serves /admin/v1 to operators and the CLI: accounts, and
// the first keys of accounts. It belongs on a listener that is never public.
package adminapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// Prefix begins every path of this API.
const Prefix = "/admin/v1/"

// Store is what the API needs of keystore.Store.
type Store interface {
	PutAccount(ctx context.Context, by policy.Caller, a keystore.Account) (keystore.Account, bool, error)
	GetAccount(ctx context.Context, id policy.AccountID) (keystore.Account, error)
	ListAccounts(ctx context.Context, cursor string, limit int) ([]keystore.Account, string, error)
	DeleteAccount(ctx context.Context, by policy.Caller, id policy.AccountID) error
	Rules(ctx context.Context, id policy.AccountID) (*policy.Account, error)
	Create(ctx context.Context, by policy.Caller, k keystore.NewKey) (policy.Key, keystore.Token, error)
	List(ctx context.Context, by policy.Caller, cursor string, limit int) ([]policy.Key, string, error)
	Revoke(ctx context.Context, by policy.Caller, id policy.KeyID) (time.Time, error)
}

// Options is what an API is made of. All are needed.
type Options struct {
	Store     Store
	Token     string
	Catalogue policy.Catalogue
	Products  []string
	Now       func() time.Time
	Log       *zap.Logger
}

// API serves the operators' endpoints. It may be used concurrently.
type API struct {
	o     Options
	token [sha256.Size]byte
	mux   *http.ServeMux
}

// New makes an API. An empty token is an error: without one there is no API.
func New(o Options) (*API, error) {
	if o.Store == nil || o.Token == "" || o.Now == nil || o.Log == nil {
		return nil, errors.New("new admin API: an option is missing")
	}
	a := &API{o: o, token: sha256.Sum256([]byte(o.Token)), mux: http.NewServeMux()}
	for match, h := range map[string]handler{
		"PUT /admin/v1/accounts/{id}":               a.putAccount,
		"GET /admin/v1/accounts/{id}":               a.getAccount,
		"DELETE /admin/v1/accounts/{id}":            a.deleteAccount,
		"GET /admin/v1/accounts":                    a.listAccounts,
		"POST /admin/v1/accounts/{id}/keys":         a.createKey,
		"GET /admin/v1/accounts/{id}/keys":          a.listKeys,
		"DELETE /admin/v1/accounts/{id}/keys/{key}": a.revokeKey,
	} {
		a.mux.Handle(match, h)
	}
	return a, nil
}

// handler answers a request, or returns an error and has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP makes a handler one that http.ServeMux can hold; see API.serve.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		if failed, ok := w.(*recordingWriter); ok {
			failed.failure = err
		}
	}
}

// ServeHTTP answers one request and logs it.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := a.o.Now()
	requestID := uuid.NewString()
	w.Header().Set("X-Request-Id", requestID)
	rec := &recordingWriter{ResponseWriter: w}
	pattern, err := a.serve(rec, r)
	reason := string(policy.Allowed)
	var cause error
	if err != nil {
		p := problem.From(err)
		reason, cause = string(p.Code), p.Cause
		problem.Write(rec, p, requestID)
	}
	a.o.Log.Info("admin request",
		zap.String("request_id", requestID), zap.String("route", pattern), zap.Int("status", rec.status),
		zap.String("reason", reason), zap.String("peer", r.RemoteAddr),
		zap.Duration("duration", a.o.Now().Sub(begun)), zap.Error(cause))
}

// serve returns the pattern that matched, and the error to answer with.
func (a *API) serve(w *recordingWriter, r *http.Request) (string, error) {
	if err := a.authenticate(r); err != nil {
		return "", err
	}
	if r.URL.RawPath != "" || path.Clean(r.URL.Path) != r.URL.Path {
		return "", problem.New(problem.AmbiguousPath, "The path of this request is ambiguous.")
	}
	found, pattern := a.mux.Handler(r)
	if _, ours := found.(handler); !ours {
		return "", a.notFound(found, r)
	}
	a.mux.ServeHTTP(w, r)
	return pattern, w.failure
}

// authenticate compares in constant time, and lengths not at all.
func (a *API) authenticate(r *http.Request) error {
	given := r.Header["Authorization"]
	if len(given) == 0 {
		return problem.New(problem.MissingCredentials, "Send the admin token as Authorization: Bearer.")
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	sum := sha256.Sum256([]byte(token))
	if len(given) > 1 || !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(sum[:], a.token[:]) != 1 {
		return problem.New(problem.InvalidToken, "This admin token is not valid.")
	}
	return nil
}

// notFound asks the mux's own handler whether only the method differs.
func (a *API) notFound(answer http.Handler, r *http.Request) error {
	scratch := &recordingWriter{ResponseWriter: discard{http.Header{}}}
	answer.ServeHTTP(scratch, r)
	if scratch.status != http.StatusMethodNotAllowed {
		return problem.New(problem.UnknownRoute, "There is nothing at this path.")
	}
	p := problem.New(problem.MethodNotAllowed, "This path does not take this method.")
	p.Allow = scratch.Header().Get("Allow")
	return p
}

// recordingWriter remembers the status, and what a handler failed with.
type recordingWriter struct {
	http.ResponseWriter
	status  int
	failure error
}

func (w *recordingWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// discard is an http.ResponseWriter that keeps nothing but headers.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}
