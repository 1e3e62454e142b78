package main

import (
	"fmt"
	"net/http"
	"time"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/proxy"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/dashboard/openid"
	"gatehouse/proxy/dashboard/signin"
	"gatehouse/proxy/keyapi"
)

// sites makes what is served to people: the dashboard, and then the documents of
// the key API, so that a host of the dashboard's own has nothing else.
func (b *builder) sites() ([]*proxy.Site, error) {
	documents := &proxy.Site{Targets: keyapi.DocumentTargets(), Pattern: keyapi.DocumentPattern, Serve: b.serveDocument}
	if !b.config.Dashboard.Enabled {
		return []*proxy.Site{documents}, nil
	}
	pages, err := b.dashboard()
	return []*proxy.Site{pages, documents}, err
}

func (n *node) serveDocument(w http.ResponseWriter, r *http.Request, _ proxy.Visit) error {
	n.documents.ServeHTTP(w, r)
	return nil
}

// dashboard makes the dashboard.
func (b *builder) dashboard() (*proxy.Site, error) {
	c := b.config.Dashboard
	people, err := b.people()
	if err != nil {
		return nil, err
	}
	logo, err := c.Brand.Logo()
	if err != nil {
		return nil, fmt.Errorf("dashboard.brand.logo_file: %w", err)
	}
	providers, err := b.providers()
	if err != nil {
		return nil, err
	}
	pages, err := dashboard.New(dashboard.Options{
		Providers: providers, NoPasswords: !c.PasswordSignIn,
		People: people, Store: b.store, Catalogue: b.catalogue, Products: b.products(), Now: time.Now, Log: b.logs.of(config.LogDashboard), API: c.APIURL,
		Brand: dashboard.Brand{Name: c.Brand.Name, Logo: logo, Accent: c.Brand.Accent, Docs: c.Brand.Docs},
	})
	if err != nil {
		return nil, err
	}
	return &proxy.Site{
		Host: c.Host, Prefix: dashboard.Prefix, Pattern: pages.Pattern,
		Serve: func(w http.ResponseWriter, r *http.Request, v proxy.Visit) error {
			return pages.Serve(w, r, dashboard.From{Client: v.Client, RequestID: v.RequestID, Scheme: v.Scheme, Refuse: v.Refuse})
		},
	}, nil
}

// people makes what signs people in.
func (b *builder) people() (*signin.Authenticator, error) {
	type settings struct {
		session     config.Session
		noPasswords bool
	}
	session, noPasswords := b.config.Dashboard.Session, !b.config.Dashboard.PasswordSignIn
	return take(b, "people", settings{session, noPasswords}, func() (*signin.Authenticator, func(), error) {
		made, err := signin.New(signin.Options{
			Users: b.store, Sessions: b.store, Passwords: b.passwords, Idle: session.Idle, Absolute: session.Absolute, NoPasswords: noPasswords,
			Counted: b.countSignIn, Now: time.Now, Log: b.logs.of(config.LogDashboard),
		})
		return made, func() {}, err
	})
}

// providers makes what asks the identity providers. None is contacted: one that
// is down keeps nothing from starting.
func (b *builder) providers() ([]dashboard.Provider, error) {
	c := b.config.Dashboard
	providers := make([]dashboard.Provider, 0, len(c.Providers))
	for _, p := range c.Providers {
		redirect := dashboard.RedirectURL(c.URL, p.Name)
		asker, err := take(b, "provider "+p.Name, []any{p, redirect}, func() (*openid.Provider, func(), error) {
			transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
			made, err := openid.New(openid.Options{
				Name: p.Name, Issuer: p.Issuer, ClientID: p.ClientID, ClientSecret: string(p.ClientSecret), Scopes: p.Scopes, RedirectURL: redirect,
				Accounts: p.Accounts(), TrustEmail: !p.RequireVerifiedEmail, Transport: transport, Now: time.Now,
			})
			return made, transport.CloseIdleConnections, err
		})
		if err != nil {
			return nil, fmt.Errorf("dashboard.providers: %s: %w", p.Name, err)
		}
		providers = append(providers, dashboard.Provider{Name: p.Name, Label: p.Label, Issuer: p.Issuer, OpenID: asker, Create: p.CreateUsers})
	}
	return providers, nil
}
