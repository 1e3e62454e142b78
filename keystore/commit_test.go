package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// onEachServer runs the test on the two servers that run commit.lua.
func onEachServer(t *testing.T, test func(t *testing.T, client *redis.Client, prefix string)) {
	t.Helper()
	for name, addr := range map[string]func(*testing.T) string{
		"miniredis": func(t *testing.T) string { return miniredis.RunT(t).Addr() },
		"redis":     func(t *testing.T) string { return theRedis(t).addr },
	} {
		t.Run(name, func(t *testing.T) {
			client := redis.NewClient(&redis.Options{Addr: addr(t), Protocol: 2})
			t.Cleanup(func() { _ = client.Close() })
			test(t, client, fmt.Sprintf("commit%d:", prefixes.Add(1)))
		})
	}
}

// The script says which guard fails, the first if there are several, and then
// has changed nothing, whatever its steps are.
func TestNothingHappensUnlessAllGuardsHold(t *testing.T) {
	onEachServer(t, func(t *testing.T, client *redis.Client, p string) {
		ctx := t.Context()
		client.Set(ctx, p+"value", "1", 0)
		client.HSet(ctx, p+"hash", "a", 1, "b", 2, "c", 3)
		client.ZAdd(ctx, p+"list", redis.Z{Score: 5, Member: "kept"})
		client.Set(ctx, p+"empty", "", 0)
		steps := []keystore.Step{
			{Kind: keystore.StepSet, Key: p + "value", Value: "2"},
			{Kind: keystore.StepSet, Key: p + "new", Value: "x", Ends: time.Now().Unix() + 100},
			{Kind: keystore.StepHSet, Key: p + "hash", Field: "d", Value: "4"},
			{Kind: keystore.StepHDel, Key: p + "hash", Field: "a"},
			{Kind: keystore.StepCount, Key: p + "counts", Field: "c", Value: "5", Ends: time.Now().Unix() + 100},
			{Kind: keystore.StepZAdd, Key: p + "list", Field: "added", Value: "7"},
			{Kind: keystore.StepZRem, Key: p + "list", Field: "kept"},
			{Kind: keystore.StepDel, Key: p + "empty"},
			{Kind: keystore.StepPublish, Key: p + "channel", Field: p + "channel", Value: "message"},
		}
		good := []keystore.Guard{{Key: p + "value", Want: "1"}, {Key: p + "absent"}, {Key: p + "hash", Below: 4}, {Key: p + "absent", Below: 1}, {Key: p + "empty"}, {Key: p + "hash", Has: "b"}}
		bad := []struct {
			guard keystore.Guard
			err   error
		}{
			{keystore.Guard{Key: p + "value", Want: "2"}, keystore.ErrMoved},
			{keystore.Guard{Key: p + "value", Want: "1 "}, keystore.ErrMoved},
			{keystore.Guard{Key: p + "value"}, keystore.ErrMoved},
			{keystore.Guard{Key: p + "absent", Want: "1"}, keystore.ErrMoved},
			{keystore.Guard{Key: p + "hash", Below: 3}, keystore.ErrKeyLimit},
			{keystore.Guard{Key: p + "hash", Below: 1}, keystore.ErrKeyLimit},
			{keystore.Guard{Key: p + "hash", Has: "d"}, keystore.ErrMoved},
			{keystore.Guard{Key: p + "absent", Has: "a"}, keystore.ErrMoved},
		}
		heard := client.Subscribe(ctx, p+"channel")
		defer func() { _ = heard.Close() }()
		if _, err := heard.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		before := dump(t, client, p)
		for at := range len(good) + 1 {
			for _, b := range bad {
				guards := append(append(append([]keystore.Guard{}, good[:at]...), b.guard), good[at:]...)
				guards = append(guards, keystore.Guard{Key: p + "value", Want: "3"}) // fails too, and is not the first
				failed, err := keystore.RunScript(ctx, client, guards, steps)
				if err != nil || failed != at+1 {
					t.Errorf("%+v at %d: guard %d failed, %v", b.guard, at+1, failed, err)
				}
				wantErr(t, keystore.Commit(ctx, client, false, guards, steps), b.err)
				if diff := cmp.Diff(before, dump(t, client, p)); diff != "" {
					t.Fatalf("%+v: something has changed (-want +got):\n%s", b.guard, diff)
				}
			}
		}
		failed, err := keystore.RunScript(ctx, client, good, steps)
		if err != nil || failed != 0 {
			t.Fatalf("all guards hold: guard %d failed, %v", failed, err)
		}
		want := map[string]string{
			p + "value": "2", p + "new": "x", p + "counts": "map[c:5]", p + "hash": fmt.Sprint(map[string]string{"b": "2", "c": "3", "d": "4"}), p + "list": fmt.Sprint([]redis.Z{{Score: 7, Member: "added"}}),
		}
		if diff := cmp.Diff(want, dump(t, client, p)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, name := range []string{"new", "counts"} {
			if ttl := client.TTL(ctx, p+name).Val(); ttl < 90*time.Second || ttl > 100*time.Second {
				t.Errorf("%s ends in %v, want about 100s", name, ttl)
			}
		}
		// The first message is that of the good commit: no refused one has sent any.
		if message, err := heard.ReceiveMessage(ctx); err != nil || message.Payload != "message" {
			t.Errorf("heard %v, %v", message, err)
		}
	})
}

// A value that is set loses the end that an earlier one had; a member that is
// added again keeps its score.
func TestStepsReplaceAndKeep(t *testing.T) {
	onEachServer(t, func(t *testing.T, client *redis.Client, p string) {
		ctx := t.Context()
		do := func(steps ...keystore.Step) {
			t.Helper()
			if err := keystore.Commit(ctx, client, false, nil, steps); err != nil {
				t.Fatal(err)
			}
		}
		do(keystore.Step{Kind: keystore.StepSet, Key: p + "a", Value: "1", Ends: time.Now().Unix() + 100}, keystore.Step{Kind: keystore.StepZAdd, Key: p + "z", Field: "m", Value: "1"})
		do(keystore.Step{Kind: keystore.StepSet, Key: p + "a", Value: "2"}, keystore.Step{Kind: keystore.StepZAdd, Key: p + "z", Field: "m", Value: "2"})
		if ttl := client.TTL(ctx, p+"a").Val(); ttl != -1 {
			t.Errorf("it ends in %v", ttl)
		}
		if score := client.ZScore(ctx, p+"z", "m").Val(); score != 1 {
			t.Errorf("score %v, want 1", score)
		}
		do(keystore.Step{Kind: keystore.StepSet, Key: p + "a", Value: "3", Ends: time.Now().Unix() - 1})
		if client.Exists(ctx, p+"a").Val() != 0 {
			t.Error("what has ended is still there")
		}
	})
}

// Random changes do the same on miniredis, which tests use, as on a redis-server.
func TestScriptDoesTheSameOnBothServers(t *testing.T) {
	m := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr(), Protocol: 2})
	r := redis.NewClient(&redis.Options{Addr: theRedis(t).addr, Protocol: 2})
	defer func() { _, _ = m.Close(), r.Close() }()
	p := fmt.Sprintf("commit%d:", prefixes.Add(1))
	random := rand.New(rand.NewPCG(3, 4))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	end := time.Now().Unix() + 1000
	for range 300 {
		var guards []keystore.Guard
		var steps []keystore.Step
		for range random.IntN(3) {
			if random.IntN(3) == 0 {
				guards = append(guards, keystore.Guard{Key: p + pick("h1", "h2"), Below: 1 + random.IntN(3)})
			} else {
				guards = append(guards, keystore.Guard{Key: p + pick("v1", "v2"), Want: pick("", "x", "y")})
			}
		}
		for range random.IntN(5) {
			switch random.IntN(6) {
			case 0:
				steps = append(steps, keystore.Step{Kind: keystore.StepSet, Key: p + pick("v1", "v2"), Value: pick("x", "y"), Ends: int64(random.IntN(2)) * end})
			case 1:
				steps = append(steps, keystore.Step{Kind: keystore.StepDel, Key: p + pick("v1", "v2", "h1")})
			case 2:
				steps = append(steps, keystore.Step{Kind: keystore.StepHSet, Key: p + pick("h1", "h2"), Field: pick("a", "b", "c"), Value: pick("x", "y")})
			case 3:
				steps = append(steps, keystore.Step{Kind: keystore.StepHDel, Key: p + pick("h1", "h2"), Field: pick("a", "b", "c")})
			case 4:
				steps = append(steps, keystore.Step{Kind: keystore.StepZAdd, Key: p + "z", Field: pick("a", "b"), Value: strconv.Itoa(random.IntN(5))})
			case 5:
				steps = append(steps, keystore.Step{Kind: keystore.StepZRem, Key: p + "z", Field: pick("a", "b")})
			}
		}
		onMini, errMini := keystore.RunScript(t.Context(), m, guards, steps)
		onReal, errReal := keystore.RunScript(t.Context(), r, guards, steps)
		if errMini != nil || errReal != nil || onMini != onReal {
			t.Fatalf("%+v: miniredis %d, %v; redis %d, %v", guards, onMini, errMini, onReal, errReal)
		}
		if diff := cmp.Diff(dump(t, r, p), dump(t, m, p)); diff != "" {
			t.Fatalf("after %+v (-redis +miniredis):\n%s", steps, diff)
		}
	}
}

