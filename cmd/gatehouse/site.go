package main

import (
	"fmt"
	"net/http"
	"time"

	"gatehouse/proxy"
	"gatehouse/proxy/dashboard"
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
	pages, err := dashboard.New(dashboard.Options{
		People: people, Store: b.store, Catalogue: b.catalogue, Products: b.products(), Now: time.Now, Log: b.log,
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
	session := b.config.Dashboard.Session
	return take(b, "people", session, func() (*signin.Authenticator, func(), error) {
		made, err := signin.New(signin.Options{
			Users: b.store, Sessions: b.store, Passwords: b.passwords, Idle: session.Idle, Absolute: session.Absolute, Now: time.Now, Log: b.log,
		})
		return made, func() {}, err
	})
}
