package proxy_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/problem"
)

// notes are the refusals that a route of Gatehouse's own was told of.
type notes struct {
	mu  sync.Mutex
	all []string
	by  policy.Caller
}

func (n *notes) take(_ context.Context, r *http.Request, by policy.Caller, code problem.Code) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, r.PathValue("id")+" "+string(code))
	n.by = by
}

func (n *notes) taken() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

// ownGate has an API of Gatehouse's own, below /own, and one product route.
func ownGate(t *testing.T, n *notes, changes ...func(*setup)) *gate {
	t.Helper()
	return start(t, append([]func(*setup){func(s *setup) {
		own := proxy.BackendFunc(func(w http.ResponseWriter, r *http.Request, _ proxy.Access) error {
			switch r.PathValue("id") {
			case "missing":
				return keystore.ErrNotFound
			case "unavailable":
				return keystore.ErrUnavailable
			}
			w.WriteHeader(http.StatusNoContent)
			return nil
		})
		list, err := proxy.NewRoutes([]string{"/own"}, []proxy.RouteSpec{
			{Match: "GET /own", Permission: readPermission, Backend: own, Own: true},
			{Match: "POST /own", Permission: writePermission, Backend: own, Own: true, Refused: n.take},
			{Match: "DELETE /own/{id}", Permission: writePermission, Backend: own, Own: true, Refused: n.take},
			{Match: "PUT /own/{id}", Permission: serpPermission, Backend: own, Own: true, Refused: n.take},
			{Match: "GET /serp/v1/open", Permission: policy.AnyValidKey, Backend: own},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.options.Routes = list
		s.options.Origins = []string{"https://app.example.com"}
	}}, changes...)...)
}

const (
	page     = "Origin: https://app.example.com"
	stranger = "Origin: https://evil.example"
)

// TestPagesOfAllowedOriginsReadEveryAnswer of Gatehouse's own API, errors too, and
// no other page reads any.
func TestPagesOfAllowedOriginsReadEveryAnswer(t *testing.T) {
	t.Parallel()
	g := ownGate(t, &notes{})
	for _, row := range []struct {
		name    string
		request string
		status  int
		allowed bool
		varies  bool
	}{
		{"allowed", request("GET", "/own", "", page), 204, true, true},
		{"refused", request("PUT", "/own/1", "", page), 403, true, true},
		{"failed", request("DELETE", "/own/missing", "", page), 404, true, true},
		{"without a credential", strings.Replace(request("GET", "/own", "", page), "Api-Token: "+good+"\r\n", "", 1), 401, true, true},
		{"nothing there", request("GET", "/own/a/b", "", page), 404, true, true},
		{"another method", request("PATCH", "/own", "", page), 405, true, true},
		{"a stranger", request("GET", "/own", "", stranger), 204, false, true},
		{"a stranger, refused", request("PUT", "/own/1", "", stranger), 403, false, true},
		{"nobody", request("GET", "/own", ""), 204, false, true},
		{"two origins", request("GET", "/own", "", page, page), 204, false, true},
		{"another letter case", request("GET", "/own", "", "Origin: https://APP.example.com"), 204, false, true},
		{"another scheme", request("GET", "/own", "", "Origin: http://app.example.com"), 204, false, true},
		{"null", request("GET", "/own", "", "Origin: null"), 204, false, true},
		{"a product", request("GET", "/serp/v1/open", "", page), 204, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, _ := g.do(row.request)
			origin := a.Header.Values("Access-Control-Allow-Origin")
			if a.Status != row.status || row.allowed != slices.Equal(origin, []string{"https://app.example.com"}) || (!row.allowed && len(origin) > 0) {
				t.Errorf("answered %d with the origins %q, want %d", a.Status, origin, row.status)
			}
			if varies := slices.Contains(a.Header.Values("Vary"), "Origin"); varies != row.varies {
				t.Errorf("Vary is %q", a.Header.Values("Vary"))
			}
			if exposed := a.Header.Get("Access-Control-Expose-Headers"); row.allowed != strings.Contains(exposed, "Retry-After") {
				t.Errorf("exposed are %q", exposed)
			}
			if a.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Error("cookies are allowed")
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	g := ownGate(t, &notes{}, func(s *setup) {
		s.keys = finder(func(context.Context, keystore.Token) (keystore.Entry, error) {
			t.Error("a preflight asked for a key")
			return keystore.Entry{}, keystore.ErrUnavailable
		})
	})
	preflight := func(target string, lines ...string) string {
		return strings.Replace(request("OPTIONS", target, "", lines...), "Api-Token: "+good+"\r\n", "", 1)
	}
	for _, target := range []string{"/own", "/own/1"} {
		methods := map[string]string{"/own": "GET, HEAD, POST", "/own/1": "DELETE, PUT"}[target]
		a, record := g.do(preflight(target, page, "Access-Control-Request-Method: "+map[string]string{"/own": "POST", "/own/1": "PUT"}[target]))
		h := a.Header
		if a.Status != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "https://app.example.com" || h.Get("Access-Control-Allow-Methods") != methods ||
			h.Get("Access-Control-Allow-Headers") != "api-token, authorization, content-type" || h.Get("Access-Control-Max-Age") != "600" ||
			!strings.Contains(strings.Join(h.Values("Vary"), ", "), "Access-Control-Request-Method") || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: answered %d %v", target, a.Status, h)
		}
		if record.Reason != "preflight" || record.Status != http.StatusNoContent || record.Route == "" || record.Key != "" {
			t.Errorf("%s: recorded %+v", target, record)
		}
	}
	for name, row := range map[string]struct {
		request string
		status  int
	}{
		"a stranger":        {preflight("/own", stranger, "Access-Control-Request-Method: POST"), 405},
		"nobody":            {preflight("/own", "Access-Control-Request-Method: POST"), 405},
		"no method":         {preflight("/own", page), 405},
		"two methods":       {preflight("/own", page, "Access-Control-Request-Method: POST", "Access-Control-Request-Method: GET"), 405},
		"another method":    {preflight("/own", page, "Access-Control-Request-Method: PATCH"), 405},
		"nothing there":     {preflight("/own/a/b", page, "Access-Control-Request-Method: POST"), 404},
		"a product":         {preflight("/serp/v1/open", page, "Access-Control-Request-Method: GET"), 405},
		"an ambiguous path": {preflight("/own//1", page, "Access-Control-Request-Method: PUT"), 400},
	} {
		if a, _ := g.do(row.request); a.Status != row.status || a.Header.Get("Access-Control-Allow-Methods") != "" {
			t.Errorf("%s: answered %d %v, want %d", name, a.Status, a.Header, row.status)
		}
	}
}

func TestWithoutOriginsThereIsNoCORS(t *testing.T) {
	t.Parallel()
	g := ownGate(t, &notes{}, func(s *setup) { s.options.Origins = nil })
	for _, raw := range []string{request("GET", "/own", "", page), request("OPTIONS", "/own", "", page, "Access-Control-Request-Method: POST")} {
		a, _ := g.do(raw)
		for name := range a.Header {
			if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
				t.Errorf("answered %v", a.Header)
			}
		}
	}
}

// TestRefusedActionsAreNoted: whatever refuses them, once the key is known, and
// with what is asked for.
func TestRefusedActionsAreNoted(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		request string
		change  func(*setup)
		want    []string
	}{
		"allowed":             {request("DELETE", "/own/1", ""), nil, nil},
		"the permission":      {request("PUT", "/own/1", ""), nil, []string{"1 permission_denied"}},
		"the backend":         {request("DELETE", "/own/missing", ""), nil, []string{"missing not_found"}},
		"an action that is":   {request("PUT", "/own/a%20b", ""), nil, []string{"a%20b permission_denied"}},
		"the body":            {request("POST", "/own", strings.Repeat("x", maxBody+1)), nil, []string{" body_too_large"}},
		"a route that is not": {request("GET", "/own/1", ""), nil, nil},
		"nobody known":        {strings.ReplaceAll(request("PUT", "/own/1", ""), good, tokenOf("other")), nil, nil},
		"the rate":            {request("DELETE", "/own/1", ""), func(s *setup) { s.options.Management = exhausted(t) }, nil},
		"too many of them":    {request("PUT", "/own/2", ""), func(s *setup) { s.options.Management = exhausted(t) }, []string{"1 permission_denied"}},
		"the store":           {request("DELETE", "/own/unavailable", ""), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n notes
			changes := []func(*setup){}
			if row.change != nil {
				changes = append(changes, row.change)
			}
			g := ownGate(t, &n, changes...)
			if row.change != nil { // the budgets of actions, and of notes
				g.do(request("DELETE", "/own/1", ""))
			}
			if name == "too many of them" {
				g.do(request("PUT", "/own/1", ""))
			}
			_, record := g.do(row.request)
			if got := n.taken(); !slices.Equal(got, row.want) {
				t.Errorf("noted are %q, want %q", got, row.want)
			}
			if len(row.want) > 0 && (n.by.Key == nil || n.by.Account == nil || (n.by.RequestID != record.RequestID && row.change == nil) || !n.by.Client.IsValid()) {
				t.Errorf("noted is the caller %+v", n.by)
			}
		})
	}
}

