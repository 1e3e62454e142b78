package main

import (
	"gatehouse/cmd/gatehouse/config"
	"gatehouse/proxy"
)

// limiter makes a limiter that counts for a name. Apart tells its budgets from
// those of other limiters for the same keys.
func (b *builder) limiter(name string, r config.Rate, apart string) (*proxy.Limiter, error) {
	return take(b, "limiter "+name+" "+apart, r, func() (*proxy.Limiter, func(), error) {
		l := proxy.NewLimiter(proxy.LimiterOptions{Name: name, Rate: r.Rate, Burst: r.Burst, Shared: b.budgets, Apart: apart})
		return l, l.Close, nil
	})
}

// limit gives routes the limits of their own: specs are those of the configured
// routes, in their order.
func (b *builder) limit(specs []proxy.RouteSpec) (err error) {
	for i, route := range b.config.Routes {
		if route.Limit == nil {
			continue
		}
		if specs[i].Limit, err = b.limiter("route", *route.Limit, "route "+route.Match); err != nil {
			return err
		}
	}
	return nil
}

// limits makes those that count for all routes.
func (b *builder) limits(o *proxy.Options) (err error) {
	c := b.config.Limits
	if o.Limits, err = b.limiter("key", c.Key, ""); err != nil {
		return err
	}
	if o.Management, err = b.limiter("management", c.Management, "management"); err != nil {
		return err
	}
	if o.Failures, err = take(b, "failures", c.FailedAuth, func() (*proxy.FailureLimiter, func(), error) {
		return proxy.NewFailureLimiter(c.FailedAuth.Rate, c.FailedAuth.Burst), func() {}, nil
	}); err != nil {
		return err
	}
	if o.InFlight, err = take(b, "in flight", c.InFlight, func() (*proxy.InFlight, func(), error) {
		return proxy.NewInFlight(c.InFlight), func() {}, nil
	}); err != nil {
		return err
	}
	o.Plans, err = b.plans()
	return err
}

// plans makes the limits of plans. An account has one plan, and its keys the
// same budget when it changes, so that a change is no gift.
func (b *builder) plans() (*proxy.Plans, error) {
	limiters := make(map[string]*proxy.Limiter, len(b.config.Plans))
	for name, r := range b.config.Plans {
		made, err := take(b, "plan "+name, r, func() (*proxy.Limiter, func(), error) {
			l := proxy.NewLimiter(proxy.LimiterOptions{Name: "plan", Rate: r.Rate, Burst: r.Burst, Shared: b.budgets})
			return l, l.Close, nil
		})
		if err != nil {
			return nil, err
		}
		limiters[name] = made
	}
	return proxy.NewPlans(limiters, b.logs.of(config.LogLimits)), nil
}
