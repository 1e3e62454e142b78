package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
)

// Rate is a budget: so many a second, and Burst at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Spent says what became of one request to spend.
type Spent struct {
	Allowed bool
	// Remaining is how many more could be spent now.
	Remaining int
	// RetryAfter is how long nothing can be spent, where it was not Allowed.
	RetryAfter time.Duration
}

// maxSubject bounds the name of a budget, in bytes.
const maxSubject = 64

var errSubject = errors.New("no name of a budget")

// Spend takes one from the subject's budget, which all nodes of the store
// share. The subject is at most 64 of [A-Za-z0-9-]. It returns ErrUnavailable
// when the store could not say, within its timeout; whether it was spent
// is then not known. A budget that is full is not stored.
func (s *Store) Spend(ctx context.Context, subject string, r Rate) (Spent, error) {
	result, err := s.spend(ctx, subject, r, 1)
	if err != nil {
		return Spent{}, err
	}
	return Spent{Allowed: result.Allowed > 0, Remaining: result.Remaining, RetryAfter: max(0, result.RetryAfter)}, nil
}

// Left is how many more could be spent of the subject's budget now. It spends
// nothing, and returns ErrUnavailable as Spend does.
func (s *Store) Left(ctx context.Context, subject string, r Rate) (int, error) {
	result, err := s.spend(ctx, subject, r, 0)
	if err != nil {
		return 0, err
	}
	return result.Remaining, nil
}

func (s *Store) spend(ctx context.Context, subject string, r Rate, n int) (*redis_rate.Result, error) {
	if s.embedded != nil {
		return nil, fmt.Errorf("%w: an embedded store has one node, and shares nothing", ErrUnavailable)
	}
	if !isSubject(subject) || r.PerSecond <= 0 {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, errSubject)
	}
	limit := redis_rate.Limit{Rate: 1, Burst: r.Burst, Period: time.Duration(float64(time.Second) / r.PerSecond)}
	result, err := s.budgets.AllowN(ctx, s.names.budget(subject), limit, n)
	if err != nil {
		return nil, fmt.Errorf("%w: spend: %w", ErrUnavailable, err)
	}
	return result, nil
}

func isSubject(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxSubject
}

// rateClient is the client as redis_rate is to see it: it begins every name
// with its own prefix, and all of ours begin with the store's. Requests that
// come at the same moment share a round trip.
type rateClient struct {
	redis.UniversalClient
	combiner *combiner
}

const ratePrefix = "rate:"

func (c rateClient) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	const firstKey = 3
	line, keys := []any{"evalsha", sha, len(keys)}, ourNames(keys)
	for _, name := range keys {
		line = append(line, name)
	}
	cmd := redis.NewCmd(ctx, append(line, args...)...)
	cmd.SetFirstKeyPos(firstKey)
	if err := c.combiner.process(ctx, keys[0], cmd); err != nil {
		failed := redis.NewCmd(ctx) // the other one may still be written to
		failed.SetErr(err)
		return failed
	}
	return cmd
}

// Eval is for a server that does not know the script yet.
func (c rateClient) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	ctx, cancel := context.WithTimeout(ctx, c.combiner.timeout)
	defer cancel()
	return c.UniversalClient.Eval(ctx, script, ourNames(keys), args...)
}

func ourNames(keys []string) []string {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = strings.TrimPrefix(key, ratePrefix)
	}
	return names
}
