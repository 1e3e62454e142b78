// Package dashboard serves the web pages in which people manage the keys of
// their account. Who they are is for package signin to say, what they may do
// for policy, and keystore keeps it all: a page only asks and shows.
package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/problem"
)

// Prefix is the path that all pages are below.
const Prefix = "/dashboard"

// Store is what the pages need of keystore.Store.
type Store interface {
	Create(ctx context.Context, by policy.Caller, k keystore.NewKey) (policy.Key, keystore.Token, error)
	List(ctx context.Context, by policy.Caller, cursor string, limit int) ([]policy.Key, string, error)
	Get(ctx context.Context, by policy.Caller, id policy.KeyID) (policy.Key, error)
	Update(ctx context.Context, by policy.Caller, id policy.KeyID, u keystore.Update) (after, before policy.Key, err error)
	Revoke(ctx context.Context, by policy.Caller, id policy.KeyID) (time.Time, error)
	Regenerate(ctx context.Context, by policy.Caller, id policy.KeyID, grace time.Duration) (policy.Key, keystore.Token, error)
	Refused(ctx context.Context, by policy.Caller, action keystore.Action, key policy.KeyID, code string)
	AuditLog(ctx context.Context, account policy.AccountID, f keystore.EventFilter, cursor string, limit int) ([]keystore.Event, string, error)
	Usage(ctx context.Context, by policy.Caller, f keystore.UsageFilter) ([]keystore.Usage, error)
	GetAccount(ctx context.Context, id policy.AccountID) (keystore.Account, error)
	GetUser(ctx context.Context, by policy.Caller, id keystore.UserID) (keystore.User, error)
	Once(ctx context.Context, name string) (bool, error)
	Forget(ctx context.Context, name string) error
}

// Options is what a Dashboard is made of. All are needed but Brand, Providers, Products,
// API and ExportLimit.
type Options struct {
	People    *signin.Authenticator
	Store     Store
	Catalogue policy.Catalogue
	Products  []contract.Product
	Brand     Brand
	// Providers are those by which people may sign in beside passwords, or, with
	// NoPasswords, instead.
	Providers   []Provider
	NoPasswords bool
	// API is the URL of the API as customers call it; "" where it is at the host
	// of the pages.
	API string
	// ExportLimit is how many events an export of the audit log holds at the
	// most, 0 for 50,000. It says so itself where there are more.
	ExportLimit int
	Now         func() time.Time
	Log         *zap.Logger
}

// Dashboard serves the pages. It may be used concurrently.
type Dashboard struct {
	o         Options
	brand     brand
	structure contract.Structure
	assets    *assets
	pages     pages
	routes    *http.ServeMux
	crossing  *http.CrossOriginProtection
}

// New makes a Dashboard. It fails for a Brand that cannot be shown.
func New(o Options) (*Dashboard, error) {
	if o.People == nil || o.Store == nil || o.Now == nil || o.Log == nil || len(o.Catalogue.All()) == 0 {
		return nil, errors.New("new dashboard: an option is missing")
	}
	if o.ExportLimit == 0 {
		o.ExportLimit = exportLimit
	}
	d := &Dashboard{
		o: o, structure: contract.NewStructure(o.Catalogue, o.Products), routes: http.NewServeMux(), crossing: http.NewCrossOriginProtection(),
	}
	var err error
	if d.brand, err = newBrand(o.Brand); err != nil {
		return nil, fmt.Errorf("new dashboard: %w", err)
	}
	if d.assets, err = newAssets(d.brand); err != nil {
		return nil, fmt.Errorf("new dashboard: %w", err)
	}
	if d.pages, err = d.parsePages(); err != nil {
		return nil, fmt.Errorf("new dashboard: %w", err)
	}
	for _, r := range d.routeList() {
		d.routes.Handle(r.pattern, r)
	}
	return d, nil
}

// From is where a request comes from, as whoever calls Serve knows it.
type From struct {
	// Client is invalid where it is not known.
	Client    netip.Addr
	RequestID string
	// Scheme is http or https, as the browser sees it.
	Scheme string
	// Refuse is told why an answer is no success.
	Refuse func(*problem.Problem)
}

// Pattern names the page that the request is for, "" for none.
func (d *Dashboard) Pattern(r *http.Request) string {
	_, pattern := d.routes.Handler(r)
	return pattern
}

// Serve answers a request with a page, also with one that says what is wrong.
// An error that it returns means that nothing was written.
func (d *Dashboard) Serve(w http.ResponseWriter, r *http.Request, from From) error {
	v := &visit{
		w: w, r: r, scheme: from.Scheme, refuse: from.Refuse,
		from: signin.From{Client: from.Client, Agent: r.UserAgent(), RequestID: from.RequestID},
	}
	secure(w.Header())
	if err := d.serve(v); err != nil {
		return d.fail(v, err)
	}
	return nil
}

// serve finds the page and answers with it. A request that changes something
// must come from a page of this site.
func (d *Dashboard) serve(v *visit) error {
	if d.assets.serve(v.w, v.r) {
		return nil
	}
	if err := d.crossing.Check(v.r); err != nil {
		return &problem.Problem{Code: problem.PermissionDenied, Detail: "This request came from a page of another site, and was not carried out.", Cause: err}
	}
	handler, _ := d.routes.Handler(v.r)
	if _, found := handler.(*route); !found {
		return noRoute(v, handler)
	}
	d.routes.ServeHTTP(v.w, v.r.WithContext(context.WithValue(v.r.Context(), visitKey{}, v)))
	return v.err
}

// noRoute: http.ServeMux would redirect to a cleaned path, which is for nobody.
func noRoute(v *visit, h http.Handler) error {
	if path := v.r.URL.Path; path == Prefix || path == Prefix+"/" || path == "/" {
		return v.redirect(Prefix + "/keys")
	}
	answer := scratch{http.Header{}} // http.ServeMux tells which methods there are in no other way
	h.ServeHTTP(answer, v.r)
	if allow := answer.header.Get("Allow"); allow != "" {
		return &problem.Problem{Code: problem.MethodNotAllowed, Detail: "There is a page here, but it is not asked for like this.", Allow: allow}
	}
	return problem.New(problem.NotFound, "There is no such page.")
}

// scratch takes an answer of http.ServeMux for its headers.
type scratch struct{ header http.Header }

func (s scratch) Header() http.Header         { return s.header }
func (s scratch) Write(b []byte) (int, error) { return len(b), nil }
func (s scratch) WriteHeader(int)             {}
