package contract

import (
	"net/netip"
	"strings"

	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// Explain is the body of a request that asks what would become of another one.
type Explain struct {
	Method        string        `json:"method"`
	URL           string        `json:"url"`
	ClientAddress string        `json:"client_address"`
	Headers       Strings       `json:"headers"`
	Token         Given[string] `json:"token"`
	KeyID         Given[string] `json:"key_id"`
	AccountID     Given[string] `json:"account_id"`
}

// ExplainedRequest is a request that is to be explained: what a client would
// send, and from where, or for which key in the place of its credential.
type ExplainedRequest struct {
	Method, Host, Target string
	Headers              []string // lines "Name: value"
	Client               netip.Addr
	Key                  policy.KeyID // "": the one that the headers show
	Account              policy.AccountID
}

// pathHost is the host of a request that is given by its path alone.
const pathHost = "localhost"

// Parse returns the request that is meant, or a 422 problem that names each
// fault, and repeats nothing that could be a token.
func (e Explain) Parse() (ExplainedRequest, error) {
	var wrong faults
	r := ExplainedRequest{Method: e.Method, Headers: e.Headers}
	if e.Method == "" || hasLineBreak(e.Method) {
		wrong.add("method", "A method is required, such as GET.")
	}
	var ok bool
	if r.Host, r.Target, ok = SplitURL(e.URL); !ok {
		wrong.add("url", "A URL is required: https://HOST/PATH, or /PATH alone.")
	}
	var err error
	if r.Client, err = netip.ParseAddr(e.ClientAddress); err != nil {
		wrong.add("client_address", "The address that the connection comes from is required, IPv4 or IPv6.")
	}
	for i, line := range e.Headers {
		if !IsHeaderLine(line) {
			wrong.addAt("headers", i, "A header must be one line, \"Name: value\", and not Host, which the URL gives.")
		}
	}
	e.credential(&r, &wrong)
	return r, wrong.err()
}

func (e Explain) credential(r *ExplainedRequest, wrong *faults) {
	if e.Token.Present && e.KeyID.Present {
		wrong.add("key_id", "Give a token or a key_id, not both.")
	}
	if e.AccountID.Present && !e.KeyID.Present {
		wrong.add("account_id", "An account_id is only needed to find a key_id.")
	}
	if e.Token.Present {
		if e.Token.Value == "" || hasLineBreak(e.Token.Value) {
			wrong.add("token", "The token must be one line.")
		}
		r.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], "Api-Token: "+e.Token.Value)
	}
	if e.KeyID.Present {
		r.Key = policy.KeyID(e.KeyID.Value)
		if _, err := policy.ParseSubaccountID(e.KeyID.Value); err != nil { // a key's id is a UUID too
			wrong.add("key_id", "A key's id is a UUID.")
		}
	}
	if e.AccountID.Present {
		r.Account = policy.AccountID(e.AccountID.Value)
		if !policy.ValidAccountID(e.AccountID.Value) {
			wrong.add("account_id", "This is no id of an account.")
		}
	}
}

// SplitURL cuts a URL, or a path alone, into the host and the bytes that a
// client would ask it for.
func SplitURL(s string) (host, target string, ok bool) {
	if hasLineBreak(s) {
		return "", "", false
	}
	if strings.HasPrefix(s, "/") {
		return pathHost, s, true
	}
	scheme, rest, found := strings.Cut(s, "://")
	if !found || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", "", false
	}
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	host, target = rest[:end], rest[end:]
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	return host, target, host != ""
}

// IsHeaderLine reports whether s can be a header line of a request whose host
// is given already.
func IsHeaderLine(s string) bool {
	name, _, found := strings.Cut(s, ":")
	return found && name != "" && !hasLineBreak(s) && !strings.EqualFold(strings.TrimSpace(name), "Host")
}

func hasLineBreak(s string) bool { return strings.ContainsAny(s, "\r\n") }

// Explanation says what a gateway would do with a request.
type Explanation struct {
	Allowed bool `json:"allowed"`
	// Reason is "allowed", "preflight" or the code of the refusal.
	Reason        string          `json:"reason"`
	Status        *int            `json:"status"` // of the refusal
	Detail        *string         `json:"detail"` // as the client would read it
	Route         *string         `json:"route"`
	Permission    *string         `json:"permission"`
	Subaccount    *string         `json:"subaccount"`
	Upstream      *string         `json:"upstream"`
	AccountID     *string         `json:"account_id"`
	KeyID         *string         `json:"key_id"`
	ClientAddress *string         `json:"client_address"`
	Steps         []ExplainedStep `json:"steps"`
}

// ExplainedStep is one step of the decision. Its outcome is passed, refused,
// not_reached, skipped or undecided.
type ExplainedStep struct {
	Step    string `json:"step"`
	Says    string `json:"says"`
	Outcome string `json:"outcome"`
	Detail  string `json:"detail"`
}

// Refuse notes the refusal.
func (e *Explanation) Refuse(p *problem.Problem) {
	status := p.Code.Status()
	e.Status, e.Detail = &status, &p.Detail
}
