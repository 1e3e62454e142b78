package dashboard_test

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/proxy/problem"
)

// TestEveryOutcomeIsInTheChart: whatever can end a request is in one group, and
// all of them together are all requests.
func TestEveryOutcomeIsInTheChart(t *testing.T) {
	t.Parallel()
	groups := map[string][]string{
		"Allowed":                           {"allowed"},
		"Refused: permission or subaccount": {"permission_denied", "subaccount_not_allowed"},
		"Refused: address":                  {"ip_not_allowed"},
		"Refused: disabled or expired":      {"key_disabled", "key_expired", "account_suspended"},
		"Refused: rate limit":               {"rate_limited"},
		"Failed upstream":                   {"upstream_unreachable", "upstream_timeout", "upstream_overloaded", "key_store_unavailable", "internal_error", "method_not_implemented"},
		"Broken off":                        {"client_closed_request", "response_aborted"},
		"Refused: the request itself":       nil, // all others
	}
	want := map[string]int{}
	s := start(t)
	k := s.key()
	var uses []use
	for _, outcome := range problem.Outcomes() {
		group := "Refused: the request itself"
		for name, outcomes := range groups {
			for _, o := range outcomes {
				if o == outcome {
					group = name
				}
			}
		}
		want[group]++
		uses = append(uses, use{sharedRead, outcome, 0, 1})
	}
	s.used(k, uses...)
	s.signIn()
	a := s.get("/dashboard/keys/" + string(k.ID))
	for group, n := range want {
		a.shows(t, group+" "+strconv.Itoa(n))
	}
	a.shows(t, "All "+strconv.Itoa(len(uses))+" Allowed 1 ")
	failed := want["Failed upstream"] + want["Broken off"]
	a.shows(t, "Refused "+strconv.Itoa(len(uses)-1-failed)+" Failed or broken off "+strconv.Itoa(failed))
	if fills := regexp.MustCompile(`class="part"[^>]*fill="url\(#fill-([a-z]+)\)"`).FindAllStringSubmatch(a.body, -1); len(fills) != len(groups) {
		t.Errorf("%d parts of the bar, want %d", len(fills), len(groups))
	}
	for _, used := range regexp.MustCompile(`url\(#(fill-[a-z]+)\)`).FindAllStringSubmatch(a.body, -1) {
		a.has(t, `<pattern id="`+used[1]+`"`, true)
	}
}

func TestChartShowsHoursAndDays(t *testing.T) {
	t.Parallel()
	s := start(t, at(31*day))
	k := s.key()
	s.pass(31 * day)
	into := time.Duration(s.now.Load()%3600) * time.Second // how far the hour has gone
	intoDay := time.Duration(s.now.Load()%86400) * time.Second
	s.used(k,
		use{sharedRead, "allowed", 0, 1200}, use{sharedRead, "ip_not_allowed", 0, 1},
		use{sharedRead, "allowed", into + 22*hour + 1, 30},   // in the first hour that is shown
		use{sharedRead, "allowed", into + 23*hour + 2, 500},  // and before it
		use{sharedRead, "allowed", intoDay + 28*day + 1, 7},  // in the first day
		use{sharedRead, "allowed", intoDay + 29*day + 2, 90}, // and before it
	)
	s.signIn()
	hours := s.get("/dashboard/keys/" + string(k.ID))
	hours.shows(t, "All 1,231 Allowed 1,230 Refused 1 Failed or broken off 0")
	hours.has(t, `?period=24h#requests" aria-current="true"`, true)
	this := s.clock().Truncate(hour)
	hours.shows(t, this.Format("2 Jan, 15:04")+" 1,200 1 1,201", this.Add(-23*hour).Format("2 Jan, 15:04")+" 30 0 30", this.Add(-hour).Format("2 Jan, 15:04")+" 0 0 0")
	if rows := strings.Count(hours.body, `<th scope="row">`); rows != 24 {
		t.Errorf("%d hours in the table", rows)
	}
	hours.has(t, "1,231 requests in the last 24 hours by outcome. Allowed 1,230, Refused: address 1. The most in one hour: 1,201, at "+this.Format("2 Jan, 15:04")+" UTC.", true)
	days := s.get("/dashboard/keys/" + string(k.ID) + "?period=30d")
	days.shows(t, "All 1,738 Allowed 1,737")
	days.has(t, `?period=30d#requests" aria-current="true"`, true)
	first := s.clock().Truncate(day).Add(-29 * day)
	days.shows(t, first.Format("2 Jan 2006")+" 7 0 7")
	if rows := strings.Count(days.body, `<th scope="row">`); rows != 30 {
		t.Errorf("%d days in the table", rows)
	}
	if odd := s.get("/dashboard/keys/" + string(k.ID) + "?period=%22x"); odd.body != hours.body {
		t.Error("a period that there is not is not read as 24 hours")
	}
}

// TestChartIsDrawnToScale: bars stay inside, one refusal among a thousand can be
// seen, and all that is drawn is well-formed.
func TestChartIsDrawnToScale(t *testing.T) {
	t.Parallel()
	for _, requests := range []int{1, 3, 5, 41, 1000, 12345} {
		s := start(t)
		k := s.key()
		s.used(k, use{sharedRead, "allowed", 0, requests}, use{sharedRead, "rate_limited", 0, 1})
		s.signIn()
		body := s.get("/dashboard/keys/" + string(k.ID)).body
		svg := body[strings.Index(body, `<svg class="bars"`):]
		svg = svg[:strings.Index(svg, "</svg>")+6]
		decoder := xml.NewDecoder(strings.NewReader(svg))
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%d: %v in %s", requests, err, svg)
			}
			rect, ok := token.(xml.StartElement)
			if !ok || rect.Name.Local != "rect" {
				continue
			}
			place := map[string]float64{}
			for _, attribute := range rect.Attr {
				place[attribute.Name.Local], _ = strconv.ParseFloat(strings.TrimSuffix(attribute.Value, "%"), 64)
			}
			if place["height"] < 2 || place["y"] < 0 || place["y"]+place["height"] > 194.1 || place["x"] < 0 || place["x"]+place["width"] > 100 {
				t.Errorf("%d requests: a bar is at %v", requests, place)
			}
		}
	}
}

func TestKeyPageIsSmall(t *testing.T) {
	t.Parallel()
	s := start(t, at(31*day))
	k := s.key()
	s.pass(31 * day)
	var uses []use
	for n := range 30 {
		for _, outcome := range []string{"allowed", "permission_denied", "ip_not_allowed", "key_disabled", "rate_limited", "ambiguous_query", "upstream_timeout", "response_aborted"} {
			uses = append(uses, use{sharedRead, outcome, time.Duration(n) * day, 3})
		}
	}
	s.used(k, uses...)
	for n := range 20 {
		name := strings.Repeat("n", 99-n)
		s.update(k, keyNamed(name))
	}
	s.signIn()
	a := s.get("/dashboard/keys/" + string(k.ID) + "?period=30d")
	total := len(a.body)
	for _, asset := range regexp.MustCompile(`(?:src|href)="(/dashboard/assets/[^"]+)"`).FindAllStringSubmatch(a.body, -1) {
		total += len(s.get(asset[1]).body)
	}
	if total > 150_000 {
		t.Errorf("the page with its files is %d bytes", total)
	}
	a.shows(t, "All of its events")
}
