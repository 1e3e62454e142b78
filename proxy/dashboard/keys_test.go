package dashboard_test

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/dashboard"
)

// notes has another node note how keys are used, and write it.
func (s *site) notes(note func(node *keystore.Store)) {
	s.t.Helper()
	node := s.open()
	note(node)
	s.must(node.Close())
}

// made makes a key that may read on the shared datacenter, as it is after the changes.
func (s *site) made(name string, changes ...func(*keystore.NewKey)) policy.Key {
	s.t.Helper()
	k, _ := s.madeWithToken(name, changes...)
	return k
}

func (s *site) madeWithToken(name string, changes ...func(*keystore.NewKey)) (policy.Key, keystore.Token) {
	s.t.Helper()
	asked := keystore.NewKey{
		Name: name, Permissions: policy.NewPermissionSet("datacenter_shared:read"), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
	}
	for _, change := range changes {
		change(&asked)
	}
	k, token, err := s.store.Create(s.t.Context(), s.caller(), asked)
	s.must(err)
	return k, token
}

func may(permissions ...policy.Permission) func(*keystore.NewKey) {
	return func(k *keystore.NewKey) { k.Permissions = policy.NewPermissionSet(permissions...) }
}

func (s *site) expires(in time.Duration) func(*keystore.NewKey) {
	return func(k *keystore.NewKey) { k.Expiry = policy.ExpiresAt(s.clock().Add(in).Unix()) }
}

func from(t *testing.T, list ...string) func(*keystore.NewKey) {
	t.Helper()
	var prefixes []netip.Prefix
	for _, text := range list {
		p, err := policy.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		prefixes = append(prefixes, p)
	}
	return func(k *keystore.NewKey) { k.Addresses = policy.OnlyAddresses(prefixes...) }
}

func (s *site) disable(k policy.Key) {
	s.t.Helper()
	off := false
	_, _, err := s.store.Update(s.t.Context(), s.caller(), k.ID, keystore.Update{Active: &off})
	s.must(err)
}

var (
	rowOf  = regexp.MustCompile(`(?s)<tr role="row">\s*<th scope="row".*?</tr>`)
	nameOf = regexp.MustCompile(`<th scope="row"[^>]*>\s*<a href="[^"]*"><bdi>(.*?)</bdi>`)
	space  = regexp.MustCompile(`\s+`)
	tag    = regexp.MustCompile(`<[^>]*>`)
)

// listed are the names of the keys on the page, in order.
func listed(body string) []string {
	var names []string
	for _, m := range nameOf.FindAllStringSubmatch(body, -1) {
		names = append(names, html.UnescapeString(m[1]))
	}
	return names
}

// row is what can be read in the row of the key, as one line.
func row(body, name string) string {
	for _, text := range rowOf.FindAllString(body, -1) {
		if slices.Equal(listed(text), []string{name}) {
			return words(text)
		}
	}
	return ""
}

// words are what can be read on a page, as one line.
func words(body string) string {
	return strings.TrimSpace(space.ReplaceAllString(html.UnescapeString(tag.ReplaceAllString(body, " ")), " "))
}

func wants(t *testing.T, what, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("%s: there is no %q in %q", what, want, text)
		}
	}
}

func wantsNone(t *testing.T, what, text string, all ...string) {
	t.Helper()
	for _, never := range all {
		if strings.Contains(text, never) {
			t.Errorf("%s: there is %q in %q", what, never, text)
		}
	}
}

