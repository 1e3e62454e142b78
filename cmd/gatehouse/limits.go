package main

import (
	"gatehouse/cmd/gatehouse/config"
	"gatehouse/proxy"
)

// newLimiter makes a limiter that is closed with the node. Apart tells its
// budgets from those of other limiters for the same keys.
func (n *node) newLimiter(name string, r config.Rate, apart string) *proxy.Limiter {
	limiter := proxy.NewLimiter(proxy.LimiterOptions{Name: name, Rate: r.Rate, Burst: r.Burst, Shared: n.budgets, Apart: apart})
	n.closers = append(n.closers, func() error {
		limiter.Close()
		return nil
	})
	return limiter
}

// limited gives routes the limits of their own: specs are those of the
// configured routes, in their order.
func (n *node) limited(specs []proxy.RouteSpec) []proxy.RouteSpec {
	for i, route := range n.config.Routes {
		if route.Limit != nil {
			specs[i].Limit = n.newLimiter("route", *route.Limit, "route "+route.Match)
		}
	}
	return specs
}

// plans makes the limits of plans. An account has one plan, and its keys the
// same budget when it changes, so that a change is no gift.
func (n *node) plans() *proxy.Plans {
	limiters := make(map[string]*proxy.Limiter, len(n.config.Plans))
	for name, r := range n.config.Plans {
		limiters[name] = n.newLimiter("plan", r, "")
	}
	return proxy.NewPlans(limiters, n.log)
}
