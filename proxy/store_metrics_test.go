package proxy_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/keystore"
	"gatehouse/proxy"
)

// watched is a store that says what it is told to.
type watched struct {
	ready error
	hears bool
	pool  *keystore.Pool // nil: it is embedded

	health keystore.Health
}

func (w *watched) Ready(context.Context) error { return w.ready }
func (w *watched) Hears() bool                 { return w.hears }
func (w *watched) Health() keystore.Health     { return w.health }

func (w *watched) Pool() (keystore.Pool, bool) {
	if w.pool == nil {
		return keystore.Pool{}, false
	}
	return *w.pool, true
}

func TestStoreIsAskedWhenSomebodyLooks(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := &watched{ready: errors.New("away"), pool: &keystore.Pool{}}
	proxy.NewStoreMetrics(registry).Watch(s)
	shows(t, registry, "gatehouse_store_available 0", "gatehouse_store_changes_heard 0", `gatehouse_redis_pool_gets_total{outcome="hit"} 0`)
	s.ready, s.hears = nil, true
	s.pool = &keystore.Pool{Idle: 3, InUse: 2, Hits: 10, Misses: 5, Timeouts: 1, Stale: 4, Waited: 1500 * time.Millisecond}
	shows(t, registry, "gatehouse_store_available 1", "gatehouse_store_changes_heard 1",
		`gatehouse_redis_pool_connections{state="idle"} 3`, `gatehouse_redis_pool_connections{state="in_use"} 2`,
		`gatehouse_redis_pool_gets_total{outcome="hit"} 10`, `gatehouse_redis_pool_gets_total{outcome="miss"} 5`,
		`gatehouse_redis_pool_gets_total{outcome="timeout"} 1`,
		"gatehouse_redis_pool_stale_connections_total 4", "gatehouse_redis_pool_wait_seconds_total 1.5")
}

// TestStoreSaysHowItIs: one state at a time, and each warning by itself.
func TestStoreSaysHowItIs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		store watched
		want  []string
	}{
		{"ok", watched{health: keystore.Health{State: keystore.StateOK, Writable: true}}, []string{
			`gatehouse_store_state{state="ok"} 1`, `gatehouse_store_state{state="older"} 0`, "gatehouse_store_writable 1", `gatehouse_store_warnings{warning="clock"} 0`,
		}},
		{"legacy", watched{health: keystore.Health{State: keystore.StateLegacy, Writable: true}}, []string{
			`gatehouse_store_state{state="legacy"} 1`, `gatehouse_store_state{state="ok"} 0`, "gatehouse_store_writable 1",
		}},
		{"away", watched{ready: keystore.ErrUnavailable, health: keystore.Health{State: keystore.StateOK, Writable: true}}, []string{
			`gatehouse_store_state{state="unavailable"} 1`, `gatehouse_store_state{state="ok"} 0`, "gatehouse_store_writable 0",
		}},
		{"older", watched{health: keystore.Health{State: keystore.StateOlder, Writable: true}}, []string{
			`gatehouse_store_state{state="older"} 1`, "gatehouse_store_available 1", "gatehouse_store_writable 0",
		}},
		{"full", watched{health: keystore.Health{State: keystore.StateOK, Warnings: []keystore.Notice{{Warning: keystore.WarnReadOnly, Detail: "OOM"}}}}, []string{
			`gatehouse_store_state{state="ok"} 1`, "gatehouse_store_available 1", "gatehouse_store_writable 0",
			`gatehouse_store_warnings{warning="read_only"} 1`, `gatehouse_store_warnings{warning="clock"} 0`,
		}},
		{"servers", watched{pool: &keystore.Pool{}, health: keystore.Health{Servers: keystore.Servers{
			ClockOffset: -1500 * time.Millisecond, MemoryUsed: 0.25, Replicas: 2, Evicted: 7,
		}}}, []string{
			"gatehouse_store_clock_offset_seconds -1.5", "gatehouse_store_memory_used_ratio 0.25", "gatehouse_store_connected_replicas 2", "gatehouse_store_evicted_keys 7",
		}},
	} {
		registry := prometheus.NewRegistry()
		proxy.NewStoreMetrics(registry).Watch(&row.store)
		t.Log(row.name)
		shows(t, registry, row.want...)
	}
}

func TestAnEmbeddedStoreHasNoPool(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	proxy.NewStoreMetrics(registry).Watch(&watched{})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if name := f.GetName(); name == "gatehouse_redis_pool_connections" || name == "gatehouse_store_clock_offset_seconds" {
			t.Error("it shows one")
		}
	}
}

func TestChangesAndOperationsAreCounted(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m := proxy.NewStoreMetrics(registry)
	shows(t, registry, `gatehouse_management_operations_total{action="key.create",outcome="unavailable"} 0`) // from the start
	m.Propagated(20 * time.Millisecond)
	m.Managed(keystore.KeyCreate, keystore.OutcomeDone)
	shows(t, registry, "gatehouse_change_propagation_seconds_sum 0.02", "gatehouse_change_propagation_seconds_count 1",
		`gatehouse_management_operations_total{action="key.create",outcome="done"} 1`)
}
