package keystore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

func TestOpenNeedsExactlyOneStore(t *testing.T) {
	w := newWorld(t, "none")
	if _, err := keystore.Open(t.Context(), w.options); err == nil {
		t.Error("opened without a store")
	}
	w.options.Redis = &keystore.Redis{Addrs: []string{"127.0.0.1:1"}}
	w.options.EmbeddedFile = filepath.Join(t.TempDir(), "gatehouse.db")
	if _, err := keystore.Open(t.Context(), w.options); err == nil {
		t.Error("opened with two stores")
	}
}

// Two accounts of stores with different prefixes do not meet, nor do their keys.
func TestPrefixesKeepStoresApart(t *testing.T) {
	w, _ := miniWorld(t)
	one, two := w.node(), w.node(func(o *keystore.Options) { o.Prefix = "other:" })
	_, token := one.key(one.account("acme"))
	two.account("acme")
	two.wantUnknown(token)
	two.delete("acme")
	one.works(token)
}

func TestStoreThroughSentinel(t *testing.T) {
	master := theRedis(t)
	host, port, err := net.SplitHostPort(master.addr)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	conf := filepath.Join(folder, "sentinel.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "sentinel monitor main %s %s 1\n", host, port), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel, err := startServer(folder, conf, "--sentinel")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sentinel.kill)
	admin := redis.NewClient(&redis.Options{Addr: sentinel.addr, Protocol: 2, DisableIdentity: true})
	defer func() { _ = admin.Close() }()
	for _, user := range [][]any{{"watcher", "on", ">hush", "&*", "+@all"}, {"default", "resetpass", "off"}} {
		if err := admin.Do(t.Context(), append([]any{"acl", "setuser"}, user...)...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, "sentinel")
	w.options.Timeout = patience
	w.options.Redis = &keystore.Redis{Addrs: []string{sentinel.addr}, MasterName: "main"}
	if err := w.node().Ready(t.Context()); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("without the Sentinels' password: got %v", err)
	}
	w.options.Timeout = 10 * time.Second
	w.options.Redis.SentinelUsername, w.options.Redis.SentinelPassword = "watcher", "hush"
	n := w.node().hears()
	person := n.account("acme")
	k, token := n.key(person)
	n.works(token)
	if _, err := n.Revoke(t.Context(), person, k.ID); err != nil {
		t.Fatal(err)
	}
	n.wantUnknown(token)
}

func TestStoreOverTLS(t *testing.T) {
	certificate, roots := selfSigned(t)
	m, err := miniredis.RunTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	w := newWorld(t, "tls")
	with := func(c *tls.Config) func(*keystore.Options) {
		return func(o *keystore.Options) { o.Redis = &keystore.Redis{Addrs: []string{m.Addr()}, TLS: c} }
	}
	n := w.node(with(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})).hears()
	_, token := n.key(n.account("acme"))
	n.works(token)
	w.node(with(&tls.Config{MinVersion: tls.VersionTLS12})).wantUnavailable(token) // it trusts nobody
	w.options.Timeout = patience
	w.node(with(nil)).wantUnavailable(token)
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// A Redis user that may touch nothing but keys and channels with the prefix
// is all that Gatehouse needs; without its password, nothing is unknown.
func TestRedisUserIsLimitedToThePrefix(t *testing.T) {
	for _, kind := range []string{"redis", "cluster"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, kind)
			admin := keystore.ClientOf(w.node().Store)
			grant := []any{"acl", "setuser", "gate", "on", ">secret", "~" + w.options.Prefix + "*", "&" + w.options.Prefix + "*", "+@all", "-@dangerous", "+info", "+cluster"}
			eachMaster(t, admin, func(ctx context.Context, c *redis.Client) error { return c.Do(ctx, grant...).Err() })
			t.Cleanup(func() {
				eachMaster(t, admin, func(ctx context.Context, c *redis.Client) error {
					return c.Do(context.WithoutCancel(ctx), "acl", "deluser", "gate").Err()
				})
			})
			as := func(password string) func(o *keystore.Options) {
				return func(o *keystore.Options) {
					r := *o.Redis
					r.Username, r.Password = "gate", password
					o.Redis = &r
				}
			}
			n := w.node(as("secret"))
			person := n.account("acme")
			k, token := n.key(person)
			n.works(token)
			eventually(t, "it is subscribed", func() bool { return n.Hears() })
			_, next, err := n.Regenerate(t.Context(), person, k.ID, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(n.list(person, 10)); got != 1 {
				t.Errorf("%d keys listed", got)
			}
			w.node(as("wrong")).wantUnavailable(next)
			n.delete("acme")
		})
	}
}

// A user that may not publish would make changes that no other node hears of:
// it can make none, and leaves none half done.
func TestRedisUserThatMayNotPublishChangesNothing(t *testing.T) {
	w := newWorld(t, "redis")
	n := w.node()
	person := n.account("acme")
	k, token := n.key(person)
	admin := keystore.ClientOf(n.Store)
	eachMaster(t, admin, func(ctx context.Context, c *redis.Client) error {
		return c.Do(ctx, "acl", "setuser", "mute", "on", ">secret", "~"+w.options.Prefix+"*", "+@all").Err()
	})
	t.Cleanup(func() { admin.Do(context.WithoutCancel(t.Context()), "acl", "deluser", "mute") })
	mute := w.node(func(o *keystore.Options) {
		o.Redis = &keystore.Redis{Addrs: o.Redis.Addrs, Username: "mute", Password: "secret"}
	})
	mute.works(token)
	before := n.everything()
	for _, op := range operations {
		if err := op.do(t.Context(), mute, person, k.ID); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: got %v", op.name, err)
		}
	}
	wantErr(t, mute.DeleteAccount(t.Context(), policy.Caller{}, "acme"), keystore.ErrUnavailable)
	if diff := cmp.Diff(before, n.everything()); diff != "" {
		t.Errorf("something has changed (-want +got):\n%s", diff)
	}
}

func eachMaster(t *testing.T, client redis.UniversalClient, do func(context.Context, *redis.Client) error) {
	t.Helper()
	var err error
	switch c := client.(type) {
	case *redis.ClusterClient:
		var one sync.Mutex // at a time
		err = c.ForEachMaster(context.WithoutCancel(t.Context()), func(ctx context.Context, master *redis.Client) error {
			one.Lock()
			defer one.Unlock()
			return do(ctx, master)
		})
	case *redis.Client:
		err = do(context.WithoutCancel(t.Context()), c)
	}
	if err != nil {
		t.Fatal(err)
	}
}