// exhausted has a budget for one request.
func exhausted(t testing.TB) *proxy.Limiter { return newLimiter(t, 0.001, 1) }

// TestManagementHasItsOwnBudget: requests to the API and to products do not
// take from one another's.
func TestManagementHasItsOwnBudget(t *testing.T) {
	t.Parallel()
	g := ownGate(t, &notes{}, func(s *setup) { s.options.Management, s.options.Limits = exhausted(t), newLimiter(t, 0.001, 2) })
	for i, step := range []struct {
		target string
		status int
	}{{"/own", 204}, {"/own", 429}, {"/serp/v1/open", 204}, {"/own", 429}, {"/serp/v1/open", 204}, {"/serp/v1/open", 429}} {
		a, _ := g.do(get(step.target))
		if a.Status != step.status || (step.status == 429) != (a.Header.Get("Retry-After") != "" && a.Header.Get("RateLimit-Policy") != "") {
			t.Errorf("step %d, %s: answered %d %v, want %d", i, step.target, a.Status, a.Header, step.status)
		}
	}
}

// TestRefusalsCostTheKeyNothing: who may not use a key, as from another address,
// cannot use up its budget.
func TestRefusalsCostTheKeyNothing(t *testing.T) {
	t.Parallel()
	g := ownGate(t, &notes{}, func(s *setup) { s.options.Management = exhausted(t) })
	for range 3 {
		g.do(request("PUT", "/own/1", ""))
	}
	if a, _ := g.do(get("/own")); a.Status != http.StatusNoContent {
		t.Errorf("answered %d", a.Status)
	}
}

