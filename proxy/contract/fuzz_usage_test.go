package contract_test

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/proxy/contract"
)

// FuzzUsageQueries: what is accepted is bounded, and says the same when it is
// written out again.
func FuzzUsageQueries(f *testing.F) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for _, s := range []string{
		"", "step=hour&group_by=key,permission,product,route", "group_by=route,key", "group_by=key,key", "group_by=,", "product=any-valid-key&permission=a:b", "product=a:",
		"route=GET+/a/%7Bb...%7D&outcome=allowed", "route=GET%20a", "from=1&to=2", "from=2&to=1", "key=" + subA, "by=key&account=acme&limit=100", "by=x", "limit=0", "limit=101", "limit=%2B1", "by=key&by=key",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if filter, err := contract.ReadUsageQuery(query, now); err != nil {
			checkRefused(t, err)
		} else {
			again := rewritten(filter)
			var groups []string
			for _, g := range []struct {
				name  string
				apart bool
			}{{"key", filter.ByKey}, {"permission", filter.ByPermission}, {"product", filter.ByProduct}, {"route", filter.ByRoute}} {
				if g.apart {
					groups = append(groups, g.name)
				}
			}
			set(again, map[string]string{"key": string(filter.Key), "group_by": strings.Join(groups, ",")})
			second, err := contract.ReadUsageQuery(again.Encode(), now)
			if diff := cmp.Diff(filter, second); err != nil || diff != "" {
				t.Errorf("%v (-first +second):\n%s", err, diff)
			}
		}
		ranking, err := contract.ReadRankingQuery(query, now)
		if err != nil {
			checkRefused(t, err)
			return
		}
		if ranking.Limit < 1 || ranking.Limit > 100 || ranking.Key != "" || ranking.ByKey {
			t.Errorf("accepted as %+v", ranking)
		}
		again := rewritten(ranking.UsageFilter)
		set(again, map[string]string{"by": string(ranking.By), "account": string(ranking.Account), "limit": strconv.Itoa(ranking.Limit)})
		second, err := contract.ReadRankingQuery(again.Encode(), now)
		if diff := cmp.Diff(ranking, second); err != nil || diff != "" {
			t.Errorf("%v (-first +second):\n%s", err, diff)
		}
	})
}

// rewritten is what both questions have in common.
func rewritten(f keystore.UsageFilter) url.Values {
	again := url.Values{}
	set(again, map[string]string{
		"permission": string(f.Permission), "product": f.Product, "route": f.Route, "outcome": f.Outcome, "step": string(f.Step), "from": unix(f.From), "to": unix(f.To),
	})
	return again
}

func set(to url.Values, values map[string]string) {
	for name, value := range values {
		if value != "" {
			to.Set(name, value)
		}
	}
}
