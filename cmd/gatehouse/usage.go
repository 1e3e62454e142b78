package main

import (
	"net/http"
	"net/url"
	"strconv"

	"gatehouse/proxy/contract"
)

type usageCommand struct {
	adminFlags
	By         string `help:"What to rank: account, key, permission, product, route or outcome." enum:"account,key,permission,product,route,outcome" default:"account" placeholder:"SUBJECT"`
	Account    string `help:"Only requests of this account." placeholder:"ID"`
	Permission string `help:"Only requests that needed this permission, or any-valid-key." placeholder:"PERMISSION"`
	Product    string `help:"Only requests of this product." placeholder:"PRODUCT"`
	Route      string `help:"Only requests of this route, as it is shown: \"GET /serp/v1/\"." placeholder:"ROUTE"`
	Outcome    string `help:"Only requests that ended so: allowed, or an error code." placeholder:"OUTCOME"`
	Step       string `help:"Count by whole days, at most 400, or hours, at most 31 days." enum:"day,hour" default:"day" placeholder:"STEP"`
	Since      string `help:"From the day or hour of this time on, in Unix seconds or as 2006-01-02T15:04:05Z. Left out: the last 30 days, or 24 hours." placeholder:"TIME"`
	Until      string `help:"Only days or hours that begin before this time." placeholder:"TIME"`
	Limit      int    `help:"How many to show, 1 to 100." default:"10"`
}

// Run shows what had the most requests.
func (c *usageCommand) Run(t *terminal) error {
	query := url.Values{"by": {c.By}, "step": {c.Step}, "limit": {strconv.Itoa(c.Limit)}}
	for name, value := range map[string]string{
		"account": c.Account, "permission": c.Permission, "product": c.Product, "route": c.Route, "outcome": c.Outcome,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, value := range map[string]string{"from": c.Since, "to": c.Until} {
		if value == "" {
			continue
		}
		at, err := readMoment(value)
		if err != nil {
			return usageError{err}
		}
		query.Set(name, strconv.FormatInt(at, 10))
	}
	return c.do(t, http.MethodGet, "/usage?"+query.Encode(), nil, func(answer []byte) error {
		rows, err := dataOf[[]contract.RankedUsage](answer)
		if err != nil {
			return err
		}
		return t.table(c.table(rows))
	})
}

// table has a column for each member that rows of its subject have.
func (c *usageCommand) table(rows []contract.RankedUsage) [][]string {
	type column struct {
		heading string
		of      func(contract.RankedUsage) *string
	}
	account := column{"ACCOUNT", func(r contract.RankedUsage) *string { return r.AccountID }}
	name := column{"NAME", func(r contract.RankedUsage) *string { return r.Name }}
	columns := map[string][]column{
		"account": {account, name},
		"key": {
			account,
			{"KEY", func(r contract.RankedUsage) *string { return r.KeyID }},
			name,
			{"TOKEN", func(r contract.RankedUsage) *string { return r.TokenPreview }},
		},
		"permission": {{"PERMISSION", func(r contract.RankedUsage) *string { return r.Permission }}},
		"product":    {{"PRODUCT", func(r contract.RankedUsage) *string { return r.Product }}},
		"route":      {{"ROUTE", func(r contract.RankedUsage) *string { return r.Route }}},
		"outcome":    {{"OUTCOME", func(r contract.RankedUsage) *string { return r.Outcome }}},
	}[c.By]
	heading := make([]string, 0, len(columns)+1)
	for _, column := range columns {
		heading = append(heading, column.heading)
	}
	table := [][]string{append(heading, "REQUESTS")}
	for _, r := range rows {
		line := make([]string, 0, len(columns)+1)
		for _, column := range columns {
			said := column.of(r)
			if said != nil && *said == "" {
				said = nil // an account without a name, or requests of before routes were counted
			}
			line = append(line, plain(orDash(said)))
		}
		table = append(table, append(line, strconv.FormatInt(r.Requests, 10)))
	}
	return table
}
