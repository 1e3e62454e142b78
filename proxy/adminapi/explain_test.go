package adminapi_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

const explainPath = "/admin/v1/explain"

// TestExplainPassesOnWhatIsMeant, byte for byte.
func TestExplainPassesOnWhatIsMeant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const id = "11111111-0000-4000-8000-000000000001"
	client := netip.MustParseAddr("203.0.113.7")
	for body, want := range map[string]contract.ExplainedRequest{
		`{"method":"GET","url":"/a%2F?b#c","client_address":"203.0.113.7"}`:                                              {Method: "GET", Host: "localhost", Target: "/a%2F?b#c", Client: client},
		`{"method":"g t","url":"HTTPS://Api.Example.com:8443?x","client_address":"203.0.113.7","headers":["X-Own:  a"]}`: {Method: "g t", Host: "Api.Example.com:8443", Target: "/?x", Client: client, Headers: []string{"X-Own:  a"}},
		`{"method":"GET","url":"http://a","client_address":"203.0.113.7","headers":["X: a"],"token":"gk_x"}`:             {Method: "GET", Host: "a", Target: "/", Client: client, Headers: []string{"X: a", "Api-Token: gk_x"}},
		`{"method":"GET","url":"//a/b","client_address":"2001:db8::1","key_id":"` + id + `","account_id":"acme"}`:        {Method: "GET", Host: "localhost", Target: "//a/b", Client: netip.MustParseAddr("2001:db8::1"), Key: id, Account: "acme"},
	} {
		w.must(http.MethodPost, explainPath, body)
		if diff := cmp.Diff(want, w.explained, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
	}
}

// TestExplainIsAskedStrictly: nothing is guessed, and nothing that could be a
// token is repeated.
func TestExplainIsAskedStrictly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const rest = `"method":"GET","url":"/","client_address":"203.0.113.7"`
	for body, says := range map[string]string{
		`{"url":"/","client_address":"203.0.113.7"}`:                `"field":"method"`,
		`{"method":"GET","client_address":"203.0.113.7"}`:           `"field":"url"`,
		`{"method":"GET","url":"/"}`:                                `"field":"client_address"`,
		`{"method":"GET","url":"ftp://a/","client_address":"::1"}`:  `"field":"url"`,
		`{"method":"GET","url":"http://","client_address":"::1"}`:   `"field":"url"`,
		`{"method":"GET","url":"/\r\nX: y","client_address":"::1"}`: `"field":"url"`,
		`{"method":"G\nET","url":"/","client_address":"::1"}`:       `"field":"method"`,
		`{"method":"GET","url":"/","client_address":"localhost"}`:   `"field":"client_address"`,
		`{` + rest + `,"headers":["sesame"]}`:                       `"field":"headers[0]"`,
		`{` + rest + `,"headers":["X: a","host: sesame"]}`:          `"field":"headers[1]"`,
		`{` + rest + `,"headers":["X: a\nsesame: b"]}`:              `"field":"headers[0]"`,
		`{` + rest + `,"headers":null}`:                             `"field":"headers"`,
		`{` + rest + `,"token":"sesame\n"}`:                         `"field":"token"`,
		`{` + rest + `,"token":""}`:                                 `"field":"token"`,
		`{` + rest + `,"token":null}`:                               `"field":"token"`,
		`{` + rest + `,"token":"sesame","key_id":"` + subA + `"}`:   `"field":"key_id"`,
		`{` + rest + `,"key_id":"sesame"}`:                          `"field":"key_id"`,
		`{` + rest + `,"account_id":"acme"}`:                        `"field":"account_id"`,
		`{` + rest + `,"account_id":"a b","key_id":"` + subA + `"}`: `"field":"account_id"`,
		`{` + rest + `,"Token":"sesame"}`:                           `"field":"Token"`,
	} {
		w.explained = contract.ExplainedRequest{}
		out := w.do(http.MethodPost, explainPath, body)
		check(t, out, problem.ValidationFailed, says)
		if strings.Contains(out.Body.String()+w.log.String(), "sesame") || w.explained.Method != "" {
			t.Errorf("%s: it was asked, or repeated: %s", body, out.Body)
		}
	}
	check(t, w.do(http.MethodPost, explainPath, `{`+rest+`,"method":"PUT"}`), problem.InvalidRequest, "twice")
	check(t, w.do(http.MethodPost, explainPath, `{`+rest+`,"headers":["`+strings.Repeat("x", 64<<10)+`"]}`), problem.BodyTooLarge, "")
	check(t, w.do(http.MethodGet, explainPath, ""), problem.MethodNotAllowed, "")
}
