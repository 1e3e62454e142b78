package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/problem"
)

func TestUnknownAndMalformedTokensGetTheSameAnswer(t *testing.T) {
	t.Parallel()
	var bodies []string
	for _, token := range []string{"x", "", good[:63], good + "0", "gh_" + good[3:], tokenOf("unknown"), strings.ToLower(good)} {
		k := newKase()
		header("api-token", token)(k)
		a, _ := k.start(t).do(k.raw())
		bodies = append(bodies, fmt.Sprint(a.Status, a.Header.Get("WWW-Authenticate"), steady(a.Body)))
	}
	for _, body := range bodies {
		if diff := cmp.Diff(bodies[0], body); diff != "" {
			t.Error(diff)
		}
	}
}

func TestOnlyAnUnknownTokenIsTheClientsFault(t *testing.T) {
	t.Parallel()
	whole := entry()
	for _, row := range []struct {
		name  string
		entry keystore.Entry
		err   error
		want  problem.Code
	}{
		{"unknown", keystore.Entry{}, keystore.ErrUnknownToken, problem.InvalidToken},
		{"unknown, wrapped", keystore.Entry{}, fmt.Errorf("lookup: %w", keystore.ErrUnknownToken), problem.InvalidToken},
		{"unavailable", keystore.Entry{}, keystore.ErrUnavailable, problem.KeyStoreUnavailable},
		{"an error nobody foresaw", whole, errors.New("surprise"), problem.KeyStoreUnavailable},
		{"not found", keystore.Entry{}, keystore.ErrNotFound, problem.KeyStoreUnavailable},
		{"timeout", keystore.Entry{}, context.DeadlineExceeded, problem.KeyStoreUnavailable},
		{"end of a connection", keystore.Entry{}, io.EOF, problem.KeyStoreUnavailable},
		{"no key", keystore.Entry{Account: whole.Account}, nil, problem.KeyStoreUnavailable},
		{"no account", keystore.Entry{Key: whole.Key}, nil, problem.KeyStoreUnavailable},
		{"nothing at all", keystore.Entry{}, nil, problem.KeyStoreUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, func(s *setup) {
				s.keys = finder(func(context.Context, keystore.Token) (keystore.Entry, error) { return row.entry, row.err })
			})
			a, record := g.do(get(product + "/proxy-list"))
			if record.Reason != string(row.want) || a.Status != row.want.Status() {
				t.Errorf("got %d %s, want %s", a.Status, record.Reason, row.want)
			}
			if row.want == problem.KeyStoreUnavailable && (a.Header.Get("Retry-After") != "1" || a.Header.Get("WWW-Authenticate") != "") {
				t.Errorf("a 503 with Retry-After %q and WWW-Authenticate %q", a.Header.Get("Retry-After"), a.Header.Get("WWW-Authenticate"))
			}
			g.backend.sawNothing(t)
		})
	}
}

func TestStoreIsNotAskedAboutMalformedTokens(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	g := start(t, func(s *setup) {
		find := s.keys
		s.keys = finder(func(ctx context.Context, token keystore.Token) (keystore.Entry, error) {
			asked <- struct{}{}
			return find.Lookup(ctx, token)
		})
	})
	changed := []byte(good)
	changed[30]++
	for _, token := range []string{"", "gk_", "x", good[:63], good + "0", string(changed), "gk-" + good[3:], strings.ToUpper(good), strings.Repeat("0", 64)} {
		for _, line := range []string{"api-token: " + token, bearerName + token} {
			if a, _ := g.do("GET " + product + "/proxy-list HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + line + "\r\n\r\n"); a.Status != http.StatusUnauthorized {
				t.Errorf("%s: status %d, want 401", line, a.Status)
			}
		}
	}
	if len(asked) > 0 {
		t.Errorf("the store was asked %d times, want never", len(asked))
	}
	if a, _ := g.do(get(product + "/proxy-list")); a.Status != http.StatusOK || len(asked) != 1 {
		t.Errorf("with a good token: status %d and %d lookups, want 200 and 1", a.Status, len(asked))
	}
}

