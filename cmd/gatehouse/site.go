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
)

// site makes the dashboard; nil where it is off.
func (b *builder) site() (*proxy.Site, error) {
	c := b.config.Dashboard
	if !c.Enabled {
		return nil, nil
	}
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
		People: people, Store: b.store, Catalogue: b.catalogue, Products: b.products(), Now: time.Now, Log: b.log, API: c.APIURL,
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
			Users: b.store, Sessions: b.store, Passwords: b.passwords, Idle: session.Idle, Absolute: session.Absolute, NoPasswords: noPasswords, Now: time.Now, Log: b.log,
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
