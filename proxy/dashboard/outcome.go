package dashboard

import (
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// outcomeGroup is how requests ended, as charts tell it apart.
type outcomeGroup string

// The groups, in the order in which bars are stacked.
const (
	groupAllowed  outcomeGroup = "allowed"
	groupAccess   outcomeGroup = "access"
	groupAddress  outcomeGroup = "address"
	groupKey      outcomeGroup = "key"
	groupLimit    outcomeGroup = "limit"
	groupRequest  outcomeGroup = "request"
	groupUpstream outcomeGroup = "upstream"
	groupBroken   outcomeGroup = "broken"
)

func outcomeGroups() []outcomeGroup {
	return []outcomeGroup{groupAllowed, groupAccess, groupAddress, groupKey, groupLimit, groupRequest, groupUpstream, groupBroken}
}

// Label says what the group is.
func (g outcomeGroup) Label() string {
	switch g {
	case groupAllowed:
		return "Allowed"
	case groupAccess:
		return "Refused: permission or subaccount"
	case groupAddress:
		return "Refused: address"
	case groupKey:
		return "Refused: disabled or expired"
	case groupLimit:
		return "Refused: rate limit"
	case groupRequest:
		return "Refused: the request itself"
	case groupUpstream:
		return "Failed upstream"
	case groupBroken:
		return "Broken off"
	}
	return string(g)
}

// groupOf is the group of an outcome. One that nobody foresaw is a failure.
func groupOf(outcome string) outcomeGroup {
	switch outcome {
	case string(policy.Allowed):
		return groupAllowed
	case string(problem.PermissionDenied), string(problem.SubaccountNotAllowed):
		return groupAccess
	case string(problem.IPNotAllowed):
		return groupAddress
	case string(problem.KeyDisabled), string(problem.KeyExpired), string(problem.AccountSuspended):
		return groupKey
	case string(problem.RateLimited):
		return groupLimit
	case problem.ClientGone, problem.Aborted:
		return groupBroken
	}
	if status := problem.Code(outcome).Status(); status >= 400 && status < 500 {
		return groupRequest
	}
	return groupUpstream
}

// reached reports whether such requests had got past what the key may do: what
// they needed was used.
func (g outcomeGroup) reached() bool {
	return g == groupAllowed || g == groupRequest || g == groupUpstream || g == groupBroken
}

// refused reports whether the gateway said no to such requests.
func (g outcomeGroup) refused() bool {
	return g == groupAccess || g == groupAddress || g == groupKey || g == groupLimit || g == groupRequest
}
