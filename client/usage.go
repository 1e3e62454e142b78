package client

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// Usage is how many requests of the hour or day that begins at At had an outcome.
type Usage struct {
	At         time.Time
	KeyID      string // "" unless ByKey
	Permission string // "" unless ByPermission
	Product    string // "" unless ByProduct
	// Route is the method and pattern of the route, "" unless ByRoute, and for
	// requests that were counted before routes were.
	Route    string
	Outcome  string // "allowed", or the code of a refusal or failure
	Requests int64
}

// UsageFilter says which requests are counted, and what is told apart; zero
// fields want all.
type UsageFilter struct {
	KeyID, Permission, Product, Route, Outcome string
	// From is included, To is not. Without them it is the last 30 days, or 24
	// hours.
	From, To time.Time
	// ByHour counts by hour, for at most 31 days, and otherwise by day, for at
	// most 400.
	ByHour                                  bool
	ByKey, ByPermission, ByProduct, ByRoute bool
}

// Usage returns how many requests the keys of the account made, the oldest
// first, without hours and days that had none.
func (c *Client) Usage(ctx context.Context, f UsageFilter) ([]Usage, error) {
	query := page("", 0)
	for name, value := range map[string]string{
		"key": f.KeyID, "permission": f.Permission, "product": f.Product, "route": f.Route, "outcome": f.Outcome,
		"from": second(f.From), "to": second(f.To), "step": f.step(), "group_by": f.groupBy(),
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var answer struct {
		Data []struct {
			At         int64   `json:"at"`
			KeyID      *string `json:"key_id"`
			Permission *string `json:"permission"`
			Product    *string `json:"product"`
			Route      *string `json:"route"`
			Outcome    string  `json:"outcome"`
			Requests   int64   `json:"requests"`
		}
	}
	if err := c.call(ctx, http.MethodGet, "/v4/account/usage", query, nil, &answer); err != nil {
		return nil, err
	}
	rows := make([]Usage, 0, len(answer.Data))
	for _, u := range answer.Data {
		rows = append(rows, Usage{
			At: time.Unix(u.At, 0).UTC(), KeyID: orEmpty(u.KeyID), Permission: orEmpty(u.Permission),
			Product: orEmpty(u.Product), Route: orEmpty(u.Route), Outcome: u.Outcome, Requests: u.Requests,
		})
	}
	return rows, nil
}

func (f UsageFilter) step() string {
	if f.ByHour {
		return "hour"
	}
	return ""
}

// groupBy names what is told apart, in the order in which the gateway wants it.
func (f UsageFilter) groupBy() string {
	var groups []string
	for _, group := range []struct {
		name  string
		apart bool
	}{{"key", f.ByKey}, {"permission", f.ByPermission}, {"product", f.ByProduct}, {"route", f.ByRoute}} {
		if group.apart {
			groups = append(groups, group.name)
		}
	}
	return strings.Join(groups, ",")
}
