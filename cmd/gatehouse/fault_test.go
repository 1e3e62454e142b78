package main_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	storeTimeout = 250 * time.Millisecond // the default
	// slack is for a busy machine and the race detector.
	slack = 3
	// recovery is the promised time until all is normal again.
	recovery = 2 * time.Second
)

var unavailable = refusal{status: 503, code: "key_store_unavailable", retry: true}

// checkOutage: while the store does not answer, every request that needs it is
// refused with 503 in time, and the node says that it is not ready, and why.
func (d *table) checkOutage(t *testing.T, reason string) {
	t.Helper()
	var took []time.Duration
	for _, r := range []request{
		d.base(), d.base().by(unknownToken()), get(d.key, whoamiPath), creation(d.root, `{"name": "x", "permissions": ["serp_api:read"]}`), d.base(),
	} {
		begun := time.Now()
		d.turnsAway(t, r, unavailable)
		took = append(took, time.Since(begun))
	}
	if slices.Sort(took); took[len(took)/2] > slack*storeTimeout || took[len(took)-1] > slack*slack*storeTimeout {
		t.Errorf("the 503s took %v, want %s and some slack", took, storeTimeout)
	}
	d.checkReady(t, reason)
	if said, err := d.probe("/livez"); err != nil {
		t.Errorf("/livez says %q, %v", said, err)
	}
	// What needs no store is answered as ever.
	d.turnsAway(t, d.base().without("api-token"), refusal{status: 401, code: "missing_credentials", challenge: challenge})
	d.turnsAway(t, d.base().by("malformed"), refusal{status: 401, code: "invalid_token", challenge: badToken})
}

// checkReady: a node without its store is ready all the same, so that no balancer
// takes every node out at once, and says what it knows of the store to everybody
// who asks.
func (g *gateway) checkReady(t *testing.T, reason string) {
	t.Helper()
	if said, err := g.probe("/readyz"); err != nil || !strings.HasPrefix(said, "ok\nstore: ") || !strings.Contains(said, reason) {
		t.Errorf("/readyz says %q, %v; want 200 and the reason %q", said, err, reason)
	}
	if said, err := g.probe("/readyz?store=1"); err == nil || !strings.Contains(said, reason) || !strings.Contains(err.Error(), "503") {
		t.Errorf("/readyz?store=1 says %q, %v; want 503 and the reason %q", said, err, reason)
	}
}

// checkRecovery: the node works again, in time and without a restart.
func (d *table) checkRecovery(t *testing.T) {
	t.Helper()
	becomes := func(what string, r request, status int) {
		t.Helper()
		eventually(t, recovery, what, func() error {
			got, err := d.exchange(r)
			if err != nil {
				return err
			}
			if got.status != status && got.status != http.StatusServiceUnavailable {
				t.Fatalf("got %d %s: an outage must never look like anything else", got.status, got.body)
			}
			return unless(got.status == status, got.body)
		})
	}
	before := d.counts()[0]
	becomes("a key works again", d.base(), http.StatusOK)
	if seen := d.backends[0].count() - before; seen != 1 {
		t.Errorf("the backend saw %d requests, want 1", seen)
	}
	d.waitReady(t, recovery)
	becomes("an unknown token is one again", d.base().by(unknownToken()), http.StatusUnauthorized)
	becomes("keys can be made again", creation(d.root, `{"name": "x", "permissions": ["serp_api:read"]}`), http.StatusCreated)
}

// TestRedisFaults is about time, and so runs alone.
func TestRedisFaults(t *testing.T) {
	redis := startRedis(t)
	// Prepared through another node: one that is so impatient might not get
	// through it on a busy machine.
	patient := newTable(t, settings{Store: redis.yaml()})
	d := &table{
		gateway:  startGateway(t, settings{Store: redis.yaml(), Timeout: storeTimeout.String(), Datacenter: patient.backends[0].addr}),
		backends: patient.backends, root: patient.root, key: patient.key,
	}
	d.checkRecovery(t)
	whole := t

	t.Run("frozen", func(t *testing.T) {
		redis.freeze(t)
		d.checkOutage(t, "key store unavailable")
		t.Run("for many at once", func(t *testing.T) {
			const clients = 50
			took := make(chan time.Duration, clients)
			for range clients {
				go func() {
					begun := time.Now()
					if got, err := d.exchange(d.base()); err != nil || got.status != http.StatusServiceUnavailable {
						t.Errorf("got %d %s, %v, want 503", got.status, got.body, err)
					}
					took <- time.Since(begun)
				}()
			}
			for range clients {
				if one := <-took; one > slack*slack*storeTimeout {
					t.Errorf("a 503 took %s: nobody waits for longer than one timeout", one)
				}
			}
		})
		redis.thaw(t)
		d.checkRecovery(t)
	})
	t.Run("killed", func(t *testing.T) {
		redis.kill()
		d.checkOutage(t, "key store unavailable")
		redis.runAgain(whole)
		d.checkRecovery(t)
	})
	t.Run("emptied", func(t *testing.T) {
		if err := redis.client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		d.checkOutage(t, "emptied")
		refusal{status: 503, code: "key_store_unavailable", retry: true}.check(t, d.operate(t, http.MethodPut, "/accounts/acme", acme()))
		d.checkOutage(t, "emptied")
	})
}

