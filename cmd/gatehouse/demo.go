package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/password"
)

// The demo's account, its user and its subaccounts.
const (
	demoAccount     = "demo"
	demoEmail       = "demo@example.com"
	demoDatacenter  = "5b0d9c6e-3f0a-4a57-9d0e-1c2f6a7b8c90"
	demoResidential = "c7e1f2a4-8b6d-4c3e-a5f9-0d1e2b3c4d5f"
)

type demoCommand struct {
	Listen      string `help:"Where clients connect." default:":8080" placeholder:"HOST:PORT"`
	AdminListen string `help:"Where operators connect." default:"127.0.0.1:9090" placeholder:"HOST:PORT"`
}

// Run serves the example configuration until it is told to stop. Everything
// it keeps is gone then.
func (c *demoCommand) Run(t *terminal) (err error) {
	folder, err := os.MkdirTemp("", "gatehouse-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	loaded, err := c.configure(t, filepath.Join(folder, "gatehouse.db.jsonl"))
	if err != nil {
		return err
	}
	log, err := newLogger(loaded.Log, t.err)
	if err != nil {
		return err
	}
	defer log.stop(t)
	if err := initStore(t.ctx, loaded); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	stop, err := startDemoBackends(t.ctx, loaded)
	if err != nil {
		return err
	}
	defer stop()
	n, err := start(t.ctx, loaded, log, nil)
	if err != nil {
		return fmt.Errorf("%w (--listen and --admin-listen choose other ports)", err)
	}
	made, err := n.provisionDemo(t.ctx)
	if err == nil {
		err = c.introduce(t, n, made)
	}
	if err != nil {
		return errors.Join(err, n.close())
	}
	return n.wait(t.ctx)
}

// configure is the example configuration, on this machine alone.
func (c *demoCommand) configure(t *terminal, file string) (*config.Config, error) {
	loaded, err := config.Parse("config.example.yaml", config.Example(), t.lookupEnv)
	if err != nil {
		return nil, err
	}
	loaded.Listen, loaded.AdminListen = c.Listen, c.AdminListen
	loaded.Store.Redis, loaded.Store.Embedded = nil, &config.Embedded{File: file}
	loaded.Log.Format = config.LogConsole
	if loaded.AdminToken == "" {
		loaded.AdminToken = config.Secret(rand.Text())
	}
	return loaded, nil
}

// initStore makes the store of the configuration.
func initStore(ctx context.Context, c *config.Config) error {
	options, err := offlineOptions(c)
	if err != nil {
		return err
	}
	return keystore.Init(ctx, options)
}

// startDemoBackends puts a sample backend on a free port for each upstream.
func startDemoBackends(ctx context.Context, c *config.Config) (stop func(), err error) {
	var servers []*http.Server
	stop = func() {
		for _, s := range servers {
			_ = s.Close() // the demo ends with it
		}
	}
	backend := newDemoBackend(time.Now)
	for name, upstream := range c.Upstreams {
		var l net.ListenConfig
		listener, err := l.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			stop()
			return nil, fmt.Errorf("demo backend %s: %w", name, err)
		}
		server := &http.Server{Handler: backend, ReadHeaderTimeout: adminReadTimeout}
		servers = append(servers, server)
		go func() { _ = server.Serve(listener) }() // ends with stop
		upstream.Targets = []*url.URL{{Scheme: "http", Host: listener.Addr().String()}}
		c.Upstreams[name] = upstream
	}
	return stop, nil
}

// demoSecrets are what the demo shows on the terminal of who started it.
type demoSecrets struct{ token, password string }

// provisionDemo makes the account, its user and its first key.
func (n *node) provisionDemo(ctx context.Context) (made demoSecrets, err error) {
	_, _, err = n.store.PutAccount(ctx, policy.Caller{}, keystore.Account{
		ID: demoAccount, Name: "Demo", Status: policy.Active, Permissions: []string{"*"},
		Subaccounts: []policy.Subaccount{
			{ID: demoDatacenter, Label: "EU scraping", Product: "datacenter_shared"},
			{ID: demoResidential, Label: "US research", Product: "residential"},
		},
	})
	if err != nil {
		return demoSecrets{}, err
	}
	account, err := n.store.Rules(ctx, demoAccount)
	if err != nil {
		return demoSecrets{}, err
	}
	made.password = password.Generate()
	hash, err := n.passwords.Hash(ctx, made.password)
	if err != nil {
		return demoSecrets{}, err
	}
	if _, err := n.store.CreateUser(ctx, policy.Caller{Account: account}, keystore.NewUser{Email: demoEmail, Name: "Demo", PasswordHash: hash}); err != nil {
		return demoSecrets{}, err
	}
	_, minted, err := n.store.Create(ctx, policy.Caller{Account: account}, keystore.NewKey{
		Name: "First key",
		Permissions: policy.NewPermissionSet("datacenter_shared:read", "datacenter_shared:write", "residential:read",
			policy.CreateKeys, policy.ReadKeys),
		Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
	})
	made.token = minted.Reveal()
	return made, err
}

// introduce says what there is and what to try.
func (c *demoCommand) introduce(t *terminal, n *node, made demoSecrets) error {
	base := "http://" + dialable(n.public.Addr())
	whitelist := base + "/v4/account/" + demoDatacenter + "/datacenter_shared/whitelist"
	return t.print(`Gatehouse is running, with sample backends. Everything is gone when it stops (Ctrl-C).

  Dashboard             %[1]s/dashboard
    sign in as          %[9]s with the password %[10]s
  Products and key API  %[1]s
  Metrics and health    http://%[2]s/metrics  /readyz
  Account               %[3]s, subaccounts %[4]s (datacenter_shared), %[5]s (residential)
  First key             %[6]s
  Its permissions       datacenter_shared:read, datacenter_shared:write, residential:read, account:apikeys:create, account:apikeys:read

Allowed: it may read and write on the shared datacenter.
  curl -i -H 'api-token: %[6]s' '%[7]s?type=add&ip=203.0.113.7'

Refused, and the backend never sees it: type=remove needs datacenter_shared:delete.
  curl -i -H 'api-token: %[6]s' '%[7]s?type=remove&ip=203.0.113.7'

A new key, made with the first one: it reads only, one subaccount only, from this machine only.
  curl -i -H 'api-token: %[6]s' -H 'Content-Type: application/json' -d '{"name": "CI pipeline", "permissions": ["datacenter_shared:read"], "allowed_subaccounts": ["%[4]s"], "allowed_ips": ["127.0.0.1", "::1"]}' '%[1]s/v4/account/api-keys'

As the operator:
  GATEHOUSE_ADMIN_TOKEN=%[8]s gatehouse key list --account %[3]s --admin http://%[2]s

`, base, dialable(n.private.Addr()), demoAccount, demoDatacenter, demoResidential, made.token, whitelist,
		string(n.config.AdminToken), demoEmail, made.password)
}

// dialable is an address that a client on this machine can connect to.
func dialable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}