// On a Cluster a guard that fails late takes back what the steps before it
// added, and never what was there before.
func TestStepwiseCommitTakesBackWhatItAdded(t *testing.T) {
	onEachServer(t, func(t *testing.T, client *redis.Client, p string) {
		ctx := t.Context()
		client.Set(ctx, p+"old", "1", 0)
		client.HSet(ctx, p+"index", "old", "x")
		steps := []keystore.Step{
			{Kind: keystore.StepHSet, Key: p + "index", Field: "new", Value: "y"},
			{Kind: keystore.StepSet, Key: p + "new", Value: "2"},
			{Kind: keystore.StepDel, Key: p + "old"},
			{Kind: keystore.StepHDel, Key: p + "index", Field: "old"},
		}
		guards := []keystore.Guard{{Key: p + "old", Want: "1"}}
		before := dump(t, client, p)
		scripts := 0
		late := redis.NewClient(&redis.Options{Addr: client.Options().Addr, Protocol: 2})
		defer func() { _ = late.Close() }()
		late.AddHook(hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
			if isCommit(cmd) {
				if scripts++; scripts == 4 { // the guard, two additions, and now
					client.Set(ctx, p+"old", "changed", 0)
				}
			}
			return next()
		}))
		if _, err := keystore.RunScript(ctx, client, guards, nil); err != nil { // the server knows the script
			t.Fatal(err)
		}
		wantErr(t, keystore.Commit(ctx, late, true, guards, steps), keystore.ErrMoved)
		before[p+"old"] = "changed"
		if diff := cmp.Diff(before, dump(t, client, p)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// The code must hash as Redis does, or its guards would miss their slot.
func TestSlotTagIsThatOfRedis(t *testing.T) {
	theCluster(t)
	client := clusterClient(newWorld(t, "cluster").node())
	for _, key := range []string{
		"plain", "a{b}c", "{b}", "a{}c", "a{b", "a}b{c}d", "{a}{b}", "{{a}}", "a{b}{c}", "", "gatehouse:account:{acme}", "gatehouse:account:{acme}:keys", "gatehouse:changed",
	} {
		tag := keystore.SlotTag(key)
		if got, want := slot(t, client, tag), slot(t, client, key); key != "a{}c" && got != want {
			t.Errorf("%q: slot %d by its tag %q, want %d", key, got, tag, want)
		}
	}
}

func slot(t *testing.T, client *redis.ClusterClient, key string) int64 {
	t.Helper()
	slot, err := client.ClusterKeySlot(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// errKilled is what a store's client says when its process is gone.
var errKilled = errors.New("killed")

// killAfter lets so many scripts through and then nothing any more.
func (n *node) killAfter(scripts int) (cut *atomic.Bool) {
	cut = new(atomic.Bool) // the client's pool asks from goroutines of its own
	done := 0
	n.hook(func(_ context.Context, cmd redis.Cmder, next func() error) error {
		if cut.Load() {
			return errKilled
		}
		if isCommit(cmd) {
			if done == scripts {
				cut.Store(true)
				return errKilled
			}
			if err := next(); err != nil { // the server may not know it yet
				return err
			}
			done++
			return nil
		}
		return next()
	})
	return cut
}

// A process that dies between two steps on a Cluster leaves nothing behind
// that works and should not, or that should work and does not; and what it has
// begun can be done again.
func TestKilledBetweenTwoSteps(t *testing.T) {
	changes := map[string]struct {
		do func(n *node, person policy.Caller, k policy.Key) error
		// check sees the store through another node. removes is whether the
		// old token may be dead.
		check func(t *testing.T, n *node, person policy.Caller, k policy.Key, token keystore.Token)
	}{
		"create": {
			func(n *node, person policy.Caller, _ policy.Key) error {
				_, _, err := n.Create(n.t.Context(), person, newKey())
				return err
			},
			func(t *testing.T, n *node, person policy.Caller, _ policy.Key, token keystore.Token) {
				n.works(token)
				n.key(person)
			},
		},
		"update": {
			func(n *node, person policy.Caller, k policy.Key) error {
				_, _, err := n.Update(n.t.Context(), person, k.ID, keystore.Update{Name: ptr("renamed")})
				return err
			},
			func(t *testing.T, n *node, person policy.Caller, k policy.Key, token keystore.Token) {
				n.works(token)
				n.update(person, k.ID, keystore.Update{Name: ptr("again")})
			},
		},
		"revoke": {
			func(n *node, person policy.Caller, k policy.Key) error {
				_, err := n.Revoke(n.t.Context(), person, k.ID)
				return err
			},
			func(t *testing.T, n *node, person policy.Caller, k policy.Key, token keystore.Token) {
				if _, err := n.Revoke(t.Context(), person, k.ID); err != nil && !errors.Is(err, keystore.ErrNotFound) {
					t.Errorf("revoke again: %v", err)
				}
				n.wantUnknown(token)
			},
		},
		"regenerate": {
			func(n *node, person policy.Caller, k policy.Key) error {
				_, _, err := n.Regenerate(n.t.Context(), person, k.ID, 0)
				return err
			},
			func(t *testing.T, n *node, person policy.Caller, k policy.Key, token keystore.Token) {
				_, err := n.Lookup(t.Context(), token)
				if err != nil && len(n.list(person, 10)) < 2 {
					t.Errorf("the old key is dead and no new one is there: %v", err)
				}
				if err == nil { // it works, so it must be there to be regenerated
					n.must(n.Regenerate(t.Context(), person, k.ID, 0))
					n.wantUnknown(token)
				}
			},
		},
		"delete the account": {
			func(n *node, person policy.Caller, _ policy.Key) error {
				return n.DeleteAccount(n.t.Context(), policy.Caller{}, person.Account.ID)
			},
			func(t *testing.T, n *node, person policy.Caller, _ policy.Key, token keystore.Token) {
				if _, err := n.Lookup(t.Context(), token); err != nil && !unknown(err) {
					t.Errorf("lookup: %v", err)
				}
				if err := n.DeleteAccount(t.Context(), policy.Caller{}, person.Account.ID); err != nil && !errors.Is(err, keystore.ErrNotFound) {
					t.Errorf("delete again: %v", err)
				}
				n.wantUnknown(token)
				if left := n.records(); len(left) != 0 {
					t.Errorf("%d key records are left", len(left))
				}
				n.account(person.Account.ID)
				n.wantUnknown(token)
			},
		},
	}
	for _, kind := range []string{"miniredis", "cluster"} {
		for name, change := range changes {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				for steps := 0; ; steps++ {
					w := newWorld(t, kind)
					w.text = true // the check reads records
					n, victim := w.node(), w.node()
					if kind == "miniredis" {
						keystore.UseClusterCommitter(victim.Store)
					}
					person := n.account("acme")
					k, token := n.key(person)
					_, bystander := n.key(person)
					cut := victim.killAfter(steps)
					err := change.do(victim, person, k)
					if !cut.Load() {
						if err != nil {
							t.Fatalf("undisturbed: %v", err)
						}
						if steps < 2 {
							t.Errorf("it is done in %d steps: nothing was tested", steps)
						}
						return
					}
					if !errors.Is(err, keystore.ErrUnavailable) {
						t.Errorf("killed after %d steps, and acknowledged: %v", steps, err)
					}
					if name != "delete the account" {
						n.works(bystander)
						n.everyKeyIsListed(person)
					}
					n.trailExplains(k, token)
					change.check(t, n, person, k, token)
				}
			})
		}
	}
}

// trailExplains checks that there is no change to the account's keys, however
// it was interrupted, without an event that tells of it.
func (n *node) trailExplains(k policy.Key, token keystore.Token) {
	n.t.Helper()
	told := make(map[keystore.Action]int)
	made := map[string]bool{}
	for _, e := range n.trail("acme", keystore.EventFilter{Predecessors: true}, 100) {
		told[e.Action]++
		made[`"`+string(e.Key)+`"`] = true
		for _, c := range e.Changes {
			made[string(c.New)] = true
		}
	}
	for name, raw := range n.records() {
		id, _, _ := strings.Cut(raw[strings.Index(raw, `"id":`)+len(`"id":`):], ",")
		if !made[id] {
			n.t.Errorf("no event tells how %s came to be: %s", name, raw)
		}
		if strings.Contains(raw, "renamed") && told[keystore.KeyUpdate] == 0 {
			n.t.Error("no event tells of an update")
		}
	}
	if _, err := n.Lookup(n.t.Context(), token); unknown(err) && told[keystore.KeyRevoke]+told[keystore.KeyRegenerate]+told[keystore.AccountDelete] == 0 {
		n.t.Errorf("key %s is dead, and no event tells why", k.ID)
	}
}

// everyKeyIsListed checks that no record is there, and would work, that the
// owner of the account cannot see and revoke.
func (n *node) everyKeyIsListed(person policy.Caller) {
	n.t.Helper()
	listed, records := n.list(person, 100), n.records()
	if len(listed) != len(records) {
		n.t.Errorf("%d keys are listed and %d are there", len(listed), len(records))
	}
	for _, k := range listed {
		if _, err := n.Get(n.t.Context(), person, k.ID); err != nil {
			n.t.Errorf("get of a listed key: %v", err)
		}
	}
}

// An account whose deletion was interrupted does not give its keys to the next
// one of its id.
func TestKeysOfAHalfDeletedAccountStayDead(t *testing.T) {
	for _, kind := range []string{"miniredis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, kind)
			n, victim := w.node(), w.node()
			if kind == "miniredis" {
				keystore.UseClusterCommitter(victim.Store)
			}
			old, token := n.key(n.account("acme"))
			victim.killAfter(3) // the account is gone, its keys are not
			wantErr(t, victim.DeleteAccount(t.Context(), policy.Caller{}, "acme"), keystore.ErrUnavailable)
			eventually(t, "the deletion is seen", func() bool { _, err := n.Lookup(t.Context(), token); return unknown(err) })

			person := n.account("acme")
			_, next := n.key(person)
			n.wantUnknown(token)
			n.works(next)
			if keys := n.list(person, 10); len(keys) != 1 || keys[0].ID == old.ID {
				t.Errorf("the new account lists %v", keys)
			}
			_, err := n.Get(t.Context(), person, old.ID)
			wantErr(t, err, keystore.ErrNotFound)
			_, err = n.Revoke(t.Context(), person, old.ID)
			wantErr(t, err, keystore.ErrNotFound)
			_, _, err = n.Regenerate(t.Context(), person, old.ID, 0)
			wantErr(t, err, keystore.ErrNotFound)
		})
	}
}