func TestListShowsWhatKeysAre(t *testing.T) {
	t.Parallel()
	s := start(t, at(90*day+2*time.Hour))
	idle := s.made("Idle")
	s.pass(80 * day)
	s.made("Busy", s.expires(15*day))
	s.pass(10 * day)
	bound := s.made("Bound", s.expires(95*day), from(t, "203.0.113.0/24", "198.51.100.1", "198.51.100.2", "2001:db8::/32"),
		may("datacenter_shared:read", "datacenter_shared:write", "residential:read"),
		func(k *keystore.NewKey) { k.Subaccounts = []policy.SubaccountID{subaccountA, subaccountB} })
	s.made("Manager", may("datacenter_shared:read", "residential:read", policy.CreateKeys, policy.ReadKeys, policy.UpdateKeys, policy.DeleteKeys, policy.RegenerateKeys))
	everything := may(s.caller().Permissions()...)
	s.made("Everything", everything)
	s.disable(s.made("Disabled"))
	s.made("Expired", s.expires(time.Hour))
	old := s.made("Old")
	_, _, err := s.store.Regenerate(t.Context(), s.caller(), old.ID, 3*day)
	s.must(err)
	s.notes(func(n *keystore.Store) { n.Used(bound.ID, "acme", s.clock()) })
	s.pass(2 * time.Hour)

	s.signIn()
	body := s.get("/dashboard/keys").body
	for _, r := range []struct {
		name        string
		want, never []string
	}{
		{"Idle", []string{idle.Preview, "Shared datacenter read", "None", "Never expires", "never", "Not used in 90 days", "Active", s.clock().Add(-90*day - 2*time.Hour).Format("2 Jan 2006")}, nil},
		{"Busy", []string{"Expires in 4 days", "Expires soon"}, []string{"Never expires", "Not used"}},
		{
			"Bound",
			[]string{"Shared datacenter read, write", "Residential read", "IP 203.0.113.0/24", "IP 198.51.100.1", "IP 2 more", "EU scraping Shared datacenter", "US research Residential", "Expires in 3 months", "2 hours ago", "Active"},
			[]string{"2001:db8", "Never expires"},
		},
		{"Manager", []string{"All products read", "API keys all actions"}, []string{"Shared"}},
		{"Everything", []string{"Everything all permissions"}, []string{"Residential"}},
		{"Disabled", []string{"Disabled", "Enable"}, []string{"Never expires", "Disable…"}},
		{"Expired", []string{"Expired 1 hour ago"}, []string{"Not used"}},
	} {
		got := row(body, r.name)
		wants(t, r.name, got, r.want...)
		wantsNone(t, r.name, got, r.never...)
	}
	wants(t, "page", body, `href="/dashboard/keys/`+string(bound.ID)+`"`, `title="`+s.clock().Add(95*day-2*time.Hour).Format("2 January 2006, 15:04")+` UTC"`, "1 not used in 90 days", "4 never expire")
	replaced := row(s.get("/dashboard/keys?state=replaced").body, "Old")
	wants(t, "replaced", replaced, old.Preview, "Replaced", "Stops working in 2 days", "Revoke…")
	wantsNone(t, "replaced", replaced, "Edit", "Disable…", "Regenerate…")
}

func TestListFindsAndOrdersKeys(t *testing.T) {
	t.Parallel()
	s := start(t, at(91*day+4*time.Second))
	s.made("alpha")
	s.pass(91 * day)
	beta := s.made("Beta", may("residential:read"), s.expires(30*day))
	s.pass(time.Second)
	gamma := s.made("gamma ray", may(policy.ReadKeys, "residential:write"), s.expires(3*day))
	s.pass(time.Second)
	s.disable(s.made("Delta"))
	s.pass(time.Second)
	s.made("Past", s.expires(time.Second))
	s.pass(time.Second)
	s.notes(func(n *keystore.Store) {
		n.Used(beta.ID, "acme", s.clock().Add(-time.Hour))
		n.Used(gamma.ID, "acme", s.clock())
	})
	s.signIn()
	last := beta.Preview[len(beta.Preview)-4:]
	for _, r := range []struct {
		query string
		want  []string
	}{
		{"", []string{"Past", "Delta", "gamma ray", "Beta", "alpha"}},
		{"sort=created", []string{"alpha", "Beta", "gamma ray", "Delta", "Past"}},
		{"sort=name", []string{"alpha", "Beta", "Delta", "gamma ray", "Past"}},
		{"sort=-name", []string{"Past", "gamma ray", "Delta", "Beta", "alpha"}},
		{"sort=-used", []string{"gamma ray", "Beta", "Past", "Delta", "alpha"}},
		{"sort=used", []string{"Past", "Delta", "alpha", "Beta", "gamma ray"}},
		{"sort=expires", []string{"Past", "gamma ray", "Beta", "Delta", "alpha"}},
		{"sort=nonsense&state=nonsense&product=nonsense&page=nonsense", []string{"Past", "Delta", "gamma ray", "Beta", "alpha"}},
		{"page=-3", []string{"Past", "Delta", "gamma ray", "Beta", "alpha"}},
		{"page=99999999999999999999", []string{"Past", "Delta", "gamma ray", "Beta", "alpha"}},
		{"q=ALPHA", []string{"alpha"}},
		{"q=++gamma+++RAY+", []string{"gamma ray"}},
		{"q=" + last, []string{"Beta"}},
		{"q=" + string(gamma.ID), []string{"gamma ray"}},
		{"q=%ff%fe", []string{"Past", "Delta", "gamma ray", "Beta", "alpha"}},
		{"q=no+such", nil},
		{"state=active", []string{"gamma ray", "Beta", "alpha"}},
		{"state=soon", []string{"gamma ray"}},
		{"state=disabled", []string{"Delta"}},
		{"state=expired", []string{"Past"}},
		{"state=replaced", nil},
		{"state=unused", []string{"alpha"}},
		{"state=forever", []string{"alpha"}},
		{"product=residential", []string{"gamma ray", "Beta"}},
		{"product=datacenter_shared&sort=name", []string{"alpha", "Delta", "Past"}},
		{"product=account", []string{"gamma ray"}},
		{"product=residential&q=beta&state=active&sort=name", []string{"Beta"}},
		{"product=residential&state=disabled", nil},
	} {
		a := s.get("/dashboard/keys?" + r.query)
		if diff := cmp.Diff(r.want, listed(a.body)); a.status != http.StatusOK || diff != "" {
			t.Errorf("%q got %d (-want +got):\n%s", r.query, a.status, diff)
		}
		if none := strings.Contains(a.body, "No key matches"); none != (r.want == nil) {
			t.Errorf("%q says that nothing matches: %t", r.query, none)
		}
	}
}

