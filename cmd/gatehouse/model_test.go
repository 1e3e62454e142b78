package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// state is what a key may be in.
type state struct{ dead, disabled, cannotWrite bool }

// modelKey is a key as those who were answered know it: with every state it can
// be in, of which there are several where an answer did not come.
type modelKey struct {
	key
	possible []state
	replaced bool // works on in its grace, and cannot be changed
	perhaps  bool // replaced: the answer did not come
}

// model is what one worker knows of the keys that it made.
type model struct {
	d    *table
	keys []*modelKey
	// faulty: answers may not come, or be 503.
	faulty bool
	// acknowledged and unsure count the actions by what is in the audit trail.
	acknowledged, unsure map[string]int
	failures             []string
	lost                 bool // the last answer did not come, or was 503
}

func newModel(d *table, faulty bool) *model {
	return &model{d: d, faulty: faulty, acknowledged: map[string]int{}, unsure: map[string]int{}}
}

func (m *model) fail(format string, args ...any) {
	m.failures = append(m.failures, fmt.Sprintf(format, args...))
}

// act makes a management request. It is done, refused, or nobody knows.
func (m *model) act(action string, r request, accept ...int) (got answer, known bool) {
	got, err := m.d.exchange(r)
	switch {
	case err == nil && slices.Contains(accept, got.status):
		if got.status < 300 && !strings.Contains(got.body, `"updated_fields":[]`) { // nothing is no event
			m.acknowledged[action]++
		}
		return got, true
	case m.faulty && (err != nil || got.status == http.StatusServiceUnavailable):
		m.unsure[action]++
		m.lost = true
		return got, false
	}
	m.fail("%s: got %d %s, %v, want one of %v", action, got.status, got.body, err, accept)
	return got, false
}

func (m *model) step() {
	if len(m.keys) == 0 || len(m.alive()) < 2 && rand.IntN(2) == 0 {
		m.create()
		return
	}
	k := m.keys[rand.IntN(len(m.keys))]
	switch choice := rand.IntN(12); {
	case choice < 6:
		m.use(k)
	case choice < 8:
		m.update(k, `"is_active"`, func(s *state, off bool) { s.disabled = off }, "false", "true")
	case choice < 10:
		m.update(k, `"permissions"`, func(s *state, off bool) { s.cannotWrite = off },
			`["datacenter_shared:read"]`, `["datacenter_shared:read", "datacenter_shared:write"]`)
	case choice < 11:
		m.regenerate(k)
	default:
		m.revoke(k)
	}
}

func (m *model) alive() []*modelKey {
	return slices.DeleteFunc(slices.Clone(m.keys), func(k *modelKey) bool { return k.certain(true) })
}

// certain reports whether it is known that the key is dead, or that it is not.
func (k *modelKey) certain(dead bool) bool {
	return !slices.ContainsFunc(k.possible, func(s state) bool { return s.dead != dead })
}

// only keeps the states in which a key is dead, or not, as an answer has shown.
func (k *modelKey) only(dead bool) bool {
	k.possible = slices.DeleteFunc(k.possible, func(s state) bool { return s.dead != dead })
	return len(k.possible) > 0
}

