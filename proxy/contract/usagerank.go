package contract

import (
	"slices"
	"strconv"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// RankedUsage is how many requests one subject had. An account has its id and
// name, a key the id of its account, its own, its name and the preview of its
// token; everything else has the one member that it is. The route is "" for
// requests that were counted before routes were.
type RankedUsage struct {
	AccountID    *string `json:"account_id,omitzero"`
	KeyID        *string `json:"key_id,omitzero"`
	Name         *string `json:"name,omitzero"`
	TokenPreview *string `json:"token_preview,omitzero"`
	Permission   *string `json:"permission,omitzero"`
	Product      *string `json:"product,omitzero"`
	Route        *string `json:"route,omitzero"`
	Outcome      *string `json:"outcome,omitzero"`
	Requests     int64   `json:"requests"`
}

// ShowRankedUsage gives what was ranked its documented form; never nil.
func ShowRankedUsage(rows []keystore.RankedUsage, by keystore.UsageSubject) []RankedUsage {
	key := by == keystore.RankKeys
	account := key || by == keystore.RankAccounts
	shown := make([]RankedUsage, 0, len(rows))
	for _, r := range rows {
		shown = append(shown, RankedUsage{
			AccountID: told(account, string(r.Account)), KeyID: told(key, string(r.Key)), Name: told(account, r.Name), TokenPreview: told(key, r.Preview),
			Permission: told(by == keystore.RankPermissions, string(r.Permission)), Product: told(by == keystore.RankProducts, r.Product),
			Route: told(by == keystore.RankRoutes, r.Route), Outcome: told(by == keystore.RankOutcomes, r.Outcome), Requests: r.Requests,
		})
	}
	return shown
}

// How many rows a ranking has when the client does not say, and at the most.
const (
	usualRanking = 10
	maxRanking   = 100
)

// ReadRankingQuery reads what is to be ranked, in which nothing else may stand:
// accounts, when the client does not say. The time is that of ReadUsageQuery.
func ReadRankingQuery(rawQuery string, now time.Time) (keystore.UsageRanking, error) {
	r := keystore.UsageRanking{By: keystore.RankAccounts, Limit: usualRanking, UsageFilter: keystore.UsageFilter{Step: keystore.ByDay}}
	parameters := usageParameters(&r.UsageFilter)
	parameters["by"] = func(value string) string {
		r.By = keystore.UsageSubject(value)
		return unless(slices.Contains(keystore.UsageSubjects(), r.By), "Rank by account, key, permission, product, route or outcome.")
	}
	parameters["account"] = func(value string) string {
		r.Account = policy.AccountID(value)
		return unless(policy.ValidAccountID(value), "This is no id of an account.")
	}
	parameters["limit"] = func(value string) string {
		var err error
		r.Limit, err = strconv.Atoi(value)
		return unless(err == nil && r.Limit >= 1 && r.Limit <= maxRanking, "The limit must be a number from 1 to "+strconv.Itoa(maxRanking)+".")
	}
	q := query{unpaged: true}
	if err := q.read(rawQuery, parameters); err != nil {
		return keystore.UsageRanking{}, err
	}
	return r, bound(&r.UsageFilter, now)
}
