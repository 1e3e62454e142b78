package proxy

import (
	"strings"
	"time"

	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// seen says what a step that did not refuse went by.
func (x *exchange) seen(s step, e Explanation, g *Gateway) string {
	switch s {
	case stepRoute:
		return e.Route
	case stepNeeds, stepPermission:
		return string(e.Permission)
	case stepCredential, stepToken:
		if x.dry.known != nil {
			return "the key was named, and no token shown"
		}
	case stepStore:
		if x.dry.known != nil {
			return "the key was named, and no token shown"
		}
		return string(x.record.Source)
	case stepActive:
		return "key " + string(e.Key) + " of account " + string(e.Account)
	case stepExpiry:
		return expiryText(x.caller.Key)
	case stepAddress:
		return addressSeen(x)
	case stepSubaccount:
		if e.Subaccount == "" {
			return "the route names none"
		}
		return string(e.Subaccount)
	case stepLimits:
		return g.limitText(x)
	case stepForward:
		if e.Upstream == "" {
			return "explaining forwards nothing; Gatehouse itself would answer"
		}
		return "explaining forwards nothing; it would go to upstream " + e.Upstream
	case stepRequest, stepPath, stepHandshake, steps:
	}
	return ""
}

// fault says what the step that refused found wrong, for operators: more than
// the client is told.
func (x *exchange) fault(p *problem.Problem) string {
	detail := p.Detail
	switch p.Code { //nolint:exhaustive // the others need no more
	case problem.KeyStoreUnavailable:
		if p.Cause != nil {
			detail += " " + p.Cause.Error()
		}
	case problem.KeyExpired:
		detail += " It has expired at " + expiryTime(x.caller.Key) + "."
	case problem.IPNotAllowed:
		detail += " Allowed: " + strings.Join(x.caller.Key.Addresses.Strings(), ", ") + "."
	case problem.SubaccountNotAllowed:
		if !x.caller.Account.Subaccounts.Contains(x.asked.Subaccount) {
			return detail + " It is none of the account's."
		}
		detail += " The account has it, and the key is limited to others."
	case problem.PermissionDenied:
		if !x.caller.Key.Permissions.Has(x.asked.Needs) {
			return detail
		}
		detail += " The key has it, and its account has not."
	}
	return detail
}

func expiryText(k *policy.Key) string {
	if k.Expiry.Never() {
		return "it never expires"
	}
	return "it expires at " + expiryTime(k)
}

func expiryTime(k *policy.Key) string {
	return time.Unix(k.Expiry.Unix(), 0).UTC().Format(time.RFC3339)
}

func addressSeen(x *exchange) string {
	seen := "not known"
	if x.from.client.IsValid() {
		seen = x.from.client.String()
	}
	if x.caller.Key.Addresses.Any() {
		return seen + "; the key may be used from any"
	}
	return seen + "; the key may be used from " + strings.Join(x.caller.Key.Addresses.Strings(), ", ")
}

func (g *Gateway) limitText(x *exchange) string {
	l := g.limiterOf(x)
	if !l.limits() {
		return "no rate counts for this request"
	}
	return "the rate " + l.name + " counts, and is not used up"
}
