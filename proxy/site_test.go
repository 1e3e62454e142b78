package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"gatehouse/proxy"
	"gatehouse/proxy/problem"
)

// siteGate serves people below /pages, or on a host of their own.
func siteGate(t *testing.T, host string) *gate {
	t.Helper()
	return ownGate(t, &notes{}, func(s *setup) {
		s.options.MaxBody = 100
		s.options.Sites = []*proxy.Site{{
			Host: host, Prefix: "/pages", Pattern: func(*http.Request) string { return "GET /pages/one" },
			Serve: func(w http.ResponseWriter, r *http.Request, v proxy.Visit) error {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return err
				}
				if strings.HasSuffix(r.URL.Path, "/refused") {
					v.Refuse(problem.New(problem.NotFound, ""))
					w.WriteHeader(http.StatusNotFound)
				}
				_, err = io.WriteString(w, "for people at "+v.Client.String()+" by "+v.Scheme+": "+string(body))
				return err
			},
		}}
	})
}

// TestSiteAnswersWhatIsItsOwn and nothing else, and no product sees any of it.
func TestSiteAnswersWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	const people = "for people at 127.0.0.1 by http: "
	for _, row := range []struct {
		name, host, path, asked string
		status                  int
		own                     bool
	}{
		{"its path", "", "/pages", "api.example.com", 200, true},
		{"below its path", "", "/pages/one", "api.example.com", 200, true},
		{"a path that only begins like it", "", "/pagesone", "api.example.com", 404, false},
		{"a path that a parser could take for it", "", "//pages", "api.example.com", 400, false},
		{"an escaped spelling of it", "", "/%70ages", "api.example.com", 400, false},
		{"dot segments", "", "/own/../pages", "api.example.com", 400, false},
		{"its host", "pages.example.com", "/anything", "pages.example.com", 200, true},
		{"its host with a port, as DNS sees it", "pages.example.com", "/pages", "Pages.Example.com.:8080", 200, true},
		{"a path of the API on its host", "pages.example.com", "/own", "pages.example.com", 200, true},
		{"its path on another host", "pages.example.com", "/pages", "api.example.com", 404, false},
		{"a host that only ends like it", "pages.example.com", "/pages", "evilpages.example.com", 404, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := siteGate(t, row.host)
			a, record := g.do("GET " + row.path + " HTTP/1.1\r\nHost: " + row.asked + "\r\nConnection: close\r\napi-token: " + good + "\r\n\r\n")
			if a.Status != row.status || (a.Body == people) != row.own {
				t.Errorf("got %d %q", a.Status, a.Body)
			}
			if (record.Route == "GET /pages/one") != row.own || record.Key != "" {
				t.Errorf("the record has route %q and key %q", record.Route, record.Key)
			}
			if saw := g.backend.saw(); len(saw) > 0 {
				t.Errorf("the backend saw %q", saw[0].raw)
			}
		})
	}
}

// TestSiteIsBoundAndRecordedLikeTheRest of the gateway.
func TestSiteIsBoundAndRecordedLikeTheRest(t *testing.T) {
	t.Parallel()
	g := siteGate(t, "")
	if a, record := g.do(request("POST", "/pages/one", strings.Repeat("a", 101))); a.Status != 413 || record.Reason != "body_too_large" {
		t.Errorf("a large body got %d, recorded as %s", a.Status, record.Reason)
	}
	if a, record := g.do(request("POST", "/pages/refused", "a")); a.Status != 404 || record.Reason != "not_found" || record.Status != 404 || record.BytesIn != 1 {
		t.Errorf("a page that is refused got %d, recorded as %+v", a.Status, record)
	}
	a, _ := g.do(request("GET", "/pages/one", "", page))
	for name := range a.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("a page of another origin may read it: %s", name)
		}
	}
	if a, _ := g.do(request("OPTIONS", "/pages/one", "", page, "Access-Control-Request-Method: POST")); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a page of another origin is told that it may send forms")
	}
}

// TestSiteOfTargetsAnswersThemByteForByte: whatever else comes is the gateway's,
// and each answer has its record.
func TestSiteOfTargetsAnswersThemByteForByte(t *testing.T) {
	t.Parallel()
	g := ownGate(t, &notes{}, func(s *setup) {
		s.options.Sites = []*proxy.Site{
			{Host: "pages.example.com", Pattern: func(*http.Request) string { return "GET /pages" }, Serve: func(w http.ResponseWriter, _ *http.Request, _ proxy.Visit) error {
				w.WriteHeader(http.StatusNotFound)
				return nil
			}},
			{Targets: []string{"/docs", "/docs/style.css"}, Pattern: func(r *http.Request) string { return "GET " + r.RequestURI }, Serve: func(w http.ResponseWriter, _ *http.Request, _ proxy.Visit) error {
				_, err := io.WriteString(w, "read me")
				return err
			}},
		}
	})
	for _, row := range []struct {
		method, target, host string
		status               int
		route                string
	}{
		{"GET", "/docs", "api.example.com", 200, "GET /docs"},
		{"HEAD", "/docs/style.css", "api.example.com", 200, "GET /docs/style.css"},
		{"GET", "/docs", "pages.example.com", 404, "GET /pages"},
		{"POST", "/docs", "api.example.com", 404, ""},
		{"OPTIONS", "/docs", "api.example.com", 404, ""},
		{"GET", "/docs/", "api.example.com", 404, ""},
		{"GET", "/docs?x=1", "api.example.com", 404, ""},
		{"GET", "/Docs", "api.example.com", 404, ""},
		{"GET", "//docs", "api.example.com", 400, ""},
		{"GET", "/docs/../docs", "api.example.com", 400, ""},
		{"GET", "/doc%73", "api.example.com", 400, ""},
		{"GET", "/docs/style", "api.example.com", 404, ""},
	} {
		a, record := g.do(row.method + " " + row.target + " HTTP/1.1\r\nHost: " + row.host + "\r\nConnection: close\r\n\r\n")
		if a.Status != row.status || record.Route != row.route {
			t.Errorf("%s %s at %s: answered %d, and recorded for %q", row.method, row.target, row.host, a.Status, record.Route)
		}
	}
}
