package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"gatehouse/proxy"
)

const (
	subaccount = "5b0d9c6e-3f0a-4a57-9d0e-1c2f6a7b8c90"
	path       = "/v4/account/" + subaccount + "/datacenter_shared/proxy-list"
	adminToken = "only-for-this-benchmark" // #nosec G101 -- of a gateway that lives for a minute on loopback
	patience   = 20 * time.Second
)

// lab is the folder and the processes of a benchmark.
type lab struct {
	folder    string
	processes []*exec.Cmd
}

func newLab(context.Context) (*lab, error) {
	folder, err := os.MkdirTemp("", "gatehouse-bench-")
	if err != nil {
		return nil, err
	}
	return &lab{folder: folder}, nil
}

// close ends every process and removes the folder.
func (l *lab) close() {
	for _, p := range l.processes {
		_ = p.Process.Kill() // it may have ended by itself
		_ = p.Wait()
	}
	_ = os.RemoveAll(l.folder)
}

// run starts a process that ends with the lab.
func (l *lab) run(ctx context.Context, name string, args ...string) (pid int, err error) {
	log, err := os.Create(filepath.Join(l.folder, fmt.Sprintf("%d.log", len(l.processes))))
	if err != nil {
		return 0, err
	}
	p := exec.CommandContext(ctx, name, args...) // #nosec G204 -- our own binaries
	p.Stdout, p.Stderr = log, log
	p.Env = append(os.Environ(), "GATEHOUSE_ADMIN_TOKEN="+adminToken)
	if err := p.Start(); err != nil {
		return 0, err
	}
	l.processes = append(l.processes, p)
	return p.Process.Pid, log.Close()
}

// contenders starts everything; the bare proxy comes first.
func (l *lab) contenders(ctx context.Context, otherBinary string) ([]*contender, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	backend, redis, bare := freeAddress(), freeAddress(), freeAddress()
	_, port, _ := net.SplitHostPort(redis)
	if _, err := l.run(ctx, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", l.folder); err != nil {
		return nil, fmt.Errorf("redis-server (make deps installs it): %w", err)
	}
	if _, err := l.run(ctx, self, "child", "backend", backend); err != nil {
		return nil, err
	}
	barePID, err := l.run(ctx, self, "child", "bare", bare, backend)
	if err != nil {
		return nil, err
	}
	for _, address := range []string{backend, redis, bare} {
		if err := waitFor(ctx, address); err != nil {
			return nil, err
		}
	}
	binary := filepath.Join(l.folder, "gatehouse")
	if err := buildGatehouse(ctx, binary); err != nil {
		return nil, err
	}
	all := []*contender{{name: "bare", address: bare, pid: barePID, request: request(bare, "")}}
	variants := []struct{ name, binary, lookup string }{{"strict", binary, "strict"}, {"cached", binary, "cached"}}
	if otherBinary != "" {
		variants = append(variants, struct{ name, binary, lookup string }{"other strict", otherBinary, "strict"})
	}
	for _, v := range variants {
		c, err := l.gatehouse(ctx, v.binary, v.lookup, backend, redis)
		if err != nil {
			return nil, fmt.Errorf("gatehouse %s: %w", v.name, err)
		}
		c.name = v.name
		all = append(all, c)
	}
	return all, nil
}

func buildGatehouse(ctx context.Context, binary string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "gatehouse/cmd/gatehouse") // #nosec G204 -- our own package
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build gatehouse: %w\n%s", err, said)
	}
	return nil
}

// gatehouse starts a gateway with an account and a key of its own.
func (l *lab) gatehouse(ctx context.Context, binary, lookup, backend, redis string) (*contender, error) {
	listen, admin := freeAddress(), freeAddress()
	file := filepath.Join(l.folder, "config-"+strings.ReplaceAll(listen, ":", "-")+".yaml")
	text := fmt.Sprintf(`
listen: %q
admin_listen: %q
admin_token: "${GATEHOUSE_ADMIN_TOKEN}"
store: {redis: {addrs: [%q], prefix: "%s:"}, lookup: %s}
products: {datacenter_shared: {label: Shared datacenter, actions: [read]}}
upstreams: {datacenter: {targets: ["http://%s"]}}
routes: [{match: "GET /v4/account/{subaccount}/datacenter_shared/proxy-list", permission: "datacenter_shared:read", upstream: datacenter}]
`, listen, admin, redis, listen, lookup, backend)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	// An earlier version has no such command, and makes its store by itself.
	makeStore := exec.CommandContext(ctx, binary, "store", "init", "--if-absent", "--config", file) //nolint:gosec // our own binary
	makeStore.Env = append(os.Environ(), "GATEHOUSE_ADMIN_TOKEN="+adminToken)
	_ = makeStore.Run()
	pid, err := l.run(ctx, binary, "serve", "--config", file)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(waitFor(ctx, admin), waitFor(ctx, listen)); err != nil {
		return nil, err
	}
	accounts := "http://" + admin + "/admin/v1/accounts/bench"
	if _, err := call(ctx, http.MethodPut, accounts,
		`{"permissions": ["*"], "subaccounts": [{"id": "`+subaccount+`", "label": "bench", "product": "datacenter_shared"}]}`); err != nil {
		return nil, err
	}
	raw, err := call(ctx, http.MethodPost, accounts+"/keys",
		`{"name": "bench", "permissions": ["datacenter_shared:read"], "allowed_ips": ["127.0.0.0/8"]}`)
	if err != nil {
		return nil, err
	}
	var created struct {
		Data struct {
			Token string `json:"token"`
		} `json:"data"`
	}
	if err := json.Unmarshal(raw, &created); err != nil {
		return nil, err
	}
	return &contender{address: listen, pid: pid, request: request(listen, "api-token: "+created.Data.Token+"\r\n")}, nil
}

// request is what a usual client sends.
func request(host, credential string) []byte {
	return []byte("GET " + path + "?country=DE&limit=25 HTTP/1.1\r\nHost: " + host +
		"\r\nUser-Agent: bench/1.0\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n" + credential + "\r\n")
}

// call makes one request to the admin API.
func call(ctx context.Context, method, target, body string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+adminToken)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	if answer.StatusCode > 299 {
		return nil, fmt.Errorf("%s %s: %s", method, target, raw)
	}
	return raw, nil
}

// freeAddress is one that nothing listens on at the moment.
func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // nothing to wait for
	if err != nil {
		return "127.0.0.1:0"
	}
	defer func() { _ = l.Close() }() // it was only to learn the port
	return l.Addr().String()
}

// waitFor waits until something listens.
func waitFor(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing listens on %s: %w", address, err)
		case <-tick.C:
		}
	}
}

// child is a process of the benchmark: the backend, or the bare proxy.
func child(ctx context.Context, args []string) error {
	var handler http.Handler
	switch {
	case len(args) == 2 && args[0] == "backend":
		body := []byte(`{"success":true,"data":[` + strings.Repeat(`{"ip":"192.0.2.10","port":8000,"country":"DE"},`, 20) + `{}]}`)
		handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body) // the client has gone
		})
	case len(args) == 3 && args[0] == "bare":
		target := &url.URL{Scheme: "http", Host: args[2]}
		handler = &httputil.ReverseProxy{
			Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
			Transport:  proxy.NewTransport(patience),
			BufferPool: &proxy.BufferPool{},
		}
	default:
		return fmt.Errorf("no such child: %q", args)
	}
	server := &http.Server{Addr: args[1], Handler: handler, ReadHeaderTimeout: patience}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return server.ListenAndServe()
}