func (k *modelKey) each(change func(s *state), known bool) {
	before := slices.Clone(k.possible)
	for i := range k.possible {
		change(&k.possible[i])
	}
	if !known {
		k.possible = append(k.possible, before...)
	}
	slices.SortFunc(k.possible, func(a, b state) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	k.possible = slices.Compact(k.possible)
}

func (m *model) add(raw string) {
	var a struct{ Data key }
	if err := json.Unmarshal([]byte(raw), &a); err != nil || a.Data.Token == "" {
		m.fail("an answer without a key: %s", raw)
		return
	}
	m.keys = append(m.keys, &modelKey{key: a.Data, possible: []state{{}}})
}

func (m *model) create() {
	got, known := m.act("key.create", creation(m.d.root, `{"name": "model", "permissions": ["datacenter_shared:read", "datacenter_shared:write"]}`), 201)
	if known {
		m.add(got.body)
	}
}

func (m *model) update(k *modelKey, field string, set func(s *state, off bool), off, on string) {
	value, isOff := on, rand.IntN(2) == 0
	if isOff {
		value = off
	}
	want := []int{200, 404}
	if k.perhaps {
		want = append(want, 409)
	}
	if k.replaced {
		want = []int{409, 404}
	}
	got, known := m.act("key.update", manage(m.d.root, "PUT", keyTarget(k.ID), `{`+field+`: `+value+`}`), want...)
	switch {
	case known && !k.only(got.status == http.StatusNotFound):
		m.fail("update of key %s: got %d in a state in which that cannot be", k.ID, got.status)
	case known && got.status == http.StatusConflict:
		k.replaced = true
	case known && got.status == http.StatusNotFound || k.replaced:
	default:
		k.each(func(s *state) { set(s, isOff) }, known)
	}
}

func (m *model) regenerate(k *modelKey) {
	grace := rand.IntN(2) == 0
	body := ""
	if grace {
		body = `{"grace_period_seconds": 3600}`
	}
	want := []int{200, 404}
	if k.replaced {
		want = []int{409, 404}
	}
	if m.faulty {
		want = append(want, 409) // by a try of the gateway's own before, or one that nobody knows of
	}
	before := slices.Clone(k.possible)
	got, known := m.act("key.regenerate", manage(m.d.root, "POST", keyTarget(k.ID)+"/regenerate", body), want...)
	switch {
	case known && !k.only(got.status == http.StatusNotFound):
		m.fail("regenerate of key %s: got %d in the states %v", k.ID, got.status, before)
	case known && got.status == http.StatusConflict:
		k.replaced = true
	case known && got.status == http.StatusOK:
		m.add(got.body)
		next := m.keys[len(m.keys)-1]
		next.possible = slices.Clone(k.possible)
		if grace {
			k.replaced = true
		} else {
			k.each(func(s *state) { s.dead = true }, true)
		}
	case !known && grace:
		k.perhaps = true // and it goes on working either way
	case !known:
		k.each(func(s *state) { s.dead = true }, false)
	}
}

func (m *model) revoke(k *modelKey) {
	got, known := m.act("key.revoke", manage(m.d.root, "DELETE", keyTarget(k.ID), ""), 200, 404)
	if known && !k.only(got.status == http.StatusNotFound) {
		m.fail("revoke of key %s: got %d in a state in which that cannot be", k.ID, got.status)
		return
	}
	k.each(func(s *state) { s.dead = true }, known)
}

// use is what all of this is about: the key opens what it may, and nothing else.
func (m *model) use(k *modelKey) {
	r := get(k.key, proxyListOfA)
	writes := rand.IntN(2) == 0
	if writes {
		r = get(k.key, whitelistOfA+"?type=add&ip=203.0.113.7")
	}
	var want []int
	for _, s := range k.possible {
		switch {
		case s.dead || s.disabled:
			want = append(want, 401)
		case writes && s.cannotWrite:
			want = append(want, 403)
		default:
			want = append(want, 200)
		}
	}
	got, err := m.d.exchange(r)
	if m.faulty && (err != nil || got.status == 503 || got.status == 502) {
		m.lost = true
		return
	}
	if err != nil || !slices.Contains(want, got.status) {
		m.fail("key %s in the states %v: got %d %s, %v", k.ID, k.possible, got.status, got.body, err)
	}
}

// recover waits until the gateway is ready again.
func (m *model) recover() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range patience / (20 * time.Millisecond) {
		if !m.lost {
			return
		}
		<-tick.C
		_, err := m.d.probe("/readyz?store=1")
		m.lost = err != nil
	}
}

// runModels lets so many workers take so many steps each, and gives disturb the
// share of steps that is done.
func runModels(t *testing.T, d *table, workers, steps int, disturb func(done func() float64)) []*model {
	t.Helper()
	models := make([]*model, workers)
	var taken atomic.Int64
	var all sync.WaitGroup
	for i := range models {
		m := newModel(d, disturb != nil)
		models[i] = m
		all.Go(func() {
			for range steps {
				m.step()
				taken.Add(1)
				m.recover()
			}
		})
	}
	if disturb != nil {
		disturb(func() float64 { return float64(taken.Load()) / float64(workers*steps) })
	}
	all.Wait()
	return models
}

