package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The subaccounts of the tests: two of the account acme, and one of another.
const (
	subA       = "aaaaaaaa-0000-4000-8000-00000000000a"
	subB       = "bbbbbbbb-0000-4000-8000-00000000000b"
	subForeign = "ffffffff-0000-4000-8000-00000000000f"
	subNobodys = "eeeeeeee-0000-4000-8000-00000000000e"

	keysPath     = "/v4/account/api-keys"
	whoamiPath   = "/v4/account/whoami"
	proxyListOfA = "/v4/account/" + subA + "/datacenter_shared/proxy-list"
	proxyListOfB = "/v4/account/" + subB + "/datacenter_shared/proxy-list"
	whitelistOfA = "/v4/account/" + subA + "/datacenter_shared/whitelist"
	subusersOfA  = "/v4/account/" + subA + "/residential/subusers"
)

// newKey is the body that creates a key.
type newKey struct {
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
	Subaccounts []string `json:"allowed_subaccounts,omitempty"`
	IPs         []string `json:"allowed_ips,omitempty"`
	ExpiresAt   *int64   `json:"expires_at,omitempty"`
}

// may is the body for a key with these permissions.
func may(permissions ...string) newKey { return newKey{Name: "a key", Permissions: permissions} }

// key is a key as the answer to its creation shows it.
type key struct {
	ID          string   `json:"id"`
	Token       string   `json:"token"`
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
	Subaccounts []string `json:"allowed_subaccounts"`
	IPs         []string `json:"allowed_ips"`
	ExpiresAt   *int64   `json:"expires_at"`
	CreatedAt   int64    `json:"created_at"`
}

type subaccount struct {
	ID      string `json:"id"`
	Label   string `json:"label"`
	Product string `json:"product"`
}

// account is the body that provisions one.
type account struct {
	Name        string       `json:"name"`
	Permissions []string     `json:"permissions"`
	Status      string       `json:"status,omitempty"`
	Subaccounts []subaccount `json:"subaccounts"`
	Plan        string       `json:"plan,omitempty"`
}

// acme is an account that may do everything, with the subaccounts A and B.
func acme() account {
	return account{Name: "Acme", Permissions: []string{"*"}, Subaccounts: []subaccount{
		{subA, "EU scraping", "datacenter_shared"}, {subB, "US research", "residential"},
	}}
}

// everything is what the catalogue of the tests holds.
var everything = []string{
	"datacenter_shared:read", "datacenter_shared:write", "datacenter_shared:delete",
	"residential:read", "residential:write", "residential:delete",
	"serp_api:read", "serp_api:write", "serp_api:delete", "subaccount:read", "subaccount:write",
	"account:apikeys:create", "account:apikeys:read", "account:apikeys:update", "account:apikeys:delete", "account:apikeys:regenerate", "account:audit:read", "account:usage:read",
}

// operate makes a request to the admin API. A body that is text is sent as it is.
func (g *gateway) operate(t *testing.T, method, path string, body any) answer {
	t.Helper()
	var content io.Reader
	if text, ok := body.(string); ok {
		content = strings.NewReader(text)
	} else if body != nil {
		content = bytes.NewReader(encode(t, body))
	}
	r, err := http.NewRequest(method, "http://"+g.admin+"/admin/v1"+path, content)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+operatorToken)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return g.do(t, r)
}

func (g *gateway) do(t *testing.T, r *http.Request) answer {
	t.Helper()
	got, err := answerTo(g.client, r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func answerTo(client *http.Client, r *http.Request) (answer, error) {
	response, err := client.Do(r)
	if err != nil {
		return answer{}, err
	}
	said, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return answer{}, err
	}
	return answer{proto: response.Proto, status: response.StatusCode, header: response.Header, body: string(said)}, nil
}

func (g *gateway) putAccount(t *testing.T, id string, a account) {
	t.Helper()
	got := g.operate(t, http.MethodPut, "/accounts/"+id, a)
	if got.status != http.StatusOK && got.status != http.StatusCreated {
		t.Fatalf("PUT account %s: %d %s", id, got.status, got.body)
	}
}

// firstKey makes a key as the operator.
func (g *gateway) firstKey(t *testing.T, account string, k newKey) key {
	t.Helper()
	return created(t, g.operate(t, http.MethodPost, "/accounts/"+account+"/keys", k))
}

// createKey makes a key with another one, as customers do.
func (g *gateway) createKey(t *testing.T, by key, k newKey) key {
	t.Helper()
	return created(t, g.send(t, creation(by, string(encode(t, k)))))
}

// creation is a request that creates a key.
func creation(by key, body string) request {
	return request{
		method: http.MethodPost, target: keysPath, host: "api.example.com", body: body,
		header: []string{"api-token: " + by.Token, "Content-Type: application/json"},
	}
}

func created(t *testing.T, got answer) key {
	t.Helper()
	if got.status != http.StatusCreated {
		t.Fatalf("creating a key: %d %s", got.status, got.body)
	}
	return dataOf[key](t, got)
}

// dataOf decodes the data of an answer in which nothing is undocumented.
func dataOf[T any](t *testing.T, got answer) T {
	t.Helper()
	var envelope struct {
		Success    bool    `json:"success"`
		Message    string  `json:"message"`
		Data       T       `json:"data"`
		Warning    string  `json:"warning"`
		Note       string  `json:"note"`
		NextCursor *string `json:"next_cursor"`
	}
	decoder := json.NewDecoder(strings.NewReader(got.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&envelope); err != nil || !envelope.Success {
		t.Fatalf("%v in the answer %d %s", err, got.status, got.body)
	}
	return envelope.Data
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// get is a request of a key for what it reads of subaccount A.
func get(k key, target string) request {
	return request{method: http.MethodGet, target: target, host: "api.example.com", header: []string{"api-token: " + k.Token}}
}

// passes sends a request, which must get the product's answer.
func (g *gateway) passes(t *testing.T, r request) answer {
	t.Helper()
	got := g.send(t, r)
	if got.status != http.StatusOK {
		t.Errorf("%s %s: got %d %s, want 200", r.method, r.target, got.status, got.body)
	}
	return got
}

// refuses sends a request, which must be refused.
func (g *gateway) refuses(t *testing.T, r request, want refusal) answer {
	t.Helper()
	got := g.send(t, r)
	want.check(t, got)
	if t.Failed() {
		t.Logf("that was the answer to %s %s", r.method, r.target)
	}
	return got
}