// TestOutageIsNeverRememberedAsAnUnknownKey runs on a real store.
func TestOutageIsNeverRememberedAsAnUnknownKey(t *testing.T) {
	t.Parallel()
	redis := miniredis.RunT(t)
	catalogue, err := policy.NewCatalogue(readPermission, writePermission, deletePermission, serpPermission)
	if err != nil {
		t.Fatal(err)
	}
	clock := newClock()
	store, err := keystore.Open(t.Context(), keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{redis.Addr()}}, Prefix: "t:", Timeout: time.Second, Mode: keystore.Strict, Create: true,
		CacheEntries: 100, Catalogue: catalogue, TokenPrefix: "gk_", MaxKeys: 10, Now: clock.Now, Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	_, _, err = store.PutAccount(t.Context(), policy.Caller{}, keystore.Account{
		ID: "acme", Name: "Acme", Permissions: []string{"*"}, Subaccounts: []policy.Subaccount{{ID: subA, Product: "datacenter_shared"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := store.Rules(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	key, token, err := store.Create(t.Context(), policy.Caller{Account: rules}, keystore.NewKey{
		Name: "CI", Permissions: policy.NewPermissionSet(readPermission), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
	})
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, func(s *setup) { s.keys = store })
	ask := func(want string) {
		t.Helper()
		if _, record := g.do(strings.ReplaceAll(get(product+"/proxy-list"), good, token.Reveal())); record.Reason != want {
			t.Errorf("recorded %s (%v), want %s", record.Reason, record.Cause, want)
		}
	}
	ask("allowed")
	redis.SetError("LOADING")
	ask("key_store_unavailable")
	redis.SetError("")
	ask("allowed")
	if _, err := store.Revoke(t.Context(), policy.Caller{Account: rules}, key.ID); err != nil {
		t.Fatal(err)
	}
	ask("invalid_token")
}

// TestCredential: one token, in one of two headers or the same in both.
func TestCredential(t *testing.T) {
	t.Parallel()
	const allowed, missing, ambiguous, invalid = "allowed", "missing_credentials", "ambiguous_credentials", "invalid_token"
	other := tokenOf("other")
	g := newGate(t, func(s *setup) { s.backend = proxy.BackendFunc(accept) })
	for _, row := range []struct {
		name, query        string
		own, authorization []string
		want               string
	}{
		{"api-token", "", []string{good}, nil, allowed},
		{"bearer", "", nil, []string{"Bearer " + good}, allowed},
		{"bearer in another case", "", nil, []string{"bEARER " + good}, allowed},
		{"bearer with spaces", "", nil, []string{"Bearer   " + good + " "}, allowed},
		{"both the same", "", []string{good}, []string{"Bearer " + good}, allowed},
		{"none", "", nil, nil, missing},
		{"in the query", "api-token=" + good + "&access_token=" + good, nil, nil, missing},
		{"in the query beside another", "api-token=" + other, []string{good}, nil, allowed},
		{"both, but different", "", []string{good}, []string{"Bearer " + other}, ambiguous},
		{"both, the other way round", "", []string{other}, []string{"Bearer " + good}, ambiguous},
		{"both, one empty", "", []string{""}, []string{"Bearer " + good}, ambiguous},
		{"both, in another letter case", "", []string{good}, []string{"Bearer " + strings.ToUpper(good)}, ambiguous},
		{"api-token twice", "", []string{good, good}, nil, ambiguous},
		{"api-token twice, one empty", "", []string{good, ""}, nil, ambiguous},
		{"bearer twice", "", nil, []string{"Bearer " + good, "Bearer " + good}, ambiguous},
		{"bearer and basic", "", nil, []string{"Bearer " + good, "Basic eDp5"}, ambiguous},
		{"api-token and basic", "", []string{good}, []string{"Basic eDp5"}, ambiguous},
		{"api-token and an empty Authorization", "", []string{good}, []string{""}, ambiguous},
		{"basic", "", nil, []string{"Basic eDp5"}, missing},
		{"the token alone", "", nil, []string{good}, missing},
		{"the scheme alone", "", nil, []string{"Bearer"}, missing},
		{"an empty Authorization", "", nil, []string{""}, missing},
		{"another separator", "", nil, []string{"Bearer\t" + good}, missing},
		{"a scheme that begins like it", "", nil, []string{"BearerX " + good}, missing},
		{"an empty bearer token", "", nil, []string{"Bearer "}, invalid},
		{"an empty api-token", "", []string{""}, nil, invalid},
		{"two tokens in one", "", []string{good + ", " + good}, nil, invalid},
		{"two bearer tokens in one", "", nil, []string{"Bearer " + good + ", Bearer " + good}, invalid},
		{"a token in quotes", "", []string{`"` + good + `"`}, nil, invalid},
		{"a token with a space before", "", []string{" " + good}, nil, invalid},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, product+"/proxy-list?"+row.query, nil)
			r.Header = http.Header{}
			for name, values := range map[string][]string{"Api-Token": row.own, "Authorization": row.authorization} {
				if values != nil {
					r.Header[name] = values
				}
			}
			w, record := g.serve(t, r)
			if record.Reason != row.want {
				t.Errorf("recorded %s, want %s", record.Reason, row.want)
			}
			challenge := map[string]string{missing: `Bearer realm="gatehouse"`, invalid: `Bearer realm="gatehouse", error="invalid_token"`}[row.want]
			if got := w.Header().Get("WWW-Authenticate"); got != challenge {
				t.Errorf("WWW-Authenticate is %q, want %q", got, challenge)
			}
			if strings.Contains(w.Body.String(), good) || strings.Contains(w.Body.String(), other) {
				t.Errorf("the answer shows a token: %s", w.Body)
			}
		})
	}
}

// TestOtherHeadersAreNoCredential: what some servers read as the same header
// does not count.
func TestOtherHeadersAreNoCredential(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, line := range []string{"api_token: ", "API_TOKEN: ", "apitoken: ", "x-api-token: ", "x-api-key: ", "Proxy-Authorization: Bearer ", "Cookie: api-token="} {
		a, record := g.do("GET " + product + "/proxy-list HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + line + good + "\r\n\r\n")
		if a.Status != http.StatusUnauthorized || record.Reason != "missing_credentials" {
			t.Errorf("%s: answered %d %s, want 401 missing_credentials", line, a.Status, record.Reason)
		}
	}
	g.backend.sawNothing(t)
}
