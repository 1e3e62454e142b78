// Package adminapi serves /admin/v1 to operators and the CLI: accounts, the
// first keys of accounts, and their users. It belongs on a listener that is never public.
package adminapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/password"
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

// Audit is what the API needs of keystore.Store for the audit trail.
type Audit interface {
	AuditLog(ctx context.Context, account policy.AccountID, f keystore.EventFilter, cursor string, limit int) ([]keystore.Event, string, error)
	Refused(ctx context.Context, by policy.Caller, action keystore.Action, key policy.KeyID, code string)
}

// Users is what the API needs of keystore.Store for users.
type Users interface {
	CreateUser(ctx context.Context, by policy.Caller, u keystore.NewUser) (keystore.User, error)
	GetUser(ctx context.Context, by policy.Caller, id keystore.UserID) (keystore.User, error)
	ListUsers(ctx context.Context, by policy.Caller, cursor string, limit int) ([]keystore.User, string, error)
	UpdateUser(ctx context.Context, by policy.Caller, id keystore.UserID, u keystore.UserChange) (keystore.User, error)
	DeleteUser(ctx context.Context, by policy.Caller, id keystore.UserID) error
	SetPassword(ctx context.Context, by policy.Caller, id keystore.UserID, hash string, mustChange bool) error
}

// Usage is what the API needs of keystore.Store for the use of keys.
type Usage interface {
	RankUsage(ctx context.Context, r keystore.UsageRanking) ([]keystore.RankedUsage, error)
}

// Options is what an API is made of. All but Plans are needed.
type Options struct {
	Store     Store
	Audit     Audit
	Users     Users
	Usage     Usage
	Passwords *password.Hasher
	Token     string
	Catalogue policy.Catalogue
	Products  []string
	// Plans are those that an account can have.
	Plans  []string
	Levels LogLevels
	// Explain says what the gateway would do with a request, and does nothing.
	Explain func(ctx context.Context, r contract.ExplainedRequest) (contract.Explanation, error)
	// Export writes all accounts, keys and users, as keystore.Store does.
	Export func(ctx context.Context, w io.Writer) (keystore.Exported, error)
	Now    func() time.Time
	Log    *zap.Logger
}

// API serves the operators' endpoints. It may be used concurrently.
type API struct {
	o     Options
	token [sha256.Size]byte
	mux   *http.ServeMux
}

// New makes an API. An empty token is an error: without one there is no API.
func New(o Options) (*API, error) {
	if o.Store == nil || o.Audit == nil || o.Users == nil || o.Usage == nil || o.Passwords == nil || o.Levels == nil || o.Explain == nil || o.Export == nil || o.Token == "" || o.Now == nil || o.Log == nil {
		return nil, errors.New("new admin API: an option is missing")
	}
	a := &API{o: o, token: sha256.Sum256([]byte(o.Token)), mux: http.NewServeMux()}
	for _, e := range []endpoint{
		{"PUT /admin/v1/accounts/{id}", a.putAccount, keystore.AccountPut},
		{"GET /admin/v1/accounts/{id}", a.getAccount, ""},
		{"DELETE /admin/v1/accounts/{id}", a.deleteAccount, keystore.AccountDelete},
		{"GET /admin/v1/accounts", a.listAccounts, ""},
		{"POST /admin/v1/accounts/{id}/keys", a.createKey, keystore.KeyCreate},
		{"GET /admin/v1/accounts/{id}/keys", a.listKeys, ""},
		{"DELETE /admin/v1/accounts/{id}/keys/{key}", a.revokeKey, keystore.KeyRevoke},
		{"POST /admin/v1/accounts/{id}/users", a.createUser, keystore.UserCreate},
		{"GET /admin/v1/accounts/{id}/users", a.listUsers, ""},
		{"PATCH /admin/v1/accounts/{id}/users/{user}", a.updateUser, keystore.UserUpdate},
		{"DELETE /admin/v1/accounts/{id}/users/{user}", a.deleteUser, keystore.UserDelete},
		{"POST /admin/v1/accounts/{id}/users/{user}/password", a.setPassword, keystore.UserPassword},
		{"GET /admin/v1/accounts/{id}/audit-log", a.auditLog, ""},
		{"GET /admin/v1/log-levels", a.getLogLevels, ""},
		{"PATCH /admin/v1/log-levels", a.changeLogLevels, ""},
		{"GET /admin/v1/usage", a.rankUsage, ""},
		{"POST /admin/v1/explain", a.explain, ""},
		{"GET /admin/v1/export", a.export, ""},
	} {
		a.mux.Handle(e.match, e)
	}
	return a, nil
}