func TestListSaysHowItIsSorted(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	s.made("one")
	head := regexp.MustCompile(`<th scope="col" role="columnheader"( aria-sort="[a-z]+")?><a href="([^"]*)">([^<]*)</a>`)
	for query, want := range map[string]string{
		"?q=o":            `Name /dashboard/keys?q=o&sort=name; Last used /dashboard/keys?q=o&sort=-used; Created aria-sort="descending" /dashboard/keys?q=o&sort=created; `,
		"?sort=created":   `Name /dashboard/keys?sort=name; Last used /dashboard/keys?sort=-used; Created aria-sort="ascending" /dashboard/keys; `,
		"?sort=name":      `Name aria-sort="ascending" /dashboard/keys?sort=-name; Last used /dashboard/keys?sort=-used; Created /dashboard/keys; `,
		"?sort=-name":     `Name aria-sort="descending" /dashboard/keys?sort=name; Last used /dashboard/keys?sort=-used; Created /dashboard/keys; `,
		"?sort=-used":     `Name /dashboard/keys?sort=name; Last used aria-sort="descending" /dashboard/keys?sort=used; Created /dashboard/keys; `,
		"?state=forever":  `Name /dashboard/keys?sort=name&state=forever; Last used /dashboard/keys?sort=-used&state=forever; Created aria-sort="descending" /dashboard/keys?sort=created&state=forever; `,
		"?sort=expires":   `Name /dashboard/keys?sort=name; Last used /dashboard/keys?sort=-used; Created /dashboard/keys; `,
		"?sort=used&q=o+": `Name /dashboard/keys?q=o&sort=name; Last used aria-sort="ascending" /dashboard/keys?q=o&sort=-used; Created /dashboard/keys?q=o; `,
	} {
		got := ""
		for _, m := range head.FindAllStringSubmatch(s.get("/dashboard/keys"+query).body, -1) {
			got += m[3] + m[1] + " " + html.UnescapeString(m[2]) + "; "
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
}

func TestListHasPages(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	for i := range 60 {
		s.made(fmt.Sprintf("key %02d", i))
	}
	for page, want := range map[string]struct{ first, last, says, before, after string }{
		"":      {"key 00", "key 24", "1–25 of 60 · page 1 of 3", "", "page=2"},
		"1":     {"key 00", "key 24", "1–25 of 60 · page 1 of 3", "", "page=2"},
		"2":     {"key 25", "key 49", "26–50 of 60 · page 2 of 3", "", "page=3"},
		"3":     {"key 50", "key 59", "51–60 of 60 · page 3 of 3", "page=2", ""},
		"4":     {"key 50", "key 59", "51–60 of 60 · page 3 of 3", "page=2", ""},
		"99999": {"key 50", "key 59", "51–60 of 60 · page 3 of 3", "page=2", ""},
	} {
		body := s.get("/dashboard/keys?sort=name&q=key&page=" + page).body
		names := listed(body)
		if names[0] != want.first || names[len(names)-1] != want.last || !strings.Contains(words(body), want.says) {
			t.Errorf("page %q has %q", page, names)
		}
		for rel, link := range map[string]string{"prev": want.before, "next": want.after} {
			if link == "" {
				continue
			}
			wants(t, "page "+page, html.UnescapeString(body), `rel="`+rel+`" href="/dashboard/keys?`+link+`&q=key&sort=name"`)
		}
		if has := strings.Contains(body, `rel="next"`); has != (want.after != "") {
			t.Errorf("page %q has a next one: %t", page, has)
		}
	}
	// Another order begins at its first page.
	wants(t, "order", html.UnescapeString(s.get("/dashboard/keys?page=2").body), `<a href="/dashboard/keys?sort=-used">`)
	if body := s.get("/dashboard/keys?q=key+0").body; strings.Contains(body, "Pages of the list") {
		t.Error("a list of one page has others")
	}
}

// manyKeys is a store in which accounts have so many keys.
type manyKeys struct {
	dashboard.Store
	count  int
	limits []int
}

func (m *manyKeys) List(_ context.Context, _ policy.Caller, cursor string, limit int) ([]policy.Key, string, error) {
	m.limits = append(m.limits, limit)
	begin := 0
	_, _ = fmt.Sscan(cursor, &begin) // "" is 0
	var keys []policy.Key
	for i := begin; i < min(begin+limit, m.count); i++ {
		keys = append(keys, policy.Key{ID: policy.KeyID(fmt.Sprint(i)), Name: fmt.Sprintf("key %05d", i), Active: true, Expiry: policy.NeverExpires()})
	}
	if begin+limit >= m.count {
		return keys, "", nil
	}
	return keys, fmt.Sprint(begin + limit), nil
}

func TestListReadsAllKeysAndNoMoreThanThereMayBe(t *testing.T) {
	t.Parallel()
	for count, want := range map[int]struct {
		total string
		reads int
		cut   bool
	}{
		1:         {"1 key", 1, false},
		1000:      {"1,000 keys", 1, false},
		1001:      {"1,001 keys", 2, false},
		10_000:    {"10,000 keys", 10, false},
		1_000_000: {"10,000 keys", 10, true},
	} {
		many := &manyKeys{count: count}
		s := start(t, func(s *site) {
			s.wrap = func(store dashboard.Store) dashboard.Store { many.Store = store; return many }
		})
		s.signIn()
		many.limits = nil
		body := s.get(fmt.Sprintf("/dashboard/keys?sort=name&q=key+%05d", min(count, 10_000)-1)).body
		if names := listed(body); len(names) != 1 || len(many.limits) != want.reads || slices.Max(many.limits) > 1000 {
			t.Errorf("%d keys: found %q in %d reads", count, names, len(many.limits))
		}
		wants(t, "count", words(body), "1 of "+want.total)
		if cut := strings.Contains(body, "only the newest are listed"); cut != want.cut {
			t.Errorf("%d keys: says that some are missing: %t", count, cut)
		}
	}
}

// TestTokenIsNotSearched: it must not stay in an address.
func TestTokenIsNotSearched(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	_, token := s.madeWithToken("one")
	for _, search := range []string{token.Reveal(), " " + token.Reveal() + "\n", token.Reveal()[3:], token.Reveal()[:58], "api-token: " + token.Reveal()} {
		a := s.get("/dashboard/keys?" + url.Values{"q": {search}, "state": {"active"}}.Encode())
		if to := a.header.Get("Location"); a.status != http.StatusSeeOther || to != "/dashboard/keys?state=active&notice=token_searched" {
			t.Errorf("%q got %d to %q", search, a.status, to)
		}
	}
	if body := s.get("/dashboard/keys?notice=token_searched").body; !strings.Contains(body, "looks like a token") {
		t.Error("nothing is said of it")
	}
	for _, search := range []string{"a_name_of_one_word_in_production_eu_west_2", string(s.user.ID) + string(s.user.ID), "Production-Scraper-01.eu-central-1.example.com"} {
		if a := s.get("/dashboard/keys?q=" + search); a.status != http.StatusOK {
			t.Errorf("%q got %d", search, a.status)
		}
	}
}

func TestEmptyListSaysWhatAKeyIs(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		name        string
		permissions []string
		want, never string
	}{
		{"may create", []string{"*"}, `href="/dashboard/keys/new"`, "may not create"},
		{"may not create", []string{"account:apikeys:read"}, "may not create", "/dashboard/keys/new"},
	} {
		s := start(t, func(s *site) {
			s.account.Permissions = r.permissions
			s.brand.Docs = "https://docs.example.com/?a=1&b=2"
		})
		s.signIn()
		for _, query := range []string{"", "?q=x&state=expired"} {
			body := s.get("/dashboard/keys" + query).body
			wants(t, r.name, body, "You have no API key yet", "permissions", "shown once", r.want)
			wantsNone(t, r.name, body, "No key matches", "<table", r.never)
		}
	}
}

// TestListOffersWhatTheSessionMay and nothing else.
func TestListOffersWhatTheSessionMay(t *testing.T) {
	t.Parallel()
	offers := []string{"Create API Key", ">Edit<", ">Disable…<", ">Enable<", ">Regenerate…<", ">Revoke…<", "row-menu"}
	for _, r := range []struct {
		permission policy.Permission
		want       []string
	}{
		{policy.ReadKeys, nil},
		{policy.CreateKeys, []string{"Create API Key"}},
		{policy.UpdateKeys, []string{">Edit<", ">Disable…<", ">Enable<", "row-menu"}},
		{policy.RegenerateKeys, []string{">Regenerate…<", "row-menu"}},
		{policy.DeleteKeys, []string{">Revoke…<", "row-menu"}},
	} {
		s := start(t)
		s.signIn()
		s.made("one")
		s.disable(s.made("two"))
		s.account.Permissions = []string{string(policy.ReadKeys), string(r.permission), "datacenter_shared:read"}
		_, _, err := s.store.PutAccount(t.Context(), policy.Caller{}, s.account)
		s.must(err)
		body := s.get("/dashboard/keys").body
		var got []string
		for _, offer := range offers {
			if strings.Contains(body, offer) {
				got = append(got, offer)
			}
		}
		if diff := cmp.Diff(r.want, got); diff != "" {
			t.Errorf("with %s (-want +got):\n%s", r.permission, diff)
		}
	}
}

func TestListNeedsItsPermission(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *site) { s.account.Permissions = []string{"account:apikeys:create", "account:apikeys:delete"} })
	a := s.post("/dashboard/sign-in", url.Values{"email": {userEmail}, "password": {userPassword}})
	if a.status != http.StatusSeeOther {
		t.Fatalf("signing in got %d", a.status)
	}
	if a := s.get("/dashboard/keys"); a.status != http.StatusForbidden || !strings.Contains(a.body, "account:apikeys:read") {
		t.Errorf("got %d", a.status)
	}
}

