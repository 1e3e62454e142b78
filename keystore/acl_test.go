package keystore_test

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// userOfTheGuide returns the rules of the Redis user that the guide has, for
// another prefix, and the commands that it may use.
func userOfTheGuide(t *testing.T, prefix string) (rules []any, commands []string) {
	t.Helper()
	guide, err := os.ReadFile("../docs/guides/redis-cluster-sentinel.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^user gatehouse on >\S+ (.*)$`).FindSubmatch(guide)
	if found == nil {
		t.Fatal("the guide has no user gatehouse")
	}
	for rule := range strings.FieldsSeq(strings.ReplaceAll(string(found[1]), "gatehouse:", prefix)) {
		rules = append(rules, rule)
		if command, ok := strings.CutPrefix(rule, "+"); ok {
			commands = append(commands, command)
		}
	}
	return rules, commands
}

// seldom are the commands that only Clusters, replicas or upgrades of a store are
// asked for.
var seldom = []string{"cluster|slots", "command", "asking", "xdel", "wait", "hget"}

// The Redis user of the guide may do everything that a store does, and nothing
// that it does not.
func TestRedisUserOfTheGuideIsEnough(t *testing.T) {
	for _, kind := range []string{"redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind)
			w.text = true        // so that there is something to upgrade
			if kind == "redis" { // one whose statistics are of this test alone
				own, err := startRedis(t.TempDir(), "--appendonly", "no")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(own.kill)
				w.options.Redis.Addrs = []string{own.addr}
			}
			rules, commands := userOfTheGuide(t, w.options.Prefix)
			rules = append([]any{"acl", "setuser", "guide", "on", ">secret"}, rules...)
			admin := keystore.ClientOf(w.node(func(o *keystore.Options) { r := *o.Redis; o.Redis, o.Prefix = &r, o.Prefix+"admin:" }).Store)
			eachMaster(t, admin, func(ctx context.Context, c *redis.Client) error { return c.Do(ctx, rules...).Err() })
			eachMaster(t, admin, func(ctx context.Context, c *redis.Client) error { return c.ConfigResetStat(ctx).Err() })
			w.options.Redis.Username, w.options.Redis.Password = "guide", "secret"
			if kind == "redis" {
				w.options.Redis.DB = 1 // so that one is selected
			}
			w.doEverything()
			eachMaster(t, admin, func(ctx context.Context, c *redis.Client) error {
				denied, err := c.ACLLog(ctx, 100).Result()
				for _, d := range denied {
					if d.Username == "guide" {
						t.Errorf("it may not %s (%s)", d.Object, d.Reason)
					}
				}
				return err
			})
			for _, command := range commands {
				if kind == "redis" && !slices.Contains(seldom, command) {
					eventually(t, command+" is used", func() bool {
						return strings.Contains(admin.Info(t.Context(), "commandstats").Val(), "cmdstat_"+command+":")
					})
				}
			}
		})
	}
}

// doEverything does all that stores do.
func (w *world) doEverything() {
	w.t.Helper()
	n := w.node()
	eventually(w.t, "it is subscribed", func() bool { return n.Hears() })
	tokens, by := n.fill()
	n.works(tokens[0])
	k, _ := n.key(by)
	must := func(what string, err error) {
		w.t.Helper()
		if err != nil {
			w.t.Errorf("%s: %v", what, err)
		}
	}
	n.Used(k.ID, "acme", w.clock.Now())
	n.Count(keystore.CountedRequest{Key: k.ID, Account: "acme", Permission: read, Outcome: "allowed", Route: "GET /a", At: w.clock.Now()})
	n.flush()
	if got := usageOf(n, by); len(got) != 1 {
		w.t.Errorf("usage: %q", got)
	}
	ranked, err := n.RankUsage(w.t.Context(), keystore.UsageRanking{
		By: keystore.RankKeys, Limit: 1, UsageFilter: keystore.UsageFilter{From: w.clock.Now().Add(-time.Hour), To: w.clock.Now().Add(time.Hour), Step: keystore.ByHour},
	})
	must("rank usage", err)
	if len(ranked) != 1 {
		w.t.Errorf("usage is ranked as %v", ranked)
	}
	keystore.UseCompact(n.Store)
	must("rewrite records", keystore.RewriteRecords(w.t.Context(), n.Store, func(int) {}))
	n.list(by, 10)
	n.users(by, 10)
	ada := n.byEmail("ada@example.com")
	n.session(ada, "a session")
	n.wantSession("a session")
	must("touch session", n.TouchSession(w.t.Context(), "a session", nil, w.clock.Now().Add(time.Hour)))
	sessions, err := n.ListSessions(w.t.Context(), by, ada.ID)
	must("list sessions", err)
	for _, s := range sessions {
		must("revoke session", n.RevokeSession(w.t.Context(), by, ada.ID, s.ID))
	}
	must("end sessions", n.EndSessions(w.t.Context(), by, ada.ID))
	_, err = n.Find(w.t.Context(), "", k.ID)
	must("find", err)
	_, err = n.Revoke(w.t.Context(), by, k.ID)
	must("revoke", err)
	n.flush() // its counters are removed
	n.Refused(w.t.Context(), by, keystore.KeyCreate, "", "rate_limited")
	_, _, err = n.AuditLog(w.t.Context(), "acme", keystore.EventFilter{}, "", 10)
	must("audit log", err)
	n.spend("a-key", keystore.Rate{PerSecond: 1, Burst: 5})
	first, err := n.Once(w.t.Context(), "a-form")
	must("once", err)
	must("forget", n.Forget(w.t.Context(), "a-form"))
	if !first {
		w.t.Error("once: it was not the first time")
	}
	export := n.export()
	_, _, err = n.ListAccounts(w.t.Context(), "", 10)
	must("list accounts", err)
	must("delete account", n.DeleteAccount(w.t.Context(), policy.Caller{}, "acme"))
	n.bringIn(export, keystore.ImportOptions{BringBack: true})
	n.works(tokens[0])
}