// endpoint is one route of the API: what answers, or returns an error and has
// written nothing, and what it does to an account or key, for the audit trail.
type endpoint struct {
	match  string
	serve  func(w http.ResponseWriter, r *http.Request, by policy.Caller) error
	action keystore.Action
}

// ServeHTTP makes an endpoint something that http.ServeMux can hold; see API.serve.
func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec, ok := w.(*recordingWriter)
	if !ok {
		panic("adminapi: an endpoint was served past the API")
	}
	if rec.failure = e.serve(w, r, rec.by); rec.failure != nil {
		rec.pathValue = r.PathValue
	}
}

// ServeHTTP answers one request and logs it.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := a.o.Now()
	requestID := uuid.NewString()
	w.Header().Set("X-Request-Id", requestID)
	rec := &recordingWriter{ResponseWriter: w, by: callerOf(r, requestID)}
	pattern, err := a.serve(rec, r)
	reason := string(policy.Allowed)
	var cause error
	if err != nil {
		p := problem.From(err)
		reason, cause = string(p.Code), p.Cause
		problem.Write(rec, p, requestID)
	}
	method, route, _ := strings.Cut(pattern, " ")
	a.o.Log.Info("admin request",
		zap.String("http.request.method", method), zap.String("http.route", route), zap.Int("http.response.status_code", rec.status),
		zap.String("gatehouse.reason", reason), zap.String("client.address", addressOf(rec.by)),
		zap.String("gatehouse.request_id", requestID),
		zap.Float64("gatehouse.duration_ms", float64(a.o.Now().Sub(begun))/float64(time.Millisecond)), zap.Error(cause))
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
	e, ours := found.(endpoint)
	if !ours {
		return "", a.notFound(found, r)
	}
	a.mux.ServeHTTP(w, r)
	if w.failure != nil && e.action != "" {
		a.noteRefusal(r.Context(), w, e.action)
	}
	return pattern, w.failure
}

// refusalTimeout bounds how long the answer to a refused request waits for its
// refusal to be noted.
const refusalTimeout = time.Second

// noteRefusal notes in the account's audit trail what an operator was refused.
func (a *API) noteRefusal(ctx context.Context, w *recordingWriter, action keystore.Action) {
	id := w.pathValue("id")
	if !policy.ValidAccountID(id) {
		return
	}
	by := w.by
	by.Account = &policy.Account{ID: policy.AccountID(id)}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	a.o.Audit.Refused(ctx, by, action, policy.KeyID(w.pathValue("key")), string(problem.From(w.failure).Code))
}

// cliAgent begins the User-Agent of Gatehouse's own command line.
const cliAgent = "gatehouse-cli"

// callerOf is who makes the request, of whom no more is known than the address,
// and whether it is the command line.
func callerOf(r *http.Request, requestID string) policy.Caller {
	by := policy.Caller{Person: policy.Actor{Kind: policy.ActorOperator}, RequestID: requestID}
	if strings.HasPrefix(r.UserAgent(), cliAgent) {
		by.Person.Kind = policy.ActorCLI
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		by.Client = peer.Addr().Unmap().WithZone("")
	}
	return by
}

func addressOf(by policy.Caller) string {
	if !by.Client.IsValid() {
		return ""
	}
	return by.Client.String()
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
	status    int
	by        policy.Caller
	failure   error
	pathValue func(name string) string // of a request that failed
}

// Unwrap gives http.ResponseController the writer below.
func (w *recordingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recordingWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// discard is an http.ResponseWriter that keeps nothing but headers.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}
