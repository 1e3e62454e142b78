package contract

import (
	"slices"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// Usage is how many requests of an hour or day had an outcome. The key and the
// permission are null where they were not told apart.
type Usage struct {
	At         int64   `json:"at"`
	KeyID      *string `json:"key_id"`
	Permission *string `json:"permission"`
	Outcome    string  `json:"outcome"`
	Requests   int64   `json:"requests"`
}

// ShowUsage gives counters their documented form; never nil.
func ShowUsage(rows []keystore.Usage) []Usage {
	shown := make([]Usage, 0, len(rows))
	for _, u := range rows {
		shown = append(shown, Usage{
			At: u.At.Unix(), KeyID: orNull(string(u.Key)), Permission: orNull(string(u.Permission)), Outcome: u.Outcome, Requests: u.Requests,
		})
	}
	return shown
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
	q := query{unpaged: true}
	err := q.read(rawQuery, map[string]func(value string) (fault string){
		"key": func(value string) string {
			f.Key = policy.KeyID(value)
			return unless(IsKeyID(value), "The key must be the id of a key, a UUID.")
		},
		"permission": func(value string) string {
			f.Permission = policy.Permission(value)
			_, err := policy.ParsePermission(value)
			return unless(err == nil || f.Permission == policy.AnyValidKey, "This is no permission.")
		},
		"outcome": func(value string) string {
			f.Outcome = value
			return unless(slices.Contains(problem.Outcomes(), value), "There is no such outcome.")
		},
		"step": func(value string) string {
			f.Step = keystore.UsageStep(value)
			return unless(f.Step == keystore.ByHour || f.Step == keystore.ByDay, "The step must be hour or day.")
		},
		"group_by": func(value string) string {
			f.ByKey, f.ByPermission = value == "key" || value == "key,permission", value == "permission" || value == "key,permission"
			return unless(f.ByKey || f.ByPermission, "Group by key, permission, or key,permission.")
		},
		"from": func(value string) string { return readSecond(value, &f.From) },
		"to":   func(value string) string { return readSecond(value, &f.To) },
	})
	if err != nil {
		return keystore.UsageFilter{}, err
	}
	return f, bound(&f, now)
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
