package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/keystore/porttest"
)

// redisServer is a redis-server process on a loopback port.
type redisServer struct {
	addr string
	args []string
	cmd  *exec.Cmd
	gone chan struct{}
}

var servers struct {
	sync.Mutex
	all     []*redisServer
	folders []string
}

func stopServers() {
	servers.Lock()
	defer servers.Unlock()
	for _, s := range servers.all {
		s.kill()
	}
	for _, folder := range servers.folders {
		_ = os.RemoveAll(folder)
	}
}

// needRedis skips the test, aloud, where there is no redis-server.
func needRedis(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err == nil {
		return
	}
	if os.Getenv("GATEHOUSE_TEST_REQUIRE") != "" {
		t.Fatal("GATEHOUSE_TEST_REQUIRE is set and there is no redis-server")
	}
	t.Skip("SKIPPED: there is no redis-server on this machine")
}

// startRedis starts a server that keeps nothing unless it is told to, and that
// is killed at the end of the test run.
func startRedis(folder string, args ...string) (*redisServer, error) {
	return startServer(folder, append([]string{"--save", ""}, args...)...)
}

// startServer tries another port when somebody else took the first.
func startServer(folder string, args ...string) (*redisServer, error) {
	var err error
	for range 5 {
		var port int
		if port, err = ports.Free(context.Background()); err != nil {
			return nil, err
		}
		s := &redisServer{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
		s.args = append(args[:len(args):len(args)], "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", folder)
		if err = s.start(); err == nil {
			servers.Lock()
			servers.all = append(servers.all, s)
			servers.Unlock()
			return s, nil
		}
	}
	return nil, err
}

var ports = porttest.New()

// start starts the process and waits until it answers. It dies with the test
// process, also when that is killed.
func (s *redisServer) start() error {
	started := make(chan error, 1)
	gone := make(chan struct{})
	cmd := exec.Command("redis-server", s.args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	go func() {
		runtime.LockOSThread() // the process dies with the thread that started it
		defer runtime.UnlockOSThread()
		defer close(gone)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.cmd, s.gone = cmd, gone
	client := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1, DialerRetries: 1, Protocol: 2, DisableIdentity: true})
	defer func() { _ = client.Close() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(10 * time.Second); ; {
		if client.Ping(context.Background()).Err() == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-gone:
			return fmt.Errorf("redis-server on %s ended at once", s.addr)
		case <-deadline:
			s.kill()
			return fmt.Errorf("redis-server on %s does not answer", s.addr)
		}
	}
}

func (s *redisServer) signal(sig os.Signal) { _ = s.cmd.Process.Signal(sig) }

func (s *redisServer) kill() {
	s.signal(syscall.SIGKILL)
	<-s.gone
}

var oneRedis = sync.OnceValues(func() (*redisServer, error) {
	folder, err := serverFolder()
	if err != nil {
		return nil, err
	}
	return startRedis(folder, "--appendonly", "no")
})

func serverFolder() (string, error) {
	folder, err := os.MkdirTemp("", "gatehouse-redis-*")
	servers.Lock()
	servers.folders = append(servers.folders, folder)
	servers.Unlock()
	return folder, err
}

// theRedis is the redis-server that all tests share.
func theRedis(t testing.TB) *redisServer {
	t.Helper()
	needRedis(t)
	s, err := oneRedis()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var oneCluster = sync.OnceValues(startCluster)

// theCluster is the Cluster of three masters that all tests share.
func theCluster(t testing.TB) []string {
	t.Helper()
	needRedis(t)
	addrs, err := oneCluster()
	if err != nil {
		t.Fatal(err)
	}
	return addrs
}

func startCluster() ([]string, error) {
	const nodes, slots = 3, 16384
	ctx := context.Background()
	addrs := make([]string, 0, nodes)
	clients := make([]*redis.Client, 0, nodes)
	for i := range nodes {
		folder, err := serverFolder()
		if err != nil {
			return nil, err
		}
		bus, err := ports.Free(context.Background())
		if err != nil {
			return nil, err
		}
		s, err := startRedis(folder, "--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus))
		if err != nil {
			return nil, err
		}
		client := redis.NewClient(&redis.Options{Addr: s.addr, Protocol: 2})
		defer func() { _ = client.Close() }()
		if err := client.ClusterAddSlotsRange(ctx, i*slots/nodes, (i+1)*slots/nodes-1).Err(); err != nil {
			return nil, err
		}
		if i > 0 {
			host, port, _ := net.SplitHostPort(s.addr)
			if err := clients[0].Do(ctx, "cluster", "meet", host, port, bus).Err(); err != nil {
				return nil, err
			}
		}
		addrs, clients = append(addrs, s.addr), append(clients, client)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); ; {
		ok := 0
		for _, client := range clients {
			info, _ := client.ClusterInfo(ctx).Result()
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") {
				ok++
			}
		}
		if ok == nodes {
			return addrs, nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return nil, errors.New("the Cluster did not form")
		}
	}
}

func clusterClient(n *node) *redis.ClusterClient {
	n.t.Helper()
	c, ok := keystore.ClientOf(n.Store).(*redis.ClusterClient)
	if !ok {
		n.t.Fatalf("the client is a %T", keystore.ClientOf(n.Store))
	}
	return c
}

// relay stands between a node and its Redis and can interrupt subscriptions.
type relay struct {
	to     string
	listen net.Listener
	mu     sync.Mutex
	held   chan struct{} // subscriptions pass nothing on until it is closed
	refuse bool
	subs   []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{to: to, listen: l}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			all.Go(func() { r.pass(client, server) })
			all.Go(func() { r.pass(server, client) })
		}
	})
	t.Cleanup(func() {
		r.allowSubscriptions()
		_ = l.Close()
	})
	return r
}

func (r *relay) use(o *keystore.Options) {
	o.Redis = &keystore.Redis{Addrs: []string{r.listen.Addr().String()}}
}

// pass copies in one direction until either side is closed.
func (r *relay) pass(from, to net.Conn) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		r.mu.Lock()
		if bytes.Contains(bytes.ToLower(buffer[:n]), []byte("\r\nsubscribe\r\n")) {
			r.subs = append(r.subs, from, to)
		}
		subscription := slices.Contains(r.subs, to)
		held, refused := r.held, r.refuse
		r.mu.Unlock()
		if subscription && refused {
			return
		}
		if subscription && held != nil {
			<-held
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (r *relay) cutSubscriptions() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = true
	for _, c := range r.subs {
		_ = c.Close()
	}
}

func (r *relay) holdSubscriptions() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = make(chan struct{})
}

func (r *relay) allowSubscriptions() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = false
	if r.held != nil {
		close(r.held)
		r.held = nil
	}
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
