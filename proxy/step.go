package proxy

import "gatehouse/policy"

// step is where on its way a request is.
type step uint8

// The steps in the order of the contract. policy.Decide goes those from
// stepDecide to stepPermission, in the order of policy.Reasons.
const (
	stepRequest step = iota
	stepPath
	stepRoute
	stepNeeds
	stepHandshake
	stepCredential
	stepToken
	stepStore
	stepActive
	stepExpiry
	stepAddress
	stepSubaccount
	stepPermission
	stepLimits
	stepForward
	steps // how many there are

	stepDecide = stepActive
)

// words are the short name of a step, and the sentence by which docs/api.md
// knows it.
func (s step) words() (name, sentence string) {
	switch s {
	case stepRequest:
		return "request", "the request is well-formed"
	case stepPath:
		return "path", "the path has its one spelling"
	case stepRoute:
		return "route", "a route matches"
	case stepNeeds:
		return "needs", "the deciding query parameter is there once, with a known value"
	case stepHandshake:
		return "handshake", "a WebSocket handshake is whole"
	case stepCredential:
		return "credential", "a credential is there, and only one"
	case stepToken:
		return "token", "the token is well-formed and known"
	case stepStore:
		return "store", "the key store answered"
	case stepActive:
		return "active", "the key and its account are active"
	case stepExpiry:
		return "expiry", "the key has not expired"
	case stepAddress:
		return "address", "the client's address is allowed"
	case stepSubaccount:
		return "subaccount", "the path's subaccount is the account's and the key's"
	case stepPermission:
		return "permission", "the permission is held"
	case stepLimits:
		return "limits", "the key has not too many requests under way, and its rate is not used up"
	case stepForward:
		return "forward", "forwarded"
	case steps:
	}
	panic("proxy: a step that does not exist")
}

// stepOf is the step that refuses for the reason.
func stepOf(r policy.Reason) step {
	switch r {
	case policy.KeyDisabled, policy.AccountSuspended:
		return stepActive
	case policy.KeyExpired:
		return stepExpiry
	case policy.IPNotAllowed:
		return stepAddress
	case policy.SubaccountNotAllowed:
		return stepSubaccount
	case policy.PermissionDenied, policy.Allowed:
		return stepPermission
	}
	return stepDecide
}
