package dashboard_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestTokenDoesNotStayInAnAddress of any page that searches: wherever in the
// text it is, it is neither used nor repeated.
func TestTokenDoesNotStayInAnAddress(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	_, minted := s.madeWithToken("one")
	token := minted.Reveal()
	for _, typed := range []string{token, " " + token + "\n", "api-token:" + token, "-H 'api-token: " + token + "'", "x.y-" + token + "-z", "é" + token, token[3:], token[:58]} {
		for path, to := range map[string]string{
			"/dashboard/keys?state=active&q=":                  "/dashboard/keys?state=active&notice=token_searched",
			"/dashboard/audit?outcome=done&key=":               "/dashboard/audit?outcome=done&notice=token_searched",
			"/dashboard/audit?key=one&from=":                   "/dashboard/audit?key=one&notice=token_searched",
			"/dashboard/audit?action=":                         "/dashboard/audit?notice=token_searched",
			"/dashboard/audit/events.csv?outcome=refused&key=": "/dashboard/audit?outcome=refused&notice=token_searched",
			"/dashboard/audit/events.json?key=":                "/dashboard/audit?notice=token_searched",
		} {
			a := s.get(path + url.QueryEscape(typed))
			s.led(a, to)
			if strings.Contains(a.body, token[3:58]) || a.header.Get("Content-Disposition") != "" {
				t.Errorf("%s repeats it", path)
			}
		}
	}
	s.wants(s.get("/dashboard/audit?notice=token_searched"), http.StatusOK, "looks like a token")
	for _, name := range []string{"a_name_of_one_word_in_production_eu_west_2", string(s.user.ID), "Production-Scraper-01.eu-central-1.example.com"} {
		if a := s.get("/dashboard/audit?key=" + name); a.status == http.StatusSeeOther {
			t.Errorf("%q is taken for a token", name)
		}
	}
}
