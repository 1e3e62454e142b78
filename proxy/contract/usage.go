package contract

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// Usage is how many requests of an hour or day had an outcome. The key, the
// permission, the product and the route are null where they were not told apart.
// The route is "" for requests that were counted before routes were.
type Usage struct {
	At         int64   `json:"at"`
	KeyID      *string `json:"key_id"`
	Permission *string `json:"permission"`
	Product    *string `json:"product"`
	Route      *string `json:"route"`
	Outcome    string  `json:"outcome"`
	Requests   int64   `json:"requests"`
}

// ShowUsage gives counters that were asked for with f their documented form;
// never nil.
func ShowUsage(rows []keystore.Usage, f keystore.UsageFilter) []Usage {
	shown := make([]Usage, 0, len(rows))
	for _, u := range rows {
		shown = append(shown, Usage{
			At: u.At.Unix(), KeyID: told(f.ByKey, string(u.Key)), Permission: told(f.ByPermission, string(u.Permission)),
			Product: told(f.ByProduct, u.Product), Route: told(f.ByRoute, u.Route), Outcome: u.Outcome, Requests: u.Requests,
		})
	}
	return shown
}

// told is nil for what was not told apart.
func told(apart bool, value string) *string {
	if !apart {
		return nil
	}
	return &value
}

// What is shown of usage when the client does not say: a day of hours, or 30 days.
const (
	usageHours = 24 * time.Hour
	usageDays  = 30 * 24 * time.Hour
)

// ReadUsageQuery reads which counters are asked for, in which nothing else may
// stand. Without a time it is the last 24 hours, or 30 days, before now.
func ReadUsageQuery(rawQuery string, now time.Time) (keystore.UsageFilter, error) {
	f := keystore.UsageFilter{Step: keystore.ByDay}
	parameters := usageParameters(&f)
	parameters["key"] = func(value string) string {
		f.Key = policy.KeyID(value)
		return unless(IsKeyID(value), "The key must be the id of a key, a UUID.")
	}
	parameters["group_by"] = func(value string) string { return readGroups(value, &f) }
	q := query{unpaged: true}
	if err := q.read(rawQuery, parameters); err != nil {
		return keystore.UsageFilter{}, err
	}
	return f, bound(&f, now)
}

// usageParameters are those of every question about usage.
func usageParameters(f *keystore.UsageFilter) map[string]func(value string) (fault string) {
	return map[string]func(value string) (fault string){
		"permission": func(value string) string {
			f.Permission = policy.Permission(value)
			return unless(isNeed(value), "This is no permission.")
		},
		"product": func(value string) string {
			f.Product = value
			return unless(value == string(policy.AnyValidKey) || isNeed(value+":"+policy.ReadAction), "This is no product.")
		},
		"route": func(value string) string {
			f.Route = value
			return unless(isRoute(value), "This is no route: write METHOD /path, as the configuration and the metrics do.")
		},
		"outcome": func(value string) string {
			f.Outcome = value
			return unless(slices.Contains(problem.Outcomes(), value), "There is no such outcome.")
		},
		"step": func(value string) string {
			f.Step = keystore.UsageStep(value)
			return unless(f.Step == keystore.ByHour || f.Step == keystore.ByDay, "The step must be hour or day.")
		},
		"from": func(value string) string { return readSecond(value, &f.From) },
		"to":   func(value string) string { return readSecond(value, &f.To) },
	}
}

// isNeed reports whether a route can need it.
func isNeed(s string) bool {
	_, err := policy.ParsePermission(s)
	return err == nil || s == string(policy.AnyValidKey)
}

// isRoute reports whether s has the form of a route's pattern.
func isRoute(s string) bool {
	method, rest, _ := strings.Cut(s, " ")
	return strings.Contains(rest, "/") && method != "" && strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" &&
		utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// readGroups reads what is to be told apart: one order of the words, and each
// once, so that there is one way to say it.
func readGroups(value string, f *keystore.UsageFilter) (fault string) {
	groups := map[string]*bool{"key": &f.ByKey, "permission": &f.ByPermission, "product": &f.ByProduct, "route": &f.ByRoute}
	before := ""
	for word := range strings.SplitSeq(value, ",") {
		group, known := groups[word]
		if !known || word <= before {
			return "Group by key, permission, product or route, or by several of them, in this order, with commas between them."
		}
		*group, before = true, word
	}
	return ""
}

// bound fills in the time, and refuses one that is not kept at once.
func bound(f *keystore.UsageFilter, now time.Time) error {
	usual, most := usageDays, keystore.UsageDays
	if f.Step == keystore.ByHour {
		usual, most = usageHours, keystore.UsageHours
	}
	if f.To.IsZero() {
		f.To = now.Add(time.Second)
	}
	if f.From.IsZero() {
		f.From = f.To.Add(-usual)
	}
	var wrong faults
	switch length := f.To.Sub(f.From); {
	case length <= 0:
		wrong.add("from", "The time must begin before it ends.")
	case length > most+time.Second: // which a whole second without "to" may be more
		wrong.add("from", "The time must be at most 31 days by hour, or 400 days by day.")
	}
	return wrong.err()
}