// hostileNames is what somebody may call a key, or a subaccount.
var hostileNames = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' autofocus onfocus=alert(1) x='`, `</bdi></a><svg onload=alert(1)>`,
	`{{.Content}}`, `javascript:alert(1)`, "`-alert(1)-`", `&lt;b&gt;`,
}

func TestNamesAndLabelsAreShownAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, payload := range hostileNames {
		s := start(t, func(s *site) { s.account.Subaccounts[0].Label = payload })
		s.signIn()
		k := s.made(payload, func(k *keystore.NewKey) { k.Subaccounts = []policy.SubaccountID{subaccountA} })
		for _, path := range []string{
			"/dashboard/keys", "/dashboard/keys?q=" + url.QueryEscape(payload),
			"/dashboard/keys/" + string(k.ID) + "/disable", "/dashboard/keys/" + string(k.ID) + "/regenerate", "/dashboard/keys/" + string(k.ID) + "/revoke",
		} {
			a := s.get(path)
			if strings.ContainsAny(payload, `<>"'`) && strings.Contains(a.body, payload) {
				t.Errorf("%s has %q as it is", path, payload)
			}
			if a.status != http.StatusOK || !strings.Contains(html.UnescapeString(a.body), payload) {
				t.Errorf("%s got %d without %q", path, a.status, payload)
			}
		}
		a := s.post("/dashboard/keys/"+string(k.ID)+"/revoke", url.Values{"name": {payload + payload}, "back": {payload}})
		if strings.ContainsAny(payload, `<>"'`) && strings.Contains(a.body, payload) {
			t.Errorf("the form has %q as it is", payload)
		}
	}
}

func TestSearchIsBounded(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	s.made("one")
	a := s.get("/dashboard/keys?q=" + strings.Repeat("ä", 5000))
	if a.status != http.StatusOK || strings.Count(a.body, "ä") > 200 {
		t.Errorf("got %d with %d of the characters", a.status, strings.Count(a.body, "ä"))
	}
}