// agree checks that keys, listing, store and audit trail say in the end what was
// acknowledged.
func agree(t *testing.T, d *table, models []*model, records int, others int) {
	t.Helper()
	listed := map[string]managed{}
	for _, k := range manages[[]managed](t, d.gateway, manage(d.root, "GET", keysPath, "")) {
		listed[k.ID] = k
	}
	acknowledged, unsure := map[string]int{}, map[string]int{}
	known := 0
	for _, m := range models {
		for _, failure := range m.failures {
			t.Error(failure)
		}
		for _, action := range []string{"key.create", "key.update", "key.regenerate", "key.revoke"} {
			acknowledged[action] += m.acknowledged[action]
			unsure[action] += m.unsure[action]
		}
		m.faulty = false
		for _, k := range m.keys {
			m.failures = nil
			m.use(k)
			for _, failure := range m.failures {
				t.Errorf("in the end: %s", failure)
			}
			shown, is := listed[k.ID]
			if is {
				known++
			}
			fits := func(s state) bool {
				return s.dead != is && (!is || s.disabled != shown.IsActive && s.cannotWrite != slices.Contains(shown.Permissions, "datacenter_shared:write"))
			}
			if !slices.ContainsFunc(k.possible, fits) {
				t.Errorf("key %s: listed %v %+v, and acknowledged %v", k.ID, is, shown, k.possible)
			}
		}
	}
	unknown := len(listed) - known - others
	if most := unsure["key.create"] + unsure["key.regenerate"]; unknown < 0 || unknown > most {
		t.Errorf("%d keys are listed that nobody knows of, and %d may be", unknown, most)
	}
	if records >= 0 && records != len(listed) {
		t.Errorf("%d records are in the store, and %d keys listed", records, len(listed))
	}
	told := map[string]int{}
	for cursor := ""; ; {
		got := d.operate(t, http.MethodGet, "/accounts/acme/audit-log?limit=1000&cursor="+cursor, nil)
		for _, e := range dataOf[[]auditEvent](t, got) {
			if e.Outcome == "done" {
				told[e.Action]++
			}
		}
		var page struct {
			NextCursor *string `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(got.body), &page); err != nil {
			t.Fatal(err)
		}
		if page.NextCursor == nil {
			break
		}
		cursor = *page.NextCursor
	}
	told["key.create"] -= others
	for action, n := range acknowledged {
		if told[action] < n || told[action] > n+unsure[action] {
			t.Errorf("%s: %d in the trail, %d acknowledged, %d unsure", action, told[action], n, unsure[action])
		}
		t.Logf("%s: %d acknowledged, %d unsure", action, n, unsure[action])
	}
}

// TestModel: whatever two hundred workers do at once, what was acknowledged is
// what is, at every moment and in the end.
func TestModel(t *testing.T) {
	const workers, steps = 200, 12
	t.Run("redis", func(t *testing.T) {
		redis := startRedis(t)
		d := newTable(t, settings{Store: redis.yaml(), Level: "warn", Timeout: "30s"})
		agree(t, d, runModels(t, d, workers, steps, nil), redis.records(t), 2)
	})
	t.Run("embedded", func(t *testing.T) {
		d := newTable(t, settings{Store: embeddedStore(t), Level: "warn", Timeout: "30s"})
		agree(t, d, runModels(t, d, workers, steps, nil), -1, 2)
	})
}

// records counts the key records, each of which opens something. Of a key that
// has expired, or whose grace has ended, Redis may have one a little longer.
func (r *redisServer) records(t *testing.T) int {
	t.Helper()
	names, err := r.client.Keys(t.Context(), "gatehouse:key:*").Result()
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestModelOfAKilledGateway: no acknowledged change is lost, and nothing works
// that nobody can see, when the gateway is killed at any moment.
func TestModelOfAKilledGateway(t *testing.T) {
	const workers, steps = 12, 60
	kill := func(t *testing.T, d *table) func(func() float64) {
		return func(done func() float64) {
			for _, at := range []float64{0.15, 0.4, 0.65} {
				eventually(t, patience, "some steps", func() error { return unless(done() >= at, "not yet") })
				d.kill()
				if !d.launch(t) {
					t.Error("the port is in use")
				}
			}
		}
	}
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		redis := startRedis(t)
		d := newTable(t, settings{Store: redis.yaml(), Level: "warn"})
		models := runModels(t, d, workers, steps, kill(t, d))
		d.waitReady(t, patience)
		agree(t, d, models, redis.records(t), 2)
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		d := newTable(t, settings{Store: embeddedStore(t), Level: "warn"})
		models := runModels(t, d, workers, steps, kill(t, d))
		d.waitReady(t, patience)
		agree(t, d, models, -1, 2)
	})
}

// TestModelOfARestartedRedis is the same with a Redis that is killed.
func TestModelOfARestartedRedis(t *testing.T) {
	t.Parallel()
	const workers, steps = 12, 60
	redis := startRedis(t)
	d := newTable(t, settings{Store: redis.yaml(), Level: "error", Timeout: "1s"})
	models := runModels(t, d, workers, steps, func(done func() float64) {
		for _, at := range []float64{0.2, 0.6} {
			eventually(t, patience, "some steps", func() error { return unless(done() >= at, "not yet") })
			redis.kill()
			redis.runAgain(t)
		}
	})
	d.waitReady(t, patience)
	agree(t, d, models, redis.records(t), 2)
}
