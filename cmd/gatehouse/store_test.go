package main_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// says runs a command of gatehouse, and returns what it printed and its exit code.
func says(t *testing.T, args ...string) (string, int) {
	t.Helper()
	said, err := gatehouse(t, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return string(said), exit.ExitCode()
	}
	return string(said), 0
}

// TestStoreOfRedis is made once, and is looked at from outside: warnings are
// printed, and those that customers suffer from are errors.
func TestStoreOfRedis(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	g := &gateway{config: t.TempDir() + "/gatehouse.yaml", set: settings{Store: redis.yaml(), Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0"}.withDefaults()}
	g.configure(t, func(*settings) {})
	wants := func(code int, texts []string, args ...string) {
		t.Helper()
		said, got := says(t, append(args, "--config", g.config)...)
		if got != code {
			t.Errorf("gatehouse %v ended with %d, want %d: %s", args, got, code, said)
		}
		for _, text := range texts {
			if !strings.Contains(said, text) {
				t.Errorf("gatehouse %v says %q, want %q", args, said, text)
			}
		}
	}
	set := func(name, value string) {
		t.Helper()
		if err := redis.client.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	wants(1, []string{"State  emptied", "gatehouse store init makes it"}, "store", "status")
	wants(0, []string{"a new store was made"}, "store", "init")
	wants(1, []string{"there is a store here already"}, "store", "init")
	wants(0, []string{"State     ok", "Replicas  0"}, "store", "status")
	wants(0, []string{"store: ok"}, "check", "--online")
	set("appendonly", "no")
	wants(0, []string{"store: warning: aof_off: appendonly is no"}, "check", "--online")
	set("maxmemory-policy", "allkeys-lru")
	wants(1, []string{"store: error: eviction: maxmemory-policy is allkeys-lru", "the store has 1 error"}, "check", "--online")
	wants(0, []string{"Warning   eviction: maxmemory-policy is allkeys-lru"}, "store", "status")
	redis.kill()
	wants(1, []string{"State  unavailable", "the store cannot be asked"}, "store", "status")
}