// TestKeysThatWereReplacedAreToldSo by every answer, RFC 9745 and RFC 8594.
func TestKeysThatWereReplacedAreToldSo(t *testing.T) {
	t.Parallel()
	replaced := entry()
	replaced.Key.ReplacedAt, replaced.Key.Expiry = time.Unix(1790000000, 0), policy.ExpiresAt(theTime.Unix()+3600)
	for name, keys := range map[string]func(t *testing.T) proxy.KeyFinder{
		"replaced": func(t *testing.T) proxy.KeyFinder { return only(t, good, replaced) },
		"not":      func(t *testing.T) proxy.KeyFinder { return only(t, good, entry()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, func(s *setup) { s.keys = keys(t) })
			for _, target := range []string{product + "/proxy-list", product + "/whitelist?type=get", "/serp/v1/search", "/serp/v1/open"} {
				a, _ := g.do(get(target))
				deprecation, sunset := strings.Join(a.Header["Deprecation"], " | "), strings.Join(a.Header["Sunset"], " | ")
				wantDeprecation, wantSunset := "", ""
				if name == "replaced" {
					wantDeprecation, wantSunset = "@1790000000", "Mon, 23 Nov 2026 13:00:00 GMT"
				}
				if deprecation != wantDeprecation || sunset != wantSunset {
					t.Errorf("%s: answered %d with %q and %q", target, a.Status, deprecation, sunset)
				}
			}
		})
	}
}

// TestRequestsOfKnownKeysAreCounted, with how they ended, and no others.
func TestRequestsOfKnownKeysAreCounted(t *testing.T) {
	t.Parallel()
	counted := make(chan string, 10)
	g := ownGate(t, &notes{}, func(s *setup) {
		s.options.Limits = newLimiter(t, 0.001, 1)
		s.options.Counted = func(r keystore.CountedRequest) {
			if r.Key != entry().Key.ID || r.Account != "acme" || !r.At.Equal(theTime) {
				t.Errorf("counted for %s of %s at %v", r.Key, r.Account, r.At)
			}
			counted <- string(r.Permission) + " " + r.Outcome + " " + r.Route
		}
	})
	unknown := strings.ReplaceAll(get("/serp/v1/open"), good, tokenOf("unknown"))
	for _, r := range []string{unknown, get("/nowhere"), get("/serp/v1/open"), get("/serp/v1/open"), request("PUT", "/own/1", "")} {
		g.do(r)
	}
	for _, want := range []string{"any-valid-key allowed GET /serp/v1/open", "any-valid-key rate_limited GET /serp/v1/open", "serp_api:write permission_denied PUT /own/{id}"} {
		if got := <-counted; got != want {
			t.Errorf("counted %q, want %q", got, want)
		}
	}
	if len(counted) != 0 {
		t.Errorf("%d more were counted", len(counted))
	}
}

// TestUseIsToldOfWhatIsLetThrough, and of nothing else.
func TestUseIsToldOfWhatIsLetThrough(t *testing.T) {
	t.Parallel()
	used := make(chan policy.KeyID, 10)
	g := ownGate(t, &notes{}, func(s *setup) {
		s.options.Limits = newLimiter(t, 0.001, 1)
		s.options.Used = func(key policy.KeyID, account policy.AccountID, at time.Time) {
			if account != "acme" || !at.Equal(theTime) {
				t.Errorf("used by %s at %v", account, at)
			}
			used <- key
		}
	})
	for _, target := range []string{"/serp/v1/open", "/serp/v1/open", "/own/1", "/nowhere"} { // let through, limited, refused, unknown
		g.do(get(target))
	}
	g.do(request("PUT", "/own/1", "")) // refused
	if len(used) != 1 || <-used != entry().Key.ID {
		t.Errorf("%d requests were told of, want the first", len(used)+1)
	}
}
