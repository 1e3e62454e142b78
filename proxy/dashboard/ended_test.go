package dashboard_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/problem"
)

// endings are what can happen to who is signed in while a request is under way;
// the page says "ended" for all but a lost permission.
func endings() map[string]func(s *site) {
	yes := true
	put := func(s *site, change func(a *keystore.Account)) {
		a := s.account
		change(&a)
		_, _, err := s.store.PutAccount(s.t.Context(), policy.Caller{}, a)
		s.must(err)
	}
	return map[string]func(s *site){
		"user disabled": func(s *site) {
			_, err := s.store.UpdateUser(s.t.Context(), s.caller(), s.user.ID, keystore.UserChange{Disabled: &yes})
			s.must(err)
		},
		"user deleted":          func(s *site) { s.must(s.store.DeleteUser(s.t.Context(), s.caller(), s.user.ID)) },
		"signed out":            func(s *site) { s.must(s.store.EndSession(s.t.Context(), s.cookie().Value)) },
		"signed out everywhere": func(s *site) { s.must(s.store.EndSessions(s.t.Context(), s.caller(), s.user.ID)) },
		"account suspended":     func(s *site) { put(s, func(a *keystore.Account) { a.Status = policy.Suspended }) },
		permissionLost: func(s *site) {
			put(s, func(a *keystore.Account) { a.Permissions = []string{"datacenter_shared:*", "account:apikeys:read"} })
		},
	}
}

const permissionLost = "permission lost"

func (s *site) cookie() *http.Cookie {
	s.t.Helper()
	u, err := url.Parse(s.server.URL)
	s.must(err)
	cookies := s.browser.Jar.Cookies(u)
	if len(cookies) != 1 {
		s.t.Fatalf("there are %d cookies", len(cookies))
	}
	return cookies[0]
}

// justBefore is a store that has something happen just before each change of a key.
type justBefore struct {
	dashboard.Store
	happens func()
}

func (b justBefore) Create(ctx context.Context, by policy.Caller, k keystore.NewKey) (policy.Key, keystore.Token, error) {
	b.happens()
	return b.Store.Create(ctx, by, k)
}

func (b justBefore) Update(ctx context.Context, by policy.Caller, id policy.KeyID, u keystore.Update) (after, before policy.Key, err error) {
	b.happens()
	return b.Store.Update(ctx, by, id, u)
}

func (b justBefore) Revoke(ctx context.Context, by policy.Caller, id policy.KeyID) (time.Time, error) {
	b.happens()
	return b.Store.Revoke(ctx, by, id)
}

func (b justBefore) Regenerate(ctx context.Context, by policy.Caller, id policy.KeyID, grace time.Duration) (policy.Key, keystore.Token, error) {
	b.happens()
	return b.Store.Regenerate(ctx, by, id, grace)
}

func lateForm() url.Values {
	return url.Values{
		"name": {"late"}, "permissions": {"datacenter_shared:read"}, "expires_date": {""}, "expires_time": {""}, "allowed_ips": {""},
		"form_id": {"0123456789abcdef0123"},
	}
}

// keyChanges are the forms that change keys, by their path below the keys.
func (s *site) keyChanges(k policy.Key) map[string]url.Values {
	s.t.Helper()
	edit := lateForm()
	page := s.get("/dashboard/keys/" + string(k.ID) + "/edit")
	_, after, found := strings.Cut(page.body, `name="shown" value="`)
	if !found {
		s.t.Fatalf("the form of a key shows nothing: %d", page.status)
	}
	shown, _, _ := strings.Cut(after, `"`)
	edit.Set("shown", shown)
	below := "/" + string(k.ID)
	return map[string]url.Values{
		"/new": lateForm(), below + "/edit": edit, below + "/disable": {},
		below + "/regenerate": {"name": {k.Name}, "grace": {"0"}}, below + "/revoke": {"name": {k.Name}},
	}
}

// TestWhoIsSignedInNoMoreChangesNoKey: what counts is what is true when the
// change is made, not when the request began.
func TestWhoIsSignedInNoMoreChangesNoKey(t *testing.T) {
	t.Parallel()
	for name, end := range endings() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			happens := func() {}
			for _, path := range []string{"/new", "/edit", "/disable", "/regenerate", "/revoke"} {
				s := start(t, func(s *site) {
					s.wrap = func(st dashboard.Store) dashboard.Store { return justBefore{st, func() { happens() }} }
				})
				s.signIn()
				k, _, err := s.store.Create(t.Context(), s.caller(), keystore.NewKey{
					Name: "prod", Permissions: policy.NewPermissionSet("datacenter_shared:read"), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
				})
				s.must(err)
				for below, form := range s.keyChanges(k) {
					if !strings.HasSuffix(below, path) {
						continue
					}
					happened := false
					happens = func() { end(s); happened = true }
					s.wantRefused(s.post("/dashboard/keys"+below, form), name, below)
					if !happened {
						t.Errorf("%s: the store was not asked", below)
					}
				}
				keys, _, err := s.store.List(t.Context(), s.caller(), "", 10)
				s.must(err)
				if len(keys) != 1 || keys[0].ID != k.ID || keys[0].Name != k.Name || !keys[0].Active {
					t.Errorf("%s: there are the keys %+v", path, keys)
				}
			}
		})
	}
}

// wantRefused: who is not signed in is asked to sign in, and who may not do it
// any more is told so.
func (s *site) wantRefused(a answer, ending, what string) {
	s.t.Helper()
	if ending == permissionLost {
		if a.status != http.StatusForbidden || s.refused.Load().Code != problem.PermissionDenied || !strings.Contains(a.body, "Your account does not have the permission") {
			s.t.Errorf("%s: got %d: %s", what, a.status, a.body)
		}
		return
	}
	if a.status != http.StatusSeeOther || a.header.Get("Location") != "/dashboard/sign-in?ended=1" {
		s.t.Errorf("%s: got %d to %q", what, a.status, a.header.Get("Location"))
	}
}

// slowBody is a body before whose first byte something happens.
type slowBody struct {
	io.Reader
	happens func()
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.happens != nil {
		b.happens()
		b.happens = nil
	}
	return b.Reader.Read(p)
}

// TestFormIsReadBeforeItsSenderIsLookedUp: a body that takes its time does not
// keep a session alive that has ended meanwhile.
func TestFormIsReadBeforeItsSenderIsLookedUp(t *testing.T) {
	t.Parallel()
	for name, end := range endings() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(s *site) {
				s.wrap = func(st dashboard.Store) dashboard.Store {
					return justBefore{st, func() { t.Error("the store was asked for a change") }}
				}
			})
			s.signIn()
			body := &slowBody{Reader: strings.NewReader(lateForm().Encode()), happens: func() { end(s) }}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://dash.example/dashboard/keys/new", body)
			r.AddCookie(s.cookie())
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Sec-Fetch-Site", "same-origin")
			w := httptest.NewRecorder()
			s.must(s.pages.Load().Serve(w, r, dashboard.From{
				Client: netip.MustParseAddr(clientIP), RequestID: "request-1", Scheme: "https", Refuse: func(p *problem.Problem) { s.refused.Store(p) },
			}))
			s.wantRefused(answer{status: w.Code, header: w.Header(), body: w.Body.String()}, name, "create")
		})
	}
}
