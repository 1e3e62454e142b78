package main

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/keystore"
	"gatehouse/proxy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/keyapi"
	"gatehouse/proxy/wire"
)

// explainer explains requests as the gateway decides them.
func (b *builder) explainer(gateway *proxy.Gateway) func(context.Context, contract.ExplainedRequest) (contract.Explanation, error) {
	limits := headLimits(b.config)
	return func(ctx context.Context, r contract.ExplainedRequest) (contract.Explanation, error) {
		q := question(r, limits)
		if r.Key != "" {
			entry, err := b.store.Find(ctx, r.Account, r.Key)
			if err != nil {
				return contract.Explanation{}, err
			}
			q.Key = &entry
		}
		e, err := gateway.Explain(ctx, q)
		return showExplanation(e), err
	}
}

func question(r contract.ExplainedRequest, l wire.Limits) proxy.Question {
	return proxy.Question{Method: r.Method, Host: r.Host, Target: r.Target, Headers: r.Headers, Client: r.Client, Limits: l}
}

func headLimits(c *config.Config) wire.Limits {
	return wire.Limits{Bytes: int(c.Limits.MaxHeader), Lines: c.Limits.MaxHeaderLines}
}

// showExplanation gives an explanation its documented form.
func showExplanation(e proxy.Explanation) contract.Explanation {
	shown := contract.Explanation{
		Allowed: e.Problem == nil, Reason: e.Reason, Route: given(e.Route), Permission: given(e.Permission),
		Subaccount: given(e.Subaccount), Upstream: given(e.Upstream), AccountID: given(e.Account), KeyID: given(e.Key),
		Steps: make([]contract.ExplainedStep, len(e.Steps)),
	}
	if e.Client.IsValid() {
		shown.ClientAddress = given(e.Client.String())
	}
	if e.Problem != nil {
		shown.Refuse(e.Problem)
	}
	for i, s := range e.Steps {
		shown.Steps[i] = contract.ExplainedStep{Step: s.Name, Says: s.Sentence, Outcome: string(s.Outcome), Detail: s.Detail}
	}
	return shown
}

// given is nil for nothing.
func given[T ~string](s T) *string {
	if s == "" {
		return nil
	}
	text := string(s)
	return &text
}

// offline decides as a gateway of the configuration would, about keys that are
// described, and without one that runs.
type offline struct {
	gateway *proxy.Gateway
	limits  wire.Limits
}

// newOffline makes the routes as a running gateway has them. Nobody answers
// behind them: explaining forwards nothing.
func newOffline(c *config.Config) (*offline, error) {
	catalogue, err := c.Catalogue()
	if err != nil {
		return nil, err
	}
	b := &builder{node: &node{log: zap.NewNop()}, config: c, catalogue: catalogue}
	own, err := b.ownRoutes()
	if err != nil {
		return nil, err
	}
	specs := c.RouteSpecs(func(name string) proxy.Backend { return nobody(name) })
	options := b.options()
	options.Keys, options.Records = unknownKeys{}, discarded{}
	if options.Routes, err = proxy.NewRoutes(c.Reserved(), append(own, specs...)); err != nil {
		return nil, err
	}
	if c.Dashboard.Enabled {
		options.Sites = append(options.Sites, &proxy.Site{
			Host: c.Dashboard.Host, Prefix: dashboard.Prefix, Pattern: func(*http.Request) string { return "the dashboard" },
		})
	}
	options.Sites = append(options.Sites, &proxy.Site{Targets: keyapi.DocumentTargets(), Pattern: keyapi.DocumentPattern})
	gateway, err := proxy.New(options)
	return &offline{gateway: gateway, limits: headLimits(c)}, err
}

// explain explains the request for the key of that name among those that are
// described; "" for none. A moment of zero is now.
func (o *offline) explain(ctx context.Context, r contract.ExplainedRequest, ds *config.Decisions, name string, at time.Time) (contract.Explanation, error) {
	q := question(r, o.limits)
	q.At = at
	if key, account, known := ds.Key(name); known {
		q.Key = &keystore.Entry{Key: key, Account: account}
	}
	e, err := o.gateway.Explain(ctx, q)
	shown := showExplanation(e)
	for i, s := range shown.Steps {
		if s.Step == "limits" && s.Outcome == string(proxy.Passed) {
			shown.Steps[i].Outcome, shown.Steps[i].Detail = string(proxy.Skipped), "without a gateway, nothing is counted"
		}
	}
	return shown, err
}

// nobody stands for an upstream, by its name.
type nobody string

// Name is the upstream's.
func (n nobody) Name() string { return string(n) }

// Serve is never called: explaining forwards nothing.
func (nobody) Serve(http.ResponseWriter, *http.Request, proxy.Access) error {
	panic("gatehouse: a request was forwarded without a gateway")
}

// unknownKeys knows no token.
type unknownKeys struct{}

func (unknownKeys) Lookup(context.Context, keystore.Token) (keystore.Entry, error) {
	return keystore.Entry{}, keystore.ErrUnknownToken
}

type discarded struct{}

func (discarded) Record(*proxy.Record) {}
