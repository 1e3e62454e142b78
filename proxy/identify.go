package proxy

import (
	"context"
	"errors"
	"net/netip"

	"gatehouse/keystore"
	"gatehouse/proxy/problem"
)

// identify finds the key that the request shows. Only what the store itself
// calls unknown is a bad token: every other failure is the store's.
func (g *Gateway) identify(ctx context.Context, x *exchange) (keystore.Entry, error) {
	if x.dry != nil && x.dry.known != nil {
		return *x.dry.known, nil
	}
	credential, err := credentialOf(x.r.Header)
	if err != nil {
		return keystore.Entry{}, err
	}
	x.step = stepToken
	token, err := keystore.ParseToken(g.o.TokenPrefix, credential)
	if err != nil {
		return keystore.Entry{}, g.invalidToken(x)
	}
	x.lasting.request.token = token
	x.spans.begin(spanLookup, &x.record)
	begun := g.o.Now()
	entry, err := g.o.Keys.Lookup(ctx, token)
	x.looked = g.o.Now().Sub(x.record.Start)
	x.record.Lookup, x.record.Source = x.looked-begun.Sub(x.record.Start), entry.Source
	switch {
	case errors.Is(err, keystore.ErrUnknownToken):
		x.record.Source = lookupUnknown
		return keystore.Entry{}, g.invalidToken(x)
	case err != nil && ctx.Err() != nil:
		return keystore.Entry{}, errors.Join(errClientGone, err)
	}
	x.step = stepStore
	switch {
	case err != nil:
		x.record.Source = lookupUnavailable
		return keystore.Entry{}, problem.StoreUnavailable(err)
	case entry.Key == nil || entry.Account == nil:
		x.record.Source = lookupUnavailable
		return keystore.Entry{}, problem.StoreUnavailable(errors.New("an entry without key or account"))
	}
	return entry, nil
}

// invalidToken counts a failed authentication. Only failures are limited, so
// that nobody is locked out by a neighbour behind the same address.
func (g *Gateway) invalidToken(x *exchange) error {
	take := g.o.Failures.take
	if x.dry != nil {
		take = g.o.Failures.peek
	}
	if err := take(x.failureAddress(), x.record.Start); err != nil {
		return err
	}
	return problem.New(problem.InvalidToken, "This token is not valid.")
}

// failureAddress is whom a failed authentication is counted for: the client,
// or the proxy that would not say who it was.
func (x *exchange) failureAddress() netip.Addr {
	if x.from.client.IsValid() {
		return x.from.client
	}
	return x.from.peer
}
