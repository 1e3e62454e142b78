package keystore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// BenchmarkLookup compares three ways to read one record from Redis for each
// of many requests at once: a GET for each, go-redis's automatic pipelining,
// and the reader, which combines reads that wait into one MGET. The fourth is
// a whole Lookup in strict mode, token hash and decoding included; the last is
// what limits.scope: cluster adds to it.
//
//	go test -run '^$' -bench Lookup -benchmem -count 5 ./keystore
func BenchmarkLookup(b *testing.B) {
	const keys = 1000
	ctx := context.Background()
	catalogue, err := policy.NewCatalogue(read, write, other)
	if err != nil {
		b.Fatal(err)
	}
	s, err := keystore.Open(ctx, keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{theRedis(b).addr}}, Prefix: "bench:", Timeout: 5 * time.Second, Mode: keystore.Strict,
		CacheEntries: 10 * keys, Catalogue: catalogue, TokenPrefix: "gk_", MaxKeys: 100 * keys, Create: true, Now: time.Now, Log: zap.NewNop(),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	if _, _, err := s.PutAccount(ctx, policy.Caller{}, keystore.Account{ID: "acme", Permissions: []string{"*"}}); err != nil {
		b.Fatal(err)
	}
	rules, err := s.Rules(ctx, "acme")
	if err != nil {
		b.Fatal(err)
	}
	n := &node{Store: s, w: &world{options: keystore.Options{Prefix: "bench:"}}}
	tokens, names, subjects := make([]keystore.Token, keys), make([]string, keys), make([]string, keys)
	for i := range keys {
		if _, tokens[i], err = s.Create(ctx, policy.Caller{Account: rules}, newKey()); err != nil {
			b.Fatal(err)
		}
		names[i], subjects[i] = n.recordName(tokens[i]), uuid.NewString()
	}
	client := redis.NewClient(&redis.Options{
		Addr: theRedis(b).addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1, ContextTimeoutEnabled: true,
		ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second,
	})
	b.Cleanup(func() { _ = client.Close() })
	pipelined, err := client.AutoPipeline()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = pipelined.Close() })
	reader := keystore.ReaderOf(s)

	ways := []struct {
		name string
		read func(i int) error
	}{
		{"one_get", func(i int) error { return client.Get(ctx, names[i]).Err() }},
		{"autopipeline", func(i int) error { return pipelined.Get(ctx, names[i]).Err() }},
		{"combined_mget", func(i int) error { _, _, err := reader.Get(ctx, names[i]); return err }},
		{"whole_lookup", func(i int) error { _, err := s.Lookup(ctx, tokens[i]); return err }},
		{"spend", func(i int) error {
			_, err := s.Spend(ctx, subjects[i], keystore.Rate{PerSecond: 1000, Burst: 1e6})
			return err
		}},
	}
	for _, way := range ways {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", way.name, callers), func(b *testing.B) {
				b.ReportAllocs()
				if callers == 1 {
					for i := 0; b.Loop(); i++ {
						if err := way.read(i % keys); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
				b.RunParallel(func(pb *testing.PB) {
					i := rand.IntN(keys)
					for pb.Next() {
						i = (i + 1) % keys
						if err := way.read(i); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

// BenchmarkCachedLookup is a Lookup that asks nobody.
func BenchmarkCachedLookup(b *testing.B) {
	ctx := context.Background()
	catalogue, err := policy.NewCatalogue(read, write, other)
	if err != nil {
		b.Fatal(err)
	}
	s, err := keystore.Open(ctx, keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{theRedis(b).addr}}, Prefix: "cached:", Timeout: 5 * time.Second, Mode: keystore.Cached, CacheTTL: time.Hour,
		CacheEntries: 1000, Catalogue: catalogue, TokenPrefix: "gk_", MaxKeys: 1000, Create: true, Now: newClock().Now, Log: zap.NewNop(),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	if _, _, err := s.PutAccount(ctx, policy.Caller{}, keystore.Account{ID: "acme", Permissions: []string{"*"}}); err != nil {
		b.Fatal(err)
	}
	rules, err := s.Rules(ctx, "acme")
	if err != nil {
		b.Fatal(err)
	}
	_, token, err := s.Create(ctx, policy.Caller{Account: rules}, newKey())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for source := keystore.Source(""); source != keystore.FromCache; { // until the messages of these changes have come
		e, err := s.Lookup(ctx, token)
		if err != nil {
			b.Fatal(err)
		}
		source = e.Source
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Lookup(ctx, token); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkCount is what counting adds to a request.
func BenchmarkCount(b *testing.B) {
	s, err := keystore.Open(b.Context(), keystore.Options{
		Redis: &keystore.Redis{Addrs: []string{miniredis.RunT(b).Addr()}}, Prefix: "count:", Timeout: time.Second, Mode: keystore.Strict,
		CacheEntries: 100, TokenPrefix: "gk_", Now: time.Now, Log: zap.NewNop(),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	at := time.Now()
	for _, routes := range []int{1, 5, 50} {
		b.Run(fmt.Sprintf("routes=%d", routes), func(b *testing.B) {
			asked := make([]keystore.CountedRequest, routes)
			for i := range asked {
				asked[i] = keystore.CountedRequest{
					Key: "0d4a0b6e-6f0c-4b5e-9d3f-2f1a7c9b8e10", Account: "acme", Permission: read, Outcome: "allowed",
					Route: fmt.Sprintf("GET /v4/account/{subaccount}/datacenter_shared/list-%d", i), At: at,
				}
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					s.Count(asked[i%routes])
				}
			})
		})
	}
}

// BenchmarkDecodeKey is what a lookup does with a record that it has not seen
// yet.
func BenchmarkDecodeKey(b *testing.B) {
	compact, err := keystore.CompactKey(usualKey, someHash)
	if err != nil {
		b.Fatal(err)
	}
	for name, raw := range map[string]string{"text": usualKey, "compact": compact} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := keystore.DecodeKey(raw, someHash); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
