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
// was refused. Notes have a budget of their own for each key, as large as that
// of its management requests, and beyond it there are none: nobody can flood the
// audit trail, and nobody who may not use a key can use up its budget. A store
// that did not answer has refused nothing, and could note nothing.
func (g *Gateway) noteRefusal(ctx context.Context, x *exchange, err error) {
	if x.route == nil || x.route.refused == nil || x.caller.Key == nil || errors.Is(err, errClientGone) {
		return
	}
	p := problem.From(err)
	if p.Code == problem.RateLimited || p.Code == problem.KeyStoreUnavailable {
		return
	}
	if !g.o.Management.takeHere("refused:"+string(x.caller.Key.ID), x.record.Start) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	x.route.setPathValues(x.r, x.path)
	x.route.refused(ctx, x.r, x.caller, p.Code)
}
