package problem

import "gatehouse/policy"

// How a request can end beside the codes and policy.Allowed, in records, metrics
// and the counters of usage.
const (
	// ClientGone: the client closed its connection before there was an answer.
	ClientGone = "client_closed_request"
	// Aborted: an answer ended in the middle.
	Aborted = "response_aborted"
)

// Outcomes returns every way in which a request of a known key can end.
func Outcomes() []string {
	all := []string{string(policy.Allowed), ClientGone, Aborted}
	for _, c := range Codes() {
		all = append(all, string(c))
	}
	return all
}
