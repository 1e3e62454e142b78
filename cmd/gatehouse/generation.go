package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"time"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/adminapi"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/keyapi"
	"gatehouse/proxy/problem"
)

// generation is what is made of one configuration and replaced as a whole by a
// reload: everything but listeners, servers and the store.
type generation struct {
	config      *config.Config
	catalogue   policy.Catalogue
	gateway     *proxy.Gateway
	admin       http.Handler         // of /admin/v1; nil where it is off
	certificate *tls.Certificate     // nil for plain HTTP
	expiries    map[string]time.Time // of certificates of our own, by what they are for
	parts       map[string]part
}

// part is an upstream or a limiter, with the settings it was made of. Where they
// are the same in the next generation it is handed on, with its connections or
// budgets.
type part struct {
	settings any
	made     any
	close    func()
}

// builder makes a generation.
type builder struct {
	*node
	config    *config.Config
	catalogue policy.Catalogue
	before    map[string]part      // those of the generation before
	expiries  map[string]time.Time // likewise
	parts     map[string]part
}

// build makes a generation of the configuration, which takes over what it can
// from the one before, nil for the first. Where it fails, nothing has changed.
func (n *node) build(c *config.Config, before *generation) (*generation, error) {
	b := &builder{node: n, config: c, parts: map[string]part{}}
	if before != nil {
		b.before, b.expiries = before.parts, before.expiries
	}
	g, err := b.generation()
	if err != nil {
		retire(b.parts, b.before)
		return nil, err
	}
	return g, nil
}

func (b *builder) generation() (*generation, error) {
	g := &generation{config: b.config, parts: b.parts}
	var err error
	if b.catalogue, err = b.config.Catalogue(); err != nil {
		return nil, err
	}
	g.catalogue = b.catalogue
	if g.certificate, err = loadCertificate(b.config.TLS); err != nil {
		return nil, err
	}
	if g.expiries, err = b.certificateExpiries(g.certificate); err != nil {
		return nil, err
	}
	if g.gateway, err = b.gateway(); err != nil {
		return nil, err
	}
	g.admin, err = b.adminAPI(g.gateway)
	return g, err
}

// take hands on the part of that name, or makes it.
func take[T any](b *builder, name string, settings any, build func() (T, func(), error)) (T, error) {
	if old, ok := b.before[name]; ok && reflect.DeepEqual(old.settings, settings) {
		if made, ok := old.made.(T); ok {
			b.parts[name] = old
			return made, nil
		}
	}
	made, end, err := build()
	if err == nil {
		b.parts[name] = part{settings: settings, made: made, close: end}
	}
	return made, err
}

// retire closes the parts that are not among those kept.
func retire(parts, kept map[string]part) {
	for name, p := range parts {
		if other, ok := kept[name]; !ok || other.made != p.made {
			p.close()
		}
	}
}

// gateway makes the gateway: the key API's endpoints are routes like those of
// products.
func (b *builder) gateway() (*proxy.Gateway, error) {
	c := b.config
	own, err := b.ownRoutes()
	if err != nil {
		return nil, err
	}
	upstreams, err := b.upstreams()
	if err != nil {
		return nil, err
	}
	specs := c.RouteSpecs(func(name string) proxy.Backend { return upstreams[name] })
	if err := b.limit(specs); err != nil {
		return nil, err
	}
	routes, err := proxy.NewRoutes(c.Reserved(), append(own, specs...))
	if err != nil {
		return nil, err
	}
	options := b.options()
	options.Routes, options.Keys, options.Records, options.Live = routes, b.store, b.records, b.live.Load()
	options.Used, options.Counted = b.store.Used, b.store.Count
	options.UnderWay, options.Traces = b.metrics.UnderWay(), b.tracing.provide()
	if err := b.limits(&options); err != nil {
		return nil, err
	}
	if options.Sites, err = b.sites(); err != nil {
		return nil, err
	}
	return proxy.New(options)
}

// options are those that the configuration gives, without what a running
// gateway needs beside.
func (b *builder) options() proxy.Options {
	c := b.config
	return proxy.Options{
		TokenPrefix: c.Token.Prefix, ProtocolTokens: c.Token.WebSocketSubprotocol, Origins: c.CORS.Origins,
		MaxHeaderLines: c.Limits.MaxHeaderLines, MinBodyRate: int64(c.Limits.MinBodyRate), MaxBody: int64(c.Limits.MaxBody),
		Addresses: proxy.ClientAddress{TrustedProxies: c.ClientAddress.TrustedProxies, Header: c.ClientAddress.Header},
		Now:       time.Now,
	}
}

// ownRoutes are those of the key API.
func (b *builder) ownRoutes() ([]proxy.RouteSpec, error) {
	keys, err := keyapi.New(keyapi.Options{
		Keys: b.store, Audit: b.store, Usage: b.store, Catalogue: b.catalogue, Products: b.products(), Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	specs := make([]proxy.RouteSpec, 0, len(b.config.Routes))
	for _, endpoint := range keys.Endpoints() {
		specs = append(specs, proxy.RouteSpec{
			Match: endpoint.Match, Permission: endpoint.Needs, Own: true, Refused: b.refusals(endpoint),
			Backend: proxy.BackendFunc(func(w http.ResponseWriter, r *http.Request, a proxy.Access) error {
				return endpoint.Serve(w, r, a.Caller)
			}),
		})
	}
	return specs, nil
}

// products are those of the catalogue, as customers see them.
func (b *builder) products() []contract.Product {
	products := make([]contract.Product, 0, len(b.config.Products))
	for _, p := range b.config.Products {
		products = append(products, contract.Product{Name: p.Name, Label: p.Label})
	}
	return products
}

// refusals notes refused actions of the endpoint in the audit trail; nil for
// an endpoint that only reads.
func (n *node) refusals(e keyapi.Endpoint) proxy.RefusedFunc {
	if e.Action == "" {
		return nil
	}
	return func(ctx context.Context, r *http.Request, by policy.Caller, code problem.Code) {
		n.store.Refused(ctx, by, e.Action, policy.KeyID(r.PathValue("id")), string(code))
	}
}

// adminAPI makes /admin/v1; nil without an admin token.
func (b *builder) adminAPI(gateway *proxy.Gateway) (http.Handler, error) {
	if b.config.AdminToken == "" {
		return nil, nil
	}
	products := make([]string, 0, len(b.config.Products))
	for _, p := range b.config.Products {
		products = append(products, p.Name)
	}
	return adminapi.New(adminapi.Options{
		Store: b.store, Audit: b.store, Users: b.store, Usage: b.store, Passwords: b.passwords, Token: string(b.config.AdminToken), Catalogue: b.catalogue, Products: products,
		Plans: slices.Sorted(maps.Keys(b.config.Plans)), Explain: b.explainer(gateway), Export: b.store.Export,
		Now: time.Now, Log: b.logs.of(config.LogAdmin), Levels: b.logs,
	})
}

// loadCertificate returns nil for plain HTTP.
func loadCertificate(files config.TLS) (*tls.Certificate, error) {
	if files.CertFile == "" {
		return nil, nil
	}
	loaded, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return &loaded, nil
}

// contentOf is a fingerprint of files that are read once, to see when they
// change. One that cannot be read counts as empty: whoever needs it says so.
func contentOf(files ...string) [sha256.Size]byte {
	sum := sha256.New()
	for _, file := range files {
		content, _ := os.ReadFile(file) //nolint:gosec // the operator names the file
		_, _ = fmt.Fprintf(sum, "%d:", len(content))
		_, _ = sum.Write(content)
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