// TestReadiness is about the node alone, unless the store is asked for, and
// refuses what it does not understand. Nodes that answer with what they have
// read before stay in.
func TestReadiness(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	d := newTable(t, settings{Store: redis.yaml() + "\n  stale_if_unavailable: 10m"})
	for path, want := range map[string]string{"/readyz": "ok\nstore: ok\n", "/readyz?store=1": "ok\nstore: ok\n", "/livez": "ok\n"} {
		if said, err := d.probe(path); err != nil || said != want {
			t.Errorf("%s says %q, %v; want %q", path, said, err, want)
		}
	}
	for _, query := range []string{"store=0", "store", "store=1&store=1", "store=1&x", "redis=1", "%", "store=1;x"} {
		if said, err := d.probe("/readyz?" + query); err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("/readyz?%s says %q, %v; want 400", query, said, err)
		}
	}
	who := d.key.who(subA, "datacenter_shared:read")
	d.forwards(t, d.base(), who)
	redis.kill()
	d.checkReady(t, "store: unavailable: key store unavailable")
	d.forwards(t, d.base(), who)
}

// TestStartWithoutRedis: the node starts, cannot look keys up, and then can. Nothing
// of it is on the standard error, for which requests would wait.
func TestStartWithoutRedis(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	redis.kill()
	g := launchGateway(t, settings{Store: redis.yaml()})
	g.checkReady(t, "key store unavailable")
	g.refuses(t, request{method: "GET", target: whoamiPath, host: "a"}.by(unknownToken()), unavailable)
	redis.runAgain(t)
	g.initStore(t)
	g.waitReady(t, patience)
	if said := g.stderr.String(); said != "" {
		t.Errorf("the standard error has:\n%s", said)
	}
	g.refuses(t, request{method: "GET", target: whoamiPath, host: "a"}.by(unknownToken()), refusal{status: 401, code: "invalid_token", challenge: badToken})
}

// TestEmbeddedCrash: what was acknowledged outlives a crash, and a damaged file
// is never taken for a whole one.
func TestEmbeddedCrash(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.db")
	d := newTable(t, settings{Store: `embedded: {file: "` + file + `"}`})
	who := d.key.who(subA, "datacenter_shared:read")
	t.Run("the file is locked", func(t *testing.T) {
		p := startProcess(t, gatehouse(t, "serve", "--config", writeConfig(t, file)))
		if code := p.wait(t, patience); code == 0 || !strings.Contains(p.stderr.String(), "in use by another process") {
			t.Errorf("a second process on the same file ended with %d and said\n%s", code, p.stderr.String())
		}
	})
	var last, revoked key
	for i := range 3 {
		revoked = d.createKey(t, d.root, may("datacenter_shared:read"))
		if got := d.operate(t, http.MethodDelete, "/accounts/acme/keys/"+revoked.ID, nil); got.status != http.StatusOK {
			t.Fatalf("revoke: %d %s", got.status, got.body)
		}
		last = d.createKey(t, d.root, newKey{Name: fmt.Sprintf("key %d", i), Permissions: []string{"datacenter_shared:read"}, Subaccounts: []string{subA}, IPs: []string{"127.0.0.1"}})
		d.kill()
		eventually(t, patience, "the port is free again", func() error { return unless(d.launch(t), "it is not") })
		d.waitReady(t, patience)
		d.forwards(t, d.base(), who)
		d.forwards(t, d.base().by(last.Token), last.who(subA, "datacenter_shared:read"))
		d.turnsAway(t, d.base().by(last.Token).at("GET", proxyListOfB), refusal{status: 403, code: "subaccount_not_allowed"})
		d.turnsAway(t, d.base().by(revoked.Token), refusal{status: 401, code: "invalid_token", challenge: badToken})
	}
	d.kill()

	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1
		return damaged
	}
	record := bytes.Index(whole, []byte("key 2")) // the name of the last key
	if record < 0 {
		t.Fatal("the file has no key 2")
	}
	for name, content := range map[string][]byte{
		"cut off": whole[:len(whole)/2], "a record": flip(record), "its first page": flip(16), "its second page": flip(os.Getpagesize() + 16 + 48),
		"emptied": nil, "something else": []byte("hello\n"), "zeros": make([]byte, len(whole)),
	} {
		t.Run(name, func(t *testing.T) {
			damaged := filepath.Join(t.TempDir(), "damaged.db")
			if err := os.WriteFile(damaged, content, 0o600); err != nil {
				t.Fatal(err)
			}
			p := startProcess(t, gatehouse(t, "serve", "--config", writeConfig(t, damaged)))
			code := p.wait(t, patience)
			if code != 1 || !strings.Contains(p.stderr.String(), damaged) {
				t.Errorf("it ended with %d and said %q, want 1 and %s", code, p.stderr.String(), damaged)
			}
			checkNoToken(t, "the error", p.stderr.String()+p.stdout.String())
			if now, err := os.ReadFile(damaged); err != nil || !bytes.Equal(now, content) {
				t.Errorf("the damaged file was changed (%v)", err)
			}
		})
	}
}

// writeConfig writes a configuration with that embedded store, on any ports.
func writeConfig(t *testing.T, store string) string {
	t.Helper()
	s := settings{Store: `embedded: {file: "` + store + `"}`, Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0"}.withDefaults()
	var text strings.Builder
	if err := configuration.Execute(&text, s); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
