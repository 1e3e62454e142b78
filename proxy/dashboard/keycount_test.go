package dashboard_test

import (
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// TestQuestionCountsAsTheChartDoes: what reached its product is not called
// refused, and nothing older than the chart is counted.
func TestQuestionCountsAsTheChartDoes(t *testing.T) {
	t.Parallel()
	s := start(t)
	k := s.made("CI pipeline")
	s.notes(func(n *keystore.Store) {
		count := func(outcome string, times int, at time.Time) {
			for range times {
				n.Count(counted(k.ID, "datacenter_shared:read", outcome, at))
			}
		}
		hour := s.clock().Truncate(time.Hour)
		count(string(policy.Allowed), 5, hour.Add(-23*time.Hour))
		count("upstream_timeout", 7, s.clock())
		count("client_gone", 1, s.clock())
		count("ip_not_allowed", 2, s.clock())
		count(string(policy.Allowed), 3, hour.Add(-24*time.Hour))
	})
	s.signIn()
	for _, action := range []string{"disable", "regenerate", "revoke"} {
		wants(t, action, words(s.get(pathOf(k, action)).body), "15 requests: 5 allowed, 2 refused, 8 failed or broken off")
	}
	wants(t, "chart", words(s.get("/dashboard/keys/"+string(k.ID)).body), "All 15 Allowed 5 Refused 2 Failed or broken off 8")
	if body := words(s.get(pathOf(s.made("Idle"), "revoke")).body); !strings.Contains(body, "Last 24 hours No requests") {
		t.Errorf("a key without requests: %s", body)
	}
}
