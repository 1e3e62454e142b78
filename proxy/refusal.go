package proxy

import (
	"context"
	"errors"
	"time"

	"gatehouse/proxy/problem"
)

// refusalTimeout bounds how long the answer to a refused request waits for its
// refusal to be noted.
const refusalTimeout = time.Second

// noteRefusal tells a route of Gatehouse's own that a request of a known key
// was refused. Every note costs the key a request of its management budget, and
// without budget there is none: nobody can flood the audit trail.
func (g *Gateway) noteRefusal(ctx context.Context, x *exchange, err error) {
	if x.route == nil || x.route.refused == nil || x.caller.Key == nil || errors.Is(err, errClientGone) {
		return
	}
	p := problem.From(err)
	if p.Code == problem.RateLimited {
		return
	}
	if !x.counted && g.o.Management.take(string(x.caller.Key.ID), x.record.Start) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	x.route.setPathValues(x.r, x.path)
	x.route.refused(ctx, x.r, x.caller, p.Code)
}
