package keystore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisData is the data of a store in Redis. No command of it reads more than a
// portion of what grows with the number of customers.
type redisData struct{ client redis.UniversalClient }

func (r redisData) now(ctx context.Context) (time.Time, error) { return r.client.Time(ctx).Result() }

func (r redisData) fields(ctx context.Context, hash string, names ...string) ([]string, error) {
	found, err := r.client.HMGet(ctx, hash, names...).Result()
	if err != nil {
		return nil, err
	}
	if len(found) != len(names) {
		return nil, errShortReply
	}
	values := make([]string, len(names))
	for i := range found {
		values[i], _ = found[i].(string)
	}
	return values, nil
}

func (r redisData) scan(ctx context.Context, hash string, each func(field, value string) error) error {
	// A scan may return a field twice while Redis resizes the hash.
	var seen map[string]bool
	for cursor := uint64(0); ; {
		pairs, next, err := r.client.HScan(ctx, hash, cursor, "", scanPortion).Result()
		if err != nil {
			return err
		}
		if seen == nil && next != 0 {
			seen = make(map[string]bool, 2*scanPortion)
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			if seen[pairs[i]] {
				continue
			}
			if seen != nil {
				seen[pairs[i]] = true
			}
			if err := each(pairs[i], pairs[i+1]); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (r redisData) some(ctx context.Context, hash string, n int) ([]hashField, error) {
	for cursor := uint64(0); ; {
		pairs, next, err := r.client.HScan(ctx, hash, cursor, "", int64(n)).Result()
		if err != nil {
			return nil, err
		}
		found := make([]hashField, 0, len(pairs)/2)
		for i := 0; i+1 < len(pairs); i += 2 {
			found = append(found, hashField{pairs[i], pairs[i+1]})
		}
		if cursor = next; len(found) > 0 || cursor == 0 {
			return found, nil
		}
	}
}

func (r redisData) hashes(ctx context.Context, names []string) ([]map[string]string, error) {
	return piped(ctx, r.client, names, func(p redis.Pipeliner, name string) *redis.MapStringStringCmd { return p.HGetAll(ctx, name) })
}

func (r redisData) lengths(ctx context.Context, names []string) ([]int, error) {
	found, err := piped(ctx, r.client, names, func(p redis.Pipeliner, name string) *redis.IntCmd { return p.HLen(ctx, name) })
	lengths := make([]int, len(found))
	for i, n := range found {
		lengths[i] = int(n)
	}
	return lengths, err
}

func (r redisData) exist(ctx context.Context, names []string) ([]bool, error) {
	found, err := piped(ctx, r.client, names, func(p redis.Pipeliner, name string) *redis.IntCmd { return p.Exists(ctx, name) })
	there := make([]bool, len(found))
	for i, n := range found {
		there[i] = n > 0
	}
	return there, err
}

func (r redisData) having(ctx context.Context, hashes []string, field string) ([]bool, error) {
	return piped(ctx, r.client, hashes, func(p redis.Pipeliner, name string) *redis.BoolCmd { return p.HExists(ctx, name, field) })
}

// piped asks the same of each of the names, by one pipeline.
func piped[V any, C interface{ Val() V }](ctx context.Context, client redis.UniversalClient, names []string, ask func(redis.Pipeliner, string) C) ([]V, error) {
	if len(names) == 0 {
		return nil, nil
	}
	pipe := client.Pipeline()
	commands := make([]C, len(names))
	for i, name := range names {
		commands[i] = ask(pipe, name)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	values := make([]V, len(names))
	for i, c := range commands {
		values[i] = c.Val()
	}
	return values, nil
}

// members begins at the score of after, and passes over those of that score
// which come before it. Where that takes several portions, each begins with the
// last of the one before it: when it is not there, others came or went meanwhile,
// and it begins anew behind what it has.
func (r redisData) members(ctx context.Context, set string, after *member, n int) ([]member, error) {
	args := redis.ZRangeArgs{Key: set, Start: "+inf", Stop: "-inf", ByScore: true, Rev: true, Count: int64(n)}
	if after == nil {
		return r.portion(ctx, args)
	}
	args.Start, args.Count = strconv.FormatInt(after.score, 10), int64(n)+1
	page := make([]member, 0, n)
	for last := (*member)(nil); ; {
		found, err := r.portion(ctx, args)
		if err != nil {
			return nil, err
		}
		if last != nil && (len(found) == 0 || found[0] != *last) {
			args.Start, args.Offset, last = strconv.FormatInt(after.score, 10), 0, nil
			continue
		}
		for _, m := range found {
			if after.before(m) && len(page) < n {
				page = append(page, m)
				after = &m
			}
		}
		if len(page) == n || int64(len(found)) < args.Count {
			return page, nil
		}
		last = &found[len(found)-1]
		args.Offset += args.Count - 1
		args.Count = scanPortion
	}
}

func (r redisData) portion(ctx context.Context, args redis.ZRangeArgs) ([]member, error) {
	found, err := r.client.ZRangeArgsWithScores(ctx, args).Result()
	members := make([]member, len(found))
	for i, m := range found {
		members[i] = member{name: fmt.Sprint(m.Member), score: int64(m.Score)}
	}
	return members, err
}

func (r redisData) entries(ctx context.Context, stream, from string, n int) ([]streamEntry, error) {
	messages, err := r.client.XRevRangeN(ctx, stream, from, "-", int64(n)).Result()
	if err := notNil(err); err != nil {
		return nil, err
	}
	entries := make([]streamEntry, len(messages))
	for i, m := range messages {
		event, _ := m.Values["event"].(string)
		entries[i] = streamEntry{id: m.ID, event: event}
	}
	return entries, nil
}

func (r redisData) setIfAbsent(ctx context.Context, name, value string, ttl time.Duration) (bool, error) {
	return r.client.SetNX(ctx, name, value, ttl).Result()
}

func (r redisData) remove(ctx context.Context, name string) error {
	return r.client.Del(ctx, name).Err()
}
