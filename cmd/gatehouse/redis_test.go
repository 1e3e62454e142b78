package main_test

import (
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
)

// eachStore runs a test on a real Redis and on the embedded store, given as the
// YAML of the store.
func eachStore(t *testing.T, test func(t *testing.T, store string)) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		test(t, startRedis(t).yaml())
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, embeddedStore(t))
	})
}

func embeddedStore(t testing.TB) string {
	t.Helper()
	return `embedded: {file: "` + t.TempDir() + `/keys.jsonl"}`
}

// redisServer is a redis-server process that keeps what it acknowledged.
type redisServer struct {
	*process
	folder, port string
	client       *redis.Client
}

func startRedis(t *testing.T) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		lack(t, "redis-server")
	}
	r := &redisServer{folder: t.TempDir()}
	const tries = 5 // another process may take the port in between
	for range tries {
		r.port = freePort(t)
		if r.run(t) {
			return r
		}
	}
	t.Fatalf("redis-server did not start:\n%s", r.stdout.String())
	return nil
}

// run starts the server on its port and its data, again if need be, and
// reports false when the port was in use.
func (r *redisServer) run(t *testing.T) bool {
	t.Helper()
	r.process = startProcess(t, exec.Command("redis-server", "--bind", "127.0.0.1", "--port", r.port, "--dir", r.folder,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always", "--maxclients", "4000"))
	inUse := false
	eventually(t, patience, "redis-server starts", func() error {
		if r.hasEnded() {
			inUse = strings.Contains(r.stdout.String(), "in use")
			if !inUse {
				t.Fatalf("redis-server ended:\n%s", r.stdout.String())
			}
			return nil
		}
		conn, err := net.Dial("tcp", r.addr())
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if inUse {
		return false
	}
	r.client = redis.NewClient(&redis.Options{Addr: r.addr(), Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = r.client.Close() }) // the server may have gone
	eventually(t, patience, "redis-server answers", func() error { return r.client.Ping(t.Context()).Err() })
	return true
}

// runAgain starts a server that was killed.
func (r *redisServer) runAgain(t *testing.T) {
	t.Helper()
	eventually(t, patience, "the port is free again", func() error { return unless(r.run(t), "it is not") })
}

func (r *redisServer) addr() string { return "127.0.0.1:" + r.port }

func (r *redisServer) yaml() string { return `redis: {addrs: ["` + r.addr() + `"]}` }

// freeze lets connections be made, and nothing be answered, until thaw.
func (r *redisServer) freeze(t *testing.T) {
	t.Helper()
	r.signal(t, syscall.SIGSTOP)
}

func (r *redisServer) thaw(t *testing.T) {
	t.Helper()
	r.signal(t, syscall.SIGCONT)
}
